"""Two models' videos of the same prompts side by side: what was kept, and what was exchanged.

Two questions that one model's videos cannot answer. *Retention*: is the customized model still the
base model where no learned word is asked for? *Slot equivariance*: if the photos of two words are
exchanged before training, do the two subjects, and nothing else, change places? Features come in,
numbers go out.

Axes: frame, slot (place in the video), identity (whose photos), dim. Features have unit length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from customvideo.errors import EvaluationError
from customvideo.evaluation import metrics
from customvideo.evaluation.encoders import TextImageEncoder
from customvideo.evaluation.motion import motion, steps
from customvideo.video import Video

__all__ = [
    "Retention",
    "frame_similarity",
    "motion_ratio",
    "retention",
    "slot_equivariance",
    "slot_similarity",
]

_UNMOVED = 1e-6


@dataclass(frozen=True)
class Retention:
    """What customizing left of the base model on prompts without learned words; means over videos.

    Attributes:
        clip_t_change: text alignment of the customized model minus the base model's; a loss is
            negative. 0.05 is a loss of 5 points.
        frame_similarity: mean cosine of the two videos' frames of the same prompt and seed, in
            order; 1 if nothing changed.
        motion_ratio: how much moves, as a share of what moved; None where nothing did.
    """

    clip_t_change: float
    frame_similarity: float
    motion_ratio: float | None


def retention(
    base: Sequence[Video],
    customized: Sequence[Video],
    prompts: Sequence[str],
    clip: TextImageEncoder,
) -> Retention:
    """Compare `customized[i]` with `base[i]`, both made from `prompts[i]` and the same seed.

    Raises:
        EvaluationError: the counts differ or there is nothing to compare.
    """
    if not base or not len(base) == len(customized) == len(prompts):
        raise EvaluationError(
            f"{len(customized)} customized videos cannot be compared with {len(base)} of the base "
            f"model on {len(prompts)} prompts; give one of each for every prompt, at least one."
        )
    changes, alike, ratios = [], [], []
    for before, after, text in zip(base, customized, clip.encode_text(list(prompts)), strict=True):
        one, other = (clip.encode_images(video.frames) for video in (before, after))
        changes.append(metrics.clip_t(other, text) - metrics.clip_t(one, text))
        alike.append(frame_similarity(one, other))
        ratios.append(motion_ratio(before, after))
    known = [ratio for ratio in ratios if ratio is not None]
    return Retention(
        float(np.mean(changes)), float(np.mean(alike)), float(np.mean(known)) if known else None
    )


def frame_similarity(one: Tensor, other: Tensor) -> float:
    """The mean cosine of frames at the same place of two videos, `one` and `other` (frame, dim).

    The longer one's last frames are left out.
    """
    count = min(len(one), len(other))
    return float((one[:count].double() * other[:count].double()).sum(-1).mean())


def motion_ratio(before: Video, after: Video) -> float | None:
    """How much moves in `after`, as a share of `before`; None for one frame or if nothing moved."""
    was, now = (motion(steps(video.frames, video.fps)) for video in (before, after))
    return now / was if was and now is not None else None


def slot_similarity(slots: Sequence[Tensor], references: Sequence[Tensor]) -> NDArray[np.float64]:
    """(slot, identity): how like the crops of each of `slots` (frame, dim) are to each identity.

    That is the mean cosine with its `references` (photo, dim). A slot is a place in the video that
    stays the same when the photos are exchanged: the thing furthest to the left, or the one called
    a cat. One without crops has similarity 0.
    """
    return np.array(
        [
            [metrics.dino_i(crops, photos) if len(crops) else 0.0 for photos in references]
            for crops in slots
        ]
    )


def slot_equivariance(
    before: NDArray[np.float64], after: NDArray[np.float64], order: Sequence[int]
) -> float | None:
    """How fully identities changed places when their photos did: 1 is all the way, 0 not at all.

    `before` and `after` are (slot, identity), from `slot_similarity` with the same references in
    the same order; in the second training, word i was shown the photos of identity `order[i]`, so
    that slot i should now look as slot `order[i]` did. The score is the projection of the change
    made on the change asked for; below 0 it went the other way. None where no change is asked for.
    """
    asked, made = before[list(order)] - before, after - before
    size = float((asked**2).sum())
    return float((asked * made).sum()) / size if size > _UNMOVED else None
