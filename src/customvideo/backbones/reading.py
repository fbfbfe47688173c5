"""What text a network reads at this moment, for whatever hooks on its layers have to know.

A projection of text sees states alone; which token each of them came from is known where a
prediction begins, and is kept here while it runs. Nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from customvideo.backbones.base import TextStates

__all__ = ["Reading", "TellsReading", "joined_ids"]


@runtime_checkable
class TellsReading(Protocol):
    """A backbone that says what its network reads."""

    reading: Tensor | None
    """Ids (row, token) of the text that the network reads now, of both guidance halves while there
    are two, the negative first; None while it reads nothing. A layer may see each row several
    times, once a frame, and further positions beside the text's."""


class Reading:
    """The part of a backbone that says so."""

    reading: Tensor | None = None

    @contextmanager
    def reads(self, ids: Tensor | None) -> Iterator[None]:
        """Inside, the network reads the text of `ids` (row, token)."""
        before, self.reading = self.reading, ids
        try:
            yield
        finally:
            self.reading = before

    def recompute(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(*args)`, computed again in the backward pass, when it reads the same text."""
        ids = self.reading

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), self.reads(ids)

        # Reentrant checkpoints lose the gradient of anything captured by a hook.
        return checkpoint(function, *args, use_reentrant=False, context_fn=contexts)


def joined_ids(text: TextStates, negative: TextStates | None) -> Tensor:
    """Ids (row or 2 * row, token) of what the network reads, negative half first."""
    if negative is None:
        return text.ids
    return torch.cat([negative.ids.expand(text.rows, -1), text.ids])
