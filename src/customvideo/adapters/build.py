"""A new adapter for some subjects: where words start, which layers get a delta, what the file says.

Training starts from what is made here, and nothing here looks at a photo.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import PurePath
from typing import Any, Literal

import torch
from pydantic import Field, JsonValue
from torch import Tensor, nn

import customvideo
from customvideo.adapters.adapter import Adapter
from customvideo.adapters.deltas import (
    BottleneckDelta,
    Delta,
    FullDelta,
    LowRankDelta,
    WeightDelta,
)
from customvideo.adapters.gates import GateKind
from customvideo.adapters.header import AdapterHeader, WordRecord
from customvideo.adapters.tokens import LearnedTokens, WordSpace, check_words, table_rows
from customvideo.backbones.base import Backbone, TextTable
from customvideo.errors import AdapterError
from customvideo.settings import LARGEST_SEED, Settings
from customvideo.subjects.prompt import LearnedWord
from customvideo.subjects.subject import Subject

__all__ = ["AdapterConfig", "DeltaSpec", "initial_rows", "key_value_paths", "new_adapter"]

# Tokens with hardly any meaning of their own: Custom Diffusion's three, then DreamBooth's and
# DisenStudio's. A vocabulary without them spells them, and the pieces' mean is as meaningless.
_RARE = ("ktn", "pll", "ucd", "sks", "krk", "slk", "ofk")

# Of the table's deviation: enough to tell the vectors of one word apart, too little to move it.
_NOISE = 0.05

_PACKAGES = ("diffusers", "safetensors", "torch", "transformers")


class AdapterConfig(Settings):
    """How much is learned, and where it starts."""

    vectors: int = Field(default=1, ge=1, le=8)
    """Embedding rows a word."""
    initial: Literal["category", "rare", "random"] = "category"
    """What a word means before training: its category, a rare token, or nothing."""
    rank: int | None = Field(default=None, ge=1)
    """Rank of the deltas that say none of their own; None for full matrices."""
    alpha: float | None = Field(default=None, gt=0)
    """Scale of low-rank deltas times their rank; None for a scale of 1."""
    space: WordSpace = "input"
    """Where the words are learned; those of the space "output" start as their category, whatever
    `initial` says."""
    gate: GateKind = "none"
    """Where the deltas are heard: everywhere, at the learned words, or at these and the token after
    each."""
    seed: int | None = Field(default=None, ge=0, le=LARGEST_SEED)
    """For what is random in the beginning; None for torch's own seed, in training the run's."""


@dataclass(frozen=True)
class DeltaSpec:
    """Which delta a layer gets.

    Attributes:
        kind: "linear" adds to a linear layer's output; "weight" to the weight and bias of any
            layer; "bottleneck" stands beside the text attention at a site's own path.
        rank: rank of a linear delta; None for a full matrix.
        holds_first: the first text position trains nothing through a linear delta's layer, as in
            Custom Diffusion; gradients differ, values do not. For keys and values.
    """

    kind: Literal["linear", "weight", "bottleneck"] = "linear"
    rank: int | None = None
    holds_first: bool = False


def new_adapter(
    backbone: Backbone,
    subjects: Sequence[Subject],
    *,
    method: str,
    paths: Sequence[str] | Mapping[str, DeltaSpec] | None = None,
    config: AdapterConfig | None = None,
    settings: Mapping[str, JsonValue] | None = None,
) -> Adapter:
    """An untrained adapter with one word per subject; the backbone is left as it is.

    Args:
        backbone: whose text encoder and layers it extends.
        subjects: whom the words name, in this order.
        method: the method's name, for the header.
        paths: layers that get a delta, as `backbone.layers` names them: each with what it gets,
            or linear layers that all get one of the configured rank; None for the keys and values
            of all text attention, as CustomVideo trains; empty for words alone.
        config: how much is learned.
        settings: the run's settings, for the header; absolute paths in it lose their folder.

    Raises:
        PromptError: the text encoder already knows a word.
        AdapterError: a path leads to no layer that can get its delta.
    """
    config = config or AdapterConfig()
    words = [LearnedWord(s.name, s.category, config.vectors) for s in subjects]
    table = backbone.tables()[0]
    check_words(table.tokenizer, words)
    seed = torch.initial_seed() if config.seed is None else config.seed
    generator = torch.Generator().manual_seed(seed)
    rows = initial_rows(table, words, config.initial, generator)
    if config.space == "output":
        _check_output(table, backbone)
        rows = torch.zeros_like(rows)
    if paths is None:
        paths = key_value_paths(backbone)
    if not isinstance(paths, Mapping):
        paths = dict.fromkeys(paths, DeltaSpec(rank=config.rank))
    if config.gate != "none":
        _check_gated(backbone, paths)
    deltas = {
        path: _new_delta(backbone, path, spec, config.alpha, generator)
        for path, spec in paths.items()
    }
    header = AdapterHeader(
        method=method,
        family=backbone.family,
        backbone=_portable_text(backbone.name),
        fingerprint=backbone.fingerprint,
        words=tuple(WordRecord(name=w.name, category=w.category, vectors=w.vectors) for w in words),
        photos={subject.name: subject.digest for subject in subjects},
        alpha=config.alpha,
        gate=config.gate,
        space=config.space,
        settings={key: _portable(value) for key, value in (settings or {}).items()},
        versions=_versions(),
    )
    return Adapter(header, LearnedTokens(words, rows.shape[-1], rows, config.space), deltas)


def _check_output(table: TextTable, backbone: Backbone) -> None:
    """Refuse words at the output of an encoder whose states are of another width."""
    width = backbone.encode_prompt([""]).states.shape[-1]
    if width != table_rows(table).shape[-1]:
        raise AdapterError(
            f"The text encoder of '{backbone.name}' reads vectors of {table_rows(table).shape[-1]} "
            f"numbers and puts out {width}, so no word can be learned at its output; set "
            "word_space=input."
        )


def key_value_paths(backbone: Backbone) -> list[str]:
    """The linear layers that make keys and values of text, at every site of the backbone."""
    return backbone.layers("text_kv")


def initial_rows(
    table: TextTable,
    words: Sequence[LearnedWord],
    initial: Literal["category", "rare", "random"],
    generator: torch.Generator,
) -> Tensor:
    """Where the words' vectors start, float32 (row, dim) on the CPU.

    "category" is the mean embedding of the category's tokens, as in DreamVideo; "rare" that of a
    rare token, another for each word, as in Custom Diffusion; "random" is drawn with the mean and
    deviation of the table. A word's later vectors get a little noise on top.
    """
    embeddings = table_rows(table).detach().float().cpu()
    spread, mean = torch.std_mean(embeddings, dim=0)
    rows = []
    for index, word in enumerate(words):
        noise = spread * torch.randn(word.vectors, len(spread), generator=generator)
        if initial == "random":
            rows.append(mean + noise)
            continue
        text = word.category if initial == "category" else _RARE[index % len(_RARE)]
        ids = table.tokenizer.encode(text, add_special_tokens=False)
        noise[0] = 0
        rows.append(embeddings[ids].mean(dim=0) + _NOISE * noise)
    return torch.cat(rows) if rows else embeddings[:0]


def _check_gated(backbone: Backbone, paths: Mapping[str, DeltaSpec]) -> None:
    readers = set(key_value_paths(backbone))
    for path, spec in paths.items():
        if path not in readers or spec.kind != "linear":
            raise AdapterError(
                f"What is added to '{path}' cannot be held to learned words: only keys and values "
                "of text can; train these alone (train=kv), or set gate=none."
            )


def _new_delta(
    backbone: Backbone,
    path: str,
    spec: DeltaSpec,
    alpha: float | None,
    generator: torch.Generator,
) -> Delta:
    try:
        layer: Any = backbone.layer(path)
    except AttributeError:
        layer = None
    if spec.kind == "weight" and isinstance(getattr(layer, "weight", None), Tensor):
        return WeightDelta(layer.weight, getattr(layer, "bias", None))
    if spec.kind == "bottleneck":
        for site in backbone.sites(backbone.frames, *backbone.size):
            if site.path == path and site.norm:
                norm: Any = backbone.layer(site.norm)
                return BottleneckDelta(len(norm.weight), generator=generator)
    if spec.kind != "linear" or not isinstance(layer, nn.Linear):
        kinds = {"linear": "linear layer", "weight": "layer with a weight"}
        raise AdapterError(
            f"'{backbone.name}' has no {kinds.get(spec.kind, 'text attention')} '{path}' to adapt; "
            "take the paths from the backbone's own layers and sites."
        )
    shape, held = (layer.out_features, layer.in_features), spec.holds_first
    if spec.rank is None:
        return FullDelta(*shape, holds_first=held)
    return LowRankDelta(*shape, spec.rank, alpha=alpha, holds_first=held, generator=generator)


def _versions() -> dict[str, str]:
    ours = {"customvideo": customvideo.__version__}
    return ours | {package: version(package) for package in _PACKAGES}


def _portable(value: Any) -> JsonValue:
    """`value` with every absolute path reduced to its last part: whose disk it was is private."""
    if isinstance(value, str):
        return _portable_text(value)
    if isinstance(value, dict):
        return {str(key): _portable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(inner) for inner in value]
    kept: JsonValue = value
    return kept


def _portable_text(text: str) -> str:
    path = PurePath(text)
    return path.name if path.is_absolute() else text
