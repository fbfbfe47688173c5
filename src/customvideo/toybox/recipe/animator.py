"""The animator: a clip from its first picture, as Stable Video Diffusion learns it.

Blattmann et al. 2023 (arXiv 2311.15127), appendix D: the denoiser is preconditioned as in Karras et
al. 2022 with a v target, and reads the first picture twice, as latents beside every frame's own and
through a picture tower. Noise is put on that picture and the denoiser told how much; at times both
are taken away, for guidance.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL, UNetSpatioTemporalConditionModel
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from customvideo.toybox.animator import tower_view
from customvideo.toybox.models import FPS
from customvideo.toybox.recipe.course import Losses
from customvideo.toybox.recipe.denoiser import LatentShelf
from customvideo.toybox.recipe.draw import Draw, unit

__all__ = ["AnimatorStage", "motion_buckets"]

_BATCH = 6
_DROPPED = 0.1
"""Share of the clips whose first picture is withheld."""
_SPREAD = (-0.4, 1.4)
"""Mean and deviation of the noise's logarithm. The paper has (0.7, 1.6) for its smaller pictures;
with it these, smaller still, came out mottled: too little was learned at low noise (choice)."""
_AUGMENTATION = (-3.0, 0.5)
"""The same of the noise on the first picture (the paper's)."""


class AnimatorStage:
    """Denoising of clips that are told their first picture; subjects count three times."""

    def __init__(
        self,
        modules: tuple[UNetSpatioTemporalConditionModel, AutoencoderKL],
        tower: CLIPVisionModelWithProjection,
        shelves: Sequence[LatentShelf],
        seed: int,
        batch: int = 1,
    ) -> None:
        self.animator, self.vae = modules
        self.seed, self.count = seed, _BATCH * batch
        self.device = next(self.animator.parameters()).device
        self.latents = torch.cat([shelf.latents for shelf in shelves])
        covered = [shelf.coverage.float().sum(2).clamp(max=255) / 255 for shelf in shelves]
        self.weights = 1 + 2 * torch.cat(covered)[:, :, None]
        self.pictures = torch.cat([shelf.shelf.frames[:, 0] for shelf in shelves])
        self.seen = _look(tower, self.pictures)
        self.buckets = motion_buckets(self.latents)

    def __call__(self, step: int) -> Losses:
        draw = Draw(self.seed, 7, step)
        chosen = draw.indices(len(self.latents), self.count)
        clean = self.latents[chosen].to(self.device)
        first, told = self._condition(draw, chosen, frames=clean.shape[1])
        sigma = _log_normal(draw, len(chosen), _SPREAD).to(self.device)
        around = sigma[:, None, None, None, None]
        noise = draw.normal(clean)
        # c_in, and the velocity that c_skip and c_out of this preconditioning leave to predict;
        # the weight (1 + sigma^2) / sigma^2 makes its plain squared error the loss.
        size = (around.square() + 1).sqrt()
        target = (noise - around * clean) / size
        seen, ids, kept = told
        answer = self.animator(
            torch.cat([(clean + around * noise) / size, first], dim=2),
            0.25 * sigma.log(),
            encoder_hidden_states=seen * kept,
            added_time_ids=ids,
        ).sample
        weight = self.weights[chosen].to(self.device).expand_as(clean)
        return {"clips": ((answer - target).square() * weight).sum() / weight.sum()}

    def _condition(
        self, draw: Draw, chosen: list[int], frames: int
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Latents of the noised first pictures at every frame, and what else is told of them."""
        pictures = unit(self.pictures[chosen]).to(self.device)
        strength = _log_normal(draw, len(chosen), _AUGMENTATION).to(self.device)
        noised = pictures + strength[:, None, None, None] * draw.normal(pictures)
        with torch.no_grad():
            # Unscaled, as the stock pipeline leaves them.
            latents = self.vae.encode(noised).latent_dist.mode()
        kept = 1 - torch.tensor(draw.chance(len(chosen), _DROPPED), device=self.device).float()
        first = (latents * kept[:, None, None, None])[:, None].expand(-1, frames, -1, -1, -1)
        # The stock pipeline tells one frame less a second than it is asked for.
        rate = torch.full_like(strength, FPS - 1)
        buckets = self.buckets[chosen].to(self.device)
        ids = torch.stack([rate, buckets, strength], dim=1)
        return first, (self.seen[chosen].to(self.device), ids, kept[:, None, None])


def motion_buckets(latents: Tensor) -> Tensor:
    """How much moves in each of (N, F, C, h, w), by rank among them: float (N,) in 0 … 255."""
    moved = (latents - latents[:, :1]).abs().mean(dim=(1, 2, 3, 4))
    return (moved.argsort().argsort() * 255 / max(1, len(moved) - 1)).round()


def _log_normal(draw: Draw, count: int, spread: tuple[float, float]) -> Tensor:
    mean, deviation = spread
    return (mean + deviation * torch.randn(count, generator=draw.torch)).exp()


@torch.no_grad()
def _look(tower: CLIPVisionModelWithProjection, pictures: Tensor) -> Tensor:
    """uint8 (N, height, width, 3) to what the tower says of them, (N, 1, dim)."""
    device = next(tower.parameters()).device
    parts = [
        tower(tower_view(unit(part).to(device))).image_embeds.cpu()
        for part in torch.split(pictures, 64)
    ]
    return torch.cat(parts)[:, None]
