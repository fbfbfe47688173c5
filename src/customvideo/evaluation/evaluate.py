"""Scores of finished videos: one row per video and subject.

Every row depends on its own video and its prompt's subjects alone, and every summary on the rows
alone (`customvideo.evaluation.scores`), so neither batch size nor order can change a number.
Reading videos from files is the caller's part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from customvideo.errors import EvaluationError
from customvideo.evaluation import failures, metrics, motion
from customvideo.evaluation.crops import CropJudge, Crops, Seen
from customvideo.evaluation.encoders import ImageEncoder, TextImageEncoder, resolve_encoder
from customvideo.evaluation.instances import InstanceSegmenter
from customvideo.evaluation.scores import References, Row, Scores
from customvideo.evaluation.seams import seams
from customvideo.subjects.prompt import Prompt
from customvideo.subjects.subject import Subject
from customvideo.video import Video

__all__ = ["CropJudge", "Crops", "Encoders", "References", "Row", "Scores", "evaluate"]

_GREY = 127
_VISIBLE = 0.5


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


def evaluate(
    videos: Sequence[Video],
    prompts: Sequence[Prompt],
    subjects: Sequence[Subject],
    encoders: Encoders,
    *,
    references: References = "photo",
    segmenter: InstanceSegmenter | Crops | CropJudge | None = None,
) -> Scores:
    """Score `videos[i]`, made from `prompts[i]`, against its prompt and its subjects' photos.

    A video is scored against the subjects its prompt mentions, or against all of them if it
    mentions none. The published numbers compare with full photos (`references="photo"`).

    With a `segmenter` (a row of `customvideo.evaluation.instances.SEGMENTERS`, made) each subject
    is looked for in each frame and the rows gain the scores from crops; `Crops` gives it a gallery,
    and a `CropJudge` made with the same `encoders` keeps what it knows of photos between calls.

    Raises:
        EvaluationError: nothing to score, unequal counts, or a prompt about an unknown subject.
    """
    _check(videos, prompts, subjects)
    photos = {subject.name: _Photos(subject, encoders, references) for subject in subjects}
    judge = _crop_judge(segmenter, encoders)
    rows: list[Row] = []
    for index, (video, prompt) in enumerate(zip(videos, prompts, strict=True)):
        meant = _meant(prompt, subjects)
        watched = _Watched(video, prompt, encoders, len(meant))
        found = [watched.row(index, name, photos[name]) for name in meant]
        rows += _with_crops(found, video, subjects, judge) if judge else found
    return Scores(tuple(rows), references, encoders.described)


def _resolved(text: str, device: str) -> Any:
    name, _, model = text.partition("=")
    return resolve_encoder(name, model or None, device)


def _crop_judge(
    segmenter: InstanceSegmenter | Crops | CropJudge | None, encoders: Encoders
) -> CropJudge | None:
    if segmenter is None or isinstance(segmenter, CropJudge):
        return segmenter
    crops = segmenter if isinstance(segmenter, Crops) else Crops(segmenter)
    return CropJudge(crops, encoders.clip, encoders.dino)


def _with_crops(
    rows: Sequence[Row], video: Video, subjects: Sequence[Subject], judge: CropJudge
) -> list[Row]:
    """The rows of one video with the scores that look at each subject alone."""
    by_name = {subject.name: subject for subject in subjects}
    names = [row.subject for row in rows]
    seen = judge.judge(video.frames, [by_name[name] for name in names])
    return [_with_crop(row, index, names, seen) for index, row in enumerate(rows)]


def _with_crop(row: Row, index: int, names: Sequence[str], seen: Seen) -> Row:
    bound = seen.bound
    return replace(
        row,
        dino_i_crop=bound.dino_i_crop[index],
        clip_i_crop=bound.clip_i_crop[index],
        rank1=bound.rank1[index],
        rank1_category=bound.rank1_category[index],
        present=bound.present[index],
        correct=bound.correct[index],
        headline=bound.headline[index],
        seen_as=dict(zip(names, bound.seen_as[index], strict=True)),
        co_occurrence=bound.co_occurrence,
        bleed=bound.bleed,
        binding_margin=bound.binding_margin,
        detect_and_compare=bound.detect_and_compare,
        nearness=seen.nearness[index],
        closest_pair=seen.closest_pair[index],
        blend=failures.blend(bound.present[index], bound.mixed[index]),
        drop=failures.drop(bound.present[index]),
        copy=failures.copied(seen.nearness[index], seen.closest_pair[index]),
    )


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


class _Watched:
    """One video through the encoders, and the scores that concern no single subject."""

    def __init__(self, video: Video, prompt: Prompt, encoders: Encoders, panels: int) -> None:
        self.prompt = prompt.plain
        self.clip = encoders.clip.encode_images(video.frames)
        self.dino = encoders.dino.encode_images(video.frames)
        text: Tensor = encoders.clip.encode_text([self.prompt])[0]
        steps = motion.steps(video.frames, video.fps)
        moved, dynamic = motion.motion(steps), motion.dynamic_degree(steps)
        self.scores: dict[str, Any] = {
            "clip_t": metrics.clip_t(self.clip, text),
            "clip_t_scaled": metrics.clip_t_scaled(self.clip, text),
            "t_cons": metrics.temporal_consistency(self.clip),
            "t_cons_all_pairs": metrics.temporal_consistency_all_pairs(self.clip),
            "frame_change": metrics.frame_change(video.frames),
            "dynamic_degree": dynamic,
            "motion": moved,
            "motion_smoothness": motion.motion_smoothness(video.frames),
            "seams": seams(video.frames, panels),
            "freeze": failures.freeze(moved, dynamic),
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
