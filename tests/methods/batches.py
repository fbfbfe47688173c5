"""One batch of a method on the tiny model, with what the trainer would put into it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet3DConditionModel
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import Backbone
from customvideo.methods.base import Batch, Method
from customvideo.subjects.subject import Subject
from customvideo.training.batch import Batches, ScenePool, WordFinder, Workshop
from customvideo.training.prior import PriorPool
from tests.cast import CANVAS, short_run


def make_batch(
    backbone: Backbone, method: Method, cast: Sequence[Subject], adapter: Adapter, rows: int = 3
) -> Batch:
    """`rows` scenes and two prior rows of noise; `adapter` must be attached."""
    plan = method.prior(backbone, cast)
    assert plan is not None
    pictures = {one: torch.randn(1, 4, 1, 8, 12) for one in plan.categories}
    pool = ScenePool(Workshop(backbone, method, cast, CANVAS, seed=0), rows)
    finder = WordFinder(backbone, adapter)
    prior = PriorPool(plan, pictures, {})
    return Batches(pool, finder, prior, short_run(batch_size=rows)).passes(1, 0)[0].batch


def move(adapter: Adapter, scale: float = 0.05) -> None:
    """Take the deltas away from where they start, by a fixed random step."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for delta in adapter.deltas.values():
            for value in delta.parameters():
                value.add_(scale * torch.randn(value.shape, generator=generator))


def stock_unet(folder: Path) -> Any:
    """The tiny model's denoiser as diffusers loads and runs it."""
    return UNet3DConditionModel.from_pretrained(folder / "unet").eval()


def stock_errors(backbone: Backbone, unet: Any, batch: Batch) -> Tensor:
    """|| e - e_theta(z_t, t, text) ||^2 by `unet` (row, channel, height, width)."""
    noisy = backbone.noise.mix(batch.latents, batch.noise, batch.times)
    text = backbone.encode_prompt(batch.texts).states
    predicted = unet(noisy, batch.times, encoder_hidden_states=text).sample
    error: Tensor = (predicted - batch.noise).square()[:, :, 0]
    return error
