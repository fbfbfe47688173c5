"""Stopping a run from outside, politely: the step in progress is finished and saved first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from customvideo.errors import UserError

__all__ = ["Interrupted", "StopRequest", "catch_signals"]


class Interrupted(UserError):
    """A run was stopped from outside; the message says how to go on."""


class StopRequest:
    """Whether someone asked the run to stop."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self) -> None:
        """Ask the run to stop after the step in progress."""
        self.asked = True


@contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """Turn Ctrl-C and SIGTERM into a request to stop while the block runs.

    A second Ctrl-C is not caught: it raises KeyboardInterrupt at once. Outside the main thread,
    where Python delivers no signals, nothing is caught. The handlers found are put back.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if request.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.ask()

    watched = (signal.SIGINT, signal.SIGTERM)
    found = {number: signal.signal(number, on_signal) for number in watched}
    try:
        yield request
    finally:
        for number, handler in found.items():
            signal.signal(number, handler)
