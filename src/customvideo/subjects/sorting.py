"""Sorting a folder as somebody has it: the photos that can be used, and why the others cannot.

Where `customvideo.subjects.folders` refuses a folder for one bad file, this goes on and says one
line a file. It reads only; the tidy copy is made by whoever asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from customvideo.errors import SubjectError
from customvideo.reels import KINDS
from customvideo.subjects.clips import list_clips
from customvideo.subjects.inspection import Look, alike, look
from customvideo.subjects.masks import check_mask
from customvideo.subjects.pictures import SUFFIXES, Picture, read_mask, read_picture

__all__ = ["Kept", "LeftOut", "Sorted", "sort_folder"]

_BESIDE = {".txt", ".bbox", ".toml", ".json", ".md"}
"""Files that lie beside photos and are no photos."""
_OTHER_PICTURES = {".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".raw"}


@dataclass(frozen=True)
class LeftOut:
    """A file that is not used, and why: a clause without a full stop."""

    file: str
    why: str


@dataclass(frozen=True, eq=False)
class Kept:
    """A photo that can be used.

    Attributes:
        picture: the photo.
        seen: what it looks like.
        mask: the mask that came with it, checked; None if it came without.
        note: what is odd about the file; "" for nothing.
    """

    picture: Picture
    seen: Look
    mask: NDArray[np.float32] | None = None
    note: str = ""


@dataclass(frozen=True, eq=False)
class Sorted:
    """A folder's files, sorted; `kept` by file name."""

    kept: list[Kept] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def sort_folder(folder: Path, *, masked: bool = True) -> Sorted:
    """Sort the files of `folder`. `masked` reads masks, `masks/<stem>.png` or alpha channels, too.

    Raises:
        SubjectError: there is no such folder, or masks came with the photos and fit none of them.
    """
    if not folder.is_dir():
        raise SubjectError(f"There is no folder '{folder}'; check the path.")
    found = Sorted()
    masks = _mask_files(folder, found) if masked else {}
    used = set()
    for path in _files(folder):
        kept = _read(folder, path, found)
        if kept is None:
            continue
        mask_file = masks.get(path.stem.casefold())
        used.add(path.stem.casefold())
        found.kept.append(_with_mask(kept, mask_file, found) if masked else kept)
    _drop_twins(found)
    for clip in list_clips(folder):
        used.add(clip.stem.casefold())
        if not masked:
            found.left_out.append(LeftOut(clip.name, "is a clip; of groups photos alone are used"))
    strays = [path for stem, path in masks.items() if stem not in used]
    if masks and len(strays) == len(masks) and found.kept:
        raise SubjectError(
            f"None of the {len(masks)} masks in '{folder / 'masks'}' is named like a picture in "
            f"'{folder}'; name them like '{found.kept[0].picture.path.stem}.png'."
        )
    found.left_out.extend(
        LeftOut(f"masks/{path.name}", "is the mask of no picture that can be used")
        for path in strays
    )
    return found


def _files(folder: Path) -> Iterator[Path]:
    """What lies directly in `folder`, by name; hidden files and folders are nobody's photos."""
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(".") and (path.is_symlink() or not path.is_dir()):
            yield path


def _read(folder: Path, path: Path, found: Sorted) -> Kept | None:
    """The photo at `path`; None, with a line for `found` where one is due, if there is none."""
    why = _unusable(folder, path)
    if why:
        found.left_out.append(LeftOut(path.name, why))
    if why or path.suffix.lower() not in SUFFIXES:
        return None
    try:
        picture = read_picture(path)
    except SubjectError as error:
        found.left_out.append(LeftOut(path.name, _clause(error, path)))
        return None
    return Kept(picture, look(picture.image), note=_moving(path))


def _unusable(folder: Path, path: Path) -> str:
    """Why a file is not even looked into; "" if it may be."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        return "is a link out of the folder; copy the file itself"
    if path.is_dir():
        return ""
    if not path.is_file():
        return "is no ordinary file"
    suffix = path.suffix.lower()
    if suffix in _OTHER_PICTURES:
        return f"is a {suffix[1:]} file; save it as jpg, png or webp"
    return "" if suffix in (*SUFFIXES, *KINDS, *_BESIDE) else "is no picture and no clip"


def _moving(path: Path) -> str:
    with Image.open(path) as stored:
        frames = int(getattr(stored, "n_frames", 1))
    return "" if frames == 1 else f"holds {frames} frames, of which the first is used"


def _mask_files(folder: Path, found: Sorted) -> dict[str, Path]:
    """Mask files by the stem of their picture, in lower case."""
    masks: dict[str, Path] = {}
    inside = folder / "masks"
    for path in _files(inside) if inside.is_dir() else ():
        why = _unusable(folder, path)
        if path.suffix.lower() not in SUFFIXES or why:
            found.left_out.append(LeftOut(f"masks/{path.name}", why or "is no mask"))
        elif path.stem.casefold() in masks:
            twin = masks[path.stem.casefold()].name
            found.left_out.append(LeftOut(f"masks/{path.name}", f"masks the same as '{twin}'"))
        else:
            masks[path.stem.casefold()] = path
    return masks


def _with_mask(kept: Kept, file: Path | None, found: Sorted) -> Kept:
    """The photo with the mask that came with it; a mask that cannot be used is left out."""
    picture = kept.picture
    try:
        if file is not None:
            mask = check_mask(read_mask(file, picture), picture.image, f"the mask '{file}'")
        elif picture.alpha is not None:
            label = f"the alpha channel of '{picture.path}'"
            mask = check_mask(picture.alpha, picture.image, label)
        else:
            return kept
    except SubjectError as error:
        alpha = f"{picture.path.name}, its alpha channel"
        name = alpha if file is None else f"masks/{file.name}"
        found.left_out.append(LeftOut(name, _clause(error, file or picture.path)))
        return kept
    return Kept(picture, kept.seen, mask, kept.note)


def _drop_twins(found: Sorted) -> None:
    """Leave out photos that look the same as another: the larger one stays, or one with a mask."""
    kept: list[Kept] = []
    order = sorted(
        found.kept, key=lambda one: (one.mask is None, -one.picture.size[0] * one.picture.size[1])
    )
    for one in order:
        twin = next((other for other in kept if alike(one.seen, other.seen)), None)
        if twin is None:
            kept.append(one)
        else:
            name = twin.picture.path.name
            found.left_out.append(LeftOut(one.picture.path.name, f"looks the same as '{name}'"))
    found.kept[:] = sorted(kept, key=lambda one: one.picture.path.name)


def _clause(error: SubjectError, path: Path) -> str:
    """What `error` says of `path`, without naming it again."""
    text = str(error).rstrip(".")
    for start in (f"'{path}' ", f"The mask '{path}' ", f"The alpha channel of '{path}' "):
        text = text.removeprefix(start)
    return text
