"""Reference pictures: a subject's clearest photos, cut out by their masks, on white.

For models that are shown a subject instead of learning it. Which photos are clear is told by the
masks alone; nobody looks at what is in them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from customvideo.subjects.scene import on_white
from customvideo.subjects.subject import Subject

__all__ = ["clearest", "reference_pictures"]


def clearest(subject: Subject) -> list[int]:
    """The subject's photos, the clearest first.

    Photos that show all of it come before those whose edge cuts it off, and of either kind those
    that show it with more pixels; of equals the earlier.
    """
    inside = [mask >= 0.5 for mask in subject.masks]
    order = range(len(inside))
    return sorted(order, key=lambda index: (_cut_off(inside[index]), -int(inside[index].sum())))


def reference_pictures(
    subject: Subject, count: int, side: int, step: int = 1
) -> list[NDArray[np.uint8]]:
    """The clearest `count` photos, or all there are, as `on_white` makes them."""
    chosen = clearest(subject)[:count]
    return [on_white(subject.images[one], subject.masks[one], side, step) for one in chosen]


def _cut_off(inside: NDArray[np.bool_]) -> bool:
    """Whether a mask (height, width) reaches an edge of its photo."""
    edges = (inside[0], inside[-1], inside[:, 0], inside[:, -1])
    return any(bool(edge.any()) for edge in edges)
