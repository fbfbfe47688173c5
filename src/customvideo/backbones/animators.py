"""Picture-to-video models: Stable Video Diffusion (arXiv 2311.15127) through diffusers' pipeline.

An animator makes a clip that begins with a given picture. It knows no text, no adapter and no
learned word: what is in the picture is the business of whoever draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from customvideo.backbones.folder import placed
from customvideo.backbones.pipelines import Lent, PipelineKind, as_bytes, fitted
from customvideo.errors import ConfigError
from customvideo.quiet import without_warnings
from customvideo.tables import all_rows, import_target

__all__ = [
    "ANIMATORS",
    "SVD",
    "Animation",
    "Animator",
    "animator_for",
    "check_animator",
    "load_animator",
    "picture_processor",
    "video_pipeline",
]

ANIMATORS: dict[str, str] = {
    "toybox": "customvideo.toybox.animator:load",
    "svd": "customvideo.backbones.animators:load_svd",
    "svd-xt": "customvideo.backbones.animators:load_svd_xt",
}
"""Name -> "module:factory"; a factory takes (device, dtype) strings and returns an `Animator`.

A module with a function `check()` has it called before anything is trained: it raises a ConfigError
where the factory would.
"""

_ENTRY_POINTS = "customvideo.animators"
_FRAMES_AT_ONCE = 8
"""Frames the autoencoder decodes together: bounds memory, whatever the clip's length."""
_SVD_FPS = 7

SVD = PipelineKind(
    called="animator",
    pipeline="StableVideoDiffusionPipeline",
    parts=("unet", "vae", "image_encoder", "scheduler", "feature_extractor"),
    able="can animate a picture",
    licences=dict.fromkeys(
        (
            "stabilityai/stable-video-diffusion-img2vid",
            "stabilityai/stable-video-diffusion-img2vid-xt",
        ),
        "stable-video-diffusion-community",
    ),
)
"""Folders and hub ids of animators."""


@dataclass(frozen=True)
class Animation:
    """How a picture is animated.

    Attributes:
        frames: frames of the clip.
        size: (height, width) that it is animated at, in pixels, multiples of 8; the picture is
            scaled to cover it, and what stands over is cut off on both sides.
        steps: denoiser calls.
        guidance: guidance at the last frame; it rises from 1 at the first (the pipeline's way).
        motion: how much is to move, from 0 to 255 ("motion bucket").
        augmentation: deviation of the noise on the picture, whose colours lie in [-1, 1].
        fps: frames a second that the model is told; None for what the animator is used to.
    """

    frames: int
    size: tuple[int, int]
    steps: int = 25
    guidance: float = 3.0
    motion: int = 127
    augmentation: float = 0.02
    fps: int | None = None


class Animator(Lent):
    """A `StableVideoDiffusionPipeline`, frozen, see `Lent`.

    `device` is a torch device or "auto"; `dtype` is "auto" (float16 on CUDA, else float32), or as
    a backbone's. `fps` is the pace that the model is told where nobody asks for another.
    """

    networks = ("unet",)

    def __init__(
        self, pipeline: Any, name: str, fps: int, device: str = "auto", dtype: str = "auto"
    ) -> None:
        where, weights = placed(device, dtype)
        if dtype == "auto" and where.type == "cuda":
            # What its makers publish, and the pipeline's own numbers are meant for.
            weights = torch.float16
        with without_warnings("diffusers"):
            pipeline.to("cpu", weights)
        super().__init__(pipeline, name, where)
        self.fps = fps

    @torch.no_grad()
    def animate(
        self, pictures: NDArray[np.uint8], seeds: Sequence[int], wanted: Animation
    ) -> list[NDArray[np.uint8]]:
        """One clip, uint8 (frame, height, width, 3), for each of `pictures` (row, h, w, 3).

        A row depends on its picture and seed alone.

        Raises:
            ConfigError: the model cannot make clips of this size.
        """
        if any(side < 8 or side % 8 for side in wanted.size):
            height, width = wanted.size
            raise ConfigError(
                f"The animator '{self.name}' cannot make {height}x{width} pixels: choose a height "
                "and a width that are multiples of 8."
            )
        with self._working():
            # One after the other: clips of a real model are large, and rows stay apart.
            return [
                self._clip(fitted(picture, wanted.size), seed, wanted)
                for picture, seed in zip(pictures, seeds, strict=True)
            ]

    def _clip(self, picture: NDArray[np.uint8], seed: int, wanted: Animation) -> NDArray[np.uint8]:
        height, width = wanted.size
        frames = self.pipeline(
            [Image.fromarray(picture)],
            height=height,
            width=width,
            num_frames=wanted.frames,
            num_inference_steps=wanted.steps,
            max_guidance_scale=wanted.guidance,
            fps=wanted.fps or self.fps,
            motion_bucket_id=wanted.motion,
            noise_aug_strength=wanted.augmentation,
            decode_chunk_size=_FRAMES_AT_ONCE,
            # Drawn on the CPU: the same on every device.
            generator=[torch.Generator().manual_seed(seed)],
            output_type="np",
        ).frames[0]
        return as_bytes(frames)


def animator_for(name: str, backbone: str) -> str:
    """The animator that `name` means beside the backbone called so: itself, or, for "auto", the
    one of the backbone's own name, and Stable Video Diffusion XT where there is none."""
    if name != "auto":
        return name
    return backbone if backbone in animator_rows() else "svd-xt"


def animator_rows() -> dict[str, str]:
    """The table's rows and those of installed packages."""
    return all_rows(ANIMATORS, _ENTRY_POINTS)


def check_animator(name: str) -> None:
    """Refuse what cannot be an animator; nothing is loaded or fetched.

    Raises:
        ConfigError: neither a name of the table, nor a folder of an animator, nor a hub id; or what
            the table's row itself finds missing.
    """
    rows = animator_rows()
    if name not in rows:
        SVD.check(name, rows)
        return
    check = getattr(import_module(rows[name].partition(":")[0]), "check", None)
    if check is not None:
        check()


@lru_cache(maxsize=1)
def load_animator(name: str, device: str = "auto", dtype: str = "auto") -> Animator:
    """Load by a name of the table, from a StableVideoDiffusionPipeline's folder, or by hub id.

    The last one loaded is kept.

    Raises:
        BackboneError: there is no such device or type.
        ConfigError: the name is unknown, or the model is of another kind, incomplete or cannot be
            fetched.
    """
    check_animator(name)
    rows = animator_rows()
    if name in rows:
        loaded: Animator = import_target(rows[name])(device=device, dtype=dtype)
        return loaded
    return Animator(SVD.load(name, video_pipeline()), name, _SVD_FPS, device, dtype)


def load_svd(device: str = "auto", dtype: str = "auto") -> Animator:
    """Stable Video Diffusion, made for 14 frames of 576x1024."""
    return load_animator("stabilityai/stable-video-diffusion-img2vid", device, dtype)


def load_svd_xt(device: str = "auto", dtype: str = "auto") -> Animator:
    """Stable Video Diffusion XT, made for 25 frames of 576x1024."""
    return load_animator("stabilityai/stable-video-diffusion-img2vid-xt", device, dtype)


def video_pipeline() -> Any:
    """The class `StableVideoDiffusionPipeline`."""
    # Importing it says what importing transformers' picture processor does.
    with without_warnings("transformers"):
        from diffusers import StableVideoDiffusionPipeline

        return StableVideoDiffusionPipeline


def picture_processor(mean: Sequence[float], deviation: Sequence[float]) -> Any:
    """What stands before an animator's picture tower: colours in [0, 1] less `mean`, divided by
    `deviation`."""
    # Without torchvision transformers says that it takes its other processor; it is as good.
    with without_warnings("transformers"):
        from transformers import CLIPImageProcessor

        return CLIPImageProcessor(image_mean=list(mean), image_std=list(deviation))
