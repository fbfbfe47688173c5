"""What was understood of each folder: as the page of `customvideo prepare`, and as JSON.

Shows what it is given; nothing is judged or computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from customvideo import __version__
from customvideo.backbones.spelling import Spelling
from customvideo.report import filled, picture_uri
from customvideo.runs.preparing_clips import clip_facts, shown_clip
from customvideo.runs.tidying import Tidy, TidyPhoto
from customvideo.subjects.masks import overlay
from customvideo.subjects.sorting import LeftOut

__all__ = ["Prepared", "Understood", "page", "recorded"]

_FORMAT = 1
_SIDE = 240
_ORIGINS = {
    "given": "mask as given",
    "made": "mask made here",
    "yours": "mask changed by you",
}


@dataclass(frozen=True, eq=False)
class Understood:
    """What was understood of one folder.

    Attributes:
        tidy: the photos that stay, with all that is known of each.
        source: the folder, as it was given.
        left_out: the files that do not stay, and why.
        category: what the subject is; "" of a group.
        stated: whether somebody said so.
        suggested: the likeliest nouns, each with its share.
        spellings: what the backbone's tokenizers make of the words.
    """

    tidy: Tidy
    source: str
    left_out: Sequence[LeftOut]
    category: str = ""
    stated: bool = True
    suggested: Sequence[tuple[str, float]] = ()
    spellings: Sequence[Spelling] = field(default_factory=tuple)


@dataclass(frozen=True, eq=False)
class Prepared:
    """Everything the page shows: `notes` concern all folders, `next_command` comes after it."""

    backbone: str
    folders: Sequence[Understood]
    notes: Sequence[str]
    next_command: str


def page(prepared: Prepared) -> str:
    """The page, one HTML file that loads nothing from elsewhere; every text is escaped."""
    values = {
        "version": __version__,
        "backbone": prepared.backbone,
        "folders": [_folder(one) for one in prepared.folders],
        "notes": list(prepared.notes),
        "next_command": prepared.next_command,
    }
    return filled("prepare.html.j2", values)


def recorded(prepared: Prepared) -> dict[str, Any]:
    """The same, JSON-ready."""
    return {
        "format": _FORMAT,
        "made_by": f"customvideo {__version__}",
        "backbone": prepared.backbone,
        "notes": list(prepared.notes),
        "folders": [_recorded(one) for one in prepared.folders],
        "next": prepared.next_command,
    }


def _recorded(one: Understood) -> dict[str, Any]:
    return {
        "name": one.tidy.label,
        "source": one.source,
        "category": one.category,
        "category_stated": one.stated,
        "suggested": [{"noun": noun, "share": round(share, 3)} for noun, share in one.suggested],
        "photos": [
            {
                "file": photo.file,
                "source": photo.source,
                "mask": photo.origin,
                "caption": photo.caption,
                **photo.facts,
            }
            for photo in one.tidy.photos
        ],
        "clips": [clip_facts(clip) for clip in one.tidy.clips],
        "left_out": [{"file": left.file, "why": left.why} for left in one.left_out],
        "words": [
            {
                "encoder": spelt.encoder,
                "row": spelt.row,
                "category": list(spelt.category),
                "bare": list(spelt.bare),
            }
            for spelt in one.spellings
        ],
    }


def _folder(one: Understood) -> dict[str, Any]:
    named = [f"{noun} ({share:.0%})" for noun, share in one.suggested]
    photos = [_photo(photo) for photo in one.tidy.photos]
    return {
        "words": [f"<{name}>" for name in one.tidy.label.split("+")],
        "label": one.tidy.label,
        "category": one.category,
        "stated": one.stated,
        "source": one.source,
        "suggested": ", ".join(named),
        "doubted": bool(one.suggested) and one.suggested[0][0] != one.category,
        "photos": photos,
        "clips": [shown_clip(clip) for clip in one.tidy.clips],
        "left_out": [(left.file, left.why) for left in one.left_out],
        "spellings": [_spelling(spelt) for spelt in one.spellings],
        "remarked": sum(bool(photo["remarks"]) for photo in photos),
    }


def _photo(photo: TidyPhoto) -> dict[str, Any]:
    facts = photo.facts
    covered = facts["coverage"].items()
    together = len(photo.masks) > 1
    return {
        "file": photo.file,
        "source": "" if photo.source == photo.file else photo.source,
        "image": picture_uri(_drawn(photo), _SIDE),
        "size": f"{facts['width']}×{facts['height']}",
        "sharpness": f"{facts['sharpness']:.0f}",
        "coverage": ", ".join(
            f"<{name}> {share:.0%}" if together else f"{share:.0%}" for name, share in covered
        ),
        "origin": _ORIGINS[photo.origin],
        "caption": photo.caption,
        "remarks": facts["remarks"],
    }


def _drawn(photo: TidyPhoto) -> NDArray[np.uint8]:
    """The photo with the masks of all it shows drawn over it."""
    masks = list(photo.masks.values())
    return overlay(photo.image, np.clip(np.sum(masks, axis=0), 0, 1).astype(np.float32))


def _spelling(spelt: Spelling) -> dict[str, Any]:
    return {
        "encoder": spelt.encoder,
        "row": f"{spelt.row:,}",
        "category": list(spelt.category),
        "bare": list(spelt.bare),
    }
