"""What the package says besides its results, logged or warned of: handed on as plain sentences."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["heard"]

_PACKAGE = "customvideo"


class _Notes(logging.Handler):
    def __init__(self, tell: Callable[[str, int], None]) -> None:
        super().__init__(logging.INFO)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage(), record.levelno)


@contextmanager
def heard(tell: Callable[[str, int], None]) -> Iterator[None]:
    """Hand all that the package notes or warns of inside to `tell`: the sentence, and its level in
    `logging`'s numbers. Other packages' warnings are not for its users."""
    logger, notes = logging.getLogger(_PACKAGE), _Notes(tell)
    level, propagates = logger.level, logger.propagate
    logger.addHandler(notes)
    # What is worth a record of this package is worth a line, the licence of weights above all.
    logger.setLevel(logging.INFO)
    logger.propagate = False

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if category.__module__.startswith(f"{_PACKAGE}."):
            logger.warning("%s", message)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = show
            yield
    finally:
        logger.removeHandler(notes)
        logger.setLevel(level)
        logger.propagate = propagates
