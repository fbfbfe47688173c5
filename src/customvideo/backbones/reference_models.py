"""Text-to-video models that go by reference pictures: VACE (Jiang et al., arXiv 2503.07598) through
diffusers' pipeline.

Such a model reads a text and sees pictures of whoever is to appear. It knows no adapter and no
learned word: which pictures it is shown is the business of whoever asks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np
import torch
from diffusers import WanVACEPipeline
from numpy.typing import NDArray
from PIL import Image

from customvideo.backbones.folder import placed
from customvideo.backbones.pipelines import Lent, PipelineKind, as_bytes

__all__ = ["VACE", "Ask", "Filming", "ReferenceModel", "check_reference_model", "load_vace"]

VACE = PipelineKind(
    called="video model",
    pipeline="WanVACEPipeline",
    parts=("transformer", "vae", "text_encoder", "tokenizer", "scheduler"),
    able="can go by reference pictures",
    licences=dict.fromkeys(
        ("Wan-AI/Wan2.1-VACE-1.3B-diffusers", "Wan-AI/Wan2.1-VACE-14B-diffusers"), "apache-2.0"
    ),
)
"""Folders and hub ids of VACE models; the hub ids that are known."""

_VACE_FPS = 16.0
"""The pace at which the pipeline's example shows what it makes."""


@dataclass(frozen=True, eq=False)
class Ask:
    """What one clip is to show: a text, whoever appears in it, each uint8 (h, w, 3), any sizes, on
    white, and the seed of its noise."""

    prompt: str
    pictures: Sequence[NDArray[np.uint8]]
    seed: int


@dataclass(frozen=True)
class Filming:
    """How clips are made. The defaults are the pipeline's.

    Attributes:
        frames: frames of a clip.
        size: (height, width) in pixels; what the model cannot make is rounded up.
        negative: what to keep away from.
        steps: denoiser calls.
        guidance: classifier-free guidance; 1 or less turns it off.
        conditioning: how strongly the pictures count.
        flow_shift: how much of the steps the noisier times get; None for the scheduler's own.
    """

    frames: int
    size: tuple[int, int]
    negative: str = ""
    steps: int = 50
    guidance: float = 5.0
    conditioning: float = 1.0
    flow_shift: float | None = None


class ReferenceModel(Lent):
    """A `WanVACEPipeline`, frozen, see `Lent`. `fps` is the pace of what it makes."""

    networks = ("transformer", "transformer_2", "vae", "text_encoder")

    def __init__(self, pipeline: Any, name: str, device: torch.device) -> None:
        super().__init__(pipeline, name, device)
        self.fps = _VACE_FPS
        self._scheduler = pipeline.scheduler

    @property
    def schedule(self) -> str:
        """What tells the scheduler's own settings apart, sha256 hex: they move every video."""
        told = json.dumps(dict(self._scheduler.config), sort_keys=True, default=str)
        return hashlib.sha256(told.encode()).hexdigest()

    @torch.no_grad()
    def film(self, asked: Sequence[Ask], wanted: Filming) -> list[NDArray[np.uint8]]:
        """One clip, uint8 (frame, height, width, 3), for each that is asked for, of `wanted.frames`
        frames and of `wanted.size` or the next larger that the model can make.

        A clip depends on its own text, pictures and seed alone.
        """
        with self._working():
            # The pipeline takes one text at a time.
            return [self._clip(one, wanted) for one in asked]

    def _clip(self, asked: Ask, wanted: Filming) -> NDArray[np.uint8]:
        height, width = (_up(side, self._side_step) for side in wanted.size)
        self.pipeline.scheduler = self._fresh_scheduler(wanted.flow_shift)
        frames = self.pipeline(
            prompt=asked.prompt,
            negative_prompt=wanted.negative,
            reference_images=[Image.fromarray(one) for one in asked.pictures] or None,
            conditioning_scale=wanted.conditioning,
            height=height,
            width=width,
            num_frames=self._frames(wanted.frames, len(asked.pictures)),
            num_inference_steps=wanted.steps,
            guidance_scale=wanted.guidance,
            # Drawn on the CPU: the same on every device.
            generator=torch.Generator().manual_seed(asked.seed),
            output_type="np",
        ).frames[0]
        return as_bytes(frames[: wanted.frames])

    def _frames(self, wanted: int, pictures: int) -> int:
        """How many are made: one for the first latent frame, and as many for each other as the
        autoencoder joins.

        There are no fewer latent frames than pictures: the pipeline takes the part of its mask
        that belongs to the pictures from that of the frames.
        """
        step: int = self.pipeline.vae_scale_factor_temporal
        latent = max(1 + ceil((wanted - 1) / step), pictures)
        return 1 + step * (latent - 1)

    @property
    def _side_step(self) -> int:
        """What heights and widths are multiples of."""
        patch = self.pipeline.transformer.config.patch_size[1]
        return int(self.pipeline.vae_scale_factor_spatial * patch)

    def _fresh_scheduler(self, flow_shift: float | None) -> Any:
        """The model's own scheduler, without what it remembers of the clip before."""
        config, changes = self._scheduler.config, {}
        if flow_shift is not None:
            changes["flow_shift" if "flow_shift" in config else "shift"] = flow_shift
        return type(self._scheduler).from_config(config, **changes)


def check_reference_model(name: str) -> None:
    """Refuse what cannot be a reference model; nothing is loaded or fetched.

    Raises:
        ConfigError: neither a folder of a WanVACEPipeline nor a hub id.
    """
    VACE.check(name, VACE.licences)


@lru_cache(maxsize=1)
def load_vace(name: str, device: str = "auto", dtype: str = "auto") -> ReferenceModel:
    """Load from a WanVACEPipeline's folder or by hub id; the last one loaded is kept.

    `device` is a torch device or "auto"; `dtype` is "auto" (bfloat16 on CUDA, else float32), or as
    a backbone's. The autoencoder stays float32, as its makers have it.

    Raises:
        BackboneError: there is no such device or type.
        ConfigError: the model is of another kind, incomplete or cannot be fetched.
    """
    where, weights = placed(device, dtype)
    check_reference_model(name)
    types = {"default": weights, "vae": torch.float32}
    pipeline = VACE.load(name, WanVACEPipeline, torch_dtype=types)
    return ReferenceModel(pipeline, name, where)


def _up(side: int, step: int) -> int:
    return step * ceil(side / step)
