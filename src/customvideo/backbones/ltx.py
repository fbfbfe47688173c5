"""LTX-Video: a text-to-video diffusion transformer with cross-attention to T5's text.

HaCohen et al. 2024 (arXiv 2501.00103). One class answers the `Backbone` protocol for any folder in
the format of diffusers' LTXPipeline. Its autoencoder makes one position of 32x32 pixels and eight
frames, so clips are short sequences; inside, latents are (row, position, channel), outside as for
all families.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import LTXPipeline
from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift
from torch import Tensor

from customvideo.attention.site import AttentionSite
from customvideo.backbones.base import TextStates, TextTable
from customvideo.backbones.folder import Card
from customvideo.backbones.modules import remember
from customvideo.backbones.noise import Flow
from customvideo.backbones.transformer import Loaded, Transformer, load_pipeline, t5_table
from customvideo.errors import BackboneError, ConfigError

__all__ = ["Ltx", "load", "load_ltx"]

_TOKENS = 128
"""Text tokens the network reads, padding included; the number is the pipeline's own."""
_PARTS = ("tokenizer", "text_encoder", "vae", "transformer")
_DECODING_SEED = 0


class Ltx(Transformer):
    """A frozen LTXPipeline model.

    The encoder reads padding like text, so every text has the full length; the denoiser does not
    see what was padding, and neither do the maps (`TextStates.real`).

    Decoding the same latents gives the same pixels. Decoders since LTX-Video 0.9.1 take the last
    denoising step themselves: they are told `decode_timestep` and get noise mixed into the latents,
    `decode_noise_scale` of it. Both are 0, as in the pipeline, and mean nothing to other decoders.
    Whatever noise such a decoder draws comes from a fixed seed.
    """

    family = "ltx"

    def __init__(self, loaded: Loaded, device: torch.device) -> None:
        super().__init__(loaded, device)
        self.decode_timestep = 0.0
        self.decode_noise_scale = 0.0
        vae = self._pipeline.vae
        self._table = t5_table(self._pipeline, _TOKENS)
        shape = (1, vae.config.latent_channels, 1, 1, 1)
        self._mean = vae.latents_mean.float().view(shape)
        self._deviation = vae.latents_std.float().view(shape) / vae.config.scaling_factor
        self._noise = _noise(loaded.scheduler_config, self.latent_shape(1, *self.size))

    @property
    def noise(self) -> Flow:
        return self._noise

    def tables(self) -> list[TextTable]:
        return [self._table]

    def _encode(self, texts: Sequence[str]) -> TextStates:
        read = self._table.tokenizer(
            list(texts),
            padding="max_length",
            max_length=_TOKENS,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        ids = read.input_ids.to(self.text_device)
        states = self._pipeline.text_encoder(ids).last_hidden_state
        return TextStates(states, ids, real=read.attention_mask.to(self.text_device).bool())

    @torch.no_grad()
    def encode_frames(self, frames: Tensor) -> Tensor:
        latents: Tensor = (self._codes(frames) - self._mean) / self._deviation
        return latents

    @torch.no_grad()
    def decode_frames(self, latents: Tensor) -> Tensor:
        codes = latents.to(self.device).float() * self._deviation + self._mean
        pixels = torch.cat([self._decode(row[None]) for row in codes]).float()
        return pixels.transpose(1, 2).clamp(-1, 1)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        vae = self._pipeline.vae
        time, space = vae.temporal_compression_ratio, vae.spatial_compression_ratio
        self._check_frames(frames, time)
        if min(height, width) < 1 or height % space or width % space:
            raise BackboneError(
                f"Backbone '{self.name}' cannot make {height}x{width} pixels: choose a height and "
                f"a width that are multiples of {space}."
            )
        channels = vae.config.latent_channels
        return channels, (frames - 1) // time + 1, height // space, width // space

    def sites(self, frames: int, height: int, width: int) -> list[AttentionSite]:
        _, *grid = self.latent_shape(frames, height, width)
        paths = [
            f"transformer_blocks.{index}.attn2"
            for index in range(len(self._pipeline.transformer.transformer_blocks))
        ]
        heads = self._pipeline.transformer.config.num_attention_heads
        # The stream goes into these attentions as it is, past no norm.
        return [
            AttentionSite(
                path, "cross", (grid[0], grid[1], grid[2]), heads, f"{path}.to_k", f"{path}.to_v"
            )
            for path in paths
        ]

    @contextmanager
    def cached_text(self, text: TextStates, negative: TextStates | None = None) -> Iterator[None]:
        """Keys and values of these very texts are made once for every site.

        Each site's `to_k` and `to_v`, hooks on them included, answer from memory what they are
        asked again.
        """
        with super().cached_text(text, negative), ExitStack() as undo:
            network = self._pipeline.transformer
            remember(network, "caption_projection", undo)
            for block in network.transformer_blocks:
                remember(block.attn2, "to_k", undo)
                remember(block.attn2, "to_v", undo)
            yield

    def _predict(self, latents: Tensor, times: Tensor, text: TextStates) -> Tensor:
        time, down, across = latents.shape[2:]
        vae = self._pipeline.vae
        found = self._pipeline.transformer(
            hidden_states=latents.flatten(2).transpose(1, 2).to(self.dtype),
            encoder_hidden_states=text.states.to(self.dtype),
            timestep=times,
            encoder_attention_mask=text.real,
            num_frames=time,
            height=down,
            width=across,
            # Positions are counted in seconds and pixels.
            rope_interpolation_scale=(
                vae.temporal_compression_ratio / self.fps,
                vae.spatial_compression_ratio,
                vae.spatial_compression_ratio,
            ),
            return_dict=False,
        )[0]
        # (row, position, channel), positions frame by frame
        prediction: Tensor = found.transpose(1, 2).reshape(latents.shape).to(latents.dtype)
        return prediction

    def _decode(self, codes: Tensor) -> Tensor:
        """Pixels (1, 3, frame, height, width) of one row of the autoencoder's own codes."""
        vae, told = self._pipeline.vae, None
        codes = codes.to(vae.dtype)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(_DECODING_SEED)
            if vae.config.timestep_conditioning:
                noise, share = torch.randn_like(codes), self.decode_noise_scale
                codes = (1 - share) * codes + share * noise
                told = codes.new_tensor([self.decode_timestep])
            pixels: Tensor = vae.decode(codes, told).sample
        return pixels


def _noise(config: Mapping[str, Any], picture: tuple[int, ...]) -> Flow:
    """The flow that a scheduler `config` describes; `picture` is the shape of a lone frame's
    latents.

    The more positions, the further times are shifted towards noise: those that a solver visits by
    the positions of what it draws, those drawn in training by a picture's, which training is on.
    """
    if not config.get("use_dynamic_shifting", False):
        return Flow(config, times=_schedule)
    return Flow(config, _shift(config, _mu(config, math.prod(picture[1:]))), _schedule)


def _schedule(solver: Any, steps: int, latents: Tensor) -> None:
    """Tell a diffusers scheduler the times that LTXPipeline visits for `latents` of this size."""
    config, positions = solver.config, math.prod(latents.shape[2:])
    mu = _mu(config, positions)
    if "sigmas" not in inspect.signature(solver.set_timesteps).parameters:
        # DPM-Solver++ takes a shift alone.
        if config.get("use_dynamic_shifting", False):
            solver.register_to_config(flow_shift=_shift(config, mu))
        solver.set_timesteps(steps, device=latents.device)
        return
    if steps < 2 and config.get("shift_terminal"):
        raise ConfigError("LTX-Video's times cannot be spread over 1 step: choose at least 2.")
    sigmas = np.linspace(1.0, 1 / steps, steps)
    solver.set_timesteps(sigmas=sigmas, mu=mu, device=latents.device)


def _mu(config: Mapping[str, Any], positions: int) -> float:
    """The pipeline's own measure of how far times are shifted for so many latent positions."""
    mu: float = calculate_shift(
        positions,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )
    return mu


def _shift(config: Mapping[str, Any], mu: float) -> float:
    """The k of `Flow` that `mu` means."""
    return mu if config.get("time_shift_type") == "linear" else math.exp(mu)


def load(name: str | Path, device: str = "auto", dtype: str = "auto") -> Ltx:
    """Load an LTXPipeline folder, or a model by its hub id.

    Raises:
        BackboneError: it is incomplete, damaged, of another kind, or cannot be fetched.
    """
    usual = Card("", fps=25.0, frames=161, size=(512, 704))
    loaded, where = load_pipeline(name, LTXPipeline, usual, _PARTS, device, dtype)
    return Ltx(loaded, where)


def load_ltx(device: str = "auto", dtype: str = "auto") -> Ltx:
    """LTX-Video 2B: 161 frames of 512x704."""
    return load("Lightricks/LTX-Video", device, dtype)
