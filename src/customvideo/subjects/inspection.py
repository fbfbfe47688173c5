"""What can be told of a photo before anything is learned from it: is it sharp, bright, whole, new?

Measures and remarks only. Which files a folder holds is `customvideo.subjects.sorting`, and what is
done about a remark is a person's decision.

Thresholds were set on 62 photos of the DreamBooth dataset, blurred and saved again in several ways,
and on 200 rendered toys: see docs/prepare.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["BLURRED", "Look", "Seen", "alike", "look", "remarks", "see"]

BLURRED = 15.0
"""Sharpness below which a photo looks blurred: every sharp one had over 20, a blur by 2.5 pixels of
512 leaves at most 6."""
_SIDE = 512  # sharpness depends on the size it is measured at
_DARK = 0.12  # mean luma of a subject of which little can be seen
_SAME = 6  # of 63 bits; different photos of one subject differ in 8 or more
_TINGE = 45  # of 255, of the mean colour: more than an edit of the light
_SMALL_SHARE, _SMALL_SIDE = 0.02, 64
_CUT = 0.12  # share of a subject's width or height that lies on the picture's edge
_TINY_PICTURE = 128
_EDGES = ("top", "bottom", "left", "right")


@dataclass(frozen=True)
class Look:
    """A photo by itself.

    Attributes:
        sharpness: variance of the Laplacian of its luma (Pech-Pacheco et al. 2000), 512 pixels on
            the long side.
        fingerprint: perceptual hash of 63 bits: which of the lowest 8x8 frequencies but the mean
            lie above their median.
        colour: mean red, green and blue, 0 to 255.
    """

    sharpness: float
    fingerprint: int
    colour: tuple[float, float, float]


@dataclass(frozen=True)
class Seen:
    """A subject in its photo.

    Attributes:
        brightness: its mean luma in [0, 1].
        size: height and width of the box around it, in pixels of the photo.
        cut: the edges of the photo that cut it off.
    """

    brightness: float
    size: tuple[int, int]
    cut: tuple[str, ...]


def look(image: NDArray[np.uint8]) -> Look:
    """Look at a photo, uint8 (height, width, 3)."""
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    scale = _SIDE / max(grey.shape)
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    edges = cv2.Laplacian(cv2.resize(grey, size, interpolation=how), cv2.CV_64F)
    small = np.asarray(cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA), np.float32)
    waves = np.asarray(cv2.dct(small))[:8, :8].ravel()[1:]
    bits = waves > np.median(waves)
    red, green, blue = (float(value) for value in image.mean(axis=(0, 1)))
    fingerprint = int.from_bytes(np.packbits(bits).tobytes(), "big")
    return Look(float(edges.var()), fingerprint, (red, green, blue))


def alike(one: Look, other: Look) -> bool:
    """Whether two photos are the same but for size, compression and a little light."""
    shift = max(abs(a - b) for a, b in zip(one.colour, other.colour, strict=True))
    return shift <= _TINGE and (one.fingerprint ^ other.fingerprint).bit_count() <= _SAME


def see(image: NDArray[np.uint8], mask: NDArray[np.float32]) -> Seen:
    """Look at what `mask` (height, width), which is not empty, marks of `image`."""
    inside = mask >= 0.5
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    tall, wide = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
    lines = (inside[0], inside[-1], inside[:, 0], inside[:, -1])
    spans = (wide, wide, tall, tall)
    cut = [
        edge
        for edge, line, span in zip(_EDGES, lines, spans, strict=True)
        if line.sum() > _CUT * span
    ]
    return Seen(float(grey[inside].mean() / 255), (tall, wide), tuple(cut))


def remarks(image: NDArray[np.uint8], seen: Look, subject: Seen) -> Sequence[str]:
    """What a person should know of a photo, each a few words; empty if all is well."""
    height, width = image.shape[:2]
    tall, wide = subject.size
    found = []
    if min(height, width) < _TINY_PICTURE:
        found.append(f"a small picture, {width}x{height}")
    if seen.sharpness < BLURRED:
        found.append(f"blurred: sharpness {seen.sharpness:.0f}, below {BLURRED:.0f}")
    if subject.brightness < _DARK:
        found.append(f"the subject is dark: {subject.brightness:.0%} of white")
    if tall * wide < _SMALL_SHARE * height * width or max(tall, wide) < _SMALL_SIDE:
        found.append(f"the subject is small: {wide}x{tall} pixels")
    if subject.cut:
        found.append(f"cut off at the {' and '.join(subject.cut)}")
    return found
