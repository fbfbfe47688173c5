"""MuDI's Detect-and-Compare: are the things found as like and unlike as the subjects themselves?

Jang et al., Identity Decoupling for Multi-Subject Personalization (arXiv 2404.04243), as their
released code computes it. Features come in, a number goes out.

Axes: subject, thing (found in a frame), reference (photo), dim. Rows have unit length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["detect_and_compare", "own_similarity"]


def detect_and_compare(things: Tensor, references: Sequence[Tensor]) -> float:
    """1 minus how far the found matrix of similarities is from the references' own.

    `things` (thing, dim) are all crops of one frame, `references` (reference, dim) each subject's
    photos. Each thing is compared with each subject by its mean cosine; things are put in order
    greedily, the first subject taking the thing most like it; the distance from `own_similarity`
    is Frobenius'. A frame that does not show as many things as subjects has distance 1.

    1 is perfect. Frames worse than an incomplete one are negative: two of one subject are
    further away than one of each is. (The code prints the distance; we print its complement, so
    that more is better, as in the paper's tables.)
    """
    if len(things) != len(references):
        return 0.0
    found = np.array(
        [
            [float(value) for value in (things.double() @ one.double().T).mean(1)]
            for one in references
        ]
    ).T
    distance = np.linalg.norm(_ordered(found) - own_similarity(references))
    return 1 - float(distance)


def own_similarity(references: Sequence[Tensor]) -> NDArray[np.float64]:
    """(subject, subject): the mean cosine of all pairs of their `references` (reference, dim).

    On the diagonal a photo's pairs include the one with itself, as in the released code.
    """
    means = torch.stack([features.double().mean(0) for features in references])
    own: NDArray[np.float64] = (means @ means.T).numpy()
    return own


def _ordered(found: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rows of `found` (thing, subject), such that row i is the best left for subject i."""
    left = list(range(len(found)))
    order = []
    for subject in range(found.shape[1]):
        best = max(left, key=lambda thing: found[thing, subject])
        left.remove(best)
        order.append(best)
    return found[order]
