"""From frames and photos to crops of single subjects on grey, and from crops to features.

References and frames go through the same cut, so that neither the ground behind a subject nor its
place, size or proportions can score. What the features say is `customvideo.evaluation.binding`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from customvideo.evaluation.binding import Bound, Finds, Look, bind
from customvideo.evaluation.encoders import ImageEncoder, Pictures
from customvideo.evaluation.instances import Instance, InstanceSegmenter, NounSegmenter
from customvideo.subjects.subject import Subject

__all__ = ["CropJudge", "Crops", "cut_out"]

_GREY = 127
_VISIBLE = 0.5
_MARGIN = 0.1  # of the longer side, on all sides: DINO's centre crop takes a sixteenth away
_SIDE = 224


@dataclass(frozen=True)
class Crops:
    """Who finds subjects in frames, and the individuals among which `rank1` looks for them.

    An empty `gallery` means the subjects of the prompt itself; one with these among them is fine.
    """

    segmenter: InstanceSegmenter
    gallery: Sequence[Subject] = ()


class CropJudge:
    """Scores videos crop by crop; every subject's references are encoded once."""

    def __init__(self, crops: Crops, clip: ImageEncoder, dino: ImageEncoder) -> None:
        self.crops, self.clip, self.dino = crops, clip, dino
        self._looks: dict[str, Look] = {}

    def bind(self, frames: Pictures, subjects: Sequence[Subject]) -> Bound:
        """Score the `frames` (frame, height, width, 3) of a video that should show `subjects`."""
        names = {subject.name for subject in subjects}
        others = [subject for subject in self.crops.gallery if subject.name not in names]
        return bind(
            self._finds(frames, subjects),
            [self._look(subject) for subject in subjects],
            [self._look(subject) for subject in others],
        )

    def _finds(self, frames: Pictures, subjects: Sequence[Subject]) -> list[Finds]:
        segmenter = self.crops.segmenter
        if isinstance(segmenter, NounSegmenter):
            segmenter = segmenter.looking_for([subject.category for subject in subjects])
        found = [sorted(instances, key=_place) for instances in segmenter.find(frames)]
        cuts = [
            cut_out(frame, instance.mask)
            for frame, instances in zip(frames, found, strict=True)
            for instance in instances
        ]
        counts = [len(instances) for instances in found]
        clip, dino = (self._encode(encoder, cuts, counts) for encoder in (self.clip, self.dino))
        return [
            Finds(tuple(instance.category for instance in instances), *features)
            for instances, *features in zip(found, clip, dino, strict=True)
        ]

    @staticmethod
    def _encode(
        encoder: ImageEncoder, cuts: Sequence[NDArray[np.uint8]], counts: Sequence[int]
    ) -> Sequence[torch.Tensor]:
        """All frames' crops at once, then (thing, dim) for each frame; dim 0 if there are none."""
        if not cuts:
            return [torch.zeros(0, 0)] * len(counts)
        return torch.split(encoder.encode_images(np.stack(cuts)), list(counts))

    def _look(self, subject: Subject) -> Look:
        if subject.name not in self._looks:
            cuts = np.stack(
                [
                    cut_out(image, mask >= _VISIBLE)
                    for image, mask in zip(subject.images, subject.masks, strict=True)
                ]
            )
            self._looks[subject.name] = Look(
                subject.category, self.clip.encode_images(cuts), self.dino.encode_images(cuts)
            )
        return self._looks[subject.name]


def cut_out(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """What `mask` (height, width) marks of `image`, on grey, as a square of 224 pixels.

    The square stands centred on the mask's box and is a tenth of its longer side wider on each
    side; the subject keeps its proportions. Where the square leaves the image it is grey.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inside = np.where(mask[box][..., None], image[box], np.uint8(_GREY))
    height, width = inside.shape[:2]
    side = max(height, width) + 2 * round(_MARGIN * max(height, width))
    square = np.full((side, side, 3), _GREY, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = inside
    return np.asarray(Image.fromarray(square).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))


def _place(instance: Instance) -> tuple[object, ...]:
    """An order that does not depend on the finder's: equal scores stay equal in every order."""
    return instance.box, instance.category
