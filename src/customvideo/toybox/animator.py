"""The toybox's own picture-to-video model: Stable Video Diffusion's classes at miniature size.

Only the network over space and time has weights of its own (`weights/animator`). The autoencoder is
the toybox model's, frame by frame, and the tower that looks at the first picture is the contrastive
judge's, made to read 224x224 pixels as the stock pipeline feeds them. Training is
`customvideo.toybox.recipe.animator`.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    UNetSpatioTemporalConditionModel,
)
from torch import Tensor, nn
from transformers import CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from customvideo.backbones.animators import Animator, picture_processor, video_pipeline
from customvideo.backbones.folder import Card
from customvideo.errors import ConfigError
from customvideo.quiet import without_bars
from customvideo.toybox.models import FPS

__all__ = ["TOWER_SIDE", "FrameDecoder", "by_frames", "check", "load", "tower_view", "wide_tower"]

WEIGHTS = Path(__file__).parent / "weights"
TOWER_SIDE = 224
"""Side of the square picture that the stock pipeline hands its tower, in pixels."""


class FrameDecoder(nn.Module):
    """An AutoencoderKL's decoder where a temporal one is expected: every frame by itself.

    The stock TemporalDecoder cannot hold these weights: it norms in 32 groups, and the toybox's
    layers have 24 to 64 channels in 8. One whose temporal blocks mix nothing in is this.
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.post_quant_conv, self.decoder = vae.post_quant_conv, vae.decoder

    def forward(
        self, sample: Tensor, image_only_indicator: Tensor | None = None, num_frames: int = 1
    ) -> Tensor:
        """Latents (row * frame, channel, h, w) to pictures (row * frame, 3, height, width)."""
        pictures: Tensor = self.decoder(self.post_quant_conv(sample))
        return pictures


def by_frames(vae: AutoencoderKL) -> AutoencoderKLTemporalDecoder:
    """`vae` as the class that Stable Video Diffusion asks for: same latents, same pictures."""
    levels = len(vae.config.block_out_channels)
    same = AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * levels,
        # Placeholders, replaced below; their number says how far pictures are scaled down.
        block_out_channels=(32,) * levels,
        latent_channels=vae.config.latent_channels,
        scaling_factor=vae.config.scaling_factor,
    )
    same.encoder, same.quant_conv, same.decoder = vae.encoder, vae.quant_conv, FrameDecoder(vae)
    return same.requires_grad_(False).eval()


@torch.no_grad()
def wide_tower(clip: CLIPModel) -> CLIPVisionModelWithProjection:
    """The picture tower of `clip`, reading 224x224 pixels in as many patches as before.

    A patch kernel spread over more pixels answers what the old one would to the means over its
    cells.
    """
    config = CLIPVisionConfig(**clip.config.vision_config.to_dict())
    patch = config.patch_size * TOWER_SIDE // config.image_size
    shrink = _means(patch, config.patch_size)
    weights = {
        name: weight
        for name, weight in clip.state_dict().items()
        if name.startswith(("vision_model.", "visual_projection."))
    }
    kernel = "vision_model.embeddings.patch_embedding.weight"
    weights[kernel] = shrink.T @ weights[kernel].float() @ shrink
    config.image_size, config.patch_size = TOWER_SIDE, patch
    tower = CLIPVisionModelWithProjection(config)
    tower.load_state_dict(weights, strict=False)
    return tower.requires_grad_(False).eval()


def _means(fine: int, coarse: int) -> Tensor:
    """Matrix (coarse, fine) that takes the means of a line of `fine` pixels over `coarse` cells."""
    width = fine / coarse
    cells, pixels = torch.arange(coarse)[:, None], torch.arange(fine)[None]
    overlap = torch.minimum((cells + 1) * width, pixels + 1) - torch.maximum(cells * width, pixels)
    return overlap.clamp(min=0) / width


def tower_view(pictures: Tensor) -> Tensor:
    """What the stock pipeline makes of (N, 3, height, width) in [-1, 1] for its tower."""
    size = (TOWER_SIDE, TOWER_SIDE)
    return F.interpolate(pictures, size=size, mode="bicubic", align_corners=True)


def check() -> None:
    """Refuse an installation that lacks a file of the animator's.

    Raises:
        ConfigError: the installation lacks the weights.
    """
    networks = [WEIGHTS / part for part in ("animator/unet", "model/vae", "clip")]
    files = [folder / "config.json" for folder in networks]
    files.append(WEIGHTS / "animator" / "scheduler" / "scheduler_config.json")
    missing = [file for file in files if not file.is_file()]
    missing += [folder for folder in networks if not any(folder.glob("*.safetensors"))]
    if missing:
        raise ConfigError(
            "The weights of the toybox's animator are missing from this installation "
            f"({missing[0].relative_to(WEIGHTS).as_posix()}): install the package again, or make "
            "them with 'customvideo toybox pretrain'."
        )


def load(device: str = "auto", dtype: str = "auto") -> Animator:
    """Load the toybox's animator: 8 frames of 64x96.

    Raises:
        ConfigError: the installation lacks the weights.
    """
    check()
    with without_bars():
        clip = CLIPModel.from_pretrained(WEIGHTS / "clip", dtype=torch.float32)
        pipeline = video_pipeline()(
            vae=by_frames(AutoencoderKL.from_pretrained(WEIGHTS / "model" / "vae")),
            image_encoder=wide_tower(clip),
            unet=UNetSpatioTemporalConditionModel.from_pretrained(WEIGHTS / "animator" / "unet"),
            scheduler=EulerDiscreteScheduler.from_pretrained(WEIGHTS / "animator" / "scheduler"),
            feature_extractor=picture_processor((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        )
    Card("toybox animator", "apache-2.0").announce()
    return Animator(pipeline, "toybox", round(FPS), device, dtype)
