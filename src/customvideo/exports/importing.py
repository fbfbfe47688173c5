"""A file of another trainer as an adapter of ours, which has no word of its own."""

from __future__ import annotations

from pathlib import Path

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import new_adapter
from customvideo.backbones.base import Backbone
from customvideo.exports.reading import read_deltas

__all__ = ["METHOD", "import_adapter"]

METHOD = "imported"
"""What the header says instead of a method's name."""


def import_adapter(path: Path, backbone: Backbone) -> Adapter:
    """An adapter of `backbone` with the deltas in the file at `path` and no words.

    Raises:
        AdapterError: the file is missing or no safetensors file, or not all of it is understood.
    """
    deltas = read_deltas(path, backbone)
    empty = new_adapter(backbone, [], method=METHOD, paths={}, settings={"file": path.name})
    return Adapter(empty.header, empty.tokens, deltas)
