"""Learned words as files: diffusers' textual inversion, ComfyUI's embeddings, and plain rows."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from customvideo.exports.describing import file_metadata
from customvideo.exports.order import Order
from customvideo.exports.tensors import write_tensors

__all__ = ["word_rows", "write_embeddings", "write_inversion", "write_rows"]

_ENCODERS = {"wan": "umt5xxl", "ltx": "t5xxl", "animatediff": "clip_l"}
"""Family -> what ComfyUI calls its text encoder in files of embeddings."""


def word_rows(order: Order) -> dict[str, Tensor]:
    """Name of each word -> its rows (vector, dim), float32."""
    rows = order.adapter.tokens.value.detach().float().cpu()
    found, start = {}, 0
    for word in order.adapter.words:
        found[word.name] = rows[start : start + word.vectors]
        start += word.vectors
    return found


def write_embeddings(order: Order, folder: Path) -> None:
    """`<name>.safetensors` for each word, as ComfyUI reads it at `embedding:<name>`."""
    encoder = _ENCODERS[order.backbone.family]
    for name, rows in word_rows(order).items():
        path = folder / f"{name}.safetensors"
        write_tensors(path, {encoder: rows}, file_metadata(order, "textual-inversion"), order.dtype)


def write_inversion(order: Order, path: Path, name: str) -> None:
    """The word called `name`, as diffusers' `load_textual_inversion` reads it: one tensor of
    (dim,), or (vector, dim) if it has several."""
    rows = word_rows(order)[name]
    token = next(word.word for word in order.adapter.words if word.name == name)
    tensor = rows[0] if len(rows) == 1 else rows
    write_tensors(path, {token: tensor}, file_metadata(order, "textual-inversion"), order.dtype)


def write_rows(order: Order, path: Path) -> None:
    """All rows in one file, (dim,) by the token that each belongs to."""
    rows = order.adapter.tokens.value.detach()
    tensors = dict(zip(order.adapter.tokens.tokens, rows, strict=True))
    write_tensors(path, tensors, file_metadata(order, "textual-inversion"), order.dtype)
