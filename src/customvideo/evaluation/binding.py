"""Which found thing is which subject, and what becomes of a video's scores then.

Full-frame image alignment rewards one dominant subject and cannot tell two subjects from one with
the looks of both. Here things are found one by one and matched one to one with the subjects: in
spirit MuDI's Detect-and-Compare (arXiv 2404.04243), which compares detected with reference subjects
in one matrix of similarities; the match and the margin are ours. Features come in, numbers go out;
no model is known here.

Axes: subject, thing (found in a frame), reference (photo), dim. Rows have unit length.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Bound", "Finds", "Look", "assign", "bind", "found_all"]

_ROUNDING = 1e-6
"""Similarities closer than this are equal: features are single precision."""


@dataclass(frozen=True, eq=False)
class Look:
    """How a subject looks: its category and its reference crops' features (reference, dim)."""

    category: str
    clip: Tensor
    dino: Tensor


@dataclass(frozen=True, eq=False)
class Finds:
    """What one frame shows: a category ("" if unnamed) and crop features (thing, dim) of each."""

    categories: tuple[str, ...]
    clip: Tensor
    dino: Tensor


@dataclass(frozen=True)
class Bound:
    """A video's scores from single crops; per-subject ones in the order of the subjects.

    Attributes:
        dino_i_crop: mean over frames of the similarity between a subject's references and the
            crop matched with it; a frame where nothing is left for the subject counts 0.
        clip_i_crop: the same crops, seen by CLIP.
        rank1: how often the matched crop is nearer to its own subject than to anyone in the
            gallery; None if never matched, or if the gallery holds nobody else.
        co_occurrence: share of frames that show as many of each category as there are subjects.
        bleed: share of these frames whose margin is not positive: someone looks (also) like
            another of the subjects. None for a single subject, or if no frame shows all.
        binding_margin: mean margin of these frames; None as for `bleed`.
    """

    dino_i_crop: tuple[float, ...]
    clip_i_crop: tuple[float, ...]
    rank1: tuple[float | None, ...]
    co_occurrence: float
    bleed: float | None
    binding_margin: float | None


def bind(frames: Sequence[Finds], subjects: Sequence[Look], others: Sequence[Look] = ()) -> Bound:
    """Score `frames` of one video, whose prompt names `subjects`.

    `others` widen the gallery of `rank1` beyond the subjects themselves, for example to all
    individuals of a benchmark.
    """
    matched = [_Matched(finds, subjects, others) for finds in frames]
    together = [frame for frame in matched if frame.complete]
    margins = [margin for frame in together if (margin := frame.margin) is not None]
    each = range(len(subjects))
    return Bound(
        dino_i_crop=tuple(_mean(frame.dino[i] for frame in matched) or 0.0 for i in each),
        clip_i_crop=tuple(_mean(frame.clip[i] for frame in matched) or 0.0 for i in each),
        rank1=tuple(_mean(frame.nearest[i] for frame in matched) for i in each),
        co_occurrence=len(together) / len(matched),
        bleed=_mean(float(margin <= _ROUNDING) for margin in margins),
        binding_margin=_mean(margins),
    )


def assign(similarity: NDArray[np.float64], named: NDArray[np.bool_]) -> list[int | None]:
    """For each subject the thing matched with it, or None; no thing is matched twice.

    `similarity` is (subject, thing); `named` (subject, thing) says whose category a thing bears.
    The match serves as many subjects as possible, then bears out as many names as possible, and
    then has the greatest total similarity. So a name outweighs looks (a thing called cat that looks
    like the dog is a cat gone wrong, not the dog) but identity decides among things of one
    category, and a thing under a wrong name can still be the subject nothing else is left for.

    Exact, by dynamic programming over sets of served subjects: (things · 2^subjects · subjects).
    """
    subjects, things = similarity.shape
    empty: tuple[int | None, ...] = (None,) * subjects
    best = {0: ((0, 0, 0.0), empty)}
    for thing in range(things):
        for served, ((count, names, total), match) in list(best.items()):
            for subject in range(subjects):
                if served >> subject & 1:
                    continue
                worth = (
                    count + 1,
                    names + int(named[subject, thing]),
                    total + float(similarity[subject, thing]),
                )
                now = served | 1 << subject
                if now not in best or worth > best[now][0]:
                    best[now] = (worth, (*match[:subject], thing, *match[subject + 1 :]))
    return list(max(best.values(), key=lambda state: state[0])[1])


def found_all(needed: Sequence[str], found: Sequence[str]) -> bool:
    """Whether `found` has as many of each category as `needed`; "" can stand for any."""
    there = Counter(category.lower() for category in found)
    wanted = Counter(category.lower() for category in needed)
    return sum((wanted - there).values()) <= there[""]


class _Matched:
    """One frame after matching; lists are in the order of the subjects."""

    def __init__(self, finds: Finds, subjects: Sequence[Look], others: Sequence[Look]) -> None:
        dino = _similarity([look.dino for look in [*subjects, *others]], finds.dino)
        clip = _similarity([look.clip for look in subjects], finds.clip)
        called = [category.lower() for category in finds.categories]
        named = np.array(
            [[name in ("", look.category.lower()) for name in called] for look in subjects],
            dtype=np.bool_,
        )
        match = assign(dino[: len(subjects)], named)
        self.complete = found_all([look.category for look in subjects], finds.categories)
        self.dino = [0.0 if thing is None else dino[i, thing] for i, thing in enumerate(match)]
        self.clip = [0.0 if thing is None else clip[i, thing] for i, thing in enumerate(match)]
        leads = [_lead(dino, i, thing) for i, thing in enumerate(match)]
        self.nearest = [None if lead is None else float(lead > _ROUNDING) for lead in leads]
        rivals = [_lead(dino[: len(subjects)], i, thing) for i, thing in enumerate(match)]
        self.margin = min((lead for lead in rivals if lead is not None), default=None)


def _lead(similarity: NDArray[np.float64], subject: int, thing: int | None) -> float | None:
    """How much nearer `thing` is to `subject` than to the best other row, where both exist."""
    if thing is None or len(similarity) < 2:
        return None
    column = similarity[:, thing]
    return float(column[subject] - np.delete(column, subject).max())


def _similarity(references: Sequence[Tensor], crops: Tensor) -> NDArray[np.float64]:
    """(subject, thing): the mean cosine of each crop with each subject's references."""
    if not len(crops):
        return np.zeros((len(references), 0))
    means = torch.stack([features.double().mean(0) for features in references])
    product: NDArray[np.float64] = (means @ crops.double().T).numpy()
    return product


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
