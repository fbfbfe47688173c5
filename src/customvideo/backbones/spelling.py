"""How a text encoder's tokenizer cuts words into pieces, told without loading the model.

For people who want to see what becomes of a word before they train. What learned words are made of
is `customvideo.adapters.tokens`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from customvideo.backbones.base import backbone_rows, load_backbone
from customvideo.backbones.sizes import cached, published
from customvideo.errors import BackboneError
from customvideo.files import expanded
from customvideo.quiet import without_bars, without_warnings

__all__ = ["Spelling", "spell", "tokenizers_of"]


@dataclass(frozen=True)
class Spelling:
    """What one tokenizer makes of a subject's words.

    Attributes:
        encoder: which of the model's tokenizers.
        category: the pieces of the category, from which the learned word starts.
        bare: the pieces of the word as it would be read if nobody taught it.
        row: the number that the learned word gets: one more than there are.
    """

    encoder: str
    category: tuple[str, ...]
    bare: tuple[str, ...]
    row: int


def tokenizers_of(name: str) -> dict[str, Any]:
    """The tokenizers of the model that `load_backbone` would load, by their folders' names.

    Only these are read or fetched, unless the model is one that needs nothing fetched.

    Raises:
        BackboneError: there is no such model here, and its tokenizer cannot be fetched.
    """
    known, folder = published(name), expanded(name)
    if known is None and name in backbone_rows():
        tables = load_backbone(name, "cpu").tables()
        return {f"tokenizer {place}": table.tokenizer for place, table in enumerate(tables, 1)}
    hub = name if known is None else known.hub
    place = folder if folder.is_dir() else cached(hub)
    if place is None and "/" not in hub:
        load_backbone(name, "cpu")  # says what there is
    found = sorted(place.glob("tokenizer*")) if place is not None else []
    if place is not None and not found:
        raise BackboneError(
            f"'{place}' holds no tokenizer; give a folder with a whole text-to-video model."
        )
    return {part.name: _read(part) for part in found} or {"tokenizer": _read(hub, "tokenizer")}


def spell(tokenizer: Any, encoder: str, word: str, category: str) -> Spelling:
    """What `tokenizer` makes of a learned `word`, such as `<tom>`, and of its category."""
    return Spelling(encoder, _pieces(tokenizer, category), _pieces(tokenizer, word), len(tokenizer))


def _pieces(tokenizer: Any, text: str) -> tuple[str, ...]:
    ids = tokenizer.encode(text, add_special_tokens=False)
    return tuple(str(piece) for piece in tokenizer.convert_ids_to_tokens(ids))


def _read(place: Path | str, subfolder: str = "") -> Any:
    from transformers import AutoTokenizer

    try:
        with without_bars(), without_warnings("transformers", "huggingface_hub"):
            return AutoTokenizer.from_pretrained(str(place), subfolder=subfolder)
    except (OSError, ValueError, KeyError) as error:
        raise BackboneError(
            f"The tokenizer of '{place}' can neither be read nor fetched; check the name and the "
            "connection, or give the model's folder."
        ) from error
