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
from customvideo.backbones.base import Backbone
from customvideo.errors import AdapterError
from customvideo.exports.names import ENCODER, experts, original, places, split
from customvideo.files import is_dir, is_file
from customvideo.records import parse_json

__all__ = ["read_deltas", "read_weights"]

_PARTS = {
    "lora_A.weight": "down",
    "lora_A.default.weight": "down",
    "lora_down.weight": "down",
    "lora.down.weight": "down",
    "lora_B.weight": "up",
    "lora_B.default.weight": "up",
    "lora_up.weight": "up",
    "lora.up.weight": "up",
    "alpha": "alpha",
    "diff": "weight",
    "diff_b": "bias",
    "lora_B.bias": "bias",
}
"""End of a tensor's name -> what it is of its layer."""
_ENDS = tuple(sorted(_PARTS, key=len, reverse=True))
_HEADS = ("model.diffusion_model.", "diffusion_model.", "base_model.model.", "unet.", "")
_PROCESSOR = re.compile(r"\.processor(\.|$)")
_EXPERT = {"high_noise": "transformer", "low_noise": "transformer_2"}
_SHOWN = 3


@dataclass
class _Found:
    """What a file says of one layer."""

    parts: dict[str, Tensor] = field(default_factory=dict)

    def change(self, alpha: float | None) -> Tensor | None:
        """What is added to the layer's weight, in two dimensions if it is low-rank."""
        if "up" not in self.parts:
            return self.parts.get("weight")
        up, down = self.parts["up"], self.parts["down"]
        product = up.flatten(1) @ down.flatten(1)
        return product.reshape(*up.shape[:1], *down.shape[1:]) * self.scale(alpha)

    def scale(self, alpha: float | None) -> float:
        own = self.parts.get("alpha")
        found = alpha if own is None else float(own)
        return 1.0 if found is None else found / len(self.parts["down"])


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
            return {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise AdapterError(
            f"'{path}' is no complete safetensors file ({str(error).rstrip('.')}); give one, and "
            "convert pickled weights (.bin, .pt, .ckpt) first."
        ) from error


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
        end = next((end for end in _ENDS if key.endswith(f".{end}")), None)
        layer = None if end is None else _resolve(key.removesuffix(f".{end}"), names)
        if end is None or layer is None:
            strange.append(key)
        else:
            found.setdefault(layer, _Found()).parts[_PARTS[end]] = tensor
    _check_known(path, backbone, tensors, strange)
    alpha = _peft_alpha(path)
    return {layer: _delta(path, backbone, layer, one, alpha) for layer, one in found.items()}


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
    if strange:
        more = f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else ""
        raise AdapterError(
            f"'{path}' cannot be imported: {len(strange)} of its {len(tensors)} tensors belong to "
            f"no layer of '{backbone.name}' ({', '.join(strange[:_SHOWN])}{more}); give a LoRA of "
            "this very model."
        )


def _peft_alpha(path: Path) -> float | None:
    """The alpha in the config that PEFT saves beside its weights, which have none."""
    config = path.parent / "adapter_config.json"
    if not config.is_file() or not path.stem.startswith("adapter_model"):
        return None
    try:
        return float(parse_json(config.read_text("utf-8"))["lora_alpha"])
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"'{config}' says no lora_alpha; copy it again.") from error


def _delta(path: Path, backbone: Backbone, layer: str, found: _Found, alpha: float | None) -> Delta:
    module: Any = backbone.layer(layer)
    whole = "up" in found.parts and "down" in found.parts
    if not whole and {"up", "down", "alpha"} & set(found.parts):
        raise AdapterError(
            f"'{path}' holds only a part of what belongs to '{layer}'; copy the file again."
        )
    change, bias = found.change(alpha), found.parts.get("bias")
    _check_size(path, layer, module.weight, change)
    _check_size(path, layer, getattr(module, "bias", None), bias)
    if bias is not None or not isinstance(module, nn.Linear):
        return _weight_delta(module, change, bias)
    with torch.no_grad():
        if not whole:
            assert change is not None
            delta = FullDelta(*change.shape)
            delta.weight.copy_(change)
            return delta
        up, down = found.parts["up"], found.parts["down"]
        low = LowRankDelta(len(up), down.shape[1], len(down))
        low.up.copy_(up * found.scale(alpha))
        low.down.copy_(down)
        return low


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
        if not len(tensor) and _PROCESSOR.search(key):
            continue
        if kind not in ("weight", "bias") or name not in names:
            strange.append(key)
            continue
        own: Any = getattr(backbone.layer(names[name]), kind, None)
        _check_size(path, names[name], own, tensor)
        change = tensor - own.detach().float().cpu()
        found.setdefault(names[name], _Found()).parts[kind] = change
    _check_known(path, backbone, tensors, strange)
    return {
        layer: _delta(path, backbone, layer, _without_still(one), None)
        for layer, one in found.items()
    }


def _without_still(found: _Found) -> _Found:
    """The same without a bias that does not change, so that a linear delta will do."""
    bias = found.parts.get("bias")
    if bias is not None and not bias.any():
        del found.parts["bias"]
    return found
