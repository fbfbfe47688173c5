"""What every stage of the recipe draws on: random numbers by step, and pictures as tensors.

All randomness of a step comes from (seed, stage, step), so a stopped stage goes on exactly where
it was.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from customvideo.toybox.models import JUDGE_SIZE

__all__ = ["Draw", "judge_view", "unit"]


def unit(frames: Tensor) -> Tensor:
    """uint8 (…, height, width, 3) to float (…, 3, height, width) in [-1, 1]."""
    return frames.movedim(-1, -3).float() / 127.5 - 1


def judge_view(frames: Tensor) -> Tensor:
    """float (N, 3, height, width) to the judges' square input (N, 3, 64, 64)."""
    size = (JUDGE_SIZE, JUDGE_SIZE)
    return F.interpolate(frames, size=size, mode="bilinear", antialias=True, align_corners=False)


class Draw:
    """The random numbers of one step."""

    def __init__(self, seed: int, stage: int, step: int) -> None:
        self.numpy = np.random.default_rng([seed, stage, step])
        self.torch = torch.Generator().manual_seed(int(self.numpy.integers(2**62)))

    def indices(self, population: int, count: int) -> list[int]:
        """`count` distinct indices below `population`, or all if there are not as many."""
        chosen = self.numpy.choice(population, min(count, population), replace=False)
        return [int(index) for index in chosen]

    def normal(self, like: Tensor) -> Tensor:
        """Gaussian noise of `like`'s shape, the same on every device."""
        return torch.randn(like.shape, generator=self.torch).to(like.device)

    def chance(self, count: int, probability: float) -> list[bool]:
        """`count` coin flips."""
        return [bool(x) for x in self.numpy.random(count) < probability]
