"""The rows an evaluation ends in, and everything that derives from rows alone.

One row per video and subject. Summaries, worst cases, the confusion matrix and comparisons with
the base model read rows and nothing else, so they can be made again from a file of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from customvideo.evaluation.failures import copied, freeze, usual_range

__all__ = ["References", "Row", "Scores"]

References = Literal["photo", "crop", "cutout"]
"""What of a reference photo is compared: all of it, its mask's box, or the subject on grey."""

_PER_VIDEO = (
    "clip_t",
    "clip_t_scaled",
    "t_cons",
    "t_cons_all_pairs",
    "frame_change",
    "dynamic_degree",
    "motion_smoothness",
    "seams",
)
_PER_SUBJECT = ("clip_i", "dino_i")
_PER_VIDEO_IN_CROPS = ("co_occurrence", "bleed", "binding_margin", "detect_and_compare")
_PER_SUBJECT_IN_CROPS = ("clip_i_crop", "dino_i_crop", "rank1", "rank1_category", "headline")
_FAILURES = ("freeze",)
_FAILURES_IN_CROPS = ("blend", "drop", "copy")

_DECILE = 0.1


@dataclass(frozen=True)
class Row:
    """The scores of one video for one subject; None where a score cannot be said.

    `video` counts from 0 in the order given. `prompt` is the text CLIP read, in which each learned
    word is replaced by its category. `clip_i`, `dino_i`, their `_crop` forms, `rank1`,
    `rank1_category`, `present`, `correct`, `headline`, `seen_as`, `nearness` and the failures are
    the subject's; all others are the whole video's and repeat in its other subjects' rows.

    From `dino_i_crop` on, scores need a segmenter: single subjects are cut out of the frames and
    matched with the references' cut-outs. `customvideo.evaluation.binding.Bound` says what each is,
    `customvideo.evaluation.failures` when a failure is one, and `docs/metrics.md` all of it.

    Attributes:
        motion: how much moves, the number behind `dynamic_degree`; see
            `customvideo.evaluation.motion`.
        seen_as: subject -> in how many frames the crop matched with this row's is nearest to it.
        nearness: how near the video comes to one of the subject's photos, `closest_pair` how near
            two of these are to each other: the numbers behind `copy`.
    """

    video: int
    prompt: str
    subject: str
    clip_t: float
    clip_t_scaled: float
    clip_i: float
    dino_i: float
    t_cons: float | None
    t_cons_all_pairs: float | None
    frame_change: float | None
    dynamic_degree: float | None = None
    motion: float | None = None
    motion_smoothness: float | None = None
    seams: float | None = None
    freeze: bool | None = None
    dino_i_crop: float | None = None
    clip_i_crop: float | None = None
    rank1: float | None = None
    rank1_category: float | None = None
    present: float | None = None
    correct: float | None = None
    headline: float | None = None
    seen_as: Mapping[str, int] | None = None
    co_occurrence: float | None = None
    bleed: float | None = None
    binding_margin: float | None = None
    detect_and_compare: float | None = None
    nearness: float | None = None
    closest_pair: float | None = None
    blend: bool | None = None
    drop: bool | None = None
    copy: bool | None = None


@dataclass(frozen=True)
class Scores:
    """All rows of an evaluation, which part of the reference photos they compare with, and who
    judged: `encoders` is `customvideo.evaluation.evaluate.Encoders.described`."""

    rows: tuple[Row, ...]
    references: References = "photo"
    encoders: Mapping[str, str] = field(default_factory=dict)

    def summary(self) -> dict[str, float | None]:
        """Means over videos; within a video, a subject's scores are averaged over its subjects.

        `clip_i_min`, `dino_i_min` and so on take each video's worst subject instead: a mean over
        subjects can hide one that is missing. Failures are rates. Scores from crops are there if a
        segmenter was.
        """
        by_video = _grouped(self.rows, lambda row: row.video)
        means: dict[str, float | None] = {}
        for name in (*_PER_VIDEO, *(_PER_VIDEO_IN_CROPS if self.in_crops else ())):
            means[name] = _mean(getattr(rows[0], name) for rows in by_video)
        for name in self._per_subject:
            scores = [[getattr(row, name) for row in rows] for rows in by_video]
            means[name] = _mean(_mean(values) for values in scores)
            means[f"{name}_min"] = _mean(_least(values) for values in scores)
        for name in (*_FAILURES, *(_FAILURES_IN_CROPS if self.in_crops else ())):
            scores = [[getattr(row, name) for row in rows] for rows in by_video]
            means[name] = _mean(_mean(values) for values in scores)
        return means

    def worst(self) -> dict[str, dict[str, float | None]]:
        """For each score of a subject the least row (`min`) and the worst decile (`decile`).

        The decile is the 10th percentile over all videos and subjects, between rows linearly: what
        nine of ten do better than.
        """
        found = {}
        for name in self._per_subject:
            known = [value for row in self.rows if (value := getattr(row, name)) is not None]
            decile = float(np.quantile(known, _DECILE)) if known else None
            found[name] = {"min": _least(known), "decile": decile}
        return found

    @property
    def in_crops(self) -> bool:
        """Whether single subjects were looked at, and the crop scores are there."""
        return any(row.co_occurrence is not None for row in self.rows)

    @property
    def _per_subject(self) -> tuple[str, ...]:
        return (*_PER_SUBJECT, *(_PER_SUBJECT_IN_CROPS if self.in_crops else ()))

    def per_subject(self) -> dict[str, dict[str, float | None]]:
        """Each subject's own scores, averaged over the videos it was scored in."""
        by_subject = _grouped(self.rows, lambda row: row.subject)
        return {
            rows[0].subject: {
                name: _mean(getattr(row, name) for row in rows) for name in self._per_subject
            }
            for rows in by_subject
        }

    def confusion(self) -> dict[str, dict[str, float]]:
        """Reference slot -> subject -> share of the slot's frames whose crop is nearest to it.

        A matrix by name, its diagonal what was bound rightly. Shares are of the frames in which a
        crop was matched with the slot, over all videos; a subject never matched has no row.
        """
        matrix = {}
        for rows in _grouped(self.rows, lambda row: row.subject):
            counts: dict[str, int] = {}
            for row in rows:
                for name, count in (row.seen_as or {}).items():
                    counts[name] = counts.get(name, 0) + count
            total = sum(counts.values())
            if total:
                matrix[rows[0].subject] = {name: count / total for name, count in counts.items()}
        return matrix

    def against(self, base: Scores) -> Scores:
        """These scores with `freeze` and `copy` decided against the base model's own.

        `base` are the scores of the base model's videos of the same prompts, their learned words
        replaced by categories, for the same subjects. Of a prompt with fewer than
        `customvideo.evaluation.failures.ENOUGH` base videos, those of all prompts count.
        """
        return replace(self, rows=tuple(_against(row, base.rows) for row in self.rows))

    def to_dict(self) -> dict[str, Any]:
        """The summary's keys, then `worst`, `per_subject`, `confusion`, `references`, `encoders`
        and `rows`: ready for JSON."""
        return {
            **self.summary(),
            "worst": self.worst(),
            "per_subject": self.per_subject(),
            "confusion": self.confusion(),
            "references": self.references,
            "encoders": dict(self.encoders),
            "rows": [asdict(row) for row in self.rows],
        }


def _against(row: Row, base: Sequence[Row]) -> Row:
    # A video has as many rows as subjects, and its motion counts once.
    videos = [rows[0] for rows in _grouped(base, lambda one: one.video)]
    own = [one for one in base if one.subject == row.subject]
    still = freeze(row.motion, row.dynamic_degree, _usual(videos, "motion", row.prompt))
    if row.present is None:
        return replace(row, freeze=still)
    near = _usual(own, "nearness", row.prompt)
    return replace(row, freeze=still, copy=copied(row.nearness, row.closest_pair, near))


def _usual(rows: Sequence[Row], name: str, prompt: str) -> list[float]:
    """The values of this name that `prompt` is to be measured by."""
    known = [(row.prompt, value) for row in rows if (value := getattr(row, name)) is not None]
    same = [value for text, value in known if text == prompt]
    return list(usual_range(same, [value for _, value in known]))


def _grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> list[list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def _least(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    # fsum rounds once, so the order of the rows cannot show in the last digit.
    return math.fsum(known) / len(known) if known else None
