"""Reading a folder of a latent-diffusion pipeline with a CLIP text encoder: its pieces, loaded.

Putting the pieces to work is `unet3d.py`; what all families' folders share is `folder.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet3DConditionModel
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer

from customvideo.backbones.eight_bits import EIGHT_BITS, eight_bits
from customvideo.backbones.folder import (
    Card,
    check_vocabulary,
    fingerprint,
    has,
    loading_failed,
    placed,
    read_json,
)
from customvideo.errors import BackboneError
from customvideo.quiet import without_bars

__all__ = ["Kind", "Parts", "read_parts", "usual_card"]

_PIECES = {
    "model_index.json": "the list of parts",
    "tokenizer/tokenizer_config.json": "the tokenizer",
    "text_encoder/config.json": "the text encoder",
    "vae/config.json": "the autoencoder",
    "unet/config.json": "the denoiser",
    "scheduler/scheduler_config.json": "the noise schedule",
}
_CONFIGS = tuple(piece for piece in _PIECES if "/" in piece and not piece.startswith("tokenizer"))


def _read_unet3d(place: Path, dtype: torch.dtype, **options: Any) -> Any:
    return UNet3DConditionModel.from_pretrained(place, torch_dtype=dtype, **options)


@dataclass(frozen=True)
class Kind:
    """A kind of folder.

    Attributes:
        pipeline: the stock pipeline that writes it, for messages.
        denoisers: the classes that its denoiser may be of.
        models: whose they are, for messages.
        read: loads the denoiser from its place, in a type, with the options of `from_pretrained`.
    """

    pipeline: str = "TextToVideoSDPipeline"
    denoisers: tuple[str, ...] = ("UNet3DConditionModel",)
    models: str = "ZeroScope, ModelScope, toybox"
    read: Callable[..., Any] = _read_unet3d


@dataclass(frozen=True)
class Parts:
    """A folder's pieces, loaded: the denoiser and autoencoder in the chosen type."""

    tokenizer: Any
    text_encoder: Any
    vae: Any
    unet: Any
    scheduler_config: dict[str, Any]
    fingerprint: str


def read_parts(
    folder: Path,
    device: str = "auto",
    dtype: str = "auto",
    kind: Kind | None = None,
    *,
    pickled: bool = False,
) -> Parts:
    """Load all pieces; the text encoder stays float32, since words are learned through it.

    Weights are safetensors. With `pickled` other files will do, too, of which torch makes tensors
    and nothing else (`weights_only`): for the few models that were published before.

    Raises:
        BackboneError: a piece is missing, damaged or of another class, or the device is unknown.
    """
    where, weights = placed(device, dtype)
    kind = kind or Kind()
    _check_pieces(folder, kind)
    safe = {} if pickled else {"use_safetensors": True}
    if not pickled:
        _refuse_pickles(folder)
    try:
        with without_bars():
            unet = kind.read(folder / "unet", weights, **safe)
            vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=weights, **safe)
            text_encoder = CLIPTextModel.from_pretrained(
                folder / "text_encoder", dtype=torch.float32, **safe
            )
            tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise loading_failed(folder, error) from error
    whole = fingerprint(folder, {"unet": unet, "text_encoder": text_encoder}, _CONFIGS)
    if dtype in EIGHT_BITS:
        eight_bits([unet], dtype)
    return Parts(
        tokenizer=tokenizer,
        text_encoder=text_encoder.to(where),
        fingerprint=whole,
        vae=vae.to(where),
        unet=unet.to(where),
        scheduler_config=read_json(folder / "scheduler" / "scheduler_config.json"),
    )


def usual_card(parts: Parts) -> Card:
    """What a folder says of itself if it says nothing: its denoiser's sample size is its size."""
    factor = 2 ** (len(parts.vae.config.block_out_channels) - 1)
    sample = parts.unet.config.sample_size or 32
    height, width = (sample, sample) if isinstance(sample, int) else sample
    return Card("", size=(height * factor, width * factor))


def _refuse_pickles(folder: Path) -> None:
    for part in ("unet", "vae", "text_encoder"):
        kinds = {path.suffix for path in (folder / part).iterdir()}
        if ".bin" in kinds and ".safetensors" not in kinds:
            raise BackboneError(
                f"'{folder / part}' holds pickled weights (.bin), which may hold a program, too: "
                "save the model once with safe_serialization by diffusers' save_pretrained, or "
                "name it by its hub id if it is one of those that customvideo knows."
            )


def _check_pieces(folder: Path, kind: Kind) -> None:
    wanted = f"give a complete diffusers folder, as {kind.pipeline}.save_pretrained writes it."
    for piece, meaning in _PIECES.items():
        if not has(folder, piece):
            raise BackboneError(f"Backbone folder '{folder}' lacks {meaning} ({piece}): {wanted}")
    check_vocabulary(folder, "tokenizer", wanted)
    found = read_json(folder / "unet" / "config.json").get("_class_name", kind.denoisers[0])
    if found not in kind.denoisers:
        raise BackboneError(
            f"Backbone folder '{folder}' holds a {found}: only {' and '.join(kind.denoisers)} "
            f"models ({kind.models}) are supported."
        )
