"""A handle on something hooked into a model, which takes it off again. It hooks nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

__all__ = ["Attachment"]


class Attachment:
    """Something attached to a model; a context manager, or a handle with `detach`.

    Attachments that share a tokenizer come off in the reverse order of coming on.
    """

    def __init__(self, undo: ExitStack, check: Callable[[], None]) -> None:
        """`undo` restores what was found, once; `check` raises if that is not possible yet."""
        self._undo = undo
        self._check = check
        self._attached = True

    def check(self) -> None:
        """Raise AdapterError if something attached later is in the way of detaching."""
        self._check()

    def detach(self) -> None:
        """Restore exactly what was found. Doing it again does nothing.

        Raises:
            AdapterError: something attached later is still there; nothing is detached.
        """
        if self._attached:
            self.check()
            self._attached = False
            self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.detach()
