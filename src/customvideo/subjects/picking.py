"""Which frames of a clip serve as photos: sharp ones that differ most from each other.

Descriptors are small on purpose (coarse colours and edges): they tell a turn of the head or another
room from a step forward, and cost nothing. Reading clips is `customvideo.subjects.clips`.

Axes: frame, height, width; a descriptor is one row of numbers a frame.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["descriptors", "pick_frames", "sharpness"]

Floats = NDArray[np.float32]

_SIDE = 128  # pixels of the longer side of what is looked at
_CELLS = 6
_BLURRED = 0.5  # of the clip's median sharpness


def pick_frames(frames: NDArray[np.uint8], count: int, usable: NDArray[np.bool_]) -> list[int]:
    """Up to `count` frames, in the order of the clip; the same clip, the same frames.

    The first is the sharpest, each next one the farthest from those taken (Gonzalez 1985). Frames
    half as sharp as usual are taken only where there is nothing else, frames that look like one
    already taken never.

    Args:
        frames: uint8 (frame, height, width, 3).
        count: at least 1.
        usable: bool (frame,), which may be taken at all.
    """
    sharp = sharpness(frames)
    clear = usable & (sharp >= _BLURRED * np.median(sharp[usable])) if usable.any() else usable
    left = np.flatnonzero(clear)
    if not len(left):
        return []
    found = descriptors(frames)
    taken = [int(left[sharp[left].argmax()])]
    distance = np.linalg.norm(found - found[taken[0]], axis=1)
    while len(taken) < count:
        farthest = int(left[distance[left].argmax()])
        if distance[farthest] <= 1e-6:
            break
        taken.append(farthest)
        distance = np.minimum(distance, np.linalg.norm(found - found[farthest], axis=1))
    return sorted(taken)


def descriptors(frames: NDArray[np.uint8]) -> Floats:
    """Coarse colours and edges of each frame (frame, number)."""
    rows = []
    for frame in frames:
        small = _small(frame)
        lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32) / 255
        slopes = np.hypot(*(cv2.Sobel(lab[..., 0], cv2.CV_32F, *way) for way in ((1, 0), (0, 1))))
        layers = np.dstack([lab, slopes])
        cells = cv2.resize(layers, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
        rows.append(cells.ravel())
    return np.asarray(np.stack(rows), np.float32)


def sharpness(frames: NDArray[np.uint8]) -> Floats:
    """How much fine detail each frame has (frame,): the variance of its Laplacian."""
    grey = [cv2.cvtColor(_small(frame), cv2.COLOR_RGB2GRAY) for frame in frames]
    return np.array([cv2.Laplacian(one, cv2.CV_32F).var() for one in grey], np.float32)


def _small(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = (max(_CELLS, round(width * scale)), max(_CELLS, round(height * scale)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
