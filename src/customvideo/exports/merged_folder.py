"""A complete diffusers folder of the base model with everything learned in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from customvideo.adapters.deltas import Delta, FullDelta, LowRankDelta, WeightDelta
from customvideo.adapters.tokens import added_tokens
from customvideo.backbones.stock import HasStock
from customvideo.errors import AdapterError
from customvideo.exports.names import split
from customvideo.exports.order import Exported, Order
from customvideo.files import write_text
from customvideo.quiet import without_bars, without_warnings
from customvideo.records import parse_json, write_record

__all__ = ["MergedFolder"]


class MergedFolder:
    """What a stock pipeline's `from_pretrained` loads, without anything of ours."""

    def write(self, order: Order, folder: Path) -> Exported:
        """Write the folder, weights in the order's type, and what our own loader wants to know."""
        backbone = order.backbone
        assert isinstance(backbone, HasStock), "it has been checked"
        pipeline = backbone.stock()
        for path, delta in order.adapter.deltas.items():
            _add(_layer(order, pipeline, path), delta)
        if order.adapter.words:
            _teach(order, pipeline)
        with without_bars(), without_warnings("diffusers", "transformers"):
            for part in pipeline.components.values():
                if isinstance(part, nn.Module):
                    part.to("cpu", order.dtype)
            pipeline.save_pretrained(folder, safe_serialization=True)
        for config in folder.glob("*/config.json"):
            _forget_where(config)
        card = {
            "licence": backbone.licence,
            "fps": backbone.fps,
            "frames": backbone.frames,
            "size": backbone.size,
        }
        write_record(folder / "customvideo.json", card)
        return Exported()


def _forget_where(config: Path) -> None:
    """Leave out of a part's config where on this disk it was loaded from."""
    told = parse_json(config.read_text(encoding="utf-8"))
    told.pop("_name_or_path", None)
    write_text(config, json.dumps(told, indent=2, sort_keys=True) + "\n")


def _layer(order: Order, pipeline: Any, path: str) -> Any:
    """The layer of the stock pipeline that the delta at `path` belongs to.

    Raises:
        AdapterError: it has none of that kind.
    """
    head, _, rest = path.partition(".")
    own = split(order.backbone, path)
    part = getattr(pipeline, head, None)
    if own[0]:
        part, rest = getattr(pipeline, own[0]), own[1]
    elif not isinstance(part, nn.Module):
        part, rest = getattr(pipeline, "unet", None) or pipeline.transformer, path
    try:
        layer = part.get_submodule(rest)
    except AttributeError:
        layer = None
    if layer is None or getattr(layer, "weight", None) is None:
        raise AdapterError(
            f"The stock {type(pipeline).__name__} has no layer '{path}', so the adapter cannot be "
            "merged into it; generate with customvideo."
        )
    return layer


@torch.no_grad()
def _add(layer: Any, delta: Delta) -> None:
    """Add the delta in float32, whatever the type the layer was loaded in: that of the file is
    chosen once it is in."""
    assert isinstance(delta, FullDelta | LowRankDelta | WeightDelta), "it has been checked"
    if not layer.weight.is_floating_point() or layer.weight.element_size() < 2:
        raise AdapterError(
            "The backbone was loaded in 8 bits, which are no weights to write; load it whole, "
            "without base, and export once more."
        )
    layer.weight.data = layer.weight.float() + delta.merged().to(layer.weight.device)
    if isinstance(delta, WeightDelta) and delta.added_bias is not None:
        layer.bias.data = layer.bias.float() + delta.added_bias.to(layer.bias.device)


@torch.no_grad()
def _teach(order: Order, pipeline: Any) -> None:
    """Put the words into the pipeline's main tokenizer and table, which never becomes smaller."""
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
    tokens = order.adapter.tokens
    tokenizer.add_tokens(added_tokens(order.backbone.tables()[0], tokens.tokens))
    ids = tokenizer.convert_tokens_to_ids(list(tokens.tokens))
    with without_warnings("transformers"):
        if max(ids) >= encoder.get_input_embeddings().num_embeddings:
            encoder.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    rows = encoder.get_input_embeddings().weight
    rows[ids] = tokens.value.to(rows)
