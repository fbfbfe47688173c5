"""CogVideoX: text-to-video diffusion transformers where text and video share one attention.

Yang et al. 2024 (arXiv 2408.06072). One class answers the `Backbone` protocol for any folder in the
format of diffusers' CogVideoXPipeline: 2B, which adds a table of positions to what it reads, and
5B, which turns queries and keys by them. It is NOT for 1.5, which joins latent frames in pairs,
nor for the models that continue a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import CogVideoXPipeline
from torch import Tensor

from customvideo.attention.site import AttentionSite
from customvideo.backbones.base import TextStates, TextTable
from customvideo.backbones.folder import Card
from customvideo.backbones.noise import Ddpm
from customvideo.backbones.transformer import Loaded, Transformer, load_pipeline, t5_table
from customvideo.errors import BackboneError

__all__ = ["CogVideoX", "load", "load_large", "load_small"]

_PARTS = ("tokenizer", "text_encoder", "vae", "transformer")


class CogVideoX(Transformer):
    """A frozen CogVideoXPipeline model.

    It was taught to read its padding like text, so no position of text is left out anywhere. Keys
    and values of text are made by the layers that make those of video; `text_rows` says which
    positions are the text's, and a delta of them changes no other.
    """

    family = "cogvideox"

    def __init__(self, loaded: Loaded, device: torch.device) -> None:
        _check_kind(loaded)
        super().__init__(loaded, device)
        self._noise = Ddpm(loaded.scheduler_config)
        pipeline = self._pipeline
        self._tokens = int(pipeline.transformer.config.max_text_seq_length)
        self._table = t5_table(pipeline, self._tokens)

    @property
    def noise(self) -> Ddpm:
        return self._noise

    def tables(self) -> list[TextTable]:
        return [self._table]

    def _encode(self, texts: Sequence[str]) -> TextStates:
        read = self._table.tokenizer(
            list(texts),
            padding="max_length",
            max_length=self._tokens,
            truncation=True,
            return_tensors="pt",
        )
        ids = read.input_ids.to(self.text_device)
        # Without a mask, as in its training: the padding takes part in the text.
        return TextStates(self._pipeline.text_encoder(ids).last_hidden_state, ids)

    @torch.no_grad()
    def encode_frames(self, frames: Tensor) -> Tensor:
        return self._codes(frames) * float(self._pipeline.vae.config.scaling_factor)

    @torch.no_grad()
    def decode_frames(self, latents: Tensor) -> Tensor:
        config = self._pipeline.vae.config
        pixels = self._pixels(latents.to(self.device).float() * (1 / config.scaling_factor))
        # Of an even number of latent frames the decoder makes the first as long as the others:
        # what it begins with are copies of the first picture.
        frames = (latents.shape[2] - 1) * config.temporal_compression_ratio + 1
        return pixels[:, -int(frames) :]

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        vae = self._pipeline.vae.config
        time, space = int(vae.temporal_compression_ratio), self._pipeline.vae_scale_factor_spatial
        step = space * self._pipeline.transformer.config.patch_size
        self._check_frames(frames, time)
        if min(height, width) < 1 or height % step or width % step:
            raise BackboneError(
                f"Backbone '{self.name}' cannot make {height}x{width} pixels: choose a height and "
                f"a width that are multiples of {step}."
            )
        return vae.latent_channels, (frames - 1) // time + 1, height // space, width // space

    def sites(self, frames: int, height: int, width: int) -> list[AttentionSite]:
        _, time, down, across = self.latent_shape(frames, height, width)
        network = self._pipeline.transformer
        patch = network.config.patch_size
        grid = (time, down // patch, across // patch)
        paths = [f"transformer_blocks.{i}.attn1" for i in range(len(network.transformer_blocks))]
        heads = network.config.num_attention_heads
        return [
            AttentionSite(path, "joint", grid, heads, f"{path}.to_k", f"{path}.to_v")
            for path in paths
        ]

    def text_rows(self, path: str) -> slice:
        """The text's positions, in the input of the layer at `path`, are its first."""
        return slice(self._tokens) if path.endswith((".attn1.to_k", ".attn1.to_v")) else slice(None)

    def _predict(self, latents: Tensor, times: Tensor, text: TextStates) -> Tensor:
        # (row, frame, channel, height, width) in the network
        found: Tensor = self._pipeline.transformer(
            hidden_states=latents.to(self.dtype).transpose(1, 2),
            encoder_hidden_states=text.states.to(self.dtype),
            timestep=times,
            image_rotary_emb=self._turns(latents),
            return_dict=False,
        )[0]
        return found.transpose(1, 2).to(latents.dtype)

    def _turns(self, latents: Tensor) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines (position, channel of a head) for models that turn by positions."""
        if not self._pipeline.transformer.config.use_rotary_positional_embeddings:
            return None
        frames, height, width = latents.shape[2:]
        space = self._pipeline.vae_scale_factor_spatial
        turns: tuple[Tensor, Tensor] = self._pipeline._prepare_rotary_positional_embeddings(
            height * space, width * space, frames, latents.device
        )
        return turns


def _check_kind(loaded: Loaded) -> None:
    """Refuse what has the same pipeline, but another network than the class here answers for.

    Raises:
        BackboneError: says what is different.
    """
    network: Any = loaded.pipeline.transformer.config
    strange = {
        "joins latent frames in pairs, as CogVideoX 1.5 does": network.patch_size_t is not None,
        "has learned positions for one size alone": network.use_learned_positional_embeddings,
        "reads a picture beside the text": (
            network.in_channels != loaded.pipeline.vae.config.latent_channels
        ),
    }
    for what, found in strange.items():
        if found:
            raise BackboneError(
                f"Backbone '{loaded.card.name}' {what}, which customvideo cannot use: choose "
                "cogvideox-2b, cogvideox-5b, or a folder of their kind."
            )


def load(name: str | Path, device: str = "auto", dtype: str = "auto") -> CogVideoX:
    """Load a CogVideoXPipeline folder, or a model by its hub id.

    Raises:
        BackboneError: it is incomplete, damaged, of another kind, or cannot be fetched.
    """
    usual = Card("", fps=8.0, frames=49, size=(480, 720))
    loaded, where = load_pipeline(name, CogVideoXPipeline, usual, _PARTS, device, dtype)
    return CogVideoX(loaded, where)


def load_small(device: str = "auto", dtype: str = "auto") -> CogVideoX:
    """CogVideoX 2B: 49 frames of 480x720."""
    return load("THUDM/CogVideoX-2b", device, dtype)


def load_large(device: str = "auto", dtype: str = "auto") -> CogVideoX:
    """CogVideoX 5B: 49 frames of 480x720."""
    return load("THUDM/CogVideoX-5b", device, dtype)
