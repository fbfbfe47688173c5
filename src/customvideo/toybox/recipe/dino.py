"""The DINO judge: a ViT that tells individuals apart, whatever stands behind them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ViTModel

from customvideo.toybox.recipe.course import Losses
from customvideo.toybox.recipe.dataset import Shelf
from customvideo.toybox.recipe.draw import Draw, judge_view, unit

__all__ = ["DinoStage", "crop_box", "on_grey", "padded_box"]


_PAIRS = 64
_ALIKE = 0.5
"""Share of the batches that hold two categories only: colours and parts must tell, not kinds."""
_CUT_OUT = 0.6
"""Share of the views that are the subject on grey."""


class DinoStage:
    """Instance discrimination: two views of one individual agree, all others differ.

    The views are separate renders in other light, place and pose. Mostly the subject is cut out,
    as the scores see it: its box, grey around it; else its own or another picture's background
    stays, so that ground never helps. The loss is NT-Xent (Chen et al. 2020).
    """

    def __init__(
        self, dino: ViTModel, head: nn.Module, shelf: Shelf, seed: int, batch: int = 1
    ) -> None:
        self.dino, self.head, self.seed = dino, head, seed
        self.count = _PAIRS * batch
        self.frames, self.labels = shelf.frames[:, 0], shelf.labels[:, 0]
        self.device = next(dino.parameters()).device
        self.pairs = _complete_pairs(shelf)
        self.by_category: dict[str, list[int]] = {}
        for pair, (first, _) in enumerate(self.pairs):
            category = shelf.worlds[first].individuals[0].category
            self.by_category.setdefault(category, []).append(pair)

    def __call__(self, step: int) -> Losses:
        draw = Draw(self.seed, 3, step)
        chosen = self._chosen(draw)
        views = [self.pairs[pair][side] for side in (0, 1) for pair in chosen]
        pictures = torch.cat([self._view(draw, view) for view in views])
        features = self.head(self.dino(pictures.to(self.device)).last_hidden_state[:, 0])
        features = F.normalize(features, dim=-1)
        logits = features @ features.T / 0.1
        logits = logits - 1e4 * torch.eye(len(views), device=self.device)
        target = torch.arange(len(views), device=self.device).roll(len(chosen))
        return {"instance": F.cross_entropy(logits, target)}

    def _chosen(self, draw: Draw) -> list[int]:
        population = list(range(len(self.pairs)))
        if draw.chance(1, _ALIKE)[0]:
            kinds = sorted(self.by_category)
            both = [kinds[index] for index in draw.indices(len(kinds), 2)]
            population = [pair for kind in both for pair in self.by_category[kind]]
        return [population[index] for index in draw.indices(len(population), self.count)]

    def _view(self, draw: Draw, index: int) -> Tensor:
        picture = unit(self.frames[index])
        inside = (self.labels[index] > 0).float()
        background = float(draw.numpy.random())
        if background < _CUT_OUT:
            picture = on_grey(picture * inside, inside, float(draw.numpy.uniform(0.05, 0.3)))
        elif background < 0.8:
            other = unit(self.frames[int(draw.numpy.integers(len(self.frames)))])
            picture = picture * inside + other.roll(48, -1) * (1 - inside)
        if background >= _CUT_OUT and draw.chance(1, 0.5)[0]:
            picture = crop_box(picture, padded_box(inside, float(draw.numpy.uniform(0, 0.3))))
        if draw.chance(1, 0.5)[0]:
            picture = picture.flip(-1)
        gain = float(draw.numpy.uniform(0.85, 1.15))
        return judge_view((picture * gain).clamp(-1, 1)[None])


def _complete_pairs(shelf: Shelf) -> list[tuple[int, int]]:
    """Indices of the two views of each individual; one left out of the shelf takes both along."""
    found: list[tuple[int, int]] = []
    for index in range(len(shelf.worlds) - 1):
        if shelf.worlds[index].individuals == shelf.worlds[index + 1].individuals:
            found.append((index, index + 1))
    return found


def on_grey(picture: Tensor, inside: Tensor, margin: float) -> Tensor:
    """The box of a mask in the middle of a grey square, `margin` of the longer side around it.

    `picture` (3, height, width) is grey, that is 0, outside `inside` (height, width) already.
    """
    box = crop_box(picture, padded_box(inside, 0.0))
    height, width = box.shape[1:]
    side = round(max(height, width) * (1 + 2 * margin))
    top, left = (side - height) // 2, (side - width) // 2
    return F.pad(box, (left, side - width - left, top, side - height - top))


def padded_box(inside: Tensor, padding: float) -> tuple[int, int, int, int]:
    """Box (top, bottom, left, right) around a mask (height, width), grown by `padding`."""
    rows, columns = inside.any(1).nonzero()[:, 0], inside.any(0).nonzero()[:, 0]
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    grow_h, grow_w = int(padding * (bottom - top) / 2), int(padding * (right - left) / 2)
    height, width = inside.shape
    return (
        max(0, top - grow_h),
        min(height, bottom + grow_h),
        max(0, left - grow_w),
        min(width, right + grow_w),
    )


def crop_box(picture: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """`picture` (3, height, width) cut to (top, bottom, left, right)."""
    return picture[:, box[0] : box[1], box[2] : box[3]]
