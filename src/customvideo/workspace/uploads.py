"""Files from a browser: counted, weighed, and decoded in a process that may break.

Nothing here hands a byte of an upload to a decoder; that is done by `decoding`, a process with
limits, which gives back bare pixels. What becomes of them is the shelf's business.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from customvideo.errors import SubjectError
from customvideo.records import parse_json
from customvideo.reels import KINDS
from customvideo.workspace.places import clean_name

__all__ = [
    "MOST_FILES",
    "Decoded",
    "Refused",
    "decode_clip",
    "decode_mask",
    "decode_photos",
    "require_few",
]

MOST_FILES = 40
"""Files in one upload."""
_LARGEST_PHOTO, _LARGEST_CLIP = 40 * 2**20, 400 * 2**20
_LARGEST_UPLOAD = 400 * 2**20
_PATIENCE, _EACH = 90.0, 15.0
"""Seconds for the first file and for each further one, by the clock on the wall."""
_SIDE = 1024
"""Longest side of what is decoded, as `customvideo.subjects.pictures` shrinks it."""

Upload = tuple[str, bytes]
"""A file's name as its owner calls it, for messages only, and its content."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """Pixels of a file: `image` (height, width, 3), `alpha` (height, width) if it had any.

    `lossy` says that the file was a JPEG."""

    name: str
    image: NDArray[np.uint8] | None
    alpha: NDArray[np.uint8] | None
    lossy: bool = False


@dataclass(frozen=True)
class Refused:
    """Why a file was not taken, in a sentence that names it."""

    name: str
    reason: str


def decode_photos(uploads: Sequence[Upload]) -> list[Decoded | Refused]:
    """The photos among `uploads`, in their order, upright and at most 1024 pixels long.

    Raises:
        SubjectError: there are too many, or they are too large together.
    """
    require_few(len(uploads), sum(len(data) for _, data in uploads))
    return _decode("photos", uploads, _LARGEST_PHOTO)


def require_few(files: int, size: int) -> None:
    """Refuse more photos, or bytes of them, than are taken at once.

    Raises:
        SubjectError: there are too many, or they are too large together.
    """
    if files > MOST_FILES:
        raise SubjectError(
            f"{files} files are too many at once; choose at most {MOST_FILES} of them."
        )
    if size > _LARGEST_UPLOAD:
        raise SubjectError(
            f"The files are over {_LARGEST_UPLOAD >> 20} MB together; add fewer at a time."
        )


def decode_mask(data: bytes, size: tuple[int, int]) -> NDArray[np.float32]:
    """A painted mask, stretched to `size` (height, width); 1 where it is white.

    Raises:
        SubjectError: it is no picture, or too large.
    """
    (found,) = _decode("mask", [("the mask", data)], _LARGEST_PHOTO)
    if isinstance(found, Refused) or found.alpha is None:
        reason = found.reason if isinstance(found, Refused) else "The mask is no picture; redraw it"
        raise SubjectError(reason)
    height, width = size
    grey = Image.fromarray(found.alpha)
    if found.alpha.shape != size:
        grey = grey.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(grey, np.float32) / np.float32(255)


def decode_clip(upload: Upload, count: int) -> list[Decoded | Refused]:
    """`count` frames of a clip that show the most; fewer if it is short."""
    return _decode("clip", [upload], _LARGEST_CLIP, str(count))


def _decode(
    kind: str, uploads: Sequence[Upload], largest: int, *extra: str
) -> list[Decoded | Refused]:
    """Decode files in a process of their own; one that ends it is refused, the others go on."""
    names = [_for_people(name) for name, _ in uploads]
    files = [f"{index:04d}{_suffix(kind, name)}" for index, name in enumerate(names)]
    found: dict[int, list[Decoded | Refused]] = {}
    with _folder() as folder:
        for index, (_, data) in enumerate(uploads):
            if len(data) > largest:
                reason = f"'{names[index]}' is over {largest >> 20} MB; save it smaller."
                found[index] = [Refused(names[index], reason)]
            else:
                (folder / "in" / files[index]).write_bytes(data)
        while any((folder / "in").iterdir()):
            further = len(list((folder / "in").iterdir())) - 1
            lines = _run([kind, str(folder), *extra], _PATIENCE + further * _EACH)
            begun = _begun(lines, folder, files)
            for index in begun:
                name, file = names[index], files[index]
                told = [line for line in lines if line.get("file") == file]
                reason = f"'{name}' could not be read within the limits; save it smaller or anew."
                read = [_read(line, folder, name) for line in told]
                found[index] = read or [Refused(name, reason)]
                (folder / "in" / file).unlink()
    return [one for index in range(len(uploads)) for one in found.get(index, [])]


def _begun(lines: Sequence[dict[str, Any]], folder: Path, files: Sequence[str]) -> list[int]:
    """Which of the waiting files were begun, at least one."""
    waiting = sorted(files.index(path.name) for path in (folder / "in").iterdir())
    return [index for index in waiting if {"begun": files[index]} in lines] or waiting[:1]


def _suffix(kind: str, name: str) -> str:
    """What tells the reader of clips of which kind one is; nothing else is told by names."""
    suffix = Path(name).suffix.lower()
    return suffix if kind == "clip" and suffix in KINDS else ""


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="customvideo-"))
    try:
        (folder / "in").mkdir()
        (folder / "out").mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(arguments: Sequence[str], patience: float) -> list[dict[str, Any]]:
    """What the decoding process said before it ended, in whatever way."""
    command = [sys.executable, "-m", "customvideo.workspace.decoding", *arguments]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        ended = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=patience,
            env={**os.environ, **threads},
        )
        said = ended.stdout
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
    lines: list[dict[str, Any]] = []
    for text in said.splitlines():
        try:
            line = parse_json(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def _read(line: dict[str, Any], folder: Path, name: str) -> Decoded | Refused:
    """What a line says, believed only as far as its sizes agree."""
    if "error" in line:
        place = str(folder / "in" / str(line["file"]))
        return Refused(name, str(line["error"])[:500].replace(place, name))
    try:
        image = _pixels(line.get("rgb"), folder, 3)
        alpha = _pixels(line.get("grey"), folder, 2)
    except (OSError, KeyError, TypeError, ValueError):
        return Refused(name, f"'{name}' could not be read; save it anew as JPEG or PNG.")
    return Decoded(name, image, alpha, bool(line.get("lossy")))


def _pixels(told: Any, folder: Path, axes: int) -> NDArray[np.uint8] | None:
    if told is None:
        return None
    shape = [int(side) for side in told["shape"]]
    if len(shape) != axes or not all(0 < side <= _SIDE for side in shape):
        raise ValueError("a shape that was not agreed upon")
    data = (folder / "out" / Path(str(told["name"])).name).read_bytes()
    return np.frombuffer(data, np.uint8).reshape(shape)


def _for_people(name: str) -> str:
    try:
        return clean_name(Path(str(name).replace("\\", "/")).name[-60:], "file")
    except Exception:  # whatever it is called, it may be used
        return "a file"
