"""A second pass by a larger model: a clip redrawn at that model's own size.

ZeroScope's makers publish ZeroScope XL for it, and say strengths of 0.66 to 0.85. The clip is
enlarged, noised part of the way, and denoised by the larger model with the same prompt. That model
has learned no subject's word: what subjects look like is in the clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch

from customvideo.backbones.base import Backbone, load_backbone
from customvideo.backbones.pipelines import as_bytes, fitted_clip
from customvideo.backbones.sampling import SolverOptions, denoise
from customvideo.errors import ConfigError
from customvideo.video import Video

__all__ = ["Upscaling", "upscale"]


@dataclass(frozen=True)
class Upscaling:
    """Which model redraws clips, and how much of them.

    `model` is anything `load_backbone` takes. `strength` is the share of the denoising that is
    done anew: 1 keeps nothing of a clip but its length.
    """

    model: str
    strength: float = 0.7

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise ConfigError(
                f"Cannot redraw a video with strength {self.strength:g}: choose above 0 and at "
                "most 1; 0.66 to 0.85 suit ZeroScope XL."
            )

    @classmethod
    def parse(cls, text: str) -> Upscaling:
        """Read `MODEL` or `MODEL=STRENGTH`.

        Raises:
            ConfigError: the strength is out of range, or there is no model.
        """
        model, equals, number = text.rpartition("=")
        strength = _number(number) if equals else None
        # An equals sign may be part of a folder's name.
        found = cls(text) if strength is None else cls(model, strength)
        if not found.model:
            raise ConfigError(
                f"Cannot tell which model '{text}' means; write MODEL or MODEL=STRENGTH, such as "
                "cerspense/zeroscope_v2_XL=0.7."
            )
        return found

    def load(self, clip: tuple[int, int, int], device: str = "auto") -> Backbone:
        """The model, if it can redraw clips of `clip` = (frames, height, width).

        Raises:
            ConfigError: its own size is no larger.
            BackboneError: it is unknown, incomplete, cannot be fetched, or makes no clips so long.
        """
        backbone = load_backbone(self.model, device)
        _check(backbone, clip)
        return backbone


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@torch.no_grad()
def upscale(
    backbone: Backbone,
    video: Video,
    prompt: str,
    negative: str = "",
    *,
    seed: int = 0,
    **options: Unpack[SolverOptions],
) -> Video:
    """Redraw `video` with `backbone`, at that one's own size and in the video's own time.

    `prompt` and `negative` are read without learned words. The same seed gives the same video.
    `options` are the sampling loop's; its `share` is the strength.

    Raises:
        ConfigError: the model's size is no larger than the video's, or the share is out of range or
            too small for a single step.
        BackboneError: the model makes no clips so long.
    """
    _check(backbone, (len(video), *video.size))
    # (frame, height, width, 3), 0 to 255 -> (1, frame, 3, height, width) in [-1, 1]
    pixels = torch.tensor(fitted_clip(video.frames, backbone.size)).movedim(-1, 1)[None] / 127.5 - 1
    clean = backbone.encode_frames(pixels)
    # Drawn on the CPU: the same on every device.
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    begun: SolverOptions = {**options, "clean": clean}
    text, unwanted = backbone.encode_prompt([prompt]), backbone.encode_prompt([negative])
    latents = denoise(backbone, noise.to(clean.device), text, unwanted, **begun)
    drawn = backbone.decode_frames(latents).float().cpu()[0]
    return Video(as_bytes((drawn.movedim(1, -1) / 2 + 0.5).numpy()), video.fps)


def _check(backbone: Backbone, clip: tuple[int, int, int]) -> None:
    frames, height, width = clip
    own_height, own_width = backbone.size
    if own_height * own_width <= height * width:
        raise ConfigError(
            f"The backbone '{backbone.name}' makes {own_height}x{own_width} pixels and cannot "
            f"enlarge a video of {height}x{width}: choose a larger model, or write its "
            '"size": [height, width] into customvideo.json in its folder.'
        )
    backbone.latent_shape(frames, own_height, own_width)
