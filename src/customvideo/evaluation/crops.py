"""From frames and photos to crops of single subjects on grey, and from crops to features.

References and frames go through the same cut, so that neither the ground behind a subject nor its
place, size or proportions can score. What the features say is `customvideo.evaluation.binding`;
only `customvideo.evaluation.views` looks at the ground, to tell copies of a photo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from customvideo.evaluation.binding import Bound, Finds, Look, bind, match
from customvideo.evaluation.encoders import ImageEncoder, Pictures
from customvideo.evaluation.instances import Instance, InstanceSegmenter, NounSegmenter
from customvideo.evaluation.views import closest_pair, nearest_photo, view
from customvideo.subjects.subject import Subject

__all__ = ["CropJudge", "Crops", "Seen", "cut_out"]

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


@dataclass(frozen=True)
class Seen:
    """What single crops of one video say; `nearness` is in the order of the subjects.

    Attributes:
        bound: which crop is whom, and the scores of that.
        nearness: how near each subject's views come to one of its photos, with everything around
            it; None where it is never seen.
        closest_pair: how near the two most alike of its photos are; None for a single photo.
    """

    bound: Bound
    nearness: tuple[float | None, ...]
    closest_pair: tuple[float | None, ...]


@dataclass(frozen=True, eq=False)
class _Found:
    """One frame: its instances in a fixed order and what their crops look like."""

    instances: tuple[Instance, ...]
    finds: Finds


class CropJudge:
    """Scores videos crop by crop; every subject's references are encoded once.

    Make one for many calls of `evaluate` with a large gallery.
    """

    def __init__(self, crops: Crops, clip: ImageEncoder, dino: ImageEncoder) -> None:
        self.crops, self.clip, self.dino = crops, clip, dino
        self._looks: dict[tuple[str, str], Look] = {}
        self._photos: dict[tuple[str, float], tuple[torch.Tensor, torch.Tensor]] = {}

    def judge(self, frames: Pictures, subjects: Sequence[Subject]) -> Seen:
        """Score the `frames` (frame, height, width, 3) of a video that should show `subjects`."""
        found = self._find(frames, subjects)
        names = {subject.name for subject in subjects}
        others = [subject for subject in self.crops.gallery if subject.name not in names]
        looks = [self.look(subject) for subject in subjects]
        bound = bind(
            [frame.finds for frame in found], looks, [self.look(subject) for subject in others]
        )
        matches = [match(frame.finds, looks) for frame in found]
        aspect = frames.shape[2] / frames.shape[1] / len(subjects)
        nearness = []
        for index, subject in enumerate(subjects):
            views = [
                view(picture, frame.instances[thing].mask, aspect)
                for picture, frame, things in zip(frames, found, matches, strict=True)
                if (thing := things[index]) is not None
            ]
            nearness.append(self._nearness(views, subject, aspect))
        pairs = tuple(closest_pair(*self._views(subject, aspect)) for subject in subjects)
        return Seen(bound, tuple(nearness), pairs)

    def bind(self, frames: Pictures, subjects: Sequence[Subject]) -> Bound:
        """Which crop is whom in the `frames`, and the scores of that; see `judge`."""
        return self.judge(frames, subjects).bound

    def slots(self, frames: Pictures, subjects: Sequence[Subject]) -> list[torch.Tensor]:
        """DINO features (frame, dim) of the things from left to right, as many as `subjects`.

        Frames that show fewer are passed over; of more, the surest count. For the swap test of
        `customvideo.evaluation.comparison`.
        """
        rows = []
        for frame in self._find(frames, subjects):
            surest = sorted(
                range(len(frame.instances)), key=lambda thing: -frame.instances[thing].score
            )[: len(subjects)]
            # Instances are in the order of their boxes, whose first number is the left side.
            rows += [frame.finds.dino[sorted(surest)]] if len(surest) == len(subjects) else []
        if not rows:
            return [torch.zeros(0, 0)] * len(subjects)
        return list(torch.stack(rows, dim=1))

    def look(self, subject: Subject) -> Look:
        """How the subject's photos look, cut out; encoded the first time only."""
        # By its photos, not its name: a judge may outlive one set of subjects.
        key = (subject.digest, subject.category)
        if key not in self._looks:
            cuts = np.stack(
                [
                    cut_out(image, mask >= _VISIBLE)
                    for image, mask in zip(subject.images, subject.masks, strict=True)
                ]
            )
            self._looks[key] = Look(
                subject.category, self.clip.encode_images(cuts), self.dino.encode_images(cuts)
            )
        return self._looks[key]

    def _find(self, frames: Pictures, subjects: Sequence[Subject]) -> list[_Found]:
        segmenter = self.crops.segmenter
        if isinstance(segmenter, NounSegmenter):
            segmenter = segmenter.looking_for([subject.category for subject in subjects])
        found = [tuple(sorted(instances, key=_place)) for instances in segmenter.find(frames)]
        cuts = [
            cut_out(frame, instance.mask)
            for frame, instances in zip(frames, found, strict=True)
            for instance in instances
        ]
        counts = [len(instances) for instances in found]
        clip, dino = (self._encode(encoder, cuts, counts) for encoder in (self.clip, self.dino))
        return [
            _Found(instances, Finds(tuple(one.category for one in instances), *features))
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

    def _nearness(
        self, views: Sequence[NDArray[np.uint8]], subject: Subject, aspect: float
    ) -> float | None:
        if not views:
            return None
        # CLIP, not DINO: it is the encoder that looks at the ground as well.
        frames = self.clip.encode_images(np.stack(views))
        return nearest_photo(frames, torch.cat(self._views(subject, aspect)))

    def _views(self, subject: Subject, aspect: float) -> tuple[torch.Tensor, torch.Tensor]:
        """CLIP features (photo, dim) of the photos' views, as they are and mirrored."""
        key = (subject.digest, aspect)
        if key not in self._photos:
            views = np.stack(
                [
                    view(image, mask >= _VISIBLE, aspect)
                    for image, mask in zip(subject.images, subject.masks, strict=True)
                ]
            )
            both = np.concatenate([views, views[:, :, ::-1]])
            plain, mirrored = self.clip.encode_images(both).chunk(2)
            self._photos[key] = plain, mirrored
        return self._photos[key]


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
