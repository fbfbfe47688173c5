"""Features made by hand: unit vectors in the plane, whose cosines are known."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def at(*degrees: float) -> Tensor:
    """Unit vectors (n, 2) at these angles."""
    angles = torch.tensor(degrees, dtype=torch.float64) * math.pi / 180
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def cos(degrees: float) -> float:
    return math.cos(degrees * math.pi / 180)
