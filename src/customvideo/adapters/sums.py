"""What several adapters add to the weights of one layer, while it computes and at no other time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

__all__ = ["Sums"]


class Sums:
    """A layer's forward while deltas are added to its weights, taken off in whatever order."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._own = layer._parameters
        self._before, self._plain = layer.__dict__.get("forward"), layer.forward
        self._added: list[tuple[Mapping[str, Tensor], float, Mapping[str, int]]] = []
        layer.forward = self.forward

    @classmethod
    def of(cls, layer: Any) -> Sums:
        """The layer's own, or a new one."""
        known = getattr(layer.forward, "__self__", None)
        return known if isinstance(known, cls) else cls(layer)

    def add(self, pairs: Mapping[str, Tensor], strength: float) -> Callable[[], None]:
        """Let `pairs`, parameter's name -> delta, count `strength` times."""
        # The sum with zeros is the same weight at another address, which rounds otherwise.
        zeros = {name: delta._version for name, delta in pairs.items() if _known_zero(delta)}
        entry = pairs, strength, zeros
        self._added.append(entry)

        def undo() -> None:
            self._added = [one for one in self._added if one is not entry]
            if not self._added:
                del self._layer.forward
                if self._before is not None:
                    self._layer.forward = self._before

        return undo

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The layer's, with the sums in place of its parameters."""
        own, kept, learning = self._own, dict[str, Any](), torch.is_grad_enabled()
        try:
            for pairs, strength, zeros in reversed(self._added):
                for name, delta in pairs.items():
                    if learning or zeros.get(name) != delta._version:
                        kept.setdefault(name, own[name])
                        # Never outside this call: whoever looks at the layer finds its own.
                        own[name] = _sum(own[name], delta, strength)
            return self._plain(*args, **kwargs)
        finally:
            own.update(kept)


def _known_zero(delta: Tensor) -> bool:
    return not isinstance(delta, FakeTensor) and not bool(delta.any())


def _sum(weight: Tensor, delta: Tensor, strength: float) -> Tensor:
    return weight + (delta if strength == 1 else strength * delta).to(weight.dtype)
