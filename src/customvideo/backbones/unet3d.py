"""ZeroScope, ModelScope and the toybox: text-to-video models built on UNet3DConditionModel.

One class answers the `Backbone` protocol for any folder in the format of diffusers'
TextToVideoSDPipeline. Reading such folders is `unet3d_files.py`, the network's forward pass is
`unet3d_forward.py`; this file is NOT concerned with training, sampling or adapters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from customvideo.attention.site import AttentionSite
from customvideo.backbones.base import LayerGroup, TextStates, TextTable
from customvideo.backbones.folder import Card, fetch
from customvideo.backbones.modules import weighted
from customvideo.backbones.noise import Ddpm
from customvideo.backbones.reading import Reading, joined_ids
from customvideo.backbones.stock import assembled
from customvideo.backbones.unet3d_files import Parts, read_parts, usual_card
from customvideo.backbones.unet3d_forward import Passage, forward, prepare
from customvideo.errors import BackboneError, ConfigError
from customvideo.files import expanded

__all__ = [
    "SINGLE_FRAME_MODES",
    "UNet3D",
    "load",
    "load_folder",
    "load_hub",
    "load_modelscope",
    "load_zeroscope",
    "text_sites",
]

SINGLE_FRAME_MODES = ("run", "skip", "repeat")

# 33 modules of ZeroScope are named attn2; those of temp_attentions and transformer_in attend to
# themselves over time. "attentions" is a part of "temp_attentions", hence the anchors.
_TEXT_SITE = re.compile(r"(^|\.)attentions\.\d+\..*attn2$")
_TEMPORAL = re.compile(r"(^|\.)(temp_attentions|temp_convs|transformer_in)(\.|$)")
_ENCODER_ATTENTION = re.compile(r"\.self_attn\.(q|k|v|out)_proj$")
_ENCODER = "text_encoder"
_ORDER = ("down_blocks", "mid_block", "up_blocks")
_ZEROSCOPE = "cerspense/zeroscope_v2_576w"
_MODELSCOPE = "ali-vilab/text-to-video-ms-1.7b"
_PICKLED = frozenset(
    {
        *(_ZEROSCOPE, "cerspense/zeroscope_v2_XL"),
        *(_MODELSCOPE, "damo-vilab/text-to-video-ms-1.7b"),
    }
)
"""Published before safetensors was usual."""
_FRAMES_AT_ONCE = 8
"""Frames per autoencoder call: bounds memory, whatever the clip's length."""


class UNet3D(Reading):
    """A frozen TextToVideoSDPipeline model; see `Backbone` for what its methods promise.

    `single_frame` says how one frame, that is a picture, goes through the temporal modules: "run"
    (as the stock model does), "skip" them, or "repeat" the picture to a whole clip and average
    the predictions over it. `checkpointed` recomputes activations in the backward pass.
    """

    family = "unet3d"

    def __init__(self, parts: Parts, card: Card) -> None:
        card.announce()
        self.name = card.name
        self.licence = card.licence
        self.fingerprint = parts.fingerprint
        self.fps = card.fps
        self.frames = card.frames
        self.size = card.size
        self.known_nouns = card.known_nouns
        self.known_words = card.known_words
        self.shipped_prior = card.shipped_prior
        self.checkpointed = False
        self._single_frame = "run"
        self._noise = Ddpm(parts.scheduler_config)
        self._unet, self._vae, self._text_encoder = parts.unet, parts.vae, parts.text_encoder
        prepare(self._unet, text_sites(self._unet))
        # eval() for good: 66 dropouts sit in the temporal convolutions of a model this size.
        for module in (self._unet, self._vae, self._text_encoder):
            module.requires_grad_(False).eval()
        self._table = TextTable(
            tokenizer=parts.tokenizer,
            embedding=self._text_encoder.get_input_embeddings(),
            max_length=parts.tokenizer.model_max_length,
        )
        self._cached: tuple[TextStates, TextStates | None, Tensor] | None = None

    @property
    def denoiser(self) -> nn.Module:
        module: nn.Module = self._unet
        return module

    @property
    def noise(self) -> Ddpm:
        return self._noise

    @property
    def device(self) -> torch.device:
        # Of one weight: asking the model goes through all its modules, at every prediction.
        device: torch.device = self._unet.conv_in.weight.device
        return device

    def move_text(self, device: torch.device) -> None:
        """Move the text encoder, which goes on encoding where it is."""
        self._text_encoder.to(device)

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._unet.conv_in.weight.dtype
        return dtype

    @property
    def single_frame(self) -> str:
        return self._single_frame

    @single_frame.setter
    def single_frame(self, mode: str) -> None:
        if mode not in SINGLE_FRAME_MODES:
            raise ConfigError(
                f"Unknown single_frame '{mode}': choose one of {', '.join(SINGLE_FRAME_MODES)}."
            )
        self._single_frame = mode

    def _encode(self, texts: Sequence[str]) -> TextStates:
        ids: Tensor = self._table.tokenizer(
            list(texts),
            padding="max_length",
            max_length=self._table.max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids.to(self.text_device)
        return TextStates(self._text_encoder(ids)[0], ids)

    @torch.no_grad()
    def encode_frames(self, frames: Tensor) -> Tensor:
        row, frame = frames.shape[:2]
        self._check_size(frame, *frames.shape[-2:])
        pictures = frames.to(self.device, self._vae.dtype).flatten(0, 1)
        # The mean, not a sample: the same picture always has the same latents.
        codes = [
            self._vae.encode(chunk).latent_dist.mode()
            for chunk in torch.split(pictures, _FRAMES_AT_ONCE)
        ]
        scale: float = self._vae.config.scaling_factor
        latents = torch.cat(codes).float() * scale
        return latents.reshape(row, frame, *latents.shape[1:]).transpose(1, 2)

    @torch.no_grad()
    def decode_frames(self, latents: Tensor) -> Tensor:
        row, _, frame = latents.shape[:3]
        codes = (latents / self._vae.config.scaling_factor).transpose(1, 2).flatten(0, 1)
        codes = codes.to(self.device, self._vae.dtype)
        pictures = torch.cat(
            [self._vae.decode(chunk).sample for chunk in torch.split(codes, _FRAMES_AT_ONCE)]
        ).float()
        return pictures.reshape(row, frame, *pictures.shape[1:])

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        self._check_size(frames, height, width)
        factor = self._vae_factor
        return self._unet.config.in_channels, frames, height // factor, width // factor

    def predict(self, latents: Tensor, times: Tensor, text: TextStates) -> Tensor:
        with self.reads(text.ids):
            return self._predict(latents, times, self._join(text, None))

    def predict_guided(
        self, latents: Tensor, time: Tensor, text: TextStates, negative: TextStates, guidance: float
    ) -> Tensor:
        with self.reads(joined_ids(text, negative)):
            both = self._predict(latents, time.reshape(-1)[:1], self._join(text, negative))
        without, within = both.chunk(2)
        return without + guidance * (within - without)

    def site_states(self, states: Tensor) -> Tensor:
        """Encoded texts as the sites read them: here, as they are."""
        return states

    def sites(self, frames: int, height: int, width: int) -> list[AttentionSite]:
        _, frames, latent_height, latent_width = self.latent_shape(frames, height, width)
        if frames == 1 and self._single_frame == "repeat":
            frames = self.frames
        return attention_sites(self._unet, frames, latent_height, latent_width)

    def layer(self, path: str) -> nn.Module:
        head, _, rest = path.partition(".")
        module: nn.Module = self._text_encoder if head == _ENCODER else self._unet
        return module.get_submodule(rest if head == _ENCODER else path)

    def layers(self, group: LayerGroup) -> list[str]:
        sites = text_sites(self._unet)
        if group == "text_kv":
            return [f"{path}.{part}" for path in sites for part in ("to_k", "to_v")]
        if group == "text_qo":
            return [f"{path}.{part}" for path in sites for part in ("to_q", "to_out.0")]
        if group == "self":
            parts = ("to_q", "to_k", "to_v", "to_out.0")
            return [f"{_block(path)}.attn1.{part}" for path in sites for part in parts]
        if group.startswith("encoder"):
            paths = [f"{_ENCODER}.{path}" for path in weighted(self._text_encoder)]
            attention = group == "encoder_attention"
            return [path for path in paths if not attention or _ENCODER_ATTENTION.search(path)]
        whole = group == "denoiser"
        return [path for path in weighted(self._unet) if whole or not _TEMPORAL.search(path)]

    def tables(self) -> list[TextTable]:
        return [self._table]

    def stock(self) -> Any:
        """The stock pipeline with copies of the same weights."""
        parts = {
            "vae": self._vae,
            "text_encoder": self._text_encoder,
            "tokenizer": self._table.tokenizer,
        }
        return assembled("TextToVideoSDPipeline", self._unet, parts, self._noise.config)

    @contextmanager
    def cached_text(self, text: TextStates, negative: TextStates | None = None) -> Iterator[None]:
        """Project `text` (and `negative`) once at every site, for all predictions inside.

        For generation: nothing inside has a gradient through the text. Each site's `to_k` and
        `to_v` is replaced by a module that answers these very texts from memory and passes any
        other on, so a misplaced prompt is slow, never wrong. Hooks already on the projections (an
        adapter's) are counted once, here; an attention tape hooks whatever stands at `to_k` when
        it opens, so it must be opened inside this context.
        """
        outer = self._cached
        states = self._join(text, negative)
        attentions = [self._unet.get_submodule(path) for path in text_sites(self._unet)]
        originals = [(attn, attn.to_k, attn.to_v) for attn in attentions]
        try:
            with self.reads(joined_ids(text, negative)):
                for attn, key, value in originals:
                    attn.to_k, attn.to_v = _Remembered(key, states), _Remembered(value, states)
            self._cached = (text, negative, states)
            yield
        finally:
            self._cached = outer
            for attn, key, value in originals:
                attn.to_k, attn.to_v = key, value

    @property
    def _vae_factor(self) -> int:
        return 1 << (len(self._vae.config.block_out_channels) - 1)

    def _check_size(self, frames: int, height: int, width: int) -> None:
        factor = self._vae_factor
        if frames < 1 or min(height, width) < factor or height % factor or width % factor:
            raise BackboneError(
                f"Backbone '{self.name}' cannot make {frames} frames of {height}x{width} pixels: "
                f"choose at least 1 frame, and a height and width that are multiples of {factor}."
            )

    def _join(self, text: TextStates, negative: TextStates | None) -> Tensor:
        """The denoiser's text (row or 2 * row, token, dim), negative half first."""
        if self._cached is not None and self._cached[0] is text and self._cached[1] is negative:
            return self._cached[2]
        states = text.states
        if negative is not None:
            states = torch.cat([negative.states.expand(text.rows, -1, -1), states])
        return states.to(self.dtype)

    def _predict(self, latents: Tensor, times: Tensor, states: Tensor) -> Tensor:
        frames = latents.shape[2]
        repeated = frames == 1 and self._single_frame == "repeat"
        if repeated:
            frames = self.frames
        passage = Passage(
            states,
            frames,
            temporal=frames > 1 or self._single_frame != "skip",
            recompute=self.recompute if self.checkpointed else None,
        )
        seen = latents.to(self.dtype).expand(-1, -1, frames, -1, -1)
        prediction = forward(self._unet, seen, times.to(self.device), passage).to(latents.dtype)
        return prediction.mean(dim=2, keepdim=True) if repeated else prediction


class _Remembered(nn.Module):
    """A projection that has already answered `states` and passes any other input on."""

    def __init__(self, module: nn.Module, states: Tensor) -> None:
        super().__init__()
        # In a tuple, or it would be registered and rename the parameters while cached.
        self._module = (module,)
        self._states = states
        with torch.no_grad():
            self._answer: Tensor = module(states)

    def forward(self, states: Tensor) -> Tensor:
        if states is self._states:
            return self._answer
        answer: Tensor = self._module[0](states)
        return answer


def text_sites(unet: nn.Module) -> list[str]:
    """Paths of the modules where the picture reads the text, in the order of execution."""
    paths = [path for path, _ in unet.named_modules() if _TEXT_SITE.search(path)]
    return sorted(paths, key=lambda path: _ORDER.index(path.split(".")[0]))


def attention_sites(unet: Any, frames: int, height: int, width: int) -> list[AttentionSite]:
    """The same with their grids, for latents of `frames` frames, `height` x `width` cells."""
    levels = len(unet.config.block_out_channels)
    found = []
    for path in text_sites(unet):
        # Each level's strided convolution rounds an odd side up.
        scale = 2 ** _level(path, levels)
        grid = (frames, -(-height // scale), -(-width // scale))
        heads: int = unet.get_submodule(path).heads
        key, value, norm = f"{path}.to_k", f"{path}.to_v", f"{_block(path)}.norm2"
        found.append(AttentionSite(path, "cross", grid, heads, key, value, norm))
    return found


def _block(site: str) -> str:
    """The transformer block around the text attention at `site`."""
    return site.rpartition(".")[0]


def load_folder(
    folder: Path | str, device: str = "auto", dtype: str = "auto", card: Card | None = None
) -> UNet3D:
    """Load a TextToVideoSDPipeline folder; `card` overrides what the folder says of itself.

    Raises:
        BackboneError: a piece is missing, damaged, or of another kind of model.
    """
    place = expanded(folder)
    parts = read_parts(place, device, dtype)
    return UNet3D(parts, card if card is not None else Card.read(place, usual_card(parts)))


def load(name: str, device: str = "auto", dtype: str = "auto") -> UNet3D:
    """Load a folder, or a model by its hub id; raises as `load_folder` and `load_hub`."""
    way = load_folder if expanded(name).is_dir() else load_hub
    return way(name, device, dtype)


def load_hub(name: str, device: str = "auto", dtype: str = "auto") -> UNet3D:
    """Load a model by its hub id, from the local cache if it is there.

    Raises:
        BackboneError: it can neither be fetched nor found in the cache, or is another kind.
    """
    place = fetch(name)
    parts = read_parts(place, device, dtype, pickled=name in _PICKLED)
    return UNet3D(parts, Card.of_hub(name, place, usual_card(parts)))


def load_zeroscope(device: str = "auto", dtype: str = "auto") -> UNet3D:
    """ZeroScope v2 576w: 24 frames of 320x576, the base model of the CustomVideo paper."""
    return load_hub(_ZEROSCOPE, device, dtype)


def load_modelscope(device: str = "auto", dtype: str = "auto") -> UNet3D:
    """ModelScope text-to-video 1.7B: 16 frames of 256x256, ZeroScope's ancestor."""
    return load_hub(_MODELSCOPE, device, dtype)


def _level(path: str, levels: int) -> int:
    """How often the latents have been halved where the site at `path` runs."""
    side, *rest = path.split(".")
    if side == "mid_block":
        return levels - 1
    index = int(rest[0])
    return index if side == "down_blocks" else levels - 1 - index
