"""The instance segmenter: every pixel's category, and the way from it to its subject's centre.

Panoptic-DeepLab's decomposition (Cheng et al. 2020): a class per pixel, a heat map of centres, and
offsets that tell instances of one class apart. The renderer's masks are exact, so there is nothing
to annotate. `customvideo.toybox.judges.ToySegmenter` reads the answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DModel
from torch import Tensor

from customvideo.toybox.models import answer_segmenter
from customvideo.toybox.recipe.autoencoder import round_trip
from customvideo.toybox.recipe.course import Losses
from customvideo.toybox.recipe.dataset import Shelf
from customvideo.toybox.recipe.draw import Draw, unit
from customvideo.toybox.world import CATEGORIES

__all__ = ["SegmenterStage", "centres"]

_BATCH = 16
_SPREAD = 1.5
"""Deviation of a centre's blob on the heat map, in cells of two pixels."""
_ROUND_TRIP = 0.25
"""Share of the batches seen through the autoencoder, as generated frames are."""
_HAZE = 0.15
"""Noise on those latents, in their deviations: what a denoiser leaves is never exact."""


class SegmenterStage:
    """Cross-entropy of the classes, squared error of the heat, absolute error of the offsets.

    Classes are asked twice: of every pixel, and of every subject as a whole. Most pixels are
    ground and sky, and of the others a large subject has many; each subject counts as one.
    """

    def __init__(
        self,
        segmenter: UNet2DModel,
        shelves: Sequence[Shelf],
        vae: AutoencoderKL,
        seed: int,
        batch: int = 1,
    ) -> None:
        self.count = _BATCH * batch
        self.segmenter, self.shelves, self.vae, self.seed = segmenter, shelves, vae, seed
        self.device = next(segmenter.parameters()).device
        self.kinds = [_kinds(shelf) for shelf in shelves]

    def __call__(self, step: int) -> Losses:
        draw = Draw(self.seed, 5, step)
        source = step % len(self.shelves)
        shelf = self.shelves[source]
        chosen = draw.indices(len(shelf.worlds), self.count)
        frame = int(draw.numpy.integers(shelf.frames.shape[1]))
        pictures = unit(shelf.frames[chosen, frame].to(self.device))
        labels = shelf.labels[chosen, frame].long().to(self.device)
        if draw.chance(1, 0.5)[0]:
            pictures, labels = pictures.flip(-1), labels.flip(-1)
        classes = self.kinds[source][chosen].to(self.device).gather(1, labels.flatten(1))
        answer = answer_segmenter(self.segmenter, self._spoiled(draw, pictures))
        heat, offsets, inside = centres(labels[:, ::2, ::2])
        error = (answer.offsets - offsets).abs().sum(1) * inside
        return {
            "classes": F.cross_entropy(answer.classes, classes.view_as(labels)),
            "subjects": 0.3 * _subject_loss(answer.classes, labels, self.kinds[source][chosen]),
            "heat": 10 * (answer.heat - heat).square().mean(),
            "offsets": 0.05 * error.sum() / inside.sum().clamp(min=1),
        }

    @torch.no_grad()
    def _spoiled(self, draw: Draw, pictures: Tensor) -> Tensor:
        """`pictures` (N, 3, height, width) as a generator might have made them: soft and noisy."""
        if draw.chance(1, _ROUND_TRIP)[0]:
            return round_trip(self.vae, pictures, draw, _HAZE)
        strength = float(draw.numpy.uniform(0, 1))
        soft = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        return pictures.lerp(soft, strength) + 0.05 * strength * draw.normal(pictures)


def _subject_loss(classes: Tensor, labels: Tensor, kinds: Tensor) -> Tensor:
    """Cross-entropy of the mean class probabilities inside each subject, ground left out.

    `classes` (N, 14, height, width) are logits, `labels` (N, height, width) as on a shelf, `kinds`
    (N, 5) the class of each label. This is how the answers are read (`ToySegmenter`).
    """
    inside = F.one_hot(labels, 5)[..., 1:].flatten(1, 2).float()
    named = classes[:, 1:].float().softmax(1).flatten(2) @ inside
    share = named / inside.sum(1, keepdim=True).clamp(min=1)
    own = (kinds.to(classes.device)[:, 1:] - 1).clamp(min=0)
    certainty = share.gather(1, own[:, None])[:, 0].clamp(min=1e-6)
    present = (inside.sum(1) > 0).float()
    return -(present * certainty.log()).sum() / present.sum().clamp(min=1)


def _kinds(shelf: Shelf) -> Tensor:
    """Class of each label (world, 5): 0 for the background, else the category's number plus 1."""
    table = torch.zeros(len(shelf.worlds), 5, dtype=torch.long)
    for row, world in enumerate(shelf.worlds):
        for index, individual in enumerate(world.individuals):
            table[row, index + 1] = CATEGORIES.index(individual.category) + 1
    return table


def centres(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the net should say of `labels` (N, h, w), 0 for background, in cells.

    Returns the heat (N, h, w) with a blob at each subject's centre of mass, the offsets from a
    cell to its subject's centre (N, 2, h, w), rows first, and where they count (N, h, w).
    """
    height, width = labels.shape[1:]
    rows = torch.arange(height, device=labels.device).float()[:, None].expand(height, width)
    columns = torch.arange(width, device=labels.device).float().expand(height, width)
    places = torch.stack([rows, columns])
    heat = torch.zeros(labels.shape, device=labels.device)
    offsets = torch.zeros(len(labels), 2, height, width, device=labels.device)
    for label in range(1, int(labels.max()) + 1):
        own = (labels == label).float()[:, None]
        mass = own.sum((2, 3))
        centre = (own * places).sum((2, 3)) / mass.clamp(min=1)
        away = centre[:, :, None, None] - places
        blob = torch.exp(-away.square().sum(1) / (2 * _SPREAD**2)) * (mass[:, :, None] > 0)
        heat = torch.maximum(heat, blob)
        offsets = offsets + own * away
    return heat, offsets, (labels > 0).float()
