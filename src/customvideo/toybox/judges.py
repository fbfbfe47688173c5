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
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer, ViTModel

from customvideo.toybox.models import JUDGE_SIZE

WEIGHTS = Path(__file__).parent / "weights"
BATCH = 64


def _pictures(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (n, height, width, 3) to the judges' input (n, 3, 64, 64) in [-1, 1]."""
    pictures = torch.from_numpy(images).movedim(-1, 1).float() / 127.5 - 1
    size = (JUDGE_SIZE, JUDGE_SIZE)
    return F.interpolate(pictures, size=size, mode="bilinear", antialias=True, align_corners=False)


class ToyClip:
    """Contrastive picture and text towers of the toybox (`transformers.CLIPModel`)."""

    def __init__(self, model: str | Path | None = None) -> None:
        folder = Path(model) if model else WEIGHTS / "clip"
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
        folder = Path(model) if model else WEIGHTS / "dino"
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
