"""LoRA files: which tensors under which names; the targets say in whose words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from customvideo.adapters.deltas import FullDelta, LowRankDelta
from customvideo.exports.describing import file_metadata
from customvideo.exports.lowrank import Factors, factors, overall
from customvideo.exports.names import experts, places, split
from customvideo.exports.order import Exported, Order
from customvideo.exports.tensors import write_tensors

__all__ = ["expert_files", "write_lora"]

_SUFFIXES = {"": "", "transformer": "_high_noise", "transformer_2": "_low_noise"}


def expert_files(order: Order, stem: str) -> dict[str, str]:
    """Expert -> name of its file; just one if one network does all."""
    return {name: f"{stem}{_SUFFIXES[name]}.safetensors" for name in experts(order.backbone)}


def write_lora(order: Order, folder: Path, stem: str) -> Exported:
    """Write the deltas to `folder`, one file an expert, and say what was lost.

    Kohya's names come with `.alpha`; elsewhere the scale is in the matrices, which any loader
    takes. Rank 0 writes full matrices as `.diff`.
    """
    names = places(order.backbone, order.target)
    kohya = any(name.startswith("lora_unet_") for name in names.values())
    parts: dict[str, Factors] = {}
    files: dict[str, dict[str, Tensor]] = {}
    for path, delta in order.adapter.deltas.items():
        assert isinstance(delta, FullDelta | LowRankDelta), "it has been checked"
        tensors = files.setdefault(split(order.backbone, path)[0], {})
        if order.rank == 0:
            tensors[f"{names[path]}.diff"] = delta.merged()
            continue
        parts[path] = factors(delta, order.rank)
        tensors |= _kohya(names[path], parts[path]) if kohya else _plain(names[path], parts[path])
    for expert, tensors in files.items():
        rank = max((part.rank for part in parts.values()), default=None)
        target = folder / expert_files(order, stem)[expert]
        write_tensors(target, tensors, file_metadata(order, "lora", rank), order.dtype)
    losses = {path: part.lost / part.norm if part.norm else 0.0 for path, part in parts.items()}
    return Exported(losses, overall(parts.values()))


def _plain(name: str, part: Factors) -> Mapping[str, Tensor]:
    return {f"{name}.lora_A.weight": part.down, f"{name}.lora_B.weight": part.up}


def _kohya(name: str, part: Factors) -> Mapping[str, Tensor]:
    return {
        f"{name}.lora_down.weight": part.down,
        f"{name}.lora_up.weight": part.up,
        f"{name}.alpha": torch.tensor(float(part.rank)),
    }
