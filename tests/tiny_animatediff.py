"""Tiny random models of AnimateDiff's classes in AnimateDiff's folder format; they are NOT models
that draw anything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.tiny import SCHEDULER_CONFIG, build_tiny_zeroscope

__all__ = [
    "LONGEST",
    "STABLE_DIFFUSION_CONFIG",
    "build_tiny_adapter",
    "build_tiny_animatediff",
    "build_tiny_pictures",
]

LONGEST = 16
"""Frames that the motion modules tell apart."""

UNET_CONFIG: dict[str, Any] = {
    "sample_size": [8, 12],
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [8, 16, 16],
    "layers_per_block": 2,
    "norm_num_groups": 4,
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
}

STABLE_DIFFUSION_CONFIG: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
"""The full-size picture model (0.86 B parameters): build it on the meta device only."""


def build_tiny_animatediff(folder: Path, seed: int = 0) -> Path:
    """Write a loadable `AnimateDiffPipeline` folder and return it; same seed, same weights."""
    from diffusers import AnimateDiffPipeline, DDIMScheduler, MotionAdapter, UNet2DConditionModel

    parts = folder / "parts"
    adapter = build_tiny_adapter(parts / "adapter", seed)
    pictures = build_tiny_pictures(parts / "pictures", seed)
    pipeline = AnimateDiffPipeline.from_pretrained(
        pictures,
        unet=UNet2DConditionModel.from_pretrained(pictures / "unet"),
        motion_adapter=MotionAdapter.from_pretrained(adapter),
        scheduler=DDIMScheduler(
            **(SCHEDULER_CONFIG | {"beta_schedule": "linear"}), timestep_spacing="linspace"
        ),
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    shutil.rmtree(parts)
    return folder


def build_tiny_pictures(folder: Path, seed: int = 0) -> Path:
    """Write the folder of a picture model, as Stable Diffusion's is: betas of its own kind."""
    from diffusers import PNDMScheduler, UNet2DConditionModel

    build_tiny_zeroscope(folder, seed)
    shutil.rmtree(folder / "unet")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _moved(UNet2DConditionModel(**UNET_CONFIG)).save_pretrained(folder / "unet")
    PNDMScheduler(
        **{key: value for key, value in SCHEDULER_CONFIG.items() if key != "clip_sample"},
        skip_prk_steps=True,
    ).save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "PNDMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def build_tiny_adapter(folder: Path, seed: int = 0) -> Path:
    """Write the folder of a motion adapter that fits the picture model."""
    from diffusers import MotionAdapter

    with torch.random.fork_rng():
        torch.manual_seed(seed + 1)
        adapter = MotionAdapter(
            block_out_channels=(8, 16, 16),
            motion_num_attention_heads=2,
            motion_norm_num_groups=4,
            motion_max_seq_length=LONGEST,
        )
        _moved(adapter).save_pretrained(folder)
    return folder


def _moved(module: Any) -> Any:
    """The same, with random numbers where the stock initialiser puts zeros."""
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return module.eval()
