"""How strongly a LoRA of another program counts: alpha over rank, wherever alpha is told.

Trainers of kohya's line write an alpha beside each layer's matrices. PEFT keeps it in a config
beside the file, diffusers in the file's metadata, both with exceptions by layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from customvideo.errors import AdapterError
from customvideo.records import parse_json

__all__ = ["Scales"]

_METADATA = "lora_adapter_metadata"
"""Diffusers' own key: a JSON object of `transformer.lora_alpha` and the like."""
_PLAIN = re.compile(r"\^?[\w.]+")


@dataclass(frozen=True)
class Scales:
    """What configs say of a file's layers: first part of their names, or "", -> PEFT's config."""

    configs: Mapping[str, Mapping[str, Any]]
    source: str

    @classmethod
    def of(cls, path: Path, metadata: Mapping[str, str] | None) -> Scales:
        """Those of the file at `path`, which has that metadata.

        Raises:
            AdapterError: a config cannot be read.
        """
        told = (metadata or {}).get(_METADATA)
        if told is not None:
            return cls(_by_part(_object(told, str(path))), str(path))
        config = path.parent / "adapter_config.json"
        if not config.is_file() or not path.stem.startswith("adapter_model"):
            return cls({}, str(path))
        try:
            found = _object(config.read_text("utf-8"), str(config))
        except (OSError, ValueError) as error:
            raise AdapterError(f"'{config}' cannot be read; copy it again.") from error
        if "lora_alpha" not in found:
            raise AdapterError(f"'{config}' says no lora_alpha; copy it again.")
        return cls({"": found}, str(config))

    def scale(self, name: str, rank: int) -> float:
        """What the product of the layer that the file calls `name` is multiplied by, as in PEFT:
        alpha / rank, or alpha / sqrt(rank) of a rank-stabilised one; 1 where nothing is told.

        Raises:
            AdapterError: what is told is no number, or a pattern that only PEFT understands.
        """
        config = self.configs.get(name.partition(".")[0], self.configs.get("", {}))
        if not config:
            return 1.0
        alpha = config.get("lora_alpha", rank)
        patterns = config.get("alpha_pattern") or {}
        if not isinstance(patterns, Mapping) or not all(map(_PLAIN.fullmatch, patterns)):
            raise AdapterError(
                f"'{self.source}' has an alpha_pattern that is not read here; write layers "
                "by their names."
            )
        for pattern, own in patterns.items():
            if f".{name}".endswith(f".{pattern.removeprefix('^')}"):
                alpha = own
                break
        if isinstance(alpha, bool) or not isinstance(alpha, int | float):
            raise AdapterError(
                f"'{self.source}' has a lora_alpha that is no number; copy it again."
            )
        return float(alpha) / (rank**0.5 if config.get("use_rslora") is True else rank)


def _object(text: str, source: str) -> dict[str, Any]:
    try:
        found = parse_json(text)
    except ValueError as error:
        raise AdapterError(
            f"What '{source}' says of its LoRA is no JSON; copy it again."
        ) from error
    if not isinstance(found, dict):
        raise AdapterError(f"What '{source}' says of its LoRA is no JSON object; copy it again.")
    return found


def _by_part(flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`transformer.r` and the like, by what stands before the first point."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        part, _, name = key.partition(".")
        found.setdefault(part, {})[name] = value
    return found
