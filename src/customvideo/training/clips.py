"""Training on clips beside pictures: how long they are, and where they come from in a run.

A clip is as long as the model makes its own, or as the subjects' clips are, and goes through the
model by itself: one is as much as many pictures. What a clip shows is the method's decision.

Axes: word, frame, height, width; frames are pixels' or latents', as said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from customvideo.backbones.base import Backbone
from customvideo.errors import BackboneError, ConfigError
from customvideo.methods.base import Filmed
from customvideo.subjects.clips import Clip
from customvideo.subjects.moving import ClipShape
from customvideo.subjects.subject import Subject
from customvideo.training.batch import EncodedScene, Workshop, row_rng
from customvideo.training.config import TrainerConfig

__all__ = ["ClipPool", "clip_pool", "clip_shape"]

_FILMS = 6
"""The stream of draws of clips; those of pictures are `customvideo.training.batch`'s."""
_PICTURES_A_CLIP = 4
"""How many pictures of a pool stand for one clip in its own: clips take long to encode."""


@dataclass(frozen=True, eq=False)
class ClipPool:
    """Clips to train on: `count` made once and drawn from, or, for 0, a new one for every row."""

    workshop: Workshop
    shape: ClipShape
    count: int
    _kept: list[EncodedScene] = field(default_factory=list)

    def __post_init__(self) -> None:
        for index in range(self.count):
            if len(self._kept) < self.count:
                self._kept.extend(self._make(index))

    def pick(self, rng: np.random.Generator, step: int, row: int) -> EncodedScene:
        """The clip of one row of one step; `rng` is that row's generator."""
        scenes = self._kept or self._make(step, row)
        return scenes[int(rng.integers(len(scenes)))]

    def _make(self, *index: int) -> list[EncodedScene]:
        shop = self.workshop
        assert isinstance(shop.method, Filmed)
        rng = row_rng(shop.seed, _FILMS, *index)
        # One by one: the autoencoder's work on a clip is as much as may be asked of it.
        examples = shop.method.clip_scenes(shop.subjects, rng, self.shape)
        return [scene for one in examples for scene in shop.encode([one])]


def clip_pool(workshop: Workshop, config: TrainerConfig) -> ClipPool | None:
    """The clips of a run; None where no subject has any, the method takes none, or none are to be.

    Raises:
        ConfigError, BackboneError: the backbone makes no clips of the length asked for.
    """
    wanted = config.clip_share > 0 and isinstance(workshop.method, Filmed)
    if not wanted or not any(subject.clips for subject in workshop.subjects):
        return None
    shape = clip_shape(workshop.backbone, workshop.subjects, workshop.canvas, config.clip_frames)
    return ClipPool(workshop, shape, -(-config.pool // _PICTURES_A_CLIP))


def clip_shape(
    backbone: Backbone,
    subjects: Sequence[Subject],
    canvas: tuple[int, int],
    frames: int | None = None,
) -> ClipShape:
    """The size of training clips of `frames` frames, or, for None, of as many as the backbone makes
    of itself and the longest of the subjects' clips has; `canvas` is (height, width).

    Raises:
        ConfigError, BackboneError: the backbone makes no clips of such a length.
    """
    if frames is not None:
        backbone.latent_shape(frames, *canvas)
        return ClipShape(frames, backbone.fps, *canvas)
    longest = max(_frames(clip, backbone.fps) for subject in subjects for clip in subject.clips)
    most = min(backbone.frames, longest)
    for count in [*range(most, 1, -1), *range(most + 1, backbone.frames + 1)]:
        if _possible(backbone, count, canvas):
            return ClipShape(count, backbone.fps, *canvas)
    raise ConfigError(
        f"Backbone '{backbone.name}' makes no clips of {canvas[0]}x{canvas[1]} pixels; set "
        "clip_share=0 to train on pictures alone, or clip_frames."
    )


def _frames(clip: Clip, fps: float) -> int:
    """How many frames of a clip there are at about `fps` a second."""
    return (len(clip.frames) - 1) // max(1, round(clip.fps / fps)) + 1


def _possible(backbone: Backbone, frames: int, canvas: tuple[int, int]) -> bool:
    try:
        backbone.latent_shape(frames, *canvas)
    except BackboneError:
        return False
    return True
