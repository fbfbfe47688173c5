"""A frozen linear layer that keeps its weight as 8-bit floats, and computes in the model's type.

Numbers are e4m3 (Micikevicius et al. 2022, arXiv 2209.05433, section 3: largest 448) with a scale
for each row, a power of two so that taking it off again rounds nothing. Unlike diffusers' layerwise
casting, whose weights are 8 bits again when the backward pass comes for them, it trains without
recomputing, too: what is kept for that pass is the 8 bits, not a copy in 16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Float8Linear"]

_LARGEST = 448.0


class Float8Linear(nn.Linear):
    """`weight` (out, in) holds the bits of the 8-bit floats as int8, so that no cast of the model
    to another type takes them for numbers; `scale` (out, 1) is what they are multiplied by."""

    scale: Tensor

    @classmethod
    def of(cls, layer: nn.Linear) -> Float8Linear:
        """The same layer, rounded; it stays on its device and keeps the bias."""
        small = cls(layer.in_features, layer.out_features, bias=False, device="meta")
        largest = layer.weight.detach().float().abs().amax(dim=1, keepdim=True)
        # A row of zeros has any scale.
        scale = torch.exp2(torch.ceil(torch.log2((largest / _LARGEST).clamp_min(2.0**-40))))
        bits = (layer.weight.detach().float() / scale).to(torch.float8_e4m3fn).view(torch.int8)
        small.weight = nn.Parameter(bits, requires_grad=False)
        small.bias = layer.bias
        small.register_buffer("scale", scale)
        return small

    def forward(self, input: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        device = input.device.type
        if torch.is_autocast_enabled(device):
            input = input.to(torch.get_autocast_dtype(device))
        found: Tensor = _Product.apply(input, self.weight, self.scale)  # type: ignore[no-untyped-call]
        return found if self.bias is None else found + self.bias.to(found.dtype)


class _Product(torch.autograd.Function):
    """x W^T, of which the backward pass keeps the 8 bits of W alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bits: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(bits, scale)
        return F.linear(x, _opened(bits, scale, x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        bits, scale = ctx.saved_tensors
        return gradient @ _opened(bits, scale, gradient.dtype), None, None


def _opened(bits: Tensor, scale: Tensor, kind: torch.dtype) -> Tensor:
    return bits.view(torch.float8_e4m3fn).to(kind) * scale.to(kind)
