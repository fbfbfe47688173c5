"""Weights of other trainers as deltas of ours: LoRAs, full differences, Custom Diffusion's weights.

Every tensor of a file has to find its layer: a file that is understood by half is refused. Words
are not read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

from customvideo.adapters.deltas import Delta, FullDelta, LowRankDelta, WeightDelta
from customvideo.adapters.header import is_adapter
from customvideo.backbones.base import Backbone, JointText
from customvideo.errors import AdapterError
from customvideo.exports.names import ENCODER, experts, original, places, split
from customvideo.exports.scales import Scales
from customvideo.files import is_dir, is_file

__all__ = ["read_deltas", "read_weights"]

_PARTS = {
    "lora_A.weight": "down",
    "lora_down.weight": "down",
    "lora.down.weight": "down",
    "lora_B.weight": "up",
    "lora_up.weight": "up",
    "lora.up.weight": "up",
    "alpha": "alpha",
    "diff": "weight",
    "diff_b": "bias",
    "lora_B.bias": "up_bias",
}
"""End of a tensor's name -> what it is of its layer."""
_ENDS = tuple(sorted(_PARTS, key=len, reverse=True))
_ADAPTER = re.compile(r"(lora_[AB])\.[^.]+\.(weight|bias)$")
"""PEFT's names with the adapter's own in them."""
_HEADS = (
    *("base_model.model.diffusion_model.", "model.diffusion_model.", "diffusion_model."),
    *("base_model.model.", "pipe.dit.", "unet.", ""),
)
_OTHER_KINDS = ("lokr_", "hada_", "dora_scale", "lora_magnitude", "oft_", "vera_", "boft_")
_PROCESSOR = re.compile(r"\.processor(\.|$)")
_EXPERT = {"high_noise": "transformer", "low_noise": "transformer_2"}
_SHOWN = 3
_ONE = torch.ones(1)


@dataclass
class _Found:
    """What a file says of one layer, which it calls `name`."""

    name: str
    parts: dict[str, Tensor] = field(default_factory=dict)

    def change(self, scales: Scales) -> Tensor | None:
        """What is added to the layer's weight, in two dimensions if it is low-rank."""
        own = self.parts.get("weight")
        if "up" not in self.parts:
            return own
        up, down = self.parts["up"], self.parts["down"]
        product = up.flatten(1) @ down.flatten(1)
        product = product.reshape(*up.shape[:1], *down.shape[1:]) * self.scale(scales)
        return product if own is None else product.reshape(own.shape) + own

    def bias(self, scales: Scales) -> Tensor | None:
        """What is added to the layer's bias."""
        own, scaled = self.parts.get("bias"), self.parts.get("up_bias")
        if scaled is None:
            return own
        scaled = scaled * self.scale(scales)
        return scaled if own is None else own + scaled

    def scale(self, scales: Scales) -> float:
        rank, own = len(self.parts["down"]), self.parts.get("alpha")
        return scales.scale(self.name, rank) if own is None else float(own) / rank

    def fits(self) -> bool:
        """Whether what belongs together is there, and of sizes that can be multiplied."""
        together = {"up", "down", "alpha", "up_bias"} & set(self.parts)
        if not together:
            return True
        if not {"up", "down"} <= together or self.parts.get("alpha", _ONE).numel() != 1:
            return False
        up, down, own = self.parts["up"], self.parts["down"], self.parts.get("weight")
        if min(up.ndim, down.ndim) < 2 or not 0 < len(down) == up.flatten(1).shape[1]:
            return False
        return own is None or own.numel() == len(up) * down[0].numel()


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU, float32.

    Raises:
        AdapterError: it is missing, or is none.
    """
    if is_dir(path):
        raise AdapterError(f"'{path}' is a folder; give the .safetensors file in it.")
    if not is_file(path):
        raise AdapterError(f"There is no file '{path}' to import; give a .safetensors file.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            if is_adapter(file.metadata()):
                raise AdapterError(
                    f"'{path}' is an adapter of customvideo already; use it as it is."
                )
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise AdapterError(
            f"'{path}' is no complete safetensors file ({str(error).rstrip('.')}); give one, and "
            "convert pickled weights (.bin, .pt, .ckpt) first."
        ) from error
    for name, tensor in found.items():
        if not tensor.is_complex():
            found[name] = tensor.float()
        if tensor.is_complex() or not found[name].isfinite().all():
            raise AdapterError(
                f"'{path}' holds something that is no finite number, in '{name}'; give another one."
            )
    return found


def read_deltas(path: Path, backbone: Backbone) -> dict[str, Delta]:
    """The deltas that a file of another program holds for `backbone`, by the paths of its layers.

    Raises:
        AdapterError: there is nothing in it that is known, a tensor has no layer or another size,
            or it does not say which of two experts it is for.
    """
    tensors = read_weights(path)
    if any("custom_diffusion" in name for name in tensors):
        return _processors(path, tensors, backbone)
    found: dict[str, _Found] = {}
    strange, names = [], _names(path, backbone, tensors)
    for key, tensor in tensors.items():
        plain = _plain(key)
        end = next((end for end in _ENDS if plain.endswith(f".{end}")), None)
        name = plain.removesuffix(f".{end}")
        layer = None if end is None else _resolve(name, names)
        if end is None or layer is None:
            strange.append(key)
            continue
        parts = found.setdefault(layer, _Found(name)).parts
        if _PARTS[end] in parts:
            raise AdapterError(
                f"'{path}' says two things of '{layer}', the second in '{key}'; give a file that "
                "was written once."
            )
        parts[_PARTS[end]] = tensor
    _check_known(path, backbone, tensors, strange)
    scales = _scales(path)
    return {layer: _delta(path, backbone, layer, one, scales) for layer, one in found.items()}


def _plain(key: str) -> str:
    """The name without what one trainer alone puts into it."""
    key = _ADAPTER.sub(r"\1.\2", key)
    for head in ("lora_unet_", "lora_te_", "lora_te1_"):
        if key.startswith(head):
            known = "lora_te_" if head == "lora_te1_" else head
            return known + key.removeprefix(head).removeprefix("_")
    return key


def _scales(path: Path) -> Scales:
    with safetensors.safe_open(path, framework="pt") as file:
        return Scales.of(path, file.metadata())


def _names(path: Path, backbone: Backbone, tensors: Iterable[str]) -> dict[str, str]:
    """Everything that the file at `path` may call a layer -> the layer's path."""
    wanted = experts(backbone)[0]
    both = wanted != "" and any(key.startswith("transformer_2.") for key in tensors)
    if wanted and not both:
        # One file an expert, in names that do not tell them apart.
        wanted = _expert_of(path)
    found: dict[str, str] = {}
    for layer, module in backbone.denoiser.named_modules():
        expert, inner = split(backbone, layer)
        if getattr(module, "weight", None) is None:
            continue
        if both:
            found[layer] = layer
        elif expert == wanted:
            for name in (inner, original(backbone.family, inner) or inner):
                found |= {name: layer, f"lora_unet_{name.replace('.', '_')}": layer}
            found[f"transformer.{inner}"] = layer
    for layer in backbone.layers("encoder"):
        inner = layer.removeprefix(f"{ENCODER}.")
        found |= {layer: layer, f"{ENCODER}.text_model.{inner}": layer}
        found[f"lora_te_text_model_{inner.replace('.', '_')}"] = layer
    return found


def _expert_of(path: Path) -> str:
    for sign, expert in _EXPERT.items():
        if sign in path.stem.lower():
            return expert
    raise AdapterError(
        f"'{path}' does not say which of the two experts it is for; put high_noise or low_noise "
        "into its name."
    )


def _resolve(name: str, names: Mapping[str, str]) -> str | None:
    for head in _HEADS:
        if name.startswith(head) and name.removeprefix(head) in names:
            return names[name.removeprefix(head)]
    return None


def _check_known(
    path: Path, backbone: Backbone, tensors: Mapping[str, Tensor], strange: list[str]
) -> None:
    if not tensors:
        raise AdapterError(f"'{path}' holds no weights; give a trained one.")
    if any(kind in key for key in strange for kind in _OTHER_KINDS):
        raise AdapterError(
            f"'{path}' is no plain LoRA ({strange[0]}): LoKr, LoHa, DoRA and their like are not "
            "read; merge it into a model with its own tools, or train a plain LoRA."
        )
    if strange:
        more = f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else ""
        raise AdapterError(
            f"'{path}' cannot be imported: {len(strange)} of its {len(tensors)} tensors belong to "
            f"no layer of '{backbone.name}' ({', '.join(strange[:_SHOWN])}{more}); give a LoRA of "
            "this very model."
        )


def _delta(path: Path, backbone: Backbone, layer: str, found: _Found, scales: Scales) -> Delta:
    module: Any = backbone.layer(layer)
    if not found.fits():
        raise AdapterError(
            f"'{path}' holds only a part of what belongs to '{layer}', or matrices that do not fit "
            "together; copy the file again."
        )
    change, bias = found.change(scales), found.bias(scales)
    change = _as_convolution(change, module.weight)
    _check_size(path, layer, module.weight, change)
    _check_size(path, layer, getattr(module, "bias", None), bias)
    # What is added to outputs counts at the text's positions alone, where text and video are one.
    everywhere = not isinstance(backbone, JointText) or backbone.text_rows(layer) == slice(None)
    if bias is not None or not isinstance(module, nn.Linear) or not everywhere:
        return _weight_delta(module, change, bias)
    with torch.no_grad():
        if "up" not in found.parts or "weight" in found.parts:
            assert change is not None
            delta = FullDelta(*change.shape)
            delta.weight.copy_(change)
            return delta
        up, down = found.parts["up"], found.parts["down"]
        low = LowRankDelta(len(up), down[0].numel(), len(down))
        low.up.copy_(up.flatten(1) * found.scale(scales))
        low.down.copy_(down.flatten(1))
        return low


def _as_convolution(change: Tensor | None, own: Tensor) -> Tensor | None:
    """A matrix in the shape of a convolution of single pixels, which is one."""
    if change is None or change.ndim != 2 or own.shape[:2] != change.shape:
        return change
    return change.reshape(own.shape) if own.numel() == change.numel() else change


def _check_size(path: Path, layer: str, own: Tensor | None, change: Tensor | None) -> None:
    if change is not None and (own is None or change.shape != own.shape):
        wanted = "none there" if own is None else "x".join(map(str, own.shape))
        raise AdapterError(
            f"'{path}' changes '{layer}' by {'x'.join(map(str, change.shape))} numbers, and it has "
            f"{wanted}; give a file for this very model."
        )


@torch.no_grad()
def _weight_delta(module: Any, change: Tensor | None, bias: Tensor | None) -> WeightDelta:
    delta = WeightDelta(module.weight, module.bias)
    if change is not None:
        delta.added_weight.copy_(change)
    if bias is not None and delta.added_bias is not None:
        delta.added_bias.copy_(bias)
    return delta


def _processors(path: Path, tensors: Mapping[str, Tensor], backbone: Backbone) -> dict[str, Delta]:
    """Custom Diffusion's whole weights, as what they differ by from the backbone's own."""
    names = {name: layer for layer, name in places(backbone, "diffusers").items()}
    strange: list[str] = []
    found: dict[str, _Found] = {}
    for key, tensor in tensors.items():
        name, _, kind = key.rpartition(".")
        if not tensor.numel() and _PROCESSOR.search(key):
            continue
        if kind not in ("weight", "bias") or name not in names:
            strange.append(key)
            continue
        own: Any = getattr(backbone.layer(names[name]), kind, None)
        _check_size(path, names[name], own, tensor)
        change = tensor - own.detach().float().cpu()
        found.setdefault(names[name], _Found(name)).parts[kind] = change
    _check_known(path, backbone, tensors, strange)
    return {
        layer: _delta(path, backbone, layer, _without_still(one), Scales({}, str(path)))
        for layer, one in found.items()
    }


def _without_still(found: _Found) -> _Found:
    """The same without a bias that does not change, so that a linear delta will do."""
    bias = found.parts.get("bias")
    if bias is not None and not bias.any():
        del found.parts["bias"]
    return found
