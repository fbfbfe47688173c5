"""Which targets can carry which adapters, and why not.

Every refusal is one sentence with the reason and the way out, made before anything is written.
"""

from __future__ import annotations

from customvideo.adapters.deltas import BottleneckDelta, Delta, FullDelta, LowRankDelta, WeightDelta
from customvideo.backbones.base import JointText
from customvideo.backbones.stock import HasStock
from customvideo.errors import AdapterError, ConfigError
from customvideo.exports.names import ENCODER, places
from customvideo.exports.order import Order

__all__ = ["CLIP", "POSSIBLE", "refuse"]

CLIP = ("unet3d", "animatediff")
"""Families whose words are tokens of CLIP, for which diffusers has a loader."""

POSSIBLE: dict[str, tuple[str, ...]] = {
    "unet3d": ("diffusers", "textual-inversion", "merged-folder"),
    "animatediff": ("diffusers", "comfyui", "kohya", "textual-inversion", "merged-folder"),
    "wan": ("diffusers", "comfyui", "kohya", "merged-folder"),
    "ltx": ("diffusers", "comfyui", "merged-folder"),
    "cogvideox": ("merged-folder",),
    "hunyuan": ("diffusers", "merged-folder"),
}
"""Family of backbones -> targets that can carry its adapters, the most usual one first."""

_REASONS: dict[tuple[str, str], str] = {
    ("unet3d", "comfyui"): "ComfyUI draws with no model of this family",
    ("unet3d", "kohya"): "no program reads LoRA files for this family, whose network diffusers "
    "gives no LoRA loader",
    ("ltx", "kohya"): "no loader of kohya's names for this family is known",
    ("cogvideox", "diffusers"): "what it adds to the keys and values of text alone is no LoRA, "
    "which would change those of the video, too",
    ("cogvideox", "comfyui"): "what it adds to the keys and values of text alone is no LoRA, "
    "which would change those of the video, too",
}
_NO_WORDS = "its text encoder is none of CLIP's, and diffusers loads learned words into no other"
_UNKNOWN = "this program does not know how its layers are called there"


def refuse(order: Order) -> None:
    """Return if the order can be filled.

    Raises:
        AdapterError: the target cannot carry the adapter.
        ConfigError: the target does not take an option.
    """
    family, target = order.backbone.family, order.target
    named = f"An adapter of '{order.backbone.name}' ({family}) cannot be exported to {target}"
    usual = POSSIBLE.get(family, ("merged-folder",))
    if target not in usual:
        reason = _NO_WORDS if target == "textual-inversion" else _REASONS.get((family, target))
        raise AdapterError(f"{named}: {reason or _UNKNOWN}; choose {' or '.join(usual)}.")
    _check_options(order)
    if order.adapter.words and order.adapter.header.space == "output":
        raise AdapterError(
            f"{named}: its words are added to what the text encoder answers, which no other "
            "program does; generate with customvideo, or train with word_space=input."
        )
    if target == "textual-inversion":
        return _check_words(order, named)
    if order.words_only:
        raise ConfigError(
            f"--words-only would leave out what {target} can carry; leave it out, or choose "
            "textual-inversion."
        )
    if not order.adapter.deltas and not order.adapter.words:
        raise AdapterError(f"{named}, as it holds nothing; give one that was trained.")
    if target == "merged-folder" and not isinstance(order.backbone, HasStock):
        raise AdapterError(
            f"{named}: the backbone does not say which stock pipeline is its own; generate with "
            "customvideo."
        )
    _check_deltas(order, named)
    return None


def _check_options(order: Order) -> None:
    rank, target = order.rank, order.target
    lora = target in ("comfyui", "kohya") or (
        target == "diffusers" and order.backbone.family not in CLIP
    )
    if rank is not None and rank < 0:
        raise ConfigError(f"--rank {rank} is no rank; give 1 or more.")
    if rank is not None and not lora:
        raise ConfigError(
            f"--rank makes low-rank files, which {target} has none of for this backbone; leave it "
            "out."
        )
    if rank == 0 and not (target == "comfyui" and order.backbone.family not in CLIP):
        raise ConfigError(
            f"--rank 0 keeps full matrices, which loaders of {target} files drop or refuse; give 1 "
            "or more, or export to comfyui."
        )


def _check_words(order: Order, named: str) -> None:
    if not order.adapter.words:
        raise AdapterError(f"{named}, as it has no learned words; choose diffusers.")
    if order.adapter.deltas and not order.words_only:
        raise AdapterError(
            f"{named} without losing what it learned in {len(order.adapter.deltas)} layers; choose "
            "diffusers, or add --words-only."
        )


def _check_deltas(order: Order, named: str) -> None:
    if order.adapter.header.gate != "none" and order.adapter.deltas:
        raise AdapterError(
            f"{named}: what it adds is heard at its words alone, which no weight or LoRA can say; "
            "generate with customvideo, or train with gate=none."
        )
    for path, delta in order.adapter.deltas.items():
        if reason := _hindrance(order, path, delta):
            raise AdapterError(f"{named}: {reason}.")


def _hindrance(order: Order, path: str, delta: Delta) -> str | None:
    """Why the target cannot carry `delta`, and the way out; None if it can."""
    backbone, merged = order.backbone, order.target == "merged-folder"
    linear = isinstance(delta, FullDelta | LowRankDelta)
    if linear and isinstance(backbone, JointText) and backbone.text_rows(path) != slice(None):
        return (
            f"its layer '{path}' reads text and video together, and is changed for the text alone, "
            "which no weight or LoRA can say; generate with customvideo"
        )
    if isinstance(delta, BottleneckDelta):
        return (
            f"the bottleneck beside '{path}' is a layer that no stock model has; generate with "
            "customvideo"
        )
    if not linear and not isinstance(delta, WeightDelta):
        return f"what it adds to '{path}' is no matrix; generate with customvideo"
    if merged:
        return None
    if isinstance(delta, WeightDelta):
        return (
            f"it changes the weight of '{path}' itself, biases and norms included, which these "
            "files cannot hold; choose merged-folder"
        )
    if path in places(order.backbone, order.target):
        return None
    whose = "of the text encoder " if path.startswith(f"{ENCODER}.") else ""
    return f"its layer '{path}' {whose}has no place in these files; choose merged-folder"
