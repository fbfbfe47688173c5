"""What a subject is, as an encoder of texts and pictures sees it: a suggestion, no score.

Zero-shot classification (Radford et al. 2021): the noun whose text is nearest to the pictures.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from customvideo.evaluation.encoders import TextImageEncoder
from customvideo.subjects.prompt import article
from customvideo.subjects.subject import Subject

__all__ = ["likeliest"]

_SHARPNESS = 100.0
"""CLIP's own scale of similarities."""
_MARGIN = 0.1


def likeliest(
    encoder: TextImageEncoder, subject: Subject, nouns: Collection[str], count: int = 3
) -> list[tuple[str, float]]:
    """The `count` likeliest of `nouns` for what `subject` shows, each with its share of belief.

    Shares of all nouns sum to 1; each photo is judged by its part around the mask, all count alike.
    """
    names = sorted(set(nouns))
    texts = encoder.encode_text([f"a photo of {article(name)} {name}" for name in names])
    beliefs = []
    for image, mask in zip(subject.images, subject.masks, strict=True):
        seen = encoder.encode_images(_around(image, mask)[None])[0]
        beliefs.append((_SHARPNESS * texts.float() @ seen.float()).softmax(dim=0))
    shares, order = torch.stack(beliefs).mean(dim=0).sort(descending=True)
    best: Sequence[int] = order[:count].tolist()
    return [(names[index], float(share)) for index, share in zip(best, shares, strict=False)]


def _around(image: NDArray[np.uint8], mask: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The part of `image` that holds the subject, with a little around it."""
    inside = mask >= 0.5
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    gap = int(_MARGIN * max(len(rows), len(columns)))
    top, left = max(0, int(rows[0]) - gap), max(0, int(columns[0]) - gap)
    return np.ascontiguousarray(image[top : rows[-1] + gap + 1, left : columns[-1] + gap + 1])
