"""Reading a TextToVideoSDPipeline folder: its pieces, its identity, and what it says of itself.

Every way in which a folder or a hub id can be wrong ends here in one sentence. It is NOT the
model: putting the pieces to work is `unet3d.py`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet3DConditionModel
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from customvideo.errors import BackboneError
from customvideo.quiet import without_bars, without_warnings

__all__ = [
    "Card",
    "Parts",
    "digest_weights",
    "fetch",
    "fingerprint",
    "placed",
    "read_parts",
    "readme_licence",
]

_log = logging.getLogger(__name__)

_PIECES = {
    "model_index.json": "the list of parts",
    "tokenizer/tokenizer_config.json": "the tokenizer",
    "text_encoder/config.json": "the text encoder",
    "vae/config.json": "the autoencoder",
    "unet/config.json": "the denoiser",
    "scheduler/scheduler_config.json": "the noise schedule",
}
_CONFIGS = tuple(piece for piece in _PIECES if "/" in piece and not piece.startswith("tokenizer"))
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_SAMPLES = 256
"""Values looked at per weight tensor for the fingerprint."""


@dataclass(frozen=True)
class Parts:
    """A folder's pieces, loaded: the denoiser and autoencoder in the chosen type."""

    tokenizer: Any
    text_encoder: Any
    vae: Any
    unet: Any
    scheduler_config: dict[str, Any]
    fingerprint: str


@dataclass(frozen=True)
class Card:
    """What weights do not say: name, licence, clip defaults and vocabulary.

    A folder can carry it as `customvideo.json` with the same keys, all optional; `nouns.json`, a
    plain list, does for `known_nouns` alone. `size` is (height, width) in pixels.
    """

    name: str
    licence: str | None = None
    fps: float = 8.0
    frames: int = 16
    size: tuple[int, int] = (256, 256)
    known_nouns: frozenset[str] = frozenset()
    known_words: frozenset[str] | None = None
    shipped_prior: Path | None = None

    @classmethod
    def read(cls, folder: Path, parts: Parts) -> Card:
        """The folder's own card, completed from its README and its denoiser's sample size."""
        given = _read_json(folder / "customvideo.json") if _has(folder, "customvideo.json") else {}
        nouns = _read_json(folder / "nouns.json") if _has(folder, "nouns.json") else []
        words = given.get("known_words")
        return cls(
            name=given.get("name", folder.resolve().name),
            licence=given.get("licence", readme_licence(folder)),
            fps=float(given.get("fps", cls.fps)),
            frames=int(given.get("frames", cls.frames)),
            size=_pair(given.get("size")) or _native_size(parts),
            known_nouns=frozenset(given.get("known_nouns", nouns)),
            known_words=None if words is None else frozenset(words),
        )

    @classmethod
    def of_hub(cls, name: str, parts: Parts) -> Card:
        """The card of a model on the hub, from the few we know."""
        return _HUB_CARDS.get(name) or cls(name, size=_native_size(parts))

    def announce(self) -> None:
        """Log one line on the licence, as a warning where it forbids commercial use.

        The command line shows either.
        """
        restricted = "-nc" in (self.licence or "")
        terms = ", which excludes commercial use" if restricted else ""
        licence = self.licence or "not stated"
        level = logging.WARNING if restricted else logging.INFO
        _log.log(level, "The licence of %s's weights is %s%s.", self.name, licence, terms)


_HUB_CARDS = {
    card.name: card
    for card in (
        Card("cerspense/zeroscope_v2_576w", "cc-by-nc-4.0", 8.0, 24, (320, 576)),
        Card("cerspense/zeroscope_v2_XL", "cc-by-nc-4.0", 8.0, 24, (576, 1024)),
        Card("ali-vilab/text-to-video-ms-1.7b", "cc-by-nc-4.0", 8.0, 16, (256, 256)),
        Card("damo-vilab/text-to-video-ms-1.7b", "cc-by-nc-4.0", 8.0, 16, (256, 256)),
    )
}


def fetch(name: str) -> Path:
    """The local folder of the model with hub id `name`, downloaded unless it is in the cache.

    Raises:
        BackboneError: the hub cannot be reached, or has no such model.
    """
    try:
        with without_warnings("diffusers", "huggingface_hub"):
            return Path(DiffusionPipeline.download(name))
    except Exception as error:  # the hub client's network errors share no base class
        raise BackboneError(
            f"Backbone '{name}' is no folder here and could not be fetched from the Hugging Face "
            "hub: check the name and the connection, or download it elsewhere and give its folder."
        ) from error


def read_parts(folder: Path, device: str = "auto", dtype: str = "auto") -> Parts:
    """Load all pieces; the text encoder stays float32, since words are learned through it.

    Raises:
        BackboneError: a piece is missing, damaged or of another class, or the device is unknown.
    """
    where, weights = placed(device, dtype)
    _check_pieces(folder)
    try:
        with without_bars():
            unet = UNet3DConditionModel.from_pretrained(folder / "unet", torch_dtype=weights)
            vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=weights)
            text_encoder = CLIPTextModel.from_pretrained(
                folder / "text_encoder", dtype=torch.float32
            )
            tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise BackboneError(
            f"Backbone folder '{folder}' cannot be loaded ({reason}): fetch a complete copy."
        ) from error
    return Parts(
        tokenizer=tokenizer,
        text_encoder=text_encoder.to(where),
        fingerprint=fingerprint(folder, {"unet": unet, "text_encoder": text_encoder}),
        vae=vae.to(where),
        unet=unet.to(where),
        scheduler_config=_read_json(folder / "scheduler" / "scheduler_config.json"),
    )


def fingerprint(folder: Path, modules: Mapping[str, nn.Module]) -> str:
    """sha256 hex of the folder's configs and of the modules' weights."""
    configs = [_essential(_read_json(folder / piece)) for piece in _CONFIGS]
    return digest_weights(modules, *(json.dumps(one, sort_keys=True) for one in configs))


def digest_weights(modules: Mapping[str, nn.Module], *first: str) -> str:
    """sha256 hex of the modules' weights, after the texts `first`.

    Of each weight it takes name, shape and the *signs* of some evenly spaced values: cheap, the
    same for a float32, bfloat16 and float16 copy, and changed by any training that moves weights
    past zero, which among so many some always are.
    """
    digest = hashlib.sha256("".join(first).encode())
    for prefix, module in modules.items():
        for name, weight in module.state_dict().items():
            digest.update(f"{prefix}.{name}{tuple(weight.shape)}".encode())
            values = weight.detach().flatten()
            digest.update(torch.signbit(values[:: _stride(len(values))]).cpu().numpy().tobytes())
    return digest.hexdigest()


def _stride(count: int) -> int:
    return max(1, count // _SAMPLES)


def _essential(config: dict[str, Any]) -> dict[str, Any]:
    """The config without what a mere copy changes: versions, paths, storage type."""
    volatile = {"dtype", "torch_dtype", "transformers_version", "architectures"}
    return {
        key: value
        for key, value in config.items()
        if not key.startswith("_") and key not in volatile
    }


def placed(device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    """Where and in which type weights go; "auto" is the best there is.

    Raises:
        BackboneError: there is no such device or type.
    """
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        where = torch.device(automatic if device == "auto" else device)
    except RuntimeError as error:
        raise BackboneError(
            f"Unknown device '{device}': choose auto, cpu, cuda or cuda:<number>."
        ) from error
    if where.type == "cuda" and not torch.cuda.is_available():
        raise BackboneError(f"Device '{device}' is not available here: choose cpu or auto.")
    if dtype == "auto":
        half = "bf16" if where.type == "cuda" and torch.cuda.is_bf16_supported() else "fp16"
        dtype = half if where.type == "cuda" else "fp32"
    if dtype not in _DTYPES:
        raise BackboneError(f"Unknown dtype '{dtype}': choose one of auto, {', '.join(_DTYPES)}.")
    return where, _DTYPES[dtype]


def _check_pieces(folder: Path) -> None:
    for piece, meaning in _PIECES.items():
        if not _has(folder, piece):
            raise BackboneError(
                f"Backbone folder '{folder}' lacks {meaning} ({piece}): give a complete diffusers "
                "folder, as TextToVideoSDPipeline.save_pretrained writes it."
            )
    kind = _read_json(folder / "unet" / "config.json").get("_class_name", "UNet3DConditionModel")
    if kind != "UNet3DConditionModel":
        raise BackboneError(
            f"Backbone folder '{folder}' holds a {kind}: only UNet3DConditionModel models "
            "(ZeroScope, ModelScope, toybox) are supported."
        )


def _has(folder: Path, piece: str) -> bool:
    return (folder / piece).is_file()


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"'{path}' cannot be read as JSON: fetch a complete copy of the folder."
        ) from error


def readme_licence(folder: Path) -> str | None:
    """The licence a model card states in its front matter."""
    if not _has(folder, "README.md"):
        return None
    text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    found = re.match(r"---\n(?:.*\n)*?license:\s*(\S+)", text)
    return found[1] if found else None


def _native_size(parts: Parts) -> tuple[int, int]:
    factor = 2 ** (len(parts.vae.config.block_out_channels) - 1)
    sample = parts.unet.config.sample_size or 32
    height, width = (sample, sample) if isinstance(sample, int) else sample
    return height * factor, width * factor


def _pair(size: Any) -> tuple[int, int] | None:
    return None if size is None else (int(size[0]), int(size[1]))
