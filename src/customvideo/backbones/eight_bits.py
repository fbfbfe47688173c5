"""Frozen weights kept in 8 bits: half the memory of bfloat16, for a little noise in every layer.

The numbers are LLM.int8's (Dettmers et al., arXiv 2208.07339), as the package bitsandbytes does
them, or 8-bit floats (`customvideo.backbones.float8`), which need no package; for the linear layers
of a network's repeated blocks. Whatever stands alone, and all that is trained, keeps its type. The
fingerprint is taken before, so adapters fit the whole model as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from customvideo.backbones.float8 import Float8Linear
from customvideo.errors import BackboneError

__all__ = ["EIGHT_BITS", "eight_bits", "require_eight_bits", "saved_bytes"]

_INTEGERS, _FLOATS = "int8", "fp8"
EIGHT_BITS = (_INTEGERS, _FLOATS)
"""What `load_backbone` is told as the type."""
_OUTLIER = 6.0
"""Inputs beyond this are multiplied in 16 bits (the paper's threshold)."""


def require_eight_bits(kind: str) -> None:
    """Refuse where bitsandbytes lacks and `kind` is made by it.

    Raises:
        BackboneError: says what to install.
    """
    if kind == _INTEGERS and find_spec("bitsandbytes") is None:
        raise BackboneError(
            "Weights in 8 bits need the package bitsandbytes, which is not installed: pip install "
            "'customvideo[eightbit]', or set base=fp8 or base=full."
        )


def eight_bits(networks: Iterable[nn.Module], kind: str) -> None:
    """Let the linear layers of these networks keep 8 bits of `kind`, a row of `EIGHT_BITS`;
    integers are made when the networks are next moved.

    Raises:
        BackboneError: bitsandbytes is not installed.
    """
    require_eight_bits(kind)
    if kind == _FLOATS:
        for network in networks:
            for parent, name, layer in list(_layers(network)):
                setattr(parent, name, Float8Linear.of(layer).requires_grad_(False))
        return
    from bitsandbytes.nn import Int8Params, Linear8bitLt

    for network in networks:
        for parent, name, layer in list(_layers(network)):
            small: Any = Linear8bitLt(
                layer.in_features,
                layer.out_features,
                bias=layer.bias is not None,
                has_fp16_weights=False,
                threshold=_OUTLIER,
                device="meta",
            )
            small.weight = Int8Params(
                layer.weight.detach(), requires_grad=False, has_fp16_weights=False
            )
            small.bias = layer.bias
            setattr(parent, name, small.requires_grad_(False))


def saved_bytes(network: nn.Module) -> int:
    """Bytes that `eight_bits` would spare of a network."""
    saved = 0
    for _, _, layer in _layers(network):
        # A number a byte, and a scale of 4 bytes a row.
        saved += layer.weight.numel() * (layer.weight.element_size() - 1) - 4 * layer.out_features
    return saved


def _layers(network: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Parent, name and layer of what is kept in 8 bits."""
    usual = _usual_type(network)
    for path, parent in network.named_modules():
        for name, layer in parent.named_children():
            repeated = any(part.isdecimal() for part in path.split("."))
            # Kept in float32 on purpose, where the rest is not.
            if repeated and type(layer) is nn.Linear and layer.weight.dtype == usual:
                yield parent, name, layer


def _usual_type(network: nn.Module) -> torch.dtype:
    """The type of most of its linear weights."""
    counts: dict[torch.dtype, int] = {}
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            kind = layer.weight.dtype
            counts[kind] = counts.get(kind, 0) + layer.weight.numel()
    return max(counts, key=lambda kind: counts[kind], default=torch.float32)
