"""What is doubtful about a photo for learning a subject from it, in sentences for its owner.

What is measured, and where doubt begins, is `customvideo.subjects.inspection`. Nothing here refuses
anything: what cannot be used at all is `customvideo.subjects`' business.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from customvideo.subjects.inspection import look, remarks, see

__all__ = ["NO_MASK", "photo_doubts", "subject_doubts"]

NO_MASK = "The subject was not found in this photo: paint it with the brush, or remove the photo."

_FEWEST = 3


def photo_doubts(image: NDArray[np.uint8], mask: NDArray[np.float32] | None) -> tuple[str, ...]:
    """A sentence for each thing that may spoil learning from `image` (height, width, 3)."""
    if mask is None:
        return (NO_MASK,)
    return tuple(
        f"{text[0].upper()}{text[1:]}." for text in remarks(image, look(image), see(image, mask))
    )


def subject_doubts(photos: Sequence[object]) -> tuple[str, ...]:
    """A sentence for each thing that may spoil learning from these photos together."""
    count = len(photos)
    if count == 0:
        return ("There is no photo yet; three to six are enough.",)
    if count < _FEWEST:
        return (f"{count} of at least {_FEWEST} photos are there; add some from other sides.",)
    return ()
