"""The Wan edition's model: denoiser and text encoder, flow matching on pictures, then on clips too.

The same world, captions and grounding as the toybox's own (`denoiser.py`); what differs is how Wan
reads text: with hundreds of paddings, which are zero and which it attends to like words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from customvideo.attention.tape import watch
from customvideo.backbones.noise import Flow
from customvideo.backbones.wan import TOKENS, text_sites
from customvideo.toybox.recipe.course import Losses
from customvideo.toybox.recipe.dataset import Shelf
from customvideo.toybox.recipe.denoiser import Diet
from customvideo.toybox.recipe.draw import Draw
from customvideo.toybox.recipe.grounding import grounding_loss, phrase_tokens
from customvideo.toybox.recipe.wan_autoencoder import encode_clips
from customvideo.toybox.wan_models import STRIDE, build_scheduler

__all__ = ["WanDenoiserStage", "WanShelf", "finer", "one_padding", "quiet_paddings"]

_FLAT = 0.15
"""Share of the times that are drawn evenly, so that no noise level is never seen."""


class WanShelf:
    """A shelf's normalised latents (N, channel, latent frame, h, w), and how much of each cell
    subjects cover: uint8 (N, latent frame, subject, h, w), the mean of the frames it stands for."""

    def __init__(self, shelf: Shelf, vae: AutoencoderKLWan) -> None:
        self.shelf = shelf
        mean, deviation = (
            torch.tensor(values).view(1, -1, 1, 1, 1)
            for values in (vae.config.latents_mean, vae.config.latents_std)
        )
        self.latents = (encode_clips(vae, shelf.frames) - mean) / deviation
        cover = shelf.coverage()
        later = _shared(cover[:, 1:]) if cover.shape[1] > 1 else None
        first = cover[:, :1]
        self.coverage = first if later is None else torch.cat([first, later.byte()], dim=1)


def _shared(cover: Tensor) -> Tensor:
    return cover.float().reshape(len(cover), -1, STRIDE, *cover.shape[2:]).mean(2)


@torch.no_grad()
def quiet_paddings(denoiser: WanTransformer3DModel) -> None:
    """Start so that text is read at all: hundreds of paddings, alike, would take nineteen parts in
    twenty of all attention.

    Paddings are told from words by a constant, and every query begins with a part that turns away
    from it. The network is free to take that back.
    """
    embedder = denoiser.condition_embedder.text_embedder
    constant = torch.randn(embedder.linear_2.bias.shape, generator=torch.Generator().manual_seed(1))
    embedder.linear_2.bias.copy_(0.05 * constant)
    empty = torch.zeros(1, 1, embedder.linear_1.in_features, device=embedder.linear_1.weight.device)
    padding = embedder(empty)
    for block in denoiser.blocks:
        attention = block.attn2
        attention.to_k.bias.zero_()
        key = attention.norm_k(attention.to_k(padding))[0, 0]
        attention.to_q.bias.copy_(-0.8 * key)


def finer(weights: dict[str, Tensor], channels: int) -> dict[str, Tensor]:
    """What a denoiser of patches of 2x2 knows, for one that sees every position by itself.

    Blocks stay as they are. A position is read as a fourth of a patch of its like, twice as loud,
    so that noise is as loud as it was, and becomes what the patch's four were on average.
    `channels` are those of the latents.
    """
    whole = dict(weights)
    read = whole["patch_embedding.weight"]
    side = read.shape[-1]
    whole["patch_embedding.weight"] = read.sum((-2, -1), keepdim=True) / side
    for name in ("proj_out.weight", "proj_out.bias"):
        written = whole[name]
        whole[name] = written.reshape(side**2, channels, *written.shape[1:]).mean(0)
    return whole


def one_padding(attention: Any, bias: Tensor) -> Any:
    """Let a text attention count its last padding many times, by `bias` (row, 1, 1, token) on its
    scores; returns the handle that takes it away. Equal to reading all paddings."""

    def count(_module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        states, text, _, rotary = given
        return states, text, bias, rotary

    return attention.register_forward_pre_hook(count)


class WanDenoiserStage:
    """Rectified flow with the text encoder trained along.

    One caption in ten is empty, which makes the unconditional branch "the empty prompt, encoded".
    Subjects count three times as much as ground and sky.
    """

    def __init__(
        self,
        modules: tuple[WanTransformer3DModel, UMT5EncoderModel, PreTrainedTokenizerFast],
        shelves: dict[str, WanShelf],
        seed: int,
        steps: int,
        diet: Diet,
    ) -> None:
        self.denoiser, self.text, self.tokenizer = modules
        self.shelves, self.diet = shelves, diet
        self.seed, self.steps = seed, steps
        self.noise = Flow(build_scheduler().config)
        self.device = next(self.denoiser.parameters()).device

    def __call__(self, step: int) -> Losses:
        draw, done = Draw(self.seed, 12, step), step / self.steps
        if draw.chance(1, self.diet.clip_share)[0]:
            return self._losses(draw, "clips", self.diet.clips)
        name = "lone" if draw.chance(1, self.diet.lone_at(done))[0] else "pictures"
        return self._losses(draw, name, self.diet.pictures)

    def _losses(self, draw: Draw, name: str, count: int) -> Losses:
        shelf = self.shelves[name]
        chosen = draw.indices(len(shelf.shelf.worlds), count)
        latents = shelf.latents[chosen].to(self.device)
        cover = shelf.coverage[chosen].to(self.device).float() / 255
        captions = shelf.shelf.grounded(chosen, draw.numpy)
        dropped = draw.chance(len(chosen), 0.1)
        captions = [("", []) if drop else one for drop, one in zip(dropped, captions, strict=True)]
        texts, mentions = zip(*captions, strict=True)
        states, real = self._read(texts)
        told = phrase_tokens(self.tokenizer, texts, mentions)[..., : real.shape[1]].to(self.device)
        noise, times = draw.normal(latents), self._times(draw, len(chosen))
        noisy = self.noise.mix(latents, noise, times)
        patch = self.denoiser.config.patch_size
        time, down, across = (
            size // part for size, part in zip(latents.shape[2:], patch, strict=True)
        )
        sites = text_sites(self.denoiser, (time, down, across))
        with watch(self.denoiser, sites, told, real) as tape:
            predicted = self._predict(noisy, times, states, real)
        error = (predicted - self.noise.target(latents, noise, times)).square()
        weight = (1 + 2 * cover.sum(2))[:, None].expand_as(error)
        return {
            "pictures" if latents.shape[2] == 1 else "clips": (error * weight).sum() / weight.sum(),
            "grounding": self.diet.grounding * grounding_loss(tape.maps(), cover),
        }

    def _read(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """States (row, token, dim) and which are real, one padding at least in each row."""
        read = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(
            self.device
        )
        states = self.text(read.input_ids, attention_mask=read.attention_mask).last_hidden_state
        real = nn.functional.pad(read.attention_mask.bool(), (0, 1))
        return nn.functional.pad(states, (0, 0, 0, 1)) * real[..., None], real

    def _predict(self, noisy: Tensor, times: Tensor, states: Tensor, real: Tensor) -> Tensor:
        """As with all paddings; see `one_padding`."""
        bias = torch.zeros(real.shape, device=self.device).masked_fill(~real, -math.inf)
        bias[:, -1] = (TOKENS - real.sum(1)).float().log()
        handles = [one_padding(block.attn2, bias[:, None, None]) for block in self.denoiser.blocks]
        try:
            found: Tensor = self.denoiser(noisy, times, states).sample
        finally:
            for handle in handles:
                handle.remove()
        return found

    def _times(self, draw: Draw, count: int) -> Tensor:
        drawn = self.noise.draw_times(count, draw.torch)
        evenly = 1000 * torch.rand(count, generator=draw.torch)
        flat = torch.rand(count, generator=draw.torch) < _FLAT
        return torch.where(flat, evenly, drawn).to(self.device)
