"""What every text-to-video model must offer, and the table of models known by name.

A method, the trainer and the sampler see a model only through the `Backbone` protocol, so a new
family is one new file and one row of `BACKBONES`. It is NOT a model zoo: nothing here loads
weights or knows a network's inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from customvideo.errors import BackboneError
from customvideo.files import expanded, is_dir
from customvideo.records import parse_json
from customvideo.settings import suggest
from customvideo.tables import all_rows, import_target

if TYPE_CHECKING:
    from customvideo.attention.site import AttentionSite
    from customvideo.backbones.noise import Noise

__all__ = [
    "BACKBONES",
    "FAMILIES",
    "Backbone",
    "JointText",
    "LayerGroup",
    "TextStates",
    "TextTable",
    "backbone_rows",
    "called",
    "draws_toys",
    "family_of",
    "guided_inside",
    "load_backbone",
    "recipes_of",
]

BACKBONES: dict[str, str] = {
    "toybox": "customvideo.toybox.backbone:load",
    "zeroscope": "customvideo.backbones.unet3d:load_zeroscope",
    "modelscope": "customvideo.backbones.unet3d:load_modelscope",
    "animatediff": "customvideo.backbones.animatediff:load_animatediff",
    "wan-1.3b": "customvideo.backbones.wan:load_wan_small",
    "wan-14b": "customvideo.backbones.wan:load_wan_large",
    "wan2.2-5b": "customvideo.backbones.wan:load_wan22_small",
    "wan2.2-14b": "customvideo.backbones.wan:load_wan22_large",
    "ltx": "customvideo.backbones.ltx:load_ltx",
    "cogvideox-2b": "customvideo.backbones.cogvideox:load_small",
    "cogvideox-5b": "customvideo.backbones.cogvideox:load_large",
    "hunyuan": "customvideo.backbones.hunyuan:load_hunyuan",
}
"""Name -> "module:factory"; a factory takes (device, dtype) strings and returns a `Backbone`."""

FAMILIES: dict[str, str] = {
    "TextToVideoSDPipeline": "customvideo.backbones.unet3d:load",
    "AnimateDiffPipeline": "customvideo.backbones.animatediff:load",
    "WanPipeline": "customvideo.backbones.wan:load",
    "LTXPipeline": "customvideo.backbones.ltx:load",
    "CogVideoXPipeline": "customvideo.backbones.cogvideox:load",
    "HunyuanVideoPipeline": "customvideo.backbones.hunyuan:load",
}
"""Class of a stock pipeline -> who loads its folders: a function of a folder or hub id, a device
and a dtype."""

_HUBS = {
    "cerspense/zeroscope_v2_576w": "zeroscope",
    "ali-vilab/text-to-video-ms-1.7b": "modelscope",
    "wan-ai/wan2.1-t2v-1.3b-diffusers": "wan-1.3b",
    "wan-ai/wan2.1-t2v-14b-diffusers": "wan-14b",
    "wan-ai/wan2.2-ti2v-5b-diffusers": "wan2.2-5b",
    "wan-ai/wan2.2-t2v-a14b-diffusers": "wan2.2-14b",
    "lightricks/ltx-video": "ltx",
    "thudm/cogvideox-2b": "cogvideox-2b",
    "zai-org/cogvideox-2b": "cogvideox-2b",
    "thudm/cogvideox-5b": "cogvideox-5b",
    "zai-org/cogvideox-5b": "cogvideox-5b",
    "hunyuanvideo-community/hunyuanvideo": "hunyuan",
}
"""Hub id in lower case -> row of the table."""

_ENTRY_POINTS = "customvideo.backbones"
_FACTORY = "customvideo.backbones.folder:load"


LayerGroup = Literal[
    "text_kv", "text_qo", "self", "spatial", "denoiser", "encoder_attention", "encoder"
]
"""Layers that methods train, see `Backbone.layers`."""


@dataclass
class TextTable:
    """One tokenizer with the input embedding its ids index.

    `tokenizer` is replaceable: learned words put an extended copy here and take it back.
    `embedding` is the module that is really called, so a forward hook on it sees every lookup.
    `added`, if there is one, is what learned words add to the encoder's states where they stand:
    ids (row, token) -> (row, token, dim). The encoder's own states of a prompt are then the same
    each time, and are kept in `memory`, on the CPU.
    `closes_up` says that a learned word takes the space before it along: tokenizers that write
    spaces into their pieces would else leave one of nothing but that space.
    """

    tokenizer: Any
    embedding: nn.Module
    max_length: int
    added: Callable[[Tensor], Tensor] | None = None
    memory: dict[str, TextStates] = field(default_factory=dict)
    closes_up: bool = False


@dataclass(frozen=True, eq=False)
class TextStates:
    """Encoded prompts: `states` (row, token, dim) and the `ids` (row, token) they came from.

    Attributes:
        real: bool (row, token), False where there is only padding; None where the model was taught
            to read its padding like text, as CLIP's readers are.
        pooled: (row, dim), for models that are told the whole prompt in one vector, too.
    """

    states: Tensor
    ids: Tensor
    real: Tensor | None = None
    pooled: Tensor | None = None

    @property
    def rows(self) -> int:
        return self.states.shape[0]


@runtime_checkable
class Backbone(Protocol):
    """A frozen text-to-video model. Latents are (row, channel, frame, height, width)."""

    name: str
    family: str
    fingerprint: str
    """sha256 hex of architecture and weights: two backbones are the same if these agree."""
    licence: str | None
    fps: float
    frames: int
    """Default clip length."""
    size: tuple[int, int]
    """Default (height, width) in pixels."""
    known_nouns: frozenset[str]
    """Category nouns the model is known to draw; empty if unknown."""
    known_words: frozenset[str] | None
    """Every word the model was trained on, or None for an open vocabulary."""
    shipped_prior: Path | None
    """Class-prior latents that come with the model: safetensors, "<category>/<frames>" ->
    (sample, channel, frame, height, width)."""

    @property
    def denoiser(self) -> nn.Module: ...

    @property
    def noise(self) -> Noise: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def encode_prompt(self, texts: Sequence[str]) -> TextStates:
        """Encode prompts, padded to the model's length; differentiable through learned rows."""
        ...

    def encode_frames(self, frames: Tensor) -> Tensor:
        """(row, frame, 3, height, width) in [-1, 1] -> scaled latents, without gradient."""
        ...

    def decode_frames(self, latents: Tensor) -> Tensor:
        """Scaled latents -> (row, frame, 3, height, width) in [-1, 1], without gradient."""
        ...

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(channel, frame, height, width) of the latents of a clip given in pixels."""
        ...

    def predict(self, latents: Tensor, times: Tensor, text: TextStates) -> Tensor:
        """One denoiser call at `times` (row,): the prediction, shaped like `latents`."""
        ...

    def predict_guided(
        self, latents: Tensor, time: Tensor, text: TextStates, negative: TextStates, guidance: float
    ) -> Tensor:
        """Classifier-free guidance (Ho & Salimans 2022): n + guidance * (p - n), both halves at
        once; inside, text attention sees (2 * row) rows, the negative half first. `negative`
        has one row, used for all, or as many as `text`. `guidance` may be a tensor that broadcasts
        with the latents, for several at the price of one.

        A network that was distilled to be told `guidance` (see `guided_inside`) is called once,
        with `text` alone; `negative` is not read, and `predict` is guidance by 1."""
        ...

    def sites(self, frames: int, height: int, width: int) -> list[AttentionSite]:
        """Where text is read, for a clip of this size in pixels, in the order of execution."""
        ...

    def layer(self, path: str) -> nn.Module:
        """The module at `path`: of a text encoder if it starts with the encoder's name (as in
        `text_encoder.encoder.layers.0.mlp.fc1`), else of the denoiser. Raises AttributeError if
        there is none."""
        ...

    def layers(self, group: LayerGroup) -> list[str]:
        """The paths, as `layer` takes them, of all layers that

        - "text_kv": make keys and values of text, "text_qo": make the queries for them or what
          comes out of them, at every site;
        - "self": are projections of the attention within a frame;
        - "denoiser": carry weights in the denoiser, "spatial": those a lone frame needs;
        - "encoder_attention": are projections of the text encoders' attention;
        - "encoder": carry weights in the text encoders, their embedding tables left out.
        """
        ...

    def tables(self) -> list[TextTable]:
        """The text encoders' input tables, the main one first."""
        ...

    def cached_text(
        self, text: TextStates, negative: TextStates | None = None
    ) -> AbstractContextManager[None]:
        """Project these very texts once for all predictions made inside; adapters that are to
        count must be attached before, and a `watch` must be opened after, this context."""
        ...


@runtime_checkable
class JointText(Protocol):
    """What a `Backbone` answers besides, some of whose layers read text and video together."""

    def text_rows(self, path: str) -> slice:
        """Which positions a delta of the layer at `path` may change, of its input (row, position,
        dim): the text's where it makes keys and values of text, all elsewhere."""
        ...


def guided_inside(model: object) -> bool:
    """Whether a backbone, or what stands before one, is told the guidance instead of being asked
    twice: such ones have an attribute of this name that is True."""
    return bool(getattr(model, "guided_inside", False))


_LONGEST_ID = 200


def load_backbone(name: str | Path, device: str = "auto", dtype: str = "auto") -> Backbone:
    """Load a model by a name of the table, from a diffusers folder, or by its hub id.

    `device` is "auto" (CUDA if there is one) or a torch device; `dtype` is "auto" (float32 on
    CPU), "fp32", "bf16" or "fp16", or "int8" or "fp8" for "auto" with frozen weights in 8 bits.

    Raises:
        BackboneError: the name is unknown, or the model is incomplete or cannot be fetched.
    """
    text = str(name)
    rows = backbone_rows()
    if text in rows:
        backbone: Backbone = import_target(rows[text])(device=device, dtype=dtype)
        return backbone
    if not is_dir(expanded(text)):
        _check_hub(text, rows)
    loaded: Backbone = import_target(_FACTORY)(text, device=device, dtype=dtype)
    return loaded


def backbone_rows() -> dict[str, str]:
    """The table's rows and those of installed packages."""
    return all_rows(BACKBONES, _ENTRY_POINTS)


def family_of(name: str) -> str | None:
    """The family of the model that `load_backbone` would load, if that can be said without
    loading or fetching anything: the name of the module that it belongs to."""
    rows = backbone_rows()
    name = _HUBS.get(name.lower(), name)
    if name in rows:
        module = rows[name].partition(":")[0].rpartition(".")[2]
        return module if module in _families().values() else None
    try:
        index = parse_json((expanded(name) / "model_index.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return _families().get(str(index.get("_class_name"))) if isinstance(index, dict) else None


def recipes_of(name: str) -> str | None:
    """The backbone whose packaged recipes a folder's own `customvideo.json` asks for, by its key
    `recipes`: a model may be of a family and want other rates than the family's large ones."""
    said = _card(name).get("recipes")
    return said if isinstance(said, str) else None


def called(name: str) -> str:
    """What `load_backbone` would call the model: what a folder's own `customvideo.json` says, or
    the folder's name; anything else goes by the name that was given."""
    folder = expanded(name)
    return str(_card(name).get("name", folder.resolve().name if is_dir(folder) else name))


def draws_toys(name: str) -> bool:
    """Whether a model of this name draws the toybox's world, which has judges of its own."""
    return name == "toybox" or name.startswith("toybox-")


def _card(name: str) -> dict[str, Any]:
    try:
        card = parse_json((expanded(name) / "customvideo.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def _families() -> dict[str, str]:
    """Class of a stock pipeline -> family."""
    return {kind: target.partition(":")[0].rpartition(".")[2] for kind, target in FAMILIES.items()}


def _check_hub(text: str, rows: Mapping[str, str]) -> None:
    """Refuse what cannot be a hub id at all."""
    elsewhere = text.startswith((".", "~", "/", "\\")) or text.count("/") > 1
    if elsewhere or len(text) > _LONGEST_ID or Path(text).exists():
        raise BackboneError(
            f"No backbone folder '{text}': give a folder with a model_index.json, "
            f"or one of {', '.join(sorted(rows))}."
        )
    if "/" not in text:
        raise BackboneError(
            f"There is no backbone '{text}'{suggest(text, sorted(rows))} A diffusers folder will "
            "do, too, or a hub id such as 'cerspense/zeroscope_v2_576w'."
        )
