"""What is doubtful about a photo for learning a subject from it, in words for its owner.

Nothing here refuses anything: what cannot be used at all is `customvideo.subjects`' business.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from customvideo.subjects.masks import coverage

__all__ = ["NO_MASK", "photo_doubts", "subject_doubts"]

NO_MASK = "The subject was not found in this photo: paint it with the brush, or remove the photo."

_DARK, _BRIGHT = 45, 235
_SMALL = 0.04
_SHARE_AT_EDGE = 0.08
"""Of an edge that the subject covers where it looks cut off."""
_FEWEST = 3
_SHORT_SIDE = 128
_EDGES = (
    ("top", (0,)),
    ("bottom", (-1,)),
    ("left", (slice(None), 0)),
    ("right", (slice(None), -1)),
)


def photo_doubts(image: NDArray[np.uint8], mask: NDArray[np.float32] | None) -> tuple[str, ...]:
    """A sentence for each thing that may spoil learning from `image` (height, width, 3)."""
    found: list[str] = []
    if min(image.shape[:2]) < _SHORT_SIDE:
        found.append(f"It has only {image.shape[1]} x {image.shape[0]} pixels; use a larger one.")
    if mask is None:
        return (*found, NO_MASK)
    inside = mask >= 0.5
    grey = image[inside].mean() if inside.any() else image.mean()
    if grey < _DARK:
        found.append("The subject is very dark here; take the photo in more light.")
    elif grey > _BRIGHT:
        found.append("The subject is overexposed here; take the photo in less light.")
    if coverage(mask) < _SMALL:
        found.append("The subject is small here; crop the photo around it.")
    cut = [name for name, edge in _EDGES if inside[edge].mean() > _SHARE_AT_EDGE]
    if cut:
        found.append(f"The subject is cut off at the {' and '.join(cut)}; show all of it.")
    return tuple(found)


def subject_doubts(photos: Sequence[object]) -> tuple[str, ...]:
    """A sentence for each thing that may spoil learning from these photos together."""
    count = len(photos)
    if count == 0:
        return ("There is no photo yet; three to six are enough.",)
    if count < _FEWEST:
        return (f"{count} of at least {_FEWEST} photos are there; add some from other sides.",)
    return ()
