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

from customvideo.evaluation.detect_and_compare import detect_and_compare, own_similarity

__all__ = ["Bound", "Finds", "Look", "assign", "bind", "found_all", "match"]

_ROUNDING = 1e-6
"""Similarities closer than this are equal: features are single precision."""
_TOWARDS = 1 / 3
"""Share of the way to another subject's looks from which a crop is a mixture of both. Chosen on
the toybox's development pairs: true renders stay below 0.05, painted mixtures begin at 0.34."""
_ALIKE = 0.05
"""Subjects whose photos differ by no more cannot be mixed up visibly."""


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

    A subject is present in a frame if a crop is matched with it. Its margin there is how much
    nearer the crop is to it than to the next of the prompt's subjects.

    Attributes:
        dino_i_crop: mean over frames of the similarity between a subject's references and the
            crop matched with it; a frame where nothing is left for the subject counts 0.
        clip_i_crop: the same crops, seen by CLIP.
        rank1: how often the matched crop is nearer to its own subject than to anyone in the
            gallery; None if never matched, or if the gallery holds nobody else.
        rank1_category: the same among those of the subject's own category.
        present: share of the frames in which the subject is present.
        correct: share of the frames in which it is present with a positive margin; alone in its
            prompt, a subject has no margin and needs none.
        mixed: share of the frames with it in which it is bound wrongly or only half, as `_mixed`
            says; None if it is never present or alone in its prompt.
        seen_as: for each subject, in how many frames the crop matched with it is nearest to each
            subject (a row of the confusion matrix); frames without it are missing from the sum.
        co_occurrence: share of frames that show as many of each category as there are subjects.
        bleed: share of these frames whose margin is not positive: someone looks (also) like
            another of the subjects. None for a single subject, or if no frame shows all.
        binding_margin: mean over these frames of the least margin; None as for `bleed`.
        detect_and_compare: mean over all frames of MuDI's score, whatever things are called.
    """

    dino_i_crop: tuple[float, ...]
    clip_i_crop: tuple[float, ...]
    rank1: tuple[float | None, ...]
    rank1_category: tuple[float | None, ...]
    present: tuple[float, ...]
    correct: tuple[float, ...]
    mixed: tuple[float | None, ...]
    seen_as: tuple[tuple[int, ...], ...]
    co_occurrence: float
    bleed: float | None
    binding_margin: float | None
    detect_and_compare: float

    @property
    def headline(self) -> tuple[float, ...]:
        """Identity times correct binding, `dino_i_crop` x `correct`: the one number to rank by."""
        return tuple(
            identity * share for identity, share in zip(self.dino_i_crop, self.correct, strict=True)
        )


def bind(frames: Sequence[Finds], subjects: Sequence[Look], others: Sequence[Look] = ()) -> Bound:
    """Score `frames` of one video, whose prompt names `subjects`.

    `others` widen the gallery of `rank1` and `rank1_category` beyond the subjects themselves, for
    example to all individuals of a benchmark.
    """
    usual = _usual([look.dino for look in subjects])
    matched = [_Matched(finds, subjects, others, usual) for finds in frames]
    together = [frame for frame in matched if frame.complete]
    margins = [margin for frame in together if (margin := frame.least_margin) is not None]
    references = [look.dino for look in subjects]
    each = range(len(subjects))
    return Bound(
        dino_i_crop=tuple(_mean(frame.dino[i] for frame in matched) or 0.0 for i in each),
        clip_i_crop=tuple(_mean(frame.clip[i] for frame in matched) or 0.0 for i in each),
        rank1=tuple(_mean(frame.nearest[i] for frame in matched) for i in each),
        rank1_category=tuple(_mean(frame.nearest_of_kind[i] for frame in matched) for i in each),
        present=tuple(_share(frame.seen_as[i] is not None for frame in matched) for i in each),
        correct=tuple(_share(frame.seen_as[i] == i for frame in matched) for i in each),
        mixed=tuple(_mean(frame.mixed[i] for frame in matched) for i in each),
        seen_as=tuple(
            tuple(sum(frame.seen_as[i] == j for frame in matched) for j in each) for i in each
        ),
        co_occurrence=len(together) / len(matched),
        bleed=_mean(float(margin <= _ROUNDING) for margin in margins),
        binding_margin=_mean(margins),
        detect_and_compare=math.fsum(detect_and_compare(f.dino, references) for f in frames)
        / len(frames),
    )


def match(finds: Finds, subjects: Sequence[Look]) -> list[int | None]:
    """For each of `subjects` the thing of one frame that is taken for it, as `assign` says."""
    called = [category.lower() for category in finds.categories]
    named = [[name in ("", look.category.lower()) for name in called] for look in subjects]
    slots = _similarity([look.dino for look in subjects], finds.dino)
    return assign(slots, np.array(named, np.bool_).reshape(slots.shape))


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
    """One frame after matching; lists are in the order of the subjects, None where unmatched."""

    def __init__(
        self,
        finds: Finds,
        subjects: Sequence[Look],
        others: Sequence[Look],
        usual: NDArray[np.float64],
    ) -> None:
        everyone = [*subjects, *others]
        dino = _similarity([look.dino for look in everyone], finds.dino)
        clip = _similarity([look.clip for look in subjects], finds.clip)
        kinds = [look.category.lower() for look in everyone]
        slots = dino[: len(subjects)]
        pairs = list(enumerate(match(finds, subjects)))
        self.complete = found_all([look.category for look in subjects], finds.categories)
        self.dino = [0.0 if thing is None else dino[i, thing] for i, thing in pairs]
        self.clip = [0.0 if thing is None else clip[i, thing] for i, thing in pairs]
        self.nearest = [_wins(_lead(dino, i, thing)) for i, thing in pairs]
        self.nearest_of_kind = [
            _wins(_lead(dino, i, thing, [kind == kinds[i] for kind in kinds])) for i, thing in pairs
        ]
        self.seen_as = [_seen_as(slots, i, thing) for i, thing in pairs]
        self.mixed = [_mixed(slots, i, thing, usual) for i, thing in pairs]
        margins = [_lead(slots, i, thing) for i, thing in pairs]
        self.least_margin = min((lead for lead in margins if lead is not None), default=None)


def _lead(
    similarity: NDArray[np.float64],
    subject: int,
    thing: int | None,
    among: Sequence[bool] | None = None,
) -> float | None:
    """How much nearer `thing` is to `subject` than to the best other row, where both exist."""
    if thing is None:
        return None
    rivals = np.ones(len(similarity), np.bool_) if among is None else np.array(among, np.bool_)
    rivals[subject] = False
    if not rivals.any():
        return None
    return float(similarity[subject, thing] - similarity[rivals, thing].max())


def _wins(lead: float | None) -> float | None:
    return None if lead is None else float(lead > _ROUNDING)


def _seen_as(slots: NDArray[np.float64], subject: int, thing: int | None) -> int | None:
    """The slot nearest to `thing`; a tie is not the subject's."""
    lead = _lead(slots, subject, thing)
    if thing is None or lead is None or lead > _ROUNDING:
        return None if thing is None else subject
    column = slots[:, thing].copy()
    column[subject] = -np.inf
    return int(column.argmax())


def _mixed(
    slots: NDArray[np.float64], subject: int, thing: int | None, usual: NDArray[np.float64]
) -> float | None:
    """1 if `thing` is (also) another of the subjects, 0 if not; None if it cannot be said.

    It is if its margin is not positive, or if it has come `_TOWARDS` another: from how like that
    one the subject's own photos are, a third of the way to how alike that one's photos are.
    `usual` is (subject, subject).
    """
    lead = _lead(slots, subject, thing)
    if thing is None or lead is None:
        return None
    start, goal = usual[subject], usual.diagonal()
    reached = slots[:, thing] - start >= _TOWARDS * (goal - start)
    # Whoever looks like the subject anyway cannot be told from it by how near a crop comes.
    telling = goal - start > _ALIKE
    telling[subject] = False
    return float(lead <= _ROUNDING or bool((reached & telling).any()))


def _usual(references: Sequence[Tensor]) -> NDArray[np.float64]:
    """(subject, subject): the mean cosine of pairs of different photos; 1 where there is one."""
    similarity = own_similarity(references)
    for i, features in enumerate(references):
        count = len(features)
        squared = float(features.double().square().sum())
        pairs = count * (count - 1)
        similarity[i, i] = (similarity[i, i] * count**2 - squared) / pairs if pairs else 1.0
    return similarity


def _similarity(references: Sequence[Tensor], crops: Tensor) -> NDArray[np.float64]:
    """(subject, thing): the mean cosine of each crop with each subject's references."""
    if not len(crops):
        return np.zeros((len(references), 0))
    means = torch.stack([features.double().mean(0) for features in references])
    product: NDArray[np.float64] = (means @ crops.double().T).numpy()
    return product


def _share(flags: Iterable[bool]) -> float:
    return _mean(float(flag) for flag in flags) or 0.0


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
