"""A delta as two low-rank matrices, and how much of it that loses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from customvideo.adapters.deltas import FullDelta, LowRankDelta

__all__ = ["USUAL_RANK", "Factors", "factors", "overall"]

USUAL_RANK = 64
"""Of what full matrices become unless another is asked for."""


@dataclass(frozen=True, eq=False)
class Factors:
    """U D of `up` (out, rank) and `down` (rank, in), in place of a delta.

    Attributes:
        lost: Frobenius norm of what is missing.
        norm: Frobenius norm of the whole delta.
    """

    up: Tensor
    down: Tensor
    lost: float = 0.0
    norm: float = 0.0

    @property
    def rank(self) -> int:
        return len(self.down)


@torch.no_grad()
def factors(delta: FullDelta | LowRankDelta, rank: int | None) -> Factors:
    """The best matrices of rank `rank` at most (Eckart & Young 1936), float32, scale included.

    With None a low-rank delta is kept as it is, and a full one gets `USUAL_RANK`.
    """
    whole = delta.merged().float()
    norm = float(torch.linalg.matrix_norm(whole))
    if isinstance(delta, LowRankDelta) and (rank is None or rank >= len(delta.down)):
        return Factors(delta.up.float() * delta.scale, delta.down.float(), norm=norm)
    kept = min(USUAL_RANK if rank is None else rank, *whole.shape)
    left, values, right = torch.linalg.svd(whole, full_matrices=False)
    # Both halves get an equal share: either would be out of range in half precision first.
    root = values[:kept].sqrt()
    lost = float(torch.linalg.vector_norm(values[kept:]))
    return Factors(left[:, :kept] * root, root[:, None] * right[:kept], lost, norm)


def overall(parts: Iterable[Factors]) -> float:
    """The share of the Frobenius norm that all `parts` together have lost."""
    found = list(parts)
    norm = sum(part.norm**2 for part in found) ** 0.5
    return sum(part.lost**2 for part in found) ** 0.5 / norm if norm else 0.0
