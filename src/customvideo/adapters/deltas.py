"""What is added to a frozen linear layer: a full matrix, or one of low rank.

A delta starts as exactly zero, so an untrained adapter changes nothing. Which layers get one is
the method's choice, and putting it there is `customvideo.adapters.adapter`.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Delta", "FullDelta", "LowRankDelta"]


class FullDelta(nn.Module):
    """A full (out, in) matrix D: the layer gives W x + D x. Custom Diffusion's K/V training."""

    def __init__(self, out_features: int, in_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))

    def forward(self, inputs: Tensor) -> Tensor:
        """(…, in) -> (…, out), what is added to the layer's output."""
        return F.linear(inputs, self.weight.to(inputs.dtype))

    def merged(self) -> Tensor:
        """The (out, in) matrix to add to the layer's weight for the same effect."""
        return self.weight


class LowRankDelta(nn.Module):
    """(alpha / rank) U D with U (out, rank) and D (rank, in); LoRA (Hu et al. 2021), eq. 3."""

    def __init__(
        self,
        out_features: int,
        in_features: int,
        rank: int,
        *,
        alpha: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """D is random and U is zero; `alpha` None means `rank`, a scale of 1."""
        super().__init__()
        # The scale at which D x has about the size of x, as in the paper's own code.
        bound = 1 / math.sqrt(in_features)
        down = torch.empty(rank, in_features).uniform_(-bound, bound, generator=generator)
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(torch.zeros(out_features, rank))
        self.scale = (rank if alpha is None else alpha) / rank

    def forward(self, inputs: Tensor) -> Tensor:
        """(…, in) -> (…, out), what is added to the layer's output."""
        inner = F.linear(inputs, self.down.to(inputs.dtype))
        return F.linear(inner, self.up.to(inputs.dtype)) * self.scale

    def merged(self) -> Tensor:
        """The (out, in) matrix to add to the layer's weight for the same effect."""
        return self.up @ self.down * self.scale


Delta: TypeAlias = FullDelta | LowRankDelta
