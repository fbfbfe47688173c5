"""The model itself: denoiser and text encoder, a course on pictures, then one on clips too."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, UNet3DConditionModel
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from customvideo.attention.tape import watch
from customvideo.backbones.noise import Ddpm
from customvideo.backbones.unet3d import attention_sites, text_sites
from customvideo.backbones.unet3d_forward import Passage, forward, prepare
from customvideo.toybox.models import build_scheduler, tokenize
from customvideo.toybox.recipe.course import Losses
from customvideo.toybox.recipe.dataset import Shelf
from customvideo.toybox.recipe.draw import Draw, unit
from customvideo.toybox.recipe.grounding import grounding_loss, phrase_tokens

__all__ = ["DenoiserStage", "Diet", "LatentShelf", "encode_frames", "silence_time"]


class LatentShelf:
    """A shelf's latents, and how much of each cell subjects cover.

    `latents` (N, F, C, h, w), multiplied by `scale`; `coverage` uint8 (N, F, subject, h, w).
    """

    def __init__(self, shelf: Shelf, vae: AutoencoderKL, *, scale: float | None = None) -> None:
        self.shelf = shelf
        self.coverage = shelf.coverage()
        self.latents = encode_frames(vae, shelf.frames)
        self.scale = scale or float(1 / self.latents.std())
        self.latents *= self.scale


@torch.no_grad()
def encode_frames(vae: AutoencoderKL, frames: Tensor) -> Tensor:
    """uint8 (N, F, height, width, 3) to the latents' means (N, F, C, h, w)."""
    device = next(vae.parameters()).device
    vae.to(memory_format=torch.channels_last)
    means = []
    for part in torch.split(frames.flatten(0, 1), 64):
        pictures = unit(part.to(device)).contiguous(memory_format=torch.channels_last)
        means.append(vae.encode(pictures).latent_dist.mean.cpu())
    latents = torch.cat(means)
    return latents.reshape(*frames.shape[:2], *latents.shape[1:])


@dataclass(frozen=True, kw_only=True)
class Diet:
    """What the denoiser is fed in one course.

    Lone subjects come first, since what a cat looks like is learned fastest from one large cat.
    """

    pictures: int = 32
    clips: int = 4
    """Pictures, and clips, a step: of 8 frames, so that both take about as many frames."""
    clip_share: float = 0.0
    """Share of the steps that learn from clips."""
    run_share: float = 0.25
    """Where clips are learned, share of the picture steps that pass the temporal modules."""
    lone: tuple[float, float] = (0.75, 0.25)
    """Share of picture steps that show a lone subject, at the first step and at the last."""
    grounding: float = 0.1
    """Weight of the loss that ties phrases to their subjects (see `grounding_loss`)."""

    def lone_at(self, done: float) -> float:
        """That share when `done`, between 0 and 1, is behind."""
        first, last = self.lone
        return first + (last - first) * done


def silence_time(denoiser: UNet3DConditionModel) -> None:
    """Make the temporal modules the identity, to be learned after the pictures."""
    for module in denoiser.modules():
        if isinstance(module, TransformerTemporalModel):
            nn.init.zeros_(module.proj_out.weight)
            nn.init.zeros_(module.proj_out.bias)


class DenoiserStage:
    """Text-to-video diffusion (v target, Salimans and Ho 2022) with the text encoder trained along.

    Pictures pass by the temporal modules, which learn from clips; beside clips some pictures pass
    through them as clips of one frame, for stock pipelines that know no other way. One caption in
    ten is empty, which makes the unconditional branch "the empty prompt, encoded". Subjects count
    three times as much as ground and sky.
    """

    def __init__(
        self,
        modules: tuple[UNet3DConditionModel, CLIPTextModel, CLIPTokenizer],
        shelves: dict[str, LatentShelf],
        seed: int,
        steps: int,
        diet: Diet | None = None,
    ) -> None:
        self.denoiser, self.text, self.tokenizer = modules
        self.shelves, self.diet = shelves, diet or Diet()
        self.seed, self.steps = seed, steps
        self.noise = Ddpm(build_scheduler().config)
        self.device = next(self.denoiser.parameters()).device
        prepare(self.denoiser, text_sites(self.denoiser))

    def __call__(self, step: int) -> Losses:
        draw, done = Draw(self.seed, 4, step), step / self.steps
        if draw.chance(1, self.diet.clip_share)[0]:
            return self._losses(draw, "moves", self.diet.clips, temporal=True)
        name = "lone" if draw.chance(1, self.diet.lone_at(done))[0] else "pictures"
        temporal = self.diet.clip_share > 0 and draw.chance(1, self.diet.run_share)[0]
        return self._losses(draw, name, self.diet.pictures, temporal=temporal)

    def _losses(self, draw: Draw, name: str, count: int, *, temporal: bool) -> Losses:
        shelf = self.shelves[name]
        chosen = draw.indices(len(shelf.shelf.worlds), count)
        latents = shelf.latents[chosen].movedim(1, 2).to(self.device)
        cover = shelf.coverage[chosen].to(self.device).float() / 255
        captions = shelf.shelf.grounded(chosen, draw.numpy)
        dropped = draw.chance(len(chosen), 0.1)
        captions = [("", []) if drop else one for drop, one in zip(dropped, captions, strict=True)]
        texts, mentions = zip(*captions, strict=True)
        ids = tokenize(self.tokenizer, list(texts))["input_ids"].to(self.device)
        states = self.text(ids).last_hidden_state
        noise, times = draw.normal(latents), self._times(draw, len(chosen))
        noisy = self.noise.mix(latents, noise, times)
        told = phrase_tokens(self.tokenizer, texts, mentions).to(self.device)
        sites = attention_sites(self.denoiser, *latents.shape[2:])
        passage = Passage(states, latents.shape[2], temporal=temporal)
        with watch(self.denoiser, sites, told) as tape:
            predicted = forward(self.denoiser, noisy, times, passage)
        error = (predicted - self.noise.target(latents, noise, times)).square()
        weight = (1 + 2 * cover.sum(2))[:, None].expand_as(error)
        kind = "pictures" if latents.shape[2] == 1 else "clips"
        return {
            kind: (error * weight).sum() / weight.sum(),
            "grounding": self.diet.grounding * grounding_loss(tape.maps(), cover),
        }

    def _times(self, draw: Draw, count: int) -> Tensor:
        """Steps of noise (count,): four in five around the middle, where shapes are decided."""
        middle = torch.sigmoid(torch.randn(count, generator=draw.torch) + 0.3)
        anywhere = torch.rand(count, generator=draw.torch)
        flat = torch.rand(count, generator=draw.torch) < 0.2
        return (1000 * torch.where(flat, anywhere, middle)).long().clamp(0, 999).to(self.device)
