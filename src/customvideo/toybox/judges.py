"""The toybox's own encoders: what CLIP and DINO are to real videos, for toy ones, offline.

Same protocols as `customvideo.evaluation.encoders`; reached through its ENCODERS table. They
judge; nothing here takes part in customizing or generating.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    CLIPModel,
    CLIPTokenizer,
    VideoMAEForVideoClassification,
    ViTModel,
)

from customvideo.errors import EvaluationError
from customvideo.evaluation.instances import Instance
from customvideo.quiet import without_bars
from customvideo.toybox.models import FRAMES, JUDGE_SIZE, SIZE, action_view, answer_segmenter
from customvideo.toybox.world import ACTIONS, CATEGORIES

WEIGHTS = Path(__file__).parent / "weights"
BATCH = 64
_CERTAIN = 0.3
"""Heat from which a local maximum is a subject's centre."""
_SMALLEST = 0.006
"""Share of the frame below which a find is a crumb."""
_MOST = 8


def _pictures(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (n, height, width, 3) to the judges' input (n, 3, 64, 64) in [-1, 1]."""
    pictures = torch.tensor(images).movedim(-1, 1).float() / 127.5 - 1
    size = (JUDGE_SIZE, JUDGE_SIZE)
    return F.interpolate(pictures, size=size, mode="bilinear", antialias=True, align_corners=False)


def _folder(model: str | Path | None, judge: str) -> Path:
    folder = Path(model) if model else WEIGHTS / judge
    if not (folder / "config.json").is_file():
        # The libraries would ask their hub for it.
        raise EvaluationError(
            f"There is no toybox judge in '{folder}': install the package again, or make its "
            "weights with 'customvideo toybox pretrain'."
        )
    return folder


class ToyClip:
    """Contrastive picture and text towers of the toybox (`transformers.CLIPModel`)."""

    def __init__(self, model: str | Path | None = None) -> None:
        folder = _folder(model, "clip")
        with without_bars():
            self.model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Texts to unit features (n, dim)."""
        tokens = self.tokenizer(
            list(texts), padding="max_length", truncation=True, return_tensors="pt"
        )
        out = self.model.text_model(**tokens)
        return F.normalize(self.model.text_projection(out.pooler_output), dim=-1)

    @torch.no_grad()
    def encode_images(self, images: NDArray[np.uint8]) -> Tensor:
        """uint8 (n, height, width, 3) to unit features (n, dim)."""
        parts = [
            self.model.visual_projection(self.model.vision_model(part).pooler_output)
            for part in torch.split(_pictures(images), BATCH)
        ]
        return F.normalize(torch.cat(parts), dim=-1)


class ToyDino:
    """Identity features of the toybox (`transformers.ViTModel`, class token)."""

    def __init__(self, model: str | Path | None = None) -> None:
        folder = _folder(model, "dino")
        with without_bars():
            self.model = ViTModel.from_pretrained(
                folder, dtype=torch.float32, add_pooling_layer=False
            ).eval()

    @torch.no_grad()
    def encode_images(self, images: NDArray[np.uint8]) -> Tensor:
        """uint8 (n, height, width, 3) to unit features (n, dim)."""
        parts = [
            self.model(part).last_hidden_state[:, 0]
            for part in torch.split(_pictures(images), BATCH)
        ]
        return F.normalize(torch.cat(parts), dim=-1)


class ToyActions:
    """What one subject of a toybox clip does (`transformers.VideoMAEForVideoClassification`)."""

    def __init__(self, model: str | Path | None = None) -> None:
        folder = _folder(model, "actions")
        with without_bars():
            self.model = VideoMAEForVideoClassification.from_pretrained(
                folder, dtype=torch.float32
            ).eval()

    @torch.no_grad()
    def name(self, frames: NDArray[np.uint8], masks: NDArray[np.bool_]) -> str:
        """The action of the subject at `masks` (8, height, width), not all of them empty, in the
        8 `frames` (8, height, width, 3)."""
        assert len(frames) == FRAMES and masks.any()
        pictures = torch.tensor(frames).movedim(-1, 1).float() / 127.5 - 1
        view = action_view(pictures, torch.tensor(masks))
        return ACTIONS[int(self.model(pixel_values=view[None]).logits[0].argmax())]


class ToySegmenter:
    """Finds the subjects in toybox frames; see `customvideo.evaluation.instances`."""

    def __init__(self, model: str | Path | None = None) -> None:
        folder = _folder(model, "segmenter")
        self.model = UNet2DModel.from_pretrained(folder, torch_dtype=torch.float32).eval()

    @torch.no_grad()
    def find(self, frames: NDArray[np.uint8]) -> list[list[Instance]]:
        """The subjects in each frame of uint8 (n, height, width, 3), most certain first."""
        found: list[list[Instance]] = []
        size = frames.shape[1:3]
        pictures = torch.tensor(frames).movedim(-1, 1).float() / 127.5 - 1
        for part in torch.split(pictures, BATCH):
            seen = F.interpolate(part, size=SIZE, mode="bilinear", antialias=True)
            answer = answer_segmenter(self.model, seen)
            peaks = _peaks(answer.heat)
            for classes, offsets, tops in zip(answer.classes, answer.offsets, peaks, strict=True):
                found.append(_instances(classes.softmax(0), offsets, tops, size))
        return found


def _peaks(heat: Tensor) -> list[Tensor]:
    """Centres (k, 3): row, column and heat of each local maximum of `heat` (N, h, w)."""
    highest = F.max_pool2d(heat[:, None], 5, stride=1, padding=2)[:, 0]
    tops = []
    for values, is_top in zip(heat, (heat == highest) & (heat > _CERTAIN), strict=True):
        places = is_top.nonzero()[:_MOST]
        tops.append(torch.cat([places, values[is_top][:_MOST, None]], dim=1))
    return tops


def _instances(
    classes: Tensor, offsets: Tensor, peaks: Tensor, size: tuple[int, ...]
) -> list[Instance]:
    """Every foreground pixel goes to the centre its offset points at.

    `classes` (14, height, width) are probabilities; `peaks` (k, 3).
    """
    inside = classes.argmax(0) > 0
    if not len(peaks):
        return []
    height, width = inside.shape
    rows = torch.arange(height)[:, None].expand(height, width) // 2
    columns = torch.arange(width).expand(height, width) // 2
    aimed = torch.stack([rows, columns]) + offsets.repeat_interleave(2, 1).repeat_interleave(2, 2)
    distances = (aimed[None] - peaks[:, :2, None, None]).square().sum(1)
    owner = distances.argmin(0)
    found = []
    for index, peak in enumerate(peaks):
        own = inside & (owner == index)
        if own.sum() < _SMALLEST * own.numel():
            continue
        share = classes[1:, own].mean(1)
        mask = F.interpolate(own[None, None].float(), size=size, mode="nearest")[0, 0] > 0.5
        category = CATEGORIES[int(share.argmax())]
        found.append(Instance(mask.numpy(), category, float(peak[2] * share.max())))
    return sorted(found, key=lambda one: -one.score)
