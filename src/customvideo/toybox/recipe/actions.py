"""The action judge: what one subject of a clip does, from a square that it moves in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import VideoMAEForVideoClassification

from customvideo.toybox.models import action_view
from customvideo.toybox.recipe.autoencoder import round_trip
from customvideo.toybox.recipe.course import Losses
from customvideo.toybox.recipe.dataset import Shelf
from customvideo.toybox.recipe.draw import Draw, unit
from customvideo.toybox.world import ACTIONS

__all__ = ["ActionStage"]

_BATCH = 32
_SMALLEST = 40
"""Pixels of a subject, over all frames, below which nobody could tell what it does."""
_ROUND_TRIP = 0.05
"""Share of the clips seen through the autoencoder, as generated clips are."""
_HAZE = 0.1
"""Noise on those latents, in their deviations."""


class ActionStage:
    """Cross-entropy over the actions of single subjects, those of groups among them."""

    def __init__(
        self,
        judge: VideoMAEForVideoClassification,
        shelves: Sequence[Shelf],
        vae: AutoencoderKL,
        seed: int,
        batch: int = 1,
    ) -> None:
        self.judge, self.vae, self.seed = judge, vae, seed
        self.count = _BATCH * batch
        self.device = next(judge.parameters()).device
        self.shelves = shelves
        self.cases = [
            (source, index, subject)
            for source, shelf in enumerate(shelves)
            for index, world in enumerate(shelf.worlds)
            for subject in range(len(world.individuals))
            if (shelf.labels[index] == subject + 1).sum() >= _SMALLEST
        ]

    def __call__(self, step: int) -> Losses:
        draw = Draw(self.seed, 6, step)
        chosen = [self.cases[index] for index in draw.indices(len(self.cases), self.count)]
        spoiled = draw.chance(len(chosen), _ROUND_TRIP)
        views = torch.stack(
            [self._view(draw, case, spoil) for case, spoil in zip(chosen, spoiled, strict=True)]
        )
        actions = [
            ACTIONS.index(self.shelves[source].worlds[index].actions[subject])
            for source, index, subject in chosen
        ]
        logits = self.judge(pixel_values=views.to(self.device)).logits
        return {"action": F.cross_entropy(logits, torch.tensor(actions, device=self.device))}

    def _view(self, draw: Draw, case: tuple[int, int, int], spoil: bool) -> Tensor:
        source, index, subject = case
        frames = unit(self.shelves[source].frames[index])
        masks = self.shelves[source].labels[index] == subject + 1
        if spoil:
            frames = round_trip(self.vae, frames.to(self.device), draw, _HAZE).cpu()
        if draw.chance(1, 0.5)[0]:
            frames, masks = frames.flip(-1), masks.flip(-1)
        return action_view(frames, masks, float(draw.numpy.uniform(0.05, 0.25)))
