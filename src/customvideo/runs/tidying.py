"""Writing tidy folders: photos upright and RGB, a mask beside each, captions, settings.

A tidy folder is what `customvideo train` takes as it is. Masks and captions that somebody changed
in it, and files that somebody added, outlive the next writing. Which photos are in it is decided in
`customvideo.runs.preparing`.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray
from PIL import Image

from customvideo.errors import ConfigError, SubjectError
from customvideo.files import atomic_folder, ensure_dir, storage_error
from customvideo.records import parse_json
from customvideo.runs.preparing_clips import TidyClip
from customvideo.subjects.masks import check_mask
from customvideo.subjects.pictures import read_mask, read_picture

__all__ = ["RECORD", "Earlier", "Tidy", "TidyPhoto", "tidy_names", "write_tidy"]

RECORD = "prepare.json"
_OLD = ".old"
_QUALITY = 95


@dataclass(frozen=True, eq=False)
class TidyPhoto:
    """One photo of a tidy folder.

    Attributes:
        file: its name there.
        source: its name where it came from.
        image: uint8 (height, width, 3).
        masks: name of a subject -> float32 (height, width) in [0, 1].
        caption: its text; "" for none.
        origin: where its masks came from: "given", "made", or "yours" for one that was changed in
            the tidy folder.
        facts: what is known of it, JSON-ready, `remarks` among it.
    """

    file: str
    source: str
    image: NDArray[np.uint8]
    masks: Mapping[str, NDArray[np.float32]]
    caption: str = ""
    origin: str = "made"
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Tidy:
    """A tidy folder: `label` is `tom`, or `tom+rex` of a group; `settings` its subject.toml."""

    label: str
    photos: list[TidyPhoto]
    settings: Mapping[str, str] = field(default_factory=dict)
    clips: Sequence[TidyClip] = ()

    @property
    def grouped(self) -> bool:
        return "+" in self.label

    def files(self) -> dict[str, bytes]:
        """Every file of the folder by its relative name."""
        found: dict[str, bytes] = {}
        for photo in self.photos:
            stem = Path(photo.file).stem
            found[photo.file] = _encoded(photo.image, Path(photo.file).suffix)
            for name, mask in photo.masks.items():
                own = f"{stem}.{name}" if self.grouped else stem
                levels = (mask * 255).round().astype(np.uint8)
                found[f"masks/{own}.png"] = _encoded(levels, ".png")
            if photo.caption:
                found[f"{stem}.txt"] = f"{photo.caption}\n".encode()
        for clip in self.clips:
            found |= clip.files()
        if self.settings:
            found["subject.toml"] = tomli_w.dumps(dict(self.settings)).encode()
        return found


@dataclass(frozen=True, eq=False)
class Earlier:
    """What an earlier preparation left in a folder, and what somebody changed in it since.

    Attributes:
        out: the folder.
        digests: relative name -> SHA-256 of each file as it was written.
    """

    out: Path
    digests: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, out: Path) -> Earlier:
        """What is in `out`.

        Raises:
            ConfigError: there is something in it that no preparation wrote.
        """
        record = out / RECORD
        if out.is_dir() and any(out.glob("[!.]*")) and not record.is_file():
            raise ConfigError(
                f"The folder '{out}' is not empty and holds no {RECORD}; choose a new one with "
                "--out."
            )
        if out.exists() and not out.is_dir():
            raise ConfigError(f"'{out}' is a file, not a folder; choose another --out.")
        if not record.is_file():
            return cls(out)
        _bring_back(out)
        try:
            files = parse_json(record.read_text(encoding="utf-8"))["files"]
            return cls(out, {str(name): str(digest) for name, digest in files.items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"'{record}' cannot be read; remove it and its folder, or choose another --out."
            ) from error

    def mask(
        self, label: str, file: str, own: str, size: tuple[int, ...]
    ) -> NDArray[np.float32] | None:
        """The mask `masks/<own>.png` of the photo `file`, if somebody changed it there since; None
        if nobody did, or if it no longer fits an image of `size`."""
        path = self.out / label / "masks" / f"{own}.png"
        if not self._changed(f"{label}/masks/{own}.png"):
            return None
        try:
            picture = read_picture(self.out / label / file)
            mask = check_mask(read_mask(path, picture), picture.image, f"the mask '{path}'")
        except (SubjectError, OSError):
            return None
        return mask if mask.shape == size[:2] else None

    def caption(self, label: str, file: str) -> str | None:
        """The caption of the photo `file`, if somebody changed or added it since."""
        name = f"{Path(file).stem}.txt"
        path = self.out / label / name
        if not path.is_file() or not self._changed(f"{label}/{name}"):
            return None
        try:
            return " ".join(path.read_text(encoding="utf-8").split())
        except (OSError, UnicodeDecodeError):
            return None

    def added(self, label: str) -> dict[str, bytes]:
        """Files in the folder of `label` that no preparation wrote, by relative name."""
        folder = self.out / label
        names = (path.relative_to(folder).as_posix() for path in _ordinary(folder))
        return {
            name: (folder / name).read_bytes()
            for name in names
            if f"{label}/{name}" not in self.digests
        }

    def _changed(self, name: str) -> bool:
        try:
            now = hashlib.sha256((self.out / name).read_bytes()).hexdigest()
        except OSError:
            return False
        return self.digests.get(name) != now


def tidy_names(files: Collection[str]) -> dict[str, str]:
    """What each of `files` is called in a tidy folder: no odd characters, no two of one stem."""
    taken: set[str] = set()
    names: dict[str, str] = {}
    for file in sorted(files):
        path = Path(file)
        stem = base = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-") or "photo"
        count = 1
        while stem.casefold() in taken:
            count += 1
            stem = f"{base}-{count}"
        taken.add(stem.casefold())
        names[file] = stem + (".png" if path.suffix.lower() == ".png" else ".jpg")
    return names


def write_tidy(tidy: Tidy, earlier: Earlier) -> dict[str, str]:
    """Write a tidy folder in place of an earlier one; SHA-256 of each file by its name in `out`.

    Nothing is touched if every file is there already.

    Raises:
        StorageError: the place cannot be written; what was there stays.
    """
    target = ensure_dir(earlier.out) / tidy.label
    files = tidy.files()
    digests = {
        f"{tidy.label}/{name}": hashlib.sha256(data).hexdigest() for name, data in files.items()
    }
    wanted = {**earlier.added(tidy.label), **files}
    there = {path.relative_to(target).as_posix(): path.read_bytes() for path in _ordinary(target)}
    if there != wanted:
        _replace(target, wanted)
    return digests


def _ordinary(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]


def _bring_back(out: Path) -> None:
    """Put back what a killed preparation had moved aside, before anybody reads what is there."""
    for old in out.glob(f".*{_OLD}"):
        target = old.with_name(old.name.removeprefix(".").removesuffix(_OLD))
        try:
            if not target.exists():
                os.rename(old, target)
        except OSError as error:
            raise storage_error(error, target) from error


def _replace(target: Path, files: Mapping[str, bytes]) -> None:
    """Make the folder `target` hold `files` and nothing else; on an error it stays as it was."""
    old = target.with_name(f".{target.name}{_OLD}")
    try:
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            os.rename(target, old)
    except OSError as error:
        raise storage_error(error, target) from error
    try:
        with atomic_folder(target) as partial:
            for name, data in files.items():
                ensure_dir((partial / name).parent)
                (partial / name).write_bytes(data)
    except BaseException:
        with suppress(OSError):
            os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _encoded(pixels: NDArray[np.uint8], suffix: str) -> bytes:
    memory = io.BytesIO()
    if suffix == ".png":
        Image.fromarray(pixels).save(memory, format="PNG")
    else:
        Image.fromarray(pixels).save(memory, format="JPEG", quality=_QUALITY, subsampling=0)
    return memory.getvalue()
