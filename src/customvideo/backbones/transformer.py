"""What text-to-video models with a diffusion transformer have in common.

Their pipelines are stock diffusers classes, loaded whole; a family's own file says how texts are
read, how latents are counted and where text attention sits. It is NOT a pipeline: drawing is
`sampling.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import CacheMixin, FirstBlockCacheConfig
from safetensors import SafetensorError
from torch import Tensor, nn

from customvideo.attention.site import AttentionSite
from customvideo.backbones.base import LayerGroup, TextStates, TextTable
from customvideo.backbones.eight_bits import EIGHT_BITS, eight_bits, require_eight_bits
from customvideo.backbones.folder import (
    Card,
    check_part,
    fetch,
    fingerprint,
    has,
    loading_failed,
    placed,
    quiet_loading,
    read_json,
)
from customvideo.backbones.modules import weighted
from customvideo.backbones.noise import Noise
from customvideo.backbones.reading import Reading
from customvideo.backbones.stock import copied
from customvideo.errors import BackboneError, ConfigError
from customvideo.files import expanded

__all__ = ["Loaded", "Transformer", "joined", "load_pipeline", "t5_table"]


@dataclass(frozen=True, eq=False)
class Loaded:
    """A stock pipeline, and what its folder says of it."""

    pipeline: Any
    card: Card
    fingerprint: str
    scheduler_config: dict[str, Any]


class Transformer(Reading):
    """A frozen diffusion transformer; see `Backbone` for what its methods promise.

    A family says below what differs: the noise process, how prompts are encoded, the shape of
    latents, one call of the network, and its sites. `checkpointed` recomputes activations in the
    backward pass.
    """

    family: ClassVar[str]
    encoders: ClassVar[tuple[str, ...]] = ("text_encoder",)
    """The pipeline's attributes that read text, the one that learns words first."""

    def __init__(self, loaded: Loaded, device: torch.device) -> None:
        card = loaded.card
        card.announce()
        self.name, self.licence, self.fps, self.frames = (
            card.name,
            card.licence,
            card.fps,
            card.frames,
        )
        self.size, self.known_nouns, self.known_words = (
            card.size,
            card.known_nouns,
            card.known_words,
        )
        self.shipped_prior: Path | None = card.shipped_prior
        self.fingerprint = loaded.fingerprint
        self._pipeline = loaded.pipeline
        for part in self._pipeline.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval().to(device)
        self._device = device
        self._checkpointed = False
        self._memory: tuple[TextStates, TextStates | None, TextStates] | None = None

    # What a family answers.

    @property
    def noise(self) -> Noise:
        raise NotImplementedError

    def encode_frames(self, frames: Tensor) -> Tensor:
        raise NotImplementedError

    def decode_frames(self, latents: Tensor) -> Tensor:
        raise NotImplementedError

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        raise NotImplementedError

    def sites(self, frames: int, height: int, width: int) -> list[AttentionSite]:
        raise NotImplementedError

    def tables(self) -> list[TextTable]:
        raise NotImplementedError

    def _predict(self, latents: Tensor, times: Tensor, text: TextStates) -> Tensor:
        """One call of the network: latents and prediction (row, channel, frame, height, width)."""
        raise NotImplementedError

    # What they share.

    def _check_frames(self, frames: int, step: int) -> None:
        """Refuse lengths other than 1, step + 1, 2 * step + 1, …: the first frame stands alone."""
        if frames < 1 or frames % step != 1 % step:
            near = max(1, round((frames - 1) / step) * step + 1)
            raise BackboneError(
                f"Backbone '{self.name}' makes 1, {step + 1}, {2 * step + 1}, … frames, not "
                f"{frames}: choose {near}."
            )

    def _codes(self, frames: Tensor) -> Tensor:
        """What the autoencoder makes of frames (row, frame, 3, height, width) in [-1, 1], float32
        (row, channel, frame, height, width)."""
        self.latent_shape(frames.shape[1], *frames.shape[-2:])
        vae = self._pipeline.vae
        pixels = frames.to(self.device, vae.dtype).transpose(1, 2)
        return torch.cat([vae.encode(row[None]).latent_dist.mode() for row in pixels]).float()

    def _pixels(self, codes: Tensor) -> Tensor:
        """The reverse of `_codes`, within [-1, 1]."""
        vae = self._pipeline.vae
        pixels = [vae.decode(row[None]).sample for row in codes.to(vae.dtype)]
        return torch.cat(pixels).float().transpose(1, 2).clamp(-1, 1)

    @property
    def denoiser(self) -> nn.Module:
        module: nn.Module = self._pipeline.transformer
        return module

    def stock(self) -> Any:
        """The stock pipeline with copies of the same weights."""
        return copied(self._pipeline)

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._pipeline.transformer.dtype
        return dtype

    def move_text(self, device: torch.device) -> None:
        """Move the text encoders, which go on encoding where they are."""
        for name in self.encoders:
            getattr(self._pipeline, name).to(device)

    @property
    def checkpointed(self) -> bool:
        return self._checkpointed

    @checkpointed.setter
    def checkpointed(self, wanted: bool) -> None:
        self._checkpointed = wanted
        network: Any
        for network in self.denoiser.modules():
            if hasattr(network, "enable_gradient_checkpointing"):
                if wanted:
                    network.enable_gradient_checkpointing(self.recompute)
                else:
                    network.disable_gradient_checkpointing()

    def predict(self, latents: Tensor, times: Tensor, text: TextStates) -> Tensor:
        told = self._told(text, None)
        with self.reads(told.ids), self._asked("text"):
            return self._predict(latents, times.to(latents.device), told)

    def predict_guided(
        self, latents: Tensor, time: Tensor, text: TextStates, negative: TextStates, guidance: float
    ) -> Tensor:
        times = time.reshape(-1)[:1].to(latents.device).expand(2 * len(latents))
        told = self._told(text, negative)
        with self.reads(told.ids), self._asked("both"):
            both = self._predict(latents.repeat(2, 1, 1, 1, 1), times, told)
        without, within = both.chunk(2)
        return without + guidance * (within - without)

    def layer(self, path: str) -> nn.Module:
        head, _, rest = path.partition(".")
        module = getattr(self._pipeline, head) if head in self.encoders else self.denoiser
        found: nn.Module = module.get_submodule(rest if head in self.encoders else path)
        return found

    def layers(self, group: LayerGroup) -> list[str]:
        sites = self.sites(1, *self.size)
        if group == "text_kv":
            return [path for site in sites for path in (site.key, site.value)]
        if group == "text_qo":
            return [f"{site.path}.{part}" for site in sites for part in ("to_q", "to_out.0")]
        if group == "self":
            return self._self_layers()
        if group.startswith("encoder"):
            paths = [
                f"{encoder}.{path}"
                for encoder in self.encoders
                for path in weighted(getattr(self._pipeline, encoder))
            ]
            return [path for path in paths if group == "encoder" or self._attends(path)]
        # Nothing here is for moving pictures alone, so a lone frame needs all of it.
        return weighted(self.denoiser)

    def _self_layers(self) -> list[str]:
        """Projections of the attention that video positions pay to each other."""
        parts = ("to_q", "to_k", "to_v", "to_out.0")
        blocks = [site.path.rpartition(".")[0] for site in self.sites(1, *self.size)]
        return [f"{block}.attn1.{part}" for block in blocks for part in parts]

    @staticmethod
    def _attends(path: str) -> bool:
        """Whether an encoder's layer is a projection of its attention."""
        return ".SelfAttention." in path or ".self_attn." in path

    @contextmanager
    def cached_text(self, text: TextStates, negative: TextStates | None = None) -> Iterator[None]:
        """The joined halves are made once; a family may do more."""
        before, told = self._memory, joined(text, negative)
        # In the network's type now, or it would be another tensor in every call.
        self._memory = (text, negative, replace(told, states=told.states.to(self.dtype)))
        try:
            yield
        finally:
            self._memory = before

    @contextmanager
    def reusing(self, threshold: float) -> Iterator[None]:
        """Let the blocks behind the first answer as in the last call, where what the first changed
        differs by less than `threshold` of its size (first-block cache, diffusers' own).

        For drawing, without gradient and without listening at attention; the rows of a call are
        judged together.

        Raises:
            ConfigError: diffusers has no such cache for this network.
        """
        networks = self._caching()
        if not networks:
            raise ConfigError(
                f"The backbone '{self.name}' has no blocks whose answers can be used again; set "
                "block_cache=0."
            )
        try:
            for network in networks:
                network.enable_cache(FirstBlockCacheConfig(threshold=threshold))
            yield
        finally:
            for network in networks:
                if network.is_cache_enabled:
                    network.disable_cache()

    def _caching(self) -> list[Any]:
        return [found for found in self.denoiser.modules() if isinstance(found, CacheMixin)]

    @contextmanager
    def _asked(self, kind: str) -> Iterator[None]:
        """What is kept of calls of another kind, with other rows, is not used in this one."""
        with ExitStack() as undo:
            for network in self._caching():
                if network.is_cache_enabled:
                    undo.enter_context(network.cache_context(kind))
            yield

    def _told(self, text: TextStates, negative: TextStates | None) -> TextStates:
        """What the network is told, the negative half first."""
        known = self._memory
        if known is not None and known[0] is text and known[1] is negative:
            return known[2]
        return joined(text, negative)


def joined(text: TextStates, negative: TextStates | None) -> TextStates:
    """Both halves of guidance in one, the negative first; its one row serves all."""
    if negative is None:
        return text
    rows = text.rows

    def both(without: Tensor | None, within: Tensor | None) -> Tensor | None:
        if without is None or within is None:
            return None
        return torch.cat([without.expand(rows, *without.shape[1:]), within])

    states, ids = both(negative.states, text.states), both(negative.ids, text.ids)
    assert states is not None and ids is not None
    return TextStates(
        states, ids, both(negative.real, text.real), both(negative.pooled, text.pooled)
    )


def t5_table(pipeline: Any, length: int) -> TextTable:
    """The input table of a T5-like `text_encoder`, which reads `length` tokens."""
    return TextTable(
        tokenizer=pipeline.tokenizer,
        # The encoder calls this module, whose weight the table of `get_input_embeddings` only
        # shares: a hook on that one would see nothing.
        embedding=pipeline.text_encoder.encoder.embed_tokens,
        max_length=length,
        closes_up=True,
    )


def load_pipeline(
    name: str | Path, cls: Any, usual: Card, parts: Sequence[str], device: str, dtype: str
) -> tuple[Loaded, torch.device]:
    """A stock pipeline of class `cls` from a folder or by its hub id, and where it shall run.

    `usual` is what to say of a model that says nothing of itself; `parts` are folders that it has
    at least. The networks among these, and among all that its own list names, make its fingerprint.
    The autoencoder stays in float32, as half precision shows in pictures.

    Raises:
        BackboneError: it is of another class, incomplete, damaged, or cannot be fetched.
    """
    where, weights = placed(device, dtype)
    if dtype in EIGHT_BITS:
        require_eight_bits(dtype)
    local = expanded(name)
    folder = local if local.is_dir() else fetch(str(name))
    parts = _check(folder, cls.__name__, parts)
    _check_reader(folder)
    types = {"default": weights, "vae": torch.float32}
    try:
        with quiet_loading():
            pipeline = cls.from_pretrained(
                folder,
                torch_dtype=types,
                # No other format, which might be a pickle.
                use_safetensors=True,
                local_files_only=True,
            )
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise loading_failed(folder, error) from error
    networks = {
        part: network
        for part in parts
        if isinstance(network := getattr(pipeline, part, None), nn.Module)
    }
    configs = [f"{part}/config.json" for part in networks]
    card = Card.read(folder, usual) if local.is_dir() else Card.of_hub(str(name), folder, usual)
    found = Loaded(
        pipeline,
        card,
        fingerprint(folder, networks, configs),
        read_json(folder / "scheduler" / "scheduler_config.json"),
    )
    if dtype in EIGHT_BITS:
        eight_bits((network for name, network in networks.items() if name != "vae"), dtype)
    return found, where


def _check(folder: Path, kind: str, parts: Sequence[str]) -> list[str]:
    """`parts` and all others that the folder's list names, each of them there."""
    wanted = f"give a complete diffusers folder, as {kind}.save_pretrained writes it."
    if not has(folder, "model_index.json"):
        raise BackboneError(
            f"Backbone folder '{folder}' lacks the list of parts (model_index.json): {wanted}"
        )
    index = read_json(folder / "model_index.json")
    if index.get("_class_name") != kind:
        raise BackboneError(
            f"Backbone folder '{folder}' holds a {index.get('_class_name')}, not a {kind}: {wanted}"
        )
    listed = [name for name, entry in index.items() if isinstance(entry, list) and entry[0]]
    every = list(dict.fromkeys([*parts, "scheduler", *listed]))
    for part in every:
        check_part(folder, part, wanted)
    return every


def _check_reader(folder: Path) -> None:
    """Refuse a tokenizer that only a package which is not here could read."""
    for model in folder.glob("tokenizer*/*.model"):
        if not has(model.parent, "tokenizer.json") and find_spec("sentencepiece") is None:
            raise BackboneError(
                f"The tokenizer in '{model.parent}' is read by the package sentencepiece, which is "
                "not installed: pip install sentencepiece protobuf."
            )
