"""Announcing what comes next, and about how long the rest will take on this computer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from customvideo.runs.folder import Say

__all__ = ["Countdown", "clock"]

_FAIR_SHARE = 0.2
"""Short stages say little about a computer's pace: what part of the work must be done before its
own pace is believed more than the table."""


class Countdown:
    """Stages that are announced one after the other.

    `stages` are pairs of a name and the seconds it takes on an ordinary computer; a stage of 0
    seconds is one that was done before.
    """

    def __init__(self, stages: Sequence[tuple[str, float]], say: Say) -> None:
        self._stages = list(stages)
        self._say = say
        self._began = time.monotonic()
        self._done = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    @contextmanager
    def next(self) -> Iterator[None]:
        """The next stage, as a block."""
        label = f"[{self._done + 1}/{len(self._stages)}] {self._stages[self._done][0]}"
        self._say(f"{label} (about {clock(self._left())} left)")
        yield
        self._done += 1

    def _left(self) -> float:
        seconds = [length for _, length in self._stages]
        gone, left = sum(seconds[: self._done]), sum(seconds[self._done :])
        fair = gone >= _FAIR_SHARE * (gone + left)
        return left * self.elapsed / gone if fair else left


def clock(seconds: float) -> str:
    """`2 min 05 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
