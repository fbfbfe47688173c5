"""AnimateDiff: a picture model with motion modules between its layers (Guo et al. 2023,
arXiv 2307.04725).

One class answers the `Backbone` protocol for any folder in the format of diffusers'
AnimateDiffPipeline, and for the published parts, a picture model and a motion adapter, put
together. It is NOT a forward pass of its own: the network is the stock UNetMotionModel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from torch import Tensor, nn

from customvideo.backbones import folder
from customvideo.backbones.base import LayerGroup
from customvideo.backbones.folder import Card, read_json
from customvideo.backbones.noise import Ddpm
from customvideo.backbones.stock import assembled
from customvideo.backbones.unet3d import UNet3D
from customvideo.backbones.unet3d_files import Kind, Parts, read_parts, usual_card
from customvideo.errors import BackboneError
from customvideo.files import expanded
from customvideo.quiet import without_bars, without_warnings

__all__ = ["AnimateDiff", "load", "load_animatediff"]

_MOTION_MODULE = re.compile(r"(^|\.)motion_modules\.")
_PICTURES = "stable-diffusion-v1-5/stable-diffusion-v1-5"
_ADAPTER = "guoyww/animatediff-motion-adapter-v1-5-2"
_ADAPTER_FOLDER = "motion_adapter"
_MOTION_SCHEDULE = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "linear",
    "clip_sample": False,
    "timestep_spacing": "linspace",
    "steps_offset": 1,
}
"""What the motion adapter was trained and is sampled with; the rest is the picture model's."""


class AnimateDiff(UNet3D):
    """A frozen AnimateDiffPipeline model; see `Backbone` for what its methods promise.

    `single_frame` is "skip" unless somebody asks for another, since one frame is a picture, and
    past the motion modules the network is the picture model. That one was taught with betas of its
    own: where its scheduler's config is given as `pictures`, it is told the time at which those
    leave as much noise.
    """

    family = "animatediff"

    def __init__(self, parts: Parts, card: Card, pictures: dict[str, Any] | None = None) -> None:
        super().__init__(parts, card)
        self._single_frame = "skip"
        self._recomputing = False
        self._picture_times = None if pictures is None else _alike(self._noise, Ddpm(pictures))

    def layers(self, group: LayerGroup) -> list[str]:
        found = super().layers(group)
        if group != "spatial":
            return found
        return [path for path in found if not _MOTION_MODULE.search(path)]

    def stock(self) -> Any:
        """The stock pipeline with copies of the same weights."""
        parts = {
            "vae": self._vae,
            "text_encoder": self._text_encoder,
            "tokenizer": self._table.tokenizer,
            "motion_adapter": None,
        }
        return assembled("AnimateDiffPipeline", self._unet, parts, self._noise.config)

    def _check_size(self, frames: int, height: int, width: int) -> None:
        super()._check_size(frames, height, width)
        longest: int = self._unet.config.motion_max_seq_length
        if frames > longest:
            raise BackboneError(
                f"Backbone '{self.name}' cannot make {frames} frames: its motion modules tell no "
                f"more than {longest} apart; choose at most {longest} frames."
            )

    def _predict(self, latents: Tensor, times: Tensor, states: Tensor) -> Tensor:
        """Text of twice as many rows as `latents` is both halves of guidance."""
        self._recompute(self.checkpointed)
        frames = latents.shape[2]
        lone = self._single_frame if frames == 1 else "run"
        if lone == "repeat":
            frames = self.frames
        if lone == "skip" and self._picture_times is not None:
            times = self._picture_times.to(times.device)[times.long()]
        copies = len(states) // len(latents)
        clips = latents.to(self.dtype).expand(-1, -1, frames, -1, -1).repeat(copies, 1, 1, 1, 1)
        with _still(self._unet) if lone == "skip" else nullcontext():
            found: Tensor = self._unet(clips, times.to(self.device), states).sample
        found = found.to(latents.dtype)
        return found.mean(dim=2, keepdim=True) if lone == "repeat" else found

    def _recompute(self, wanted: bool) -> None:
        # Remembered, since asking the network goes through all its modules.
        if wanted != self._recomputing:
            if wanted:
                self._unet.enable_gradient_checkpointing(self.recompute)
            else:
                self._unet.disable_gradient_checkpointing()
            self._recomputing = wanted


class _Passing(nn.Module):
    """Stands in for a motion module and changes nothing."""

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden_states


@contextmanager
def _still(unet: Any) -> Iterator[None]:
    """No motion module is called inside, so that the network is the picture model alone."""
    blocks = (*unet.down_blocks, unet.mid_block, *unet.up_blocks)
    # The first published adapters have none in the middle.
    moving = [(block, block.motion_modules) for block in blocks if hasattr(block, "motion_modules")]
    try:
        for block, modules in moving:
            block.motion_modules = nn.ModuleList(_Passing() for _ in modules)
        yield
    finally:
        for block, modules in moving:
            block.motion_modules = modules


def _alike(noise: Ddpm, other: Ddpm) -> Tensor:
    """For each time of `noise`, float32 (time,), the one at which `other` leaves as much noise."""
    wanted, known = noise.alphas_cumprod.numpy(), other.alphas_cumprod.numpy()
    found = np.interp(-wanted, -known, np.arange(len(known)))
    return torch.from_numpy(found).float()


def load(name: str | Path, device: str = "auto", dtype: str = "auto") -> AnimateDiff:
    """Load an AnimateDiffPipeline folder, or a model by its hub id.

    Raises:
        BackboneError: it is incomplete, damaged, of another kind, or cannot be fetched.
    """
    local = expanded(name)
    place = local if local.is_dir() else folder.fetch(str(name))
    parts = read_parts(place, device, dtype, _kind(place / _ADAPTER_FOLDER))
    usual = usual_card(parts)
    card = Card.read(place, usual) if local.is_dir() else Card.of_hub(str(name), place, usual)
    return AnimateDiff(parts, card)


def load_animatediff(device: str = "auto", dtype: str = "auto") -> AnimateDiff:
    """Stable Diffusion 1.5 with AnimateDiff's motion adapter v1.5.2: 16 frames of 512x512.

    Raises:
        BackboneError: a part can neither be fetched nor found in the cache, or is damaged.
    """
    place = folder.fetch(_PICTURES)
    pictures = read_json(place / "scheduler" / "scheduler_config.json")
    parts = read_parts(place, device, dtype, _kind(_ADAPTER))
    parts = replace(parts, scheduler_config={**pictures, **_MOTION_SCHEDULE})
    card = replace(usual_card(parts), name="animatediff", licence="creativeml-openrail-m")
    return AnimateDiff(parts, card, pictures)


def _kind(adapter: Path | str) -> Kind:
    return Kind(
        pipeline="AnimateDiffPipeline",
        denoisers=("UNetMotionModel", "UNet2DConditionModel"),
        models="AnimateDiff on Stable Diffusion 1.5",
        read=partial(_read_denoiser, adapter=adapter),
    )


def _read_denoiser(place: Path, dtype: torch.dtype, *, adapter: Path | str, **options: Any) -> Any:
    """The denoiser at `place`; a picture model is given the motion modules of `adapter`, a folder
    or a hub id."""
    kind = read_json(place / "config.json").get("_class_name")
    if kind != "UNet2DConditionModel":
        return UNetMotionModel.from_pretrained(place, torch_dtype=dtype, **options)
    motion = _read_adapter(adapter, dtype)
    pictures = UNet2DConditionModel.from_pretrained(place, torch_dtype=dtype, **options)
    # It says what it thinks of its own casting.
    with without_warnings("diffusers"):
        return UNetMotionModel.from_unet2d(pictures, motion)


def _read_adapter(adapter: Path | str, dtype: torch.dtype) -> Any:
    if isinstance(adapter, Path) and not adapter.is_dir():
        raise BackboneError(
            f"Backbone folder '{adapter.parent}' holds a picture model without motion modules "
            f"({adapter.name}): give a complete diffusers folder, as "
            "AnimateDiffPipeline.save_pretrained writes it."
        )
    try:
        with without_bars(), without_warnings("diffusers", "huggingface_hub"):
            return MotionAdapter.from_pretrained(adapter, torch_dtype=dtype, use_safetensors=True)
    except Exception as error:  # the hub client's network errors share no base class
        if isinstance(adapter, Path):
            raise
        raise BackboneError(
            f"The motion adapter '{adapter}' could not be fetched from the Hugging Face hub: check "
            "the connection, or give the folder of a complete AnimateDiffPipeline as the backbone."
        ) from error
