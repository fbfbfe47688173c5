"""Muon for weight matrices, AdamW for the rest: the optimizer of the toybox recipe.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) replaces a matrix's momentum
by the nearest orthogonal matrix, so that all directions learn at one speed. PyTorch's own takes
two-dimensional parameters only and works in bfloat16, which a CPU has no fast path for; this one
takes convolutions too, in the parameters' own type, matrices of one shape at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Muon", "orthogonalized"]

MATRIX_RATE = 10.0
"""Muon's step over AdamW's: its updates have singular values near 1, AdamW's entries near 1."""
SMALLEST = 16
"""Matrices with a side below this (pictures in and out) are AdamW's."""
_MOMENTUM, _DECAY = 0.95, 0.01
# Keller Jordan's quintic: steepest at zero, singular values end between 0.7 and 1.2.
_QUINTIC = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """One optimizer over `modules`' parameters; a group's rate is `lr` times its `scale`."""

    def __init__(self, modules: nn.Module, lr: float) -> None:
        tables = {
            id(p) for m in modules.modules() if isinstance(m, nn.Embedding) for p in m.parameters()
        }
        parameters = list(modules.parameters())
        matrices = [p for p in parameters if _is_matrix(p) and id(p) not in tables]
        chosen = {id(p) for p in matrices}
        groups = [
            {"params": matrices, "scale": MATRIX_RATE},
            {"params": [p for p in parameters if id(p) not in chosen], "scale": 1.0},
        ]
        super().__init__([group for group in groups if group["params"]], {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update; parameters without a gradient stay as they are."""
        for group in self.param_groups:
            rate = group["lr"] * group["scale"]
            held = [p for p in group["params"] if p.grad is not None]
            if group["scale"] == 1.0:
                self._adam(held, rate)
            else:
                self._muon(held, rate)

    def _muon(self, parameters: Iterable[Tensor], rate: float) -> None:
        shapes: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        for parameter in parameters:
            shapes[len(parameter), parameter[0].numel()].append(parameter)
        for (rows, columns), alike in shapes.items():
            ahead = torch.stack([self._momentum(p).reshape(rows, columns) for p in alike])
            updates = orthogonalized(ahead) * max(1.0, rows / columns) ** 0.5
            for parameter, update in zip(alike, updates, strict=True):
                parameter.mul_(1 - rate * _DECAY)
                parameter.add_(update.reshape(parameter.shape), alpha=-rate)

    def _momentum(self, parameter: Tensor) -> Tensor:
        """Nesterov momentum of the parameter's gradient."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(gradient)
        state["momentum"].lerp_(gradient, 1 - _MOMENTUM)
        return gradient.lerp(state["momentum"], _MOMENTUM)

    def _adam(self, parameters: Iterable[Tensor], rate: float) -> None:
        for parameter in parameters:
            state, gradient = self.state[parameter], parameter.grad
            assert gradient is not None
            if "step" not in state:
                state["step"] = torch.tensor(0.0)
                state["first"] = torch.zeros_like(gradient)
                state["second"] = torch.zeros_like(gradient)
            state["step"] += 1
            age = float(state["step"])
            state["first"].lerp_(gradient, 0.1)
            state["second"].mul_(0.99).addcmul_(gradient, gradient, value=0.01)
            size = (state["second"] / (1 - 0.99**age)).sqrt_().add_(1e-8)
            parameter.mul_(1 - rate * _DECAY)
            parameter.addcdiv_(state["first"], size, value=-rate / (1 - 0.9**age))


def orthogonalized(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrices to `matrices` (n, rows, columns), approximately.

    Newton-Schulz on the smaller Gram matrix: for X (r, c), r <= c, every iterate is P X with P
    (r, r), so the long side is multiplied twice in all instead of twice a step.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalized(matrices.mT, steps).mT
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = _QUINTIC
    first = gram = x @ x.mT
    product: Any = None
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    for _ in range(steps):
        factor = a * eye + b * gram + c * (gram @ gram)
        product = factor if product is None else factor @ product
        gram = product @ first @ product.mT
    result: Tensor = product @ x
    return result


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim >= 2 and min(len(parameter), parameter[0].numel()) >= SMALLEST
