"""A model's folder as diffusers saves it: what it says of itself, whose it is, and where it goes.

What every family of models has in common; the pieces themselves are the families' own business.
Every way in which a folder or a hub id can be wrong ends in one sentence.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from torch import nn

from customvideo.backbones.base import FAMILIES
from customvideo.backbones.eight_bits import EIGHT_BITS
from customvideo.errors import BackboneError
from customvideo.files import expanded
from customvideo.quiet import without_bars, without_warnings
from customvideo.records import parse_json
from customvideo.tables import import_target

__all__ = [
    "WORDLESS",
    "Card",
    "check_part",
    "check_vocabulary",
    "digest_weights",
    "fetch",
    "fingerprint",
    "has",
    "load",
    "loading_failed",
    "placed",
    "quiet_loading",
    "read_json",
    "readme_licence",
]

_log = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_CONFIGS = {
    "scheduler": "scheduler_config.json",
    "tokenizer": "tokenizer_config.json",
    "feature": "preprocessor_config.json",
    "image": "preprocessor_config.json",
}
"""First word of a part's name -> its config, where that is not `config.json`."""
_VOCABULARIES = ("tokenizer.json", "vocab.json")
WORDLESS = "wordless"
"""Key of a tokenizer's config, in folders that are counted and timed and never read a text."""
_SAMPLES = 256
"""Values looked at per weight tensor for the fingerprint."""


@dataclass(frozen=True)
class Card:
    """What weights do not say: name, licence, clip defaults and vocabulary.

    A folder can carry it as `customvideo.json` with the same keys, all optional; `nouns.json`, a
    plain list, does for `known_nouns` alone, and `recipes` there chooses packaged recipes (see
    `recipes_of`). `size` is (height, width) in pixels.
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
    def read(cls, folder: Path, usual: Card) -> Card:
        """The folder's own card, completed from its README and from what is `usual` for its kind
        of model.

        Raises:
            BackboneError: a file of it says what cannot be.
        """
        place = folder / "customvideo.json"
        given = read_json(place) if has(folder, place.name) else {}
        nouns = read_json(folder / "nouns.json") if has(folder, "nouns.json") else []
        try:
            words = given.get("known_words")
            licence = given.get("licence", readme_licence(folder))
            card = cls(
                name=str(given.get("name", folder.resolve().name)),
                licence=None if licence is None else str(licence),
                fps=float(given.get("fps", usual.fps)),
                frames=int(given.get("frames", usual.frames)),
                size=_pair(given.get("size")) or usual.size,
                known_nouns=frozenset(map(str, given.get("known_nouns", nouns))),
                known_words=None if words is None else frozenset(map(str, words)),
            )
        except (
            AttributeError,
            TypeError,
            ValueError,
            KeyError,
            IndexError,
            OverflowError,
        ) as error:
            raise BackboneError(f"'{place}' says what no card does ({error}): mend it.") from error
        if not (0 < card.fps < math.inf and card.frames > 0 and min(card.size) > 0):
            raise BackboneError(f"'{place}' says of clips what cannot be: mend fps, frames, size.")
        return card

    @classmethod
    def of_hub(cls, name: str, folder: Path, usual: Card) -> Card:
        """The card of a model on the hub, in `folder` now: one of the few we know, or its own."""
        return _HUB_CARDS.get(name) or replace(cls.read(folder, usual), name=name)

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
        Card("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "apache-2.0", 16.0, 81, (480, 832)),
        Card("Wan-AI/Wan2.1-T2V-14B-Diffusers", "apache-2.0", 16.0, 81, (480, 832)),
        Card("Wan-AI/Wan2.2-TI2V-5B-Diffusers", "apache-2.0", 24.0, 121, (704, 1280)),
        Card("Wan-AI/Wan2.2-T2V-A14B-Diffusers", "apache-2.0", 16.0, 81, (480, 832)),
        Card("hunyuanvideo-community/HunyuanVideo", "other", 24.0, 129, (720, 1280)),
        Card("Lightricks/LTX-Video", "other", 25.0, 161, (512, 704)),
        Card("THUDM/CogVideoX-2b", "apache-2.0", 8.0, 49, (480, 720)),
        Card("THUDM/CogVideoX-5b", "other", 8.0, 49, (480, 720)),
        Card("zai-org/CogVideoX-2b", "apache-2.0", 8.0, 49, (480, 720)),
        Card("zai-org/CogVideoX-5b", "other", 8.0, 49, (480, 720)),
    )
}


def load(name: str, device: str = "auto", dtype: str = "auto") -> Any:
    """The backbone in a folder, or with a hub id, of whichever family it is.

    Raises:
        BackboneError: it is of no known family, incomplete, or cannot be fetched.
    """
    local = expanded(name)
    folder = local if local.is_dir() else fetch(name)
    if not has(folder, "model_index.json"):
        raise BackboneError(
            f"Backbone folder '{folder}' lacks the list of parts (model_index.json): give a "
            "complete diffusers folder, as a pipeline's save_pretrained writes it."
        )
    index = read_json(folder / "model_index.json")
    kind = index.get("_class_name") if isinstance(index, dict) else None
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise BackboneError(
            f"Backbone folder '{folder}' holds a {kind}, which is no model customvideo can use: "
            f"give one of {', '.join(FAMILIES)}."
        )
    return import_target(FAMILIES[kind])(name, device=device, dtype=dtype)


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


def fingerprint(folder: Path, modules: Mapping[str, nn.Module], configs: Iterable[str]) -> str:
    """sha256 hex of the folder's `configs`, paths inside it, and of the modules' weights."""
    read = [_essential(read_json(folder / piece)) for piece in configs]
    return digest_weights(modules, *(json.dumps(one, sort_keys=True) for one in read))


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
    """Where and in which type weights go; "auto" is the best there is, and of several cards the
    one of this process.

    Raises:
        BackboneError: there is no such device or type.
    """
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        where = torch.device(automatic if device == "auto" else device)
        if str(where) == "cuda" and "LOCAL_RANK" in os.environ:
            where = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    except RuntimeError as error:
        raise BackboneError(
            f"Unknown device '{device}': choose auto, cpu, cuda or cuda:<number>."
        ) from error
    if where.type == "cuda" and not torch.cuda.is_available():
        raise BackboneError(f"Device '{device}' is not available here: choose cpu or auto.")
    if dtype in ("auto", *EIGHT_BITS):
        half = "bf16" if where.type == "cuda" and torch.cuda.is_bf16_supported() else "fp16"
        dtype = half if where.type == "cuda" else "fp32"
    if dtype not in _DTYPES:
        known = ", ".join(["auto", *_DTYPES, *EIGHT_BITS])
        raise BackboneError(f"Unknown dtype '{dtype}': choose one of {known}.")
    return where, _DTYPES[dtype]


def check_part(folder: Path, part: str, wanted: str) -> None:
    """Refuse half a part. Of a config that lacks, libraries make up the usual one, which may be of
    billions of numbers; `wanted` is the way out.

    Raises:
        BackboneError: it or its config is not there, or a tokenizer has no vocabulary.
    """
    if not (folder / part).is_dir():
        raise BackboneError(f"Backbone folder '{folder}' lacks the part '{part}': {wanted}")
    kind = part.partition("_")[0]
    config = f"{part}/{_CONFIGS.get(kind, 'config.json')}"
    if not has(folder, config):
        raise BackboneError(f"Backbone folder '{folder}' lacks '{config}': {wanted}")
    if kind == "tokenizer":
        check_vocabulary(folder, part, wanted)


def check_vocabulary(folder: Path, part: str, wanted: str) -> None:
    """Refuse a tokenizer without words, of which libraries make an empty one; unless its config
    says that it shall have none (`WORDLESS`).

    Raises:
        BackboneError: none of the files that hold one is there.
    """
    names = {path.name for path in (folder / part).iterdir()}
    if not names.isdisjoint(_VOCABULARIES) or any(name.endswith(".model") for name in names):
        return
    told = read_json(folder / part / "tokenizer_config.json")
    if not (isinstance(told, dict) and told.get(WORDLESS)):
        raise BackboneError(
            f"Backbone folder '{folder}' lacks the tokenizer's words ({part}/tokenizer.json): "
            f"{wanted}"
        )


def loading_failed(folder: Path, error: Exception) -> BackboneError:
    """The error for a folder whose pieces are all there but cannot be loaded."""
    reason = str(error).strip().split("\n")[0].rstrip(".")
    return BackboneError(
        f"Backbone folder '{folder}' cannot be loaded ({reason}): fetch a complete copy."
    )


def has(folder: Path, piece: str) -> bool:
    return (folder / piece).is_file()


def read_json(path: Path) -> Any:
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"'{path}' cannot be read as JSON: fetch a complete copy of the folder."
        ) from error


def readme_licence(folder: Path) -> str | None:
    """The licence a model card states in its front matter."""
    if not has(folder, "README.md"):
        return None
    text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    found = re.match(r"---\n(?:.*\n)*?license:\s*(\S+)", text)
    return found[1] if found else None


def _pair(size: Any) -> tuple[int, int] | None:
    return None if size is None else (int(size[0]), int(size[1]))


@contextmanager
def quiet_loading() -> Iterator[None]:
    """No bars, and no words of the libraries, while their pipelines load inside."""
    with (
        without_bars(diffusers_logging),
        without_warnings("transformers", "diffusers"),
        warnings.catch_warnings(),
    ):
        # The name that all supported versions know; newer ones have a second.
        warnings.filterwarnings("ignore", "`torch_dtype` is deprecated", FutureWarning)
        yield
