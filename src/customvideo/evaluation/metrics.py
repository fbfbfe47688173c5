"""The published scores of customized videos: features in, one number out.

Each function is a formula over features that some encoder made; none knows a model, a file or a
batch. Features are (n, dim) with rows of unit length, computed in double precision.

The first four are the scores of CustomVideo (arXiv 2401.09962) and DreamVideo (arXiv 2312.04433),
computed as DreamVideo's released code does, on all frames and the full picture.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "clip_i",
    "clip_t",
    "clip_t_scaled",
    "dino_i",
    "dino_i_gain",
    "frame_change",
    "temporal_consistency",
    "temporal_consistency_all_pairs",
]

_TEXT_WEIGHT = 2.5
_NO_ROOM = 1e-6


def clip_t(frames: Tensor, text: Tensor) -> float:
    """Text alignment: `text` (dim,) times the mean of the `frames` (frame, dim).

    The mean is not normalised again, so this is the mean cosine of the text with each frame.
    """
    return float(frames.double().mean(0) @ text.double())


def clip_t_scaled(frames: Tensor, text: Tensor) -> float:
    """Text alignment as CLIPScore (Hessel et al. 2021, eq. 1) scales it: 2.5 × cosine, never
    below 0; the form in which Custom Diffusion's and many later tables print it."""
    return _TEXT_WEIGHT * max(0.0, clip_t(frames, text))


def clip_i(frames: Tensor, references: Tensor) -> float:
    """Image alignment: the mean cosine over all pairs of a frame and a reference photo.

    `frames` (frame, dim) and `references` (reference, dim) are CLIP features.
    """
    return _mean_cosine(frames, references)


def dino_i(frames: Tensor, references: Tensor) -> float:
    """Image alignment with DINO features, which tell individuals apart better than CLIP's."""
    return _mean_cosine(frames, references)


def dino_i_gain(before: float, after: float, ceiling: float) -> float | None:
    """How much of the way from `before` to `ceiling` learning went: 0 is none of it, 1 all.

    All three are the same identity score: of the base model's videos, of the customized model's,
    and of true footage of the subjects that was not among the photos, the most that can be asked
    for. None where the base model already scores as high as that.
    """
    if ceiling - before <= _NO_ROOM:
        return None
    return (after - before) / (ceiling - before)


def temporal_consistency(frames: Tensor) -> float | None:
    """The mean cosine of consecutive `frames` (frame, dim); None for fewer than two.

    A video that stands still scores 1: read it together with `frame_change`.
    """
    if len(frames) < 2:
        return None
    features = frames.double()
    return float((features[1:] * features[:-1]).sum(-1).mean())


def temporal_consistency_all_pairs(frames: Tensor) -> float | None:
    """The mean cosine of all pairs of different `frames` (frame, dim); None for fewer than two.

    The form Tune-A-Video (arXiv 2212.11565) prints as frame consistency.
    """
    count = len(frames)
    if count < 2:
        return None
    features = frames.double()
    pairs = torch.triu_indices(count, count, offset=1)
    return float((features[pairs[0]] * features[pairs[1]]).sum(-1).mean())


def frame_change(frames: NDArray[np.uint8]) -> float | None:
    """How much moves: the mean absolute difference of consecutive frames, in [0, 1].

    `frames` are pixels (frame, height, width, 3); None for fewer than two. 0 is a frozen video.
    """
    if len(frames) < 2:
        return None
    return float(np.abs(np.diff(frames.astype(np.int16), axis=0)).mean() / 255)


def _mean_cosine(frames: Tensor, references: Tensor) -> float:
    # The mean over all pairs is the product of the two means.
    return float(frames.double().mean(0) @ references.double().mean(0))
