"""Loading networks without other libraries' words in the program's own output."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from transformers.utils import logging as transformers_logging

__all__ = ["without_bars", "without_warnings"]


@contextmanager
def without_bars(*others: ModuleType) -> Iterator[None]:
    """No bars of transformers inside; they come back afterwards if they were on.

    `others` are logging modules of libraries with bars of the same kind, such as diffusers'.
    """
    shown = [one for one in (transformers_logging, *others) if one.is_progress_bar_enabled()]
    for one in shown:
        one.disable_progress_bar()
    try:
        yield
    finally:
        for one in shown:
            one.enable_progress_bar()


@contextmanager
def without_warnings(*names: str) -> Iterator[None]:
    """Only errors of the loggers called so inside: for what our own messages say better."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
