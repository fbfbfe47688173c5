"""What methods share that train nothing: answers to what the trainer never asks them.

Such a method is a `customvideo.methods.base.TuningFree`: it makes its adapter, and its videos.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from customvideo.attention.site import AttentionSite
from customvideo.attention.tape import Tape
from customvideo.backbones.base import Backbone
from customvideo.methods.base import Batch, Example, PriorPlan
from customvideo.subjects.subject import Subject

__all__ = ["Untrained"]


class Untrained:
    """The members of `customvideo.methods.base.Method` that belong to a training."""

    def scenes(
        self, subjects: Sequence[Subject], rng: np.random.Generator, canvas: tuple[int, int]
    ) -> list[Example]:
        """None."""
        return []

    def watches(
        self, backbone: Backbone, frames: int, height: int, width: int
    ) -> list[AttentionSite]:
        """Nowhere."""
        return []

    def prior(self, backbone: Backbone, subjects: Sequence[Subject]) -> PriorPlan | None:
        """None."""
        return None

    def losses(self, backbone: Backbone, batch: Batch, tape: Tape | None) -> dict[str, Tensor]:
        """None."""
        return {}

    def score(self, backbone: Backbone, batch: Batch, tape: Tape | None) -> Tensor:
        """Zero, whatever the rows."""
        return torch.zeros(())
