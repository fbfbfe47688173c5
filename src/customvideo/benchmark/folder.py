"""What lies in an edition's folder: its files against their manifest, and their checksums.

Nothing here downloads (`customvideo.benchmark.fetch`) or turns photos into subjects
(`customvideo.subjects.folders`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from customvideo.benchmark.manifest import (
    CHECKSUMS,
    FileEntry,
    Manifest,
    SubjectEntry,
    read_json_text,
)
from customvideo.errors import BenchmarkError, SubjectError
from customvideo.files import storage_error, write_text
from customvideo.records import parse_json
from customvideo.subjects.masks import check_mask
from customvideo.subjects.pictures import Picture, list_pictures, read_mask, read_picture

__all__ = [
    "contents",
    "file_problems",
    "key_of",
    "picture_problems",
    "read_checksums",
    "sha256",
    "write_checksums",
]

_BLOCK = 1 << 20
_MASKS = "masks"


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal.

    Raises:
        BenchmarkError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BenchmarkError(f"'{path}' cannot be read ({reason}); check it.") from error
    return digest.hexdigest()


def key_of(entry: SubjectEntry, file: FileEntry | Path) -> str:
    """How a file is called in `checksums.json`: its path below the edition's folder."""
    name = file.file if isinstance(file, FileEntry) else file.as_posix()
    return f"{entry.place}/{name}"


def read_checksums(root: Path) -> dict[str, str]:
    """What was recorded when files were first fetched into `root`; empty if nothing was.

    Raises:
        BenchmarkError: the record is damaged.
    """
    path = root / CHECKSUMS
    if not path.is_file():
        return {}
    try:
        values = parse_json(read_json_text(path))
    except ValueError:
        values = None
    if not isinstance(values, dict) or not all(isinstance(one, str) for one in values.values()):
        raise BenchmarkError(
            f"'{path}' is damaged; remove it and fetch again, which records the checksums anew."
        )
    return values


def write_checksums(root: Path, sums: Mapping[str, str]) -> None:
    """Record checksums by `key_of`; StorageError if `root` cannot be written."""
    write_text(root / CHECKSUMS, json.dumps(dict(sorted(sums.items())), indent=1) + "\n")


def contents(root: Path, manifest: Manifest) -> dict[str, str]:
    """The checksums of the files that the manifest neither vouches for nor knows a source of."""
    found = {}
    for entry in manifest.subjects:
        folder = root / entry.place
        vouched = {file.file for file in entry.files if file.sha256 or file.source}
        if folder.is_dir():
            for path in _pictures(folder):
                name = path.relative_to(folder)
                if name.as_posix() not in vouched:
                    found[key_of(entry, name)] = sha256(path)
    return found


def file_problems(root: Path, entry: SubjectEntry, sums: Mapping[str, str]) -> Iterator[str]:
    """What is missing, too many or changed in a subject's folder, one sentence each.

    `sums` is what `read_checksums` knows; it counts where the manifest has no checksum.
    """
    folder = root / entry.place
    if not folder.is_dir():
        yield f"The folder '{folder}' of subject '{entry.name}' is missing; {_remedy(entry)}."
        return
    present = {path.relative_to(folder).as_posix(): path for path in _pictures(folder)}
    if not entry.images and not list_pictures(folder):
        yield f"'{folder}' holds no picture of subject '{entry.name}'; put at least one there."
    for file in entry.files:
        path = folder / file.file
        if not path.is_file():
            yield f"The file '{path}' of subject '{entry.name}' is missing; {_remedy(entry)}."
            continue
        expected = file.sha256 or sums.get(key_of(entry, file), "")
        if expected and sha256(path) != expected:
            whose = "the manifest" if file.sha256 else "its first fetch"
            yield (
                f"'{path}' is not the file that {whose} knows (its checksum differs); remove it "
                "and fetch it again, or correct the checksum."
            )
    listed = {file.file for file in entry.files}
    for name, path in present.items():
        if (entry.masks if name.startswith(f"{_MASKS}/") else entry.images) and name not in listed:
            yield f"'{path}' is not in the manifest; add it there or remove it."


def picture_problems(root: Path, entry: SubjectEntry) -> Iterator[str]:
    """What cannot be used of the pictures and masks in a subject's folder, one sentence each."""
    folder = root / entry.place
    if not folder.is_dir():
        return
    pictures: dict[str, Picture] = {}
    stems: dict[str, str] = {}
    for path in list_pictures(folder):
        stem = path.stem.casefold()
        if stem in stems:
            yield (
                f"'{folder / stems[stem]}' and '{path.name}' have the same name but for their "
                "suffix, so a mask could belong to either; rename one."
            )
        stems[stem] = path.name
        try:
            pictures[stem] = read_picture(path)
        except SubjectError as error:
            yield str(error)
    if (folder / _MASKS).is_dir():
        for path in list_pictures(folder / _MASKS):
            yield from _mask_problems(path, stems, pictures)


def _mask_problems(
    path: Path, stems: Mapping[str, str], pictures: Mapping[str, Picture]
) -> Iterator[str]:
    stem = path.stem.casefold()
    if stem not in stems:
        yield f"The mask '{path}' belongs to no picture; name it like its picture or remove it."
    elif stem in pictures:
        try:
            mask = read_mask(path, pictures[stem])
            check_mask(mask, pictures[stem].image, f"the mask '{path}'")
        except SubjectError as error:
            yield str(error)


def _pictures(folder: Path) -> list[Path]:
    """Photos and masks, by path."""
    masks = folder / _MASKS
    try:
        return list_pictures(folder) + (list_pictures(masks) if masks.is_dir() else [])
    except OSError as error:
        raise storage_error(error, folder) from error


def _remedy(entry: SubjectEntry) -> str:
    if any(file.source for file in entry.files):
        return "fetch the edition (again): 'customvideo bench fetch'"
    return "put it back or correct the manifest"
