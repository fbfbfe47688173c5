"""Loading networks without other libraries' words in the program's own output."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging

__all__ = ["without_bars", "without_warnings"]


@contextmanager
def without_bars() -> Iterator[None]:
    """No bars of transformers inside; they come back afterwards if they were on."""
    enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()


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
