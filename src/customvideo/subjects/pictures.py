"""Reading one photo, and the mask that belongs to it, from disk.

Everything a camera, an editor or a mishap can do to a picture file is met here, so that the rest
of the package sees plain arrays. It does NOT make masks (`customvideo.subjects.masks`) and knows
nothing of subjects.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from customvideo.errors import SubjectError

__all__ = [
    "SHORTEST_SIDE",
    "SUFFIXES",
    "Picture",
    "list_pictures",
    "read_drawing",
    "read_mask",
    "read_picture",
]

Pixels = TypeVar("Pixels", NDArray[np.uint8], NDArray[np.float32])

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
# No other decoder may run on a user's file, whatever its name claims: some start other programs.
_FORMATS = ("JPEG", "PNG", "WEBP")
SHORTEST_SIDE = 32
# Larger photos are shrunk: no backbone sees more, and ten phone photos would fill the memory.
_LONGEST_SIDE = 1024
_MOST_PIXELS = 64_000_000
"""More than any phone's; a gigabyte of copies while it is read."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One photo as it is meant to be looked at.

    Attributes:
        path: the file.
        image: uint8 (height, width, 3), RGB, turned upright, at most 1024 on the long side.
        alpha: float32 (height, width) in [0, 1], or None when the file is opaque throughout.
        size: (height, width) of the upright picture in the file, before shrinking.
        stored_size: (height, width) in the file before the EXIF orientation was applied.
    """

    path: Path
    image: NDArray[np.uint8]
    alpha: NDArray[np.float32] | None
    size: tuple[int, int]
    stored_size: tuple[int, int]


def list_pictures(folder: Path) -> list[Path]:
    """The picture files directly in `folder`, by file name; hidden files are skipped."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def read_picture(path: Path) -> Picture:
    """Read a photo, honouring its EXIF orientation.

    Raises:
        SubjectError: the file is no picture, is damaged, or is too small or too large.
    """
    with _opened(path) as stored:
        upright = ImageOps.exif_transpose(stored)
        rgba = np.asarray(_eight_bit(upright).convert("RGBA"))
        stored_size = (stored.height, stored.width)
    image, alpha = rgba[..., :3], rgba[..., 3]
    height, width = alpha.shape
    if min(height, width) < SHORTEST_SIDE:
        raise SubjectError(
            f"'{path}' is only {width}x{height} pixels; use a picture of at least "
            f"{SHORTEST_SIDE}x{SHORTEST_SIDE}."
        )
    if max(height, width) * SHORTEST_SIDE > _LONGEST_SIDE * min(height, width):
        raise SubjectError(
            f"'{path}' is {width}x{height} pixels, too narrow to use; crop it around the subject."
        )
    return Picture(
        path=path,
        image=np.ascontiguousarray(_shrink(image)),
        alpha=None if alpha.min() == 255 else _shrink(_as_weights(alpha)),
        size=(height, width),
        stored_size=stored_size,
    )


def read_mask(path: Path, picture: Picture) -> NDArray[np.float32]:
    """Read the mask of `picture`: float32 like its image, 1 where the file is white.

    Transparent parts of a mask file count as black.

    Raises:
        SubjectError: the file is no picture or is damaged, or its size is not the picture's.
    """
    weights = _weights(path)
    if weights.shape != picture.size:
        raise SubjectError(_wrong_size(path, weights.shape, picture))
    return _shrink(weights)


def read_drawing(path: Path) -> NDArray[np.float32]:
    """Read a mask by itself, as `read_mask`, at most 1024 on the long side.

    Raises:
        SubjectError: the file is no picture or is damaged.
    """
    return _shrink(_weights(path))


def _weights(path: Path) -> NDArray[np.float32]:
    with _opened(path) as stored:
        mask = ImageOps.exif_transpose(stored)
        layers = np.asarray(_eight_bit(mask).convert("RGBA").convert("LA"))
    return _as_weights(layers[..., 0]) * _as_weights(layers[..., 1])


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            # Pillow only warns of a picture so large that decoding it could exhaust the memory.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            with Image.open(path, formats=_FORMATS) as stored:
                # Its header says so before anything is decoded.
                if stored.width * stored.height > _MOST_PIXELS:
                    raise Image.DecompressionBombError
                stored.load()
                yield stored
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise SubjectError(f"'{path}' has too many pixels to be safe; save it smaller.") from error
    except MemoryError as error:
        raise SubjectError(f"'{path}' needs too much memory; save it smaller.") from error
    except UnidentifiedImageError as error:
        raise SubjectError(
            f"'{path}' is not a JPEG, PNG or WebP picture; remove it or save it again as one."
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise SubjectError(f"'{path}' {_what_is_wrong(error)}.") from error


def _what_is_wrong(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "may not be read; change its permissions or copy it elsewhere"
    return "is damaged or cut short; replace it by an intact copy or remove it"


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit grey; Pillow would clip it to white instead of scaling."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image, dtype=np.float64)
    return Image.fromarray((values / 257.0).clip(0, 255).round().astype(np.uint8))


def _as_weights(values: NDArray[np.uint8]) -> NDArray[np.float32]:
    return values.astype(np.float32) / np.float32(255.0)


def _shrink(values: Pixels) -> Pixels:
    height, width = values.shape[:2]
    scale = _LONGEST_SIDE / max(height, width)
    if scale >= 1:
        return values
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cast(Pixels, cv2.resize(values, size, interpolation=cv2.INTER_AREA))


def _wrong_size(path: Path, size: tuple[int, ...], picture: Picture) -> str:
    theirs, ours = f"{size[1]}x{size[0]}", f"{picture.size[1]}x{picture.size[0]}"
    told = f"The mask '{path}' is {theirs} pixels but its picture '{picture.path.name}' is {ours}"
    if size == picture.stored_size:
        return (
            f"{told} once turned upright as its EXIF orientation asks; turn the mask the same way."
        )
    return f"{told}; save the mask in the picture's size."
