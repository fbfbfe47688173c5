"""Loading networks without other libraries' progress bars in the program's own output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging

__all__ = ["without_bars"]


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
