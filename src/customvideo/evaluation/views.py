"""Whether a video repeats a reference photo: the subject's very pose, ground and frame.

Who learned a photo instead of the subject in it gives the photo back. So the subject is looked at
together with what is around it, in a window; the same window is cut from its photos. Pictures and
features only; what the numbers mean for a video is decided in `customvideo.evaluation.failures`.

Axes: height, width; frame, photo, dim. Features have unit length.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

__all__ = ["closest_pair", "nearest_photo", "view"]

_WIDER = 1.6  # times the subject's box
_SIDE = 224


def view(image: NDArray[np.uint8], mask: NDArray[np.bool_], aspect: float) -> NDArray[np.uint8]:
    """The window of `image` around what `mask` (height, width) marks, as a square of 224 pixels.

    It is centred on the mask's box and 1.6 times as large, its width `aspect` times its height; at
    the picture's sides it is moved inwards, and made smaller where it does not fit.
    """
    tall, wide = image.shape[:2]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1)
    height = min(_WIDER * max(box[0], box[1] / aspect), tall, wide / aspect)
    down = _span((rows[0] + rows[-1] + 1) / 2, height, tall)
    across = _span((columns[0] + columns[-1] + 1) / 2, height * aspect, wide)
    window = Image.fromarray(np.ascontiguousarray(image[down, across]))
    return np.asarray(window.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))


def nearest_photo(frames: Tensor, photos: Tensor) -> float:
    """How like a video's views `frames` (frame, dim) are to that of `photos` they are most like.

    For each of `photos` (photo, dim) its mean cosine with all frames counts: a photo that is
    repeated stays.
    """
    return float((photos.double() @ frames.double().mean(0)).max())


def closest_pair(photos: Tensor, mirrored: Tensor) -> float | None:
    """How alike the two most alike of `photos` (photo, dim) are; None where there is only one.

    `mirrored` are the same photos left to right: a mirrored photo is that photo.
    """
    if len(photos) < 2:
        return None
    alike = torch.maximum(
        photos.double() @ photos.double().T, photos.double() @ mirrored.double().T
    )
    return float(alike[~torch.eye(len(photos), dtype=torch.bool)].max())


def _span(centre: float, length: float, limit: int) -> slice:
    pixels = min(max(1, round(length)), limit)
    start = min(max(0, round(centre - length / 2)), limit - pixels)
    return slice(start, start + pixels)
