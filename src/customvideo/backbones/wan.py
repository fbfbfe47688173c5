"""Wan 2.1 and 2.2: text-to-video diffusion transformers with cross-attention to UMT5's text.

Wan Team 2025 (arXiv 2503.20314). One class answers the `Backbone` protocol for any folder in the
format of diffusers' WanPipeline: 2.1 T2V-1.3B and -14B, 2.2 TI2V-5B, whose network is told a time
for every token, and 2.2 T2V-A14B, where one expert removes much noise and another the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import WanPipeline
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from torch import Tensor, nn

from customvideo.attention.site import AttentionSite
from customvideo.backbones.base import TextStates, TextTable
from customvideo.backbones.folder import Card, has, read_json
from customvideo.backbones.modules import remember
from customvideo.backbones.noise import Flow, FlowRelay
from customvideo.backbones.transformer import Loaded, Transformer, load_pipeline, t5_table
from customvideo.errors import BackboneError
from customvideo.files import expanded

__all__ = [
    "TOKENS",
    "Wan",
    "load",
    "load_wan22_large",
    "load_wan22_small",
    "load_wan_large",
    "load_wan_small",
    "text_sites",
]

TOKENS = 512
"""Text tokens the network reads, padding included; the number is the models' own."""
_CHUNK = 4
"""Frames the autoencoder reads at once, after the first; however many of them share a latent, it
would drop a rest without a word."""
_PARTS = ("tokenizer", "text_encoder", "vae", "transformer")


class Wan(Transformer):
    """A frozen WanPipeline model.

    Padding reaches the network as zero vectors that it attends to like text: a learned word among
    500 of them would be paid next to nothing, so `TextStates.real` tells them apart for the maps.
    """

    family = "wan"

    def __init__(self, loaded: Loaded, device: torch.device) -> None:
        super().__init__(loaded, device)
        pipeline, flow = self._pipeline, Flow(loaded.scheduler_config)
        self._noise = flow
        self._experts = {"transformer": pipeline.transformer}
        self._denoiser = pipeline.transformer
        boundary = pipeline.config.boundary_ratio
        if pipeline.transformer_2 is not None and boundary is not None:
            self._noise = FlowRelay(loaded.scheduler_config, boundary * float(flow.last))
            self._experts["transformer_2"] = pipeline.transformer_2
            self._denoiser = nn.ModuleDict(self._experts).eval()
        self._padding = int(pipeline.tokenizer.pad_token_id)
        self._table = t5_table(pipeline, TOKENS)
        config = pipeline.vae.config
        shape = (1, config.z_dim, 1, 1, 1)
        self._mean = torch.tensor(config.latents_mean).view(shape).to(device)
        self._deviation = torch.tensor(config.latents_std).view(shape).to(device)

    @property
    def denoiser(self) -> nn.Module:
        module: nn.Module = self._denoiser
        return module

    @property
    def noise(self) -> Flow:
        return self._noise

    def tables(self) -> list[TextTable]:
        return [self._table]

    def _encode(self, texts: Sequence[str]) -> TextStates:
        read = self._table.tokenizer(
            [prompt_clean(text) for text in texts],
            padding=True,
            max_length=TOKENS,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        ids, real = (
            read.input_ids.to(self.text_device),
            read.attention_mask.to(self.text_device).bool(),
        )
        # What is masked changes nothing for the rest, so the padding need not be encoded.
        found = self._pipeline.text_encoder(ids, attention_mask=real.long()).last_hidden_state
        states = found * real[..., None]
        more = TOKENS - ids.shape[1]
        return TextStates(
            nn.functional.pad(states, (0, 0, 0, more)),
            nn.functional.pad(ids, (0, more), value=self._padding),
            real=nn.functional.pad(real, (0, more)),
        )

    @torch.no_grad()
    def encode_frames(self, frames: Tensor) -> Tensor:
        return (self._codes(frames) - self._mean) / self._deviation

    @torch.no_grad()
    def decode_frames(self, latents: Tensor) -> Tensor:
        return self._pixels(latents.to(self.device).float() * self._deviation + self._mean)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        config = self._pipeline.vae.config
        time, space = config.scale_factor_temporal, config.scale_factor_spatial
        step = [space * patch for patch in self._patch[1:]]
        self._check_frames(frames, _CHUNK)
        if min(height, width) < 1 or height % step[0] or width % step[1]:
            raise BackboneError(
                f"Backbone '{self.name}' cannot make {height}x{width} pixels: choose a height "
                f"that is a multiple of {step[0]} and a width that is one of {step[1]}."
            )
        return config.z_dim, (frames - 1) // time + 1, height // space, width // space

    def sites(self, frames: int, height: int, width: int) -> list[AttentionSite]:
        _, *latent = self.latent_shape(frames, height, width)
        time, down, across = (
            size // patch for size, patch in zip(latent, self._patch, strict=True)
        )
        grid, found = (time, down, across), []
        for leg, (name, network) in enumerate(self._experts.items()):
            prefix = f"{name}." if len(self._experts) > 1 else ""
            found += text_sites(network, grid, prefix, leg)
        return found

    @contextmanager
    def cached_text(self, text: TextStates, negative: TextStates | None = None) -> Iterator[None]:
        """Keys and values of these very texts are made once for every site.

        Each site's `to_k` and `to_v`, hooks on them included, answer from memory what they are
        asked again.
        """
        with super().cached_text(text, negative), ExitStack() as undo:
            for network in self._experts.values():
                embedder = network.condition_embedder
                remember(embedder, "text_embedder", undo)
                for block in network.blocks:
                    remember(block.attn2, "to_k", undo)
                    remember(block.attn2, "to_v", undo)
            yield

    @property
    def _patch(self) -> tuple[int, int, int]:
        patch: tuple[int, int, int] = tuple(next(iter(self._experts.values())).config.patch_size)
        return patch

    def _predict(self, latents: Tensor, times: Tensor, text: TextStates) -> Tensor:
        states = text.states.to(self.dtype)
        if not isinstance(self._noise, FlowRelay):
            return self._call(self._pipeline.transformer, latents, times, states)
        legs, found = self._noise.leg_of(times), torch.empty_like(latents)
        for leg, network in enumerate(self._experts.values()):
            rows = legs == leg
            if bool(rows.all()):
                return self._call(network, latents, times, states)
            if bool(rows.any()):
                with self.reads(text.ids[rows]):
                    found[rows] = self._call(network, latents[rows], times[rows], states[rows])
        return found

    def _call(self, network: Any, latents: Tensor, times: Tensor, states: Tensor) -> Tensor:
        if self._pipeline.config.expand_timesteps:
            tokens = math.prod(latents.shape[2:]) // math.prod(self._patch)
            times = times[:, None].expand(-1, tokens)
        found: Tensor = network(
            hidden_states=latents.to(self.dtype),
            timestep=times,
            encoder_hidden_states=states,
            return_dict=False,
        )[0]
        return found.to(latents.dtype)


def text_sites(
    network: Any, grid: tuple[int, int, int], prefix: str = "", leg: int = 0
) -> list[AttentionSite]:
    """Where one `WanTransformer3DModel` reads text, at a grid of (frame, height, width) positions;
    its paths begin with `prefix`."""
    return [
        AttentionSite(
            f"{prefix}blocks.{index}.attn2",
            "cross",
            grid,
            block.attn2.heads,
            f"{prefix}blocks.{index}.attn2.to_k",
            f"{prefix}blocks.{index}.attn2.to_v",
            f"{prefix}blocks.{index}.norm2" if network.config.cross_attn_norm else "",
            leg=leg,
        )
        for index, block in enumerate(network.blocks)
    ]


def load(name: str | Path, device: str = "auto", dtype: str = "auto") -> Wan:
    """Load a WanPipeline folder, or a model by its hub id.

    Raises:
        BackboneError: it is incomplete, damaged, of another kind, or cannot be fetched.
    """
    loaded, where = load_pipeline(name, WanPipeline, _usual(name), _PARTS, device, dtype)
    return Wan(loaded, where)


def _usual(name: str | Path) -> Card:
    """What to say of a folder that says nothing of itself, by the kind of network in it."""
    index = expanded(name) / "model_index.json"
    told = read_json(index) if has(index.parent, index.name) else {}
    if told.get("expand_timesteps"):
        return Card("", fps=24.0, frames=121, size=(704, 1280))
    return Card("", fps=16.0, frames=81, size=(480, 832))


def load_wan_small(device: str = "auto", dtype: str = "auto") -> Wan:
    """Wan 2.1 T2V 1.3B: 81 frames of 480x832."""
    return load("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", device, dtype)


def load_wan_large(device: str = "auto", dtype: str = "auto") -> Wan:
    """Wan 2.1 T2V 14B: 81 frames of 480x832."""
    return load("Wan-AI/Wan2.1-T2V-14B-Diffusers", device, dtype)


def load_wan22_small(device: str = "auto", dtype: str = "auto") -> Wan:
    """Wan 2.2 TI2V 5B: 121 frames of 704x1280, 24 a second."""
    return load("Wan-AI/Wan2.2-TI2V-5B-Diffusers", device, dtype)


def load_wan22_large(device: str = "auto", dtype: str = "auto") -> Wan:
    """Wan 2.2 T2V A14B, two experts: 81 frames of 480x832."""
    return load("Wan-AI/Wan2.2-T2V-A14B-Diffusers", device, dtype)
