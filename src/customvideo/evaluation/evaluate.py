"""Scores of finished videos: one row per video and subject, and summaries made from the rows.

Every row depends on its own video and its prompt's subjects alone, and every summary on the rows
alone, so neither batch size nor order can change a number. Reading videos from files is the
caller's part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from customvideo.errors import EvaluationError
from customvideo.evaluation import metrics
from customvideo.evaluation.crops import CropJudge, Crops
from customvideo.evaluation.encoders import ImageEncoder, TextImageEncoder, resolve_encoder
from customvideo.evaluation.instances import InstanceSegmenter
from customvideo.subjects.prompt import Prompt
from customvideo.subjects.subject import Subject
from customvideo.video import Video

__all__ = ["Crops", "Encoders", "References", "Row", "Scores", "evaluate"]

References = Literal["photo", "crop", "cutout"]
"""What of a reference photo is compared: all of it, its mask's box, or the subject on grey."""

_GREY = 127
_VISIBLE = 0.5
_PER_VIDEO = ("clip_t", "clip_t_scaled", "t_cons", "t_cons_all_pairs", "frame_change")
_PER_SUBJECT = ("clip_i", "dino_i")
_PER_VIDEO_IN_CROPS = ("co_occurrence", "bleed", "binding_margin")
_PER_SUBJECT_IN_CROPS = ("clip_i_crop", "dino_i_crop", "rank1")


@dataclass(frozen=True)
class Encoders:
    """The two encoders the scores need: CLIP for text and pictures, DINO for identity.

    `names` are theirs, in this order, as scores are to mention them; left out, their classes'.
    """

    clip: TextImageEncoder
    dino: ImageEncoder
    names: tuple[str, str] | None = None

    @classmethod
    def named(cls, clip: str = "clip", dino: str = "dino", device: str = "auto") -> Encoders:
        """The encoders called so, each `NAME` or `NAME=MODEL`, on `device`.

        `NAME` is a row of `customvideo.evaluation.encoders.ENCODERS`, `MODEL` a folder or a hub id.

        Raises:
            EvaluationError: a name is unknown, or a model cannot be loaded.
        """
        return cls(_resolved(clip, device), _resolved(dino, device), (clip, dino))

    @property
    def described(self) -> dict[str, str]:
        """Part -> who plays it: {"clip": "clip", "dino": "toybox-dino"}."""
        clip, dino = self.names or (type(self.clip).__name__, type(self.dino).__name__)
        return {"clip": clip, "dino": dino}


@dataclass(frozen=True)
class Row:
    """The scores of one video for one subject; None where a video has a single frame.

    `video` counts from 0 in the order given. `prompt` is the text CLIP read, in which each learned
    word is replaced by its category. `clip_i`, `dino_i`, their `_crop` forms and `rank1` are the
    subject's; all others are the whole video's and repeat in its other subjects' rows.

    From `dino_i_crop` on, scores need a segmenter: single subjects are cut out of the frames and
    matched with the references' cut-outs. `customvideo.evaluation.binding.Bound` says what each is.
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
    dino_i_crop: float | None = None
    clip_i_crop: float | None = None
    rank1: float | None = None
    co_occurrence: float | None = None
    bleed: float | None = None
    binding_margin: float | None = None


@dataclass(frozen=True)
class Scores:
    """All rows of an evaluation, which part of the reference photos they compare with, and who
    judged: `encoders` is `Encoders.described`."""

    rows: tuple[Row, ...]
    references: References = "photo"
    encoders: Mapping[str, str] = field(default_factory=dict)

    def summary(self) -> dict[str, float | None]:
        """Means over videos; within a video, image alignment is the mean over its subjects.

        `clip_i_min`, `dino_i_min` and so on take each video's worst subject instead: a mean over
        subjects can hide one that is missing. Scores from crops are there if a segmenter was.
        """
        by_video = _grouped(self.rows, lambda row: row.video)
        means: dict[str, float | None] = {}
        for name in (*_PER_VIDEO, *(_PER_VIDEO_IN_CROPS if self.in_crops else ())):
            means[name] = _mean(getattr(rows[0], name) for rows in by_video)
        for name in self._per_subject:
            scores = [[getattr(row, name) for row in rows] for rows in by_video]
            means[name] = _mean(_mean(values) for values in scores)
            means[f"{name}_min"] = _mean(_least(values) for values in scores)
        return means

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

    def to_dict(self) -> dict[str, Any]:
        """The summary's keys, then `per_subject`, `references`, `encoders` and `rows`: ready for
        JSON."""
        return {
            **self.summary(),
            "per_subject": self.per_subject(),
            "references": self.references,
            "encoders": dict(self.encoders),
            "rows": [asdict(row) for row in self.rows],
        }


def evaluate(
    videos: Sequence[Video],
    prompts: Sequence[Prompt],
    subjects: Sequence[Subject],
    encoders: Encoders,
    *,
    references: References = "photo",
    segmenter: InstanceSegmenter | Crops | None = None,
) -> Scores:
    """Score `videos[i]`, made from `prompts[i]`, against its prompt and its subjects' photos.

    A video is scored against the subjects its prompt mentions, or against all of them if it
    mentions none. The published numbers compare with full photos (`references="photo"`).

    With a `segmenter` (a row of `customvideo.evaluation.instances.SEGMENTERS`, made) each subject
    is looked for in each frame and the rows gain the scores from crops; `Crops` gives it a gallery.

    Raises:
        EvaluationError: nothing to score, unequal counts, or a prompt about an unknown subject.
    """
    _check(videos, prompts, subjects)
    photos = {subject.name: _Photos(subject, encoders, references) for subject in subjects}
    judge = _crop_judge(segmenter, encoders)
    rows: list[Row] = []
    for index, (video, prompt) in enumerate(zip(videos, prompts, strict=True)):
        meant = _meant(prompt, subjects)
        seen = _Seen(video, prompt, encoders)
        found = [seen.row(index, name, photos[name]) for name in meant]
        rows += _with_crops(found, video, subjects, judge) if judge else found
    return Scores(tuple(rows), references, encoders.described)


def _resolved(text: str, device: str) -> Any:
    name, _, model = text.partition("=")
    return resolve_encoder(name, model or None, device)


def _crop_judge(
    segmenter: InstanceSegmenter | Crops | None, encoders: Encoders
) -> CropJudge | None:
    if segmenter is None:
        return None
    crops = segmenter if isinstance(segmenter, Crops) else Crops(segmenter)
    return CropJudge(crops, encoders.clip, encoders.dino)


def _with_crops(
    rows: Sequence[Row], video: Video, subjects: Sequence[Subject], judge: CropJudge
) -> list[Row]:
    """The rows of one video with the scores that look at each subject alone."""
    by_name = {subject.name: subject for subject in subjects}
    bound = judge.bind(video.frames, [by_name[row.subject] for row in rows])
    return [
        replace(
            row,
            dino_i_crop=bound.dino_i_crop[index],
            clip_i_crop=bound.clip_i_crop[index],
            rank1=bound.rank1[index],
            co_occurrence=bound.co_occurrence,
            bleed=bound.bleed,
            binding_margin=bound.binding_margin,
        )
        for index, row in enumerate(rows)
    ]


class _Photos:
    """One subject's reference features, CLIP's and DINO's, each (reference, dim)."""

    def __init__(self, subject: Subject, encoders: Encoders, references: References) -> None:
        pictures = [
            _reference(image, mask, references)
            for image, mask in zip(subject.images, subject.masks, strict=True)
        ]
        # One by one: photos differ in size.
        self.clip = torch.cat([encoders.clip.encode_images(picture[None]) for picture in pictures])
        self.dino = torch.cat([encoders.dino.encode_images(picture[None]) for picture in pictures])


class _Seen:
    """One video through the encoders, and the scores that concern no single subject."""

    def __init__(self, video: Video, prompt: Prompt, encoders: Encoders) -> None:
        self.prompt = prompt.plain
        self.clip = encoders.clip.encode_images(video.frames)
        self.dino = encoders.dino.encode_images(video.frames)
        text: Tensor = encoders.clip.encode_text([self.prompt])[0]
        self.scores: dict[str, Any] = {
            "clip_t": metrics.clip_t(self.clip, text),
            "clip_t_scaled": metrics.clip_t_scaled(self.clip, text),
            "t_cons": metrics.temporal_consistency(self.clip),
            "t_cons_all_pairs": metrics.temporal_consistency_all_pairs(self.clip),
            "frame_change": metrics.frame_change(video.frames),
        }

    def row(self, index: int, name: str, photos: _Photos) -> Row:
        return Row(
            video=index,
            prompt=self.prompt,
            subject=name,
            clip_i=metrics.clip_i(self.clip, photos.clip),
            dino_i=metrics.dino_i(self.dino, photos.dino),
            **self.scores,
        )


def _check(videos: Sequence[Video], prompts: Sequence[Prompt], subjects: Sequence[Subject]) -> None:
    if not videos or not subjects:
        missing = "subject" if videos else "video"
        raise EvaluationError(f"There is no {missing} to evaluate; give at least one.")
    if len(videos) != len(prompts):
        raise EvaluationError(
            f"{len(videos)} videos cannot be scored against {len(prompts)} prompts; give the "
            "prompt each video was made from, in the same order."
        )


def _meant(prompt: Prompt, subjects: Sequence[Subject]) -> list[str]:
    names = [subject.name for subject in subjects]
    mentioned = [word.name for word in prompt.mentioned]
    strangers = [*(name for name in mentioned if name not in names), *prompt.unknown]
    if strangers:
        raise EvaluationError(
            f"The prompt '{prompt.text}' mentions '{strangers[0]}', but the subjects are "
            f"{', '.join(names)}; give the photos of every subject the prompt mentions."
        )
    return mentioned or names


def _reference(
    image: NDArray[np.uint8], mask: NDArray[np.float32], references: References
) -> NDArray[np.uint8]:
    if references == "photo":
        return image
    if references == "cutout":
        weight = mask[..., None]
        return np.asarray(np.rint(weight * image + (1 - weight) * _GREY), dtype=np.uint8)
    rows, columns = np.nonzero(mask >= _VISIBLE)
    box: NDArray[np.uint8] = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    return box


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
