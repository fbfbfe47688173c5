"""How other programs call the layers of a backbone.

Most programs use the names of the models' first publication, with dots or with underscores;
diffusers its own. Every name comes from a layer that the model has: nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from customvideo.backbones.base import Backbone

__all__ = ["ENCODER", "experts", "linear_paths", "original", "places", "split"]

ENCODER = "text_encoder"
"""What paths of a text encoder's layers begin with."""

_HIGH, _LOW = "transformer", "transformer_2"
_MOTION = re.compile(r"(^|\.)motion_modules\.")
_PROJECTION = re.compile(r"^(?P<attention>.+)\.(?P<part>to_q|to_k|to_v|to_out\.0)$")

_WAN = (
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("proj_out", "head.head"),
)
_WAN_BLOCK = re.compile(r"^(blocks\.\d+)\.(attn1|attn2|ffn)\.(.+)$")
_WAN_PARTS = {
    "attn1": "self_attn",
    "attn2": "cross_attn",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "o",
    "ffn": "ffn",
    "net.0.proj": "0",
    "net.2": "2",
}
_LTX = (("proj_in", "patchify_proj"), ("time_embed.", "adaln_single."))


def original(family: str, path: str) -> str | None:
    """What the denoiser's layer at `path` was called when the model was published; None if there
    is no such name."""
    rename = _ORIGINAL.get(family)
    return rename(path) if rename else None


def _wan(path: str) -> str | None:
    if path in dict(_WAN):
        return dict(_WAN)[path]
    found = _WAN_BLOCK.match(path)
    if found is None or found[3] not in _WAN_PARTS:
        return None
    return f"{found[1]}.{_WAN_PARTS[found[2]]}.{_WAN_PARTS[found[3]]}"


def _ltx(path: str) -> str:
    for ours, theirs in _LTX:
        if path == ours or (ours.endswith(".") and path.startswith(ours)):
            return theirs + path.removeprefix(ours)
    return path


def _pictures(path: str) -> str | None:
    # Programs that draw with motion modules load them from files of their own.
    return None if _MOTION.search(path) else path


_ORIGINAL: dict[str, Callable[[str], str | None]] = {
    "wan": _wan,
    "ltx": _ltx,
    "animatediff": _pictures,
}


def experts(backbone: Backbone) -> tuple[str, ...]:
    """Names of the networks that take turns along the noise, much noise first; one "" if there
    is just one network."""
    network = backbone.denoiser
    return (_HIGH, _LOW) if isinstance(network, nn.ModuleDict) and _LOW in network else ("",)


def split(backbone: Backbone, path: str) -> tuple[str, str]:
    """The expert that the layer at `path` is in, and its path there."""
    head, _, rest = path.partition(".")
    return (head, rest) if head in experts(backbone) else ("", path)


def linear_paths(backbone: Backbone) -> list[str]:
    """Paths of all linear layers of the denoiser."""
    named = backbone.denoiser.named_modules()
    return [path for path, layer in named if isinstance(layer, nn.Linear)]


def places(backbone: Backbone, target: str) -> dict[str, str]:
    """Path of a linear layer -> its name in the files of `target`, the expert left out.

    Layers without a place in these files are missing.
    """
    family = backbone.family
    if target == "diffusers" and family in ("unet3d", "animatediff"):
        return _processors(backbone)
    found = {}
    for path in linear_paths(backbone):
        inner = split(backbone, path)[1]
        if target == "diffusers" and family != "wan":
            # Its loaders take the published prefix at most, and rename nothing after it.
            found[path] = f"transformer.{inner}"
            continue
        name = original(family, inner)
        if name is None:
            continue
        if target == "kohya" or family == "animatediff":
            found[path] = f"lora_unet_{name.replace('.', '_')}"
        else:
            found[path] = f"diffusion_model.{name}"
    return found


def _processors(backbone: Backbone) -> dict[str, str]:
    """Projections of attention, as Custom Diffusion's processors call them."""
    network = backbone.denoiser
    found = {}
    for path in linear_paths(backbone):
        match = _PROJECTION.match(path)
        if match and hasattr(network.get_submodule(match["attention"]), "set_processor"):
            name = match["part"].replace("to_out.0", "to_out_custom_diffusion.0")
            name = name if "custom" in name else f"{name}_custom_diffusion"
            found[path] = f"{match['attention']}.processor.{name}"
    return found
