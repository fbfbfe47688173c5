"""Small things that several families do with the modules of their networks."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

__all__ = ["remember", "weighted"]


def weighted(module: nn.Module) -> list[str]:
    """Paths of the layers with a weight of their own, embedding tables left out."""
    return [
        path
        for path, layer in module.named_modules()
        if layer._parameters.get("weight") is not None and not isinstance(layer, nn.Embedding)
    ]


def remember(parent: Any, name: str, undo: ExitStack) -> None:
    """Let the layer `parent.name`, hooks on it included, answer from memory what it was asked last,
    until `undo` is closed; anything else it is asked as ever."""
    layer = getattr(parent, name)
    setattr(parent, name, _Remembered(layer))
    undo.callback(setattr, parent, name, layer)


class _Remembered(nn.Module):
    """A layer that answers from memory what it was asked last, and asks again otherwise.

    A network may hand on what an earlier such layer answers as a new view in each call, so a
    question is known by where it lies; nothing else can come to lie there while the last one is
    kept.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        # In a tuple, or it would be registered and rename the parameters meanwhile.
        self._layer = (layer,)
        self._asked: Tensor | None = None
        self._answer: Tensor | None = None

    def forward(self, states: Tensor) -> Tensor:
        if self._answer is None or self._asked is None or not _same(self._asked, states):
            self._asked, self._answer = states, self._layer[0](states)
        return self._answer


def _same(one: Tensor, other: Tensor) -> bool:
    return one is other or (
        one.data_ptr() == other.data_ptr()
        and one.dtype == other.dtype
        and one.shape == other.shape
        and one.stride() == other.stride()
    )
