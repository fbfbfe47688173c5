"""What a study shows: `items.json`, where only the researcher can see which file is whose.

An item is one prompt for which every method has a video; the files have random names, so that no
address says who made one. How they get there is `customvideo.userstudy.making`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from customvideo.errors import StudyError
from customvideo.files import write_text
from customvideo.records import parse_json

__all__ = ["ITEMS", "MEDIA", "SPOILED", "Item", "Items", "Reference", "read_items", "write_items"]

ITEMS, MEDIA = "items.json", "media"
SPOILED = "*spoiled*"
"""Stands where a method would, for the mosaic of an attention check; no method is called so."""

_VERSION = 1
_LONGEST = 200
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, AssertionError, OverflowError)


@dataclass(frozen=True)
class Reference:
    """A subject that raters compare with: its word, what it is, and the names of its photos."""

    word: str
    category: str
    photos: tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """One prompt and everybody's video of it.

    Attributes:
        key: what the researcher calls it.
        prompt: what was asked for; "" where nobody said.
        videos: method -> name of its file in the media folder.
        size: (width, height) of the videos.
        references: the subjects' photos.
        spoiled: the file of the attention check made of it, if there is one.
        checks: the method whose video it was made of.
    """

    key: str
    prompt: str
    videos: dict[str, str]
    size: tuple[int, int]
    references: tuple[Reference, ...] = ()
    spoiled: str = ""
    checks: str = ""

    def file(self, side: str) -> str:
        """The file of what stands on a side: a method, or `SPOILED`."""
        return self.spoiled if side == SPOILED else self.videos[side]


@dataclass(frozen=True)
class Items:
    """All of `items.json`: the methods in the order in which they are listed, and the items."""

    methods: tuple[str, ...]
    items: tuple[Item, ...]

    def __getitem__(self, key: str) -> Item:
        return next(item for item in self.items if item.key == key)

    @property
    def checks(self) -> tuple[Item, ...]:
        """The items that attention checks were made of."""
        return tuple(item for item in self.items if item.spoiled)

    @property
    def pairs(self) -> int:
        """How many different comparisons there are."""
        return len(self.methods) * (len(self.methods) - 1) // 2 * len(self.items)

    @property
    def files(self) -> frozenset[str]:
        """The names of all files that may be shown."""
        return frozenset(self._files())

    def _files(self) -> Iterator[str]:
        for item in self.items:
            yield from item.videos.values()
            if item.spoiled:
                yield item.spoiled
            for reference in item.references:
                yield from reference.photos

    @property
    def digest(self) -> str:
        """Of all of it: other videos, another study."""
        return hashlib.sha256(_dump(self).encode()).hexdigest()


def _dump(items: Items) -> str:
    told = {"version": _VERSION, **asdict(items)}
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


def write_items(folder: Path, items: Items) -> None:
    """Write `items.json`, all or nothing."""
    write_text(folder / ITEMS, _dump(items))


def read_items(folder: Path) -> Items:
    """The items of the study in `folder`.

    Raises:
        StudyError: they are missing or damaged, or a video is.
    """
    path = folder / ITEMS
    try:
        told = parse_json(path.read_text(encoding="utf-8"))
        assert told["version"] == _VERSION
        items = Items(_texts(told["methods"]), tuple(_item(one) for one in told["items"]))
    except (OSError, *_DAMAGED) as error:
        raise StudyError(
            f"'{path}' is missing or damaged; make the study anew with 'customvideo study new'."
        ) from error
    missing = sorted(name for name in items.files if not (folder / MEDIA / name).is_file())
    if missing:
        raise StudyError(
            f"'{folder / MEDIA / missing[0]}' is missing; put it back, or make the study anew."
        )
    return items


def _item(told: dict[str, Any]) -> Item:
    references = tuple(
        Reference(one["word"], one["category"], _files(one["photos"])) for one in told["references"]
    )
    _texts(text for one in references for text in (one.word, one.category))
    width, height = told["size"]
    videos = dict(zip(_texts(told["videos"]), _files(told["videos"].values()), strict=True))
    _texts([told["key"], told["prompt"], told.get("checks", "")])
    _files([told["spoiled"]] if told.get("spoiled") else [])
    size = (int(width), int(height))
    return Item(**{**told, "videos": videos, "size": size, "references": references})


def _files(told: Iterable[Any]) -> tuple[str, ...]:
    """Names of files in the media folder, which lead nowhere else."""
    names = _texts(told)
    if not all(_is_plain(name) for name in names):
        raise ValueError("no name of a file")
    return names


def _is_plain(name: str) -> bool:
    odd = name in ("", "..") or "\0" in name or len(name) > _LONGEST
    return not odd and Path(name).name == name


def _texts(told: Iterable[Any]) -> tuple[str, ...]:
    texts = tuple(told)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("no text")
    return texts
