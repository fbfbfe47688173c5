"""What an adapter file says about itself, and reading such a file back safely.

The file is safetensors, with the header as JSON in its metadata. The header names no folder and
no time, so the same training gives the same bytes. What the tensors mean is
`customvideo.adapters.adapter`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import safetensors
from pydantic import Field, JsonValue, ValidationError
from torch import Tensor

from customvideo.adapters.gates import GateKind
from customvideo.errors import AdapterError, PromptError
from customvideo.files import is_file
from customvideo.records import parse_json
from customvideo.settings import Settings
from customvideo.subjects.prompt import LearnedWord

__all__ = [
    "FORMAT_VERSION",
    "AdapterHeader",
    "WordRecord",
    "is_adapter",
    "metadata",
    "read_file",
    "read_header",
    "require_successor",
]

# 1: words, and deltas of linear layers. 2: deltas of other layers and extras, too. 3: gates, and
# words that were removed.
FORMAT_VERSION = 3

# One key only: safetensors keeps no order among several, and the bytes should be the same.
_FILE = "adapter.safetensors"
_KEY = "customvideo_adapter"


class WordRecord(Settings):
    """One learned word as the file names it."""

    name: str
    category: str
    vectors: int = 1


class AdapterHeader(Settings):
    """What an adapter is, for whom, and made of what."""

    format_version: int = FORMAT_VERSION
    method: str
    """The method's name in the table of methods."""
    family: str
    """The family of the backbone it was made for."""
    backbone: str
    """That backbone's name, without a folder."""
    fingerprint: str
    """That backbone's fingerprint; the adapter fits no other."""
    words: tuple[WordRecord, ...]
    """The learned words, in the order of their rows and of the subjects' masks."""
    space: Literal["input", "output"] = "input"
    """Where the words were learned: in the text encoder's input table, or at its output."""
    photos: dict[str, str] = Field(default_factory=dict)
    """Subject's name -> SHA-256 of its photos and masks."""
    alpha: float | None = None
    """Numerator of the low-rank deltas' scale; None means their rank."""
    gate: GateKind = "none"
    """Where the deltas are heard."""
    parts: tuple[int, ...] = ()
    """How many of the words, in their order, each part of a routed delta belongs to; empty where
    no delta has parts."""
    removed: tuple[str, ...] = ()
    """Names of words that it once had."""
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """The settings it was made with."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Package -> version it was made with."""

    @property
    def learned_words(self) -> tuple[LearnedWord, ...]:
        return tuple(LearnedWord(word.name, word.category, word.vectors) for word in self.words)


def is_adapter(told: Mapping[str, str] | None) -> bool:
    """Whether a file with these metadata is an adapter of this program."""
    return _KEY in (told or {})


def metadata(header: AdapterHeader) -> dict[str, str]:
    """The header as safetensors metadata; equal headers give equal text."""
    return {_KEY: json.dumps(header.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)}


def read_file(path: Path) -> tuple[AdapterHeader, dict[str, Tensor]]:
    """The header and the tensors of an adapter file, on the CPU.

    Raises:
        AdapterError: there is no such file, or it is no complete adapter of a known format.
    """
    with _opened(path) as file:
        header = _parse(path, (file.metadata() or {}).get(_KEY))
        return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def read_header(path: Path) -> AdapterHeader:
    """The header of an adapter file alone; raises as `read_file`."""
    with _opened(path) as file:
        return _parse(path, (file.metadata() or {}).get(_KEY))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if is_file(path / _FILE):
        raise AdapterError(f"'{path}' is a folder; give '{path / _FILE}'.")
    if not is_file(path):
        raise AdapterError(
            f"There is no adapter file '{path}'; give the adapter.safetensors that training wrote."
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except safetensors.SafetensorError as error:
        raise AdapterError(
            f"'{path}' is not an adapter, or only a part of one was copied ({error}); give a "
            "complete adapter.safetensors."
        ) from error
    except OSError as error:
        raise AdapterError(
            f"The adapter file '{path}' cannot be read ({error.strerror or error}); check its "
            "permissions."
        ) from error


def require_successor(header: AdapterHeader, earlier: AdapterHeader) -> None:
    """Refuse an adapter that training as `header` says cannot go on from.

    Raises:
        AdapterError: says what differs.
    """
    for name, ours, theirs in (
        ("backbone", header.fingerprint, earlier.fingerprint),
        ("method", header.method, earlier.method),
        ("gate", header.gate, earlier.gate),
        ("space of words", header.space, earlier.space),
    ):
        # Weights alone, as another trainer leaves them, belong to no method and have no words.
        if ours != theirs and (earlier.words or name in ("backbone", "gate")):
            raise AdapterError(
                f"The earlier adapter has another {name}, so training cannot go on from it; "
                f"train with the {name} that it was trained with."
            )
    if len(earlier.parts) > 1:
        raise AdapterError(
            "The earlier adapter was merged of gated ones, each with deltas of its own, so there "
            "is nothing to go on from; train the new subject alone and merge it with them."
        )
    missing = [word.name for word in earlier.words if word not in header.words]
    if missing:
        raise AdapterError(
            f"The earlier adapter's subject '{missing[0]}' is not among those to be trained, or is "
            "there with another category or number of vectors; give it as it was."
        )


def _parse(path: Path, text: str | None) -> AdapterHeader:
    if text is None:
        raise AdapterError(
            f"'{path}' holds weights but is not a customvideo adapter; give the "
            "adapter.safetensors that training wrote."
        )
    damaged = f"The header of '{path}' is damaged; copy the file again, or train again."
    try:
        version = _version(parse_json(text))
    except ValueError as error:
        raise AdapterError(damaged) from error
    if version > FORMAT_VERSION:
        raise AdapterError(
            f"'{path}' has format {version}, made by a newer customvideo than this one, which "
            f"knows formats up to {FORMAT_VERSION}; update customvideo."
        )
    try:
        header = AdapterHeader.model_validate_json(text)
        _ = header.learned_words
    except (ValidationError, PromptError) as error:
        raise AdapterError(damaged) from error
    return header


def _version(header: Any) -> int:
    version = header.get("format_version") if isinstance(header, dict) else None
    return version if isinstance(version, int) else 0
