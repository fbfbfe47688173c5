"""Counting what a piece of work makes and does: bytes of tensors alive at a time, multiplications.

It works alike on real tensors and on those without numbers (`customvideo.backbones.blank`). What
the counts mean for a run is `customvideo.runs.estimate`.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Ledger"]


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the tensors made inside that are alive at a time, and multiplications done.

    Counts tensors with and without numbers alike; what existed before is not in it. Whoever asks a
    tensor without numbers for a truth is told `answer`, or 0 where a number is asked for.
    """

    def __init__(self, *, answer: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.answer = answer
        self.live = 0
        self.peak = 0
        self.flops = 0
        self._known: dict[int, int] = {}
        kernels: Any = torch.ops.aten
        self._formulas = {
            **flop_counter.flop_registry,
            kernels._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
            kernels._scaled_dot_product_flash_attention_for_cpu_backward: _attention_flops_back,
        }

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return self.answer if args[0].dtype == torch.bool else 0
        for given in _tensors((*args, *kwargs.values())):
            # A view of a weight is no new tensor.
            self._enter(given.untyped_storage(), counts=False)
        result = func(*args, **kwargs)
        formula = self._formulas.get(func._overloadpacket)
        if formula is not None:
            self.flops += int(formula(*args, **kwargs, out_val=result))
        for found in _tensors((result,)):
            self._enter(found.untyped_storage())
        return result

    def _enter(self, storage: Any, *, counts: bool = True) -> None:
        key = int(storage._cdata)
        if key in self._known:
            return
        self._known[key] = int(storage.nbytes()) if counts else 0
        self.live += self._known[key]
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._leave, key)

    def _leave(self, key: int) -> None:
        self.live -= self._known.pop(key, 0)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among `values` and in lists of them: deeper no operator takes or gives one."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from (one for one in value if isinstance(one, Tensor))


def _attention_flops(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    count: Any = flop_counter.sdpa_flop_count
    return int(count(query.shape, key.shape, value.shape))


def _attention_flops_back(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> int:
    count: Any = flop_counter.sdpa_backward_flop_count
    return int(count(grad.shape, query.shape, key.shape, value.shape))
