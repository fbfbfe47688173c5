"""Composing several subjects into one clip, so that training sees them move together.

Each subject comes from one of its clips, or from a photo that drifts gently where it has none. What
lies where stays where it is throughout: `customvideo.subjects.scene` arranges every frame alike,
and leaves each subject room for all that it does. How many clips are drawn, and beside how many
pictures, whoever trains decides.

Axes: subject, frame, height, width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from customvideo.errors import SubjectError
from customvideo.subjects.clips import Clip
from customvideo.subjects.scene import Background, Shot, Style, arrange
from customvideo.subjects.subject import Subject

__all__ = ["ClipShape", "MovingScene", "compose_clip"]

Floats = NDArray[np.float32]

_DRIFT = 0.04  # of a photo's shorter side, how far it goes at the most
_GROWTH = 0.05  # how much nearer it comes, or farther it goes


@dataclass(frozen=True)
class ClipShape:
    """The clips that a model is trained on: frames, frames a second, height and width in pixels."""

    frames: int
    fps: float
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.frames} frames of {self.height}x{self.width} pixels"

    @property
    def canvas(self) -> tuple[int, int]:
        return self.height, self.width


@dataclass(frozen=True, eq=False)
class MovingScene:
    """One clip with every subject in it once.

    Attributes:
        frames: uint8 (frame, height, width, 3), RGB.
        masks: float32 (subject, frame, height, width) in [0, 1]; those of a place never sum to more
            than 1.
        captions: what the clips and photos say of themselves, "" for one that says nothing.
    """

    frames: NDArray[np.uint8]
    masks: Floats
    captions: tuple[str, ...]


def compose_clip(
    subjects: Sequence[Subject],
    rng: np.random.Generator,
    shape: ClipShape,
    *,
    style: Style = "panel",
    background: Background = "keep",
) -> MovingScene:
    """Draw one clip that contains each subject once; the same `rng` state, the same clip.

    Of a subject's clip a stretch of the right length is drawn, every so many frames of it that it
    runs about as fast as it was taken (whole numbers alone, so that nothing stutters). One that is
    too short runs back and forth. `style` and `background` are as for `scene.compose`.

    Raises:
        SubjectError: no subject.
        ConfigError: an unknown style or background.
    """
    if not subjects:
        raise SubjectError("A scene needs at least one subject; add one.")
    strips, captions = [], []
    for subject in subjects:
        strip, caption = _draw_strip(subject, rng, shape)
        strips.append(strip)
        captions.append(caption)
    seed = int(rng.integers(2**63 - 1))
    scenes = [
        arrange(list(shots), np.random.default_rng(seed), shape.canvas, style, background)
        for shots in zip(*strips, strict=True)
    ]
    return MovingScene(
        np.stack([scene.image for scene in scenes]),
        np.stack([scene.masks for scene in scenes], axis=1),
        tuple(captions),
    )


def _draw_strip(
    subject: Subject, rng: np.random.Generator, shape: ClipShape
) -> tuple[list[Shot], str]:
    """One of the subject's clips, or of its photos if it has none, frame by frame, and what is said
    of it; mirrored half the time."""
    if subject.clips:
        clip = subject.clips[int(rng.integers(len(subject.clips)))]
        pairs, caption = _stretch(clip, rng, shape), clip.caption
    else:
        index = int(rng.integers(len(subject.images)))
        caption = subject.captions[index] if subject.captions else ""
        pairs = _drifting(subject.images[index], subject.masks[index], rng, shape.frames)
    if rng.random() < 0.5:
        pairs = [(image[:, ::-1], mask[:, ::-1]) for image, mask in pairs]
    extent = np.maximum.reduce([mask for _, mask in pairs])
    shots = [
        Shot(np.ascontiguousarray(image), np.ascontiguousarray(mask), extent)
        for image, mask in pairs
    ]
    return shots, caption


def _stretch(clip: Clip, rng: np.random.Generator, shape: ClipShape) -> list[tuple[Floats, Floats]]:
    """A stretch of `clip` that begins where the subject is in sight."""
    count = len(clip.frames)
    step = max(1, round(clip.fps / shape.fps))
    # Rather a little slow than back and forth.
    step = max(1, min(step, (count - 1) // max(1, shape.frames - 1)))
    spare = max(0, count - 1 - step * (shape.frames - 1))
    starts = np.flatnonzero(clip.seen[: spare + 1])
    start = int(rng.choice(starts)) if len(starts) else 0
    places = [_folded(start + step * index, count) for index in range(shape.frames)]
    if not clip.seen[places].any():
        # A window without the subject teaches nothing: begin at a frame that shows it.
        first = int(rng.choice(np.flatnonzero(clip.seen)))
        places = [_folded(first + step * index, count) for index in range(shape.frames)]
    scale = np.float32(255)
    return [(clip.frames[one].astype(np.float32), clip.masks[one] / scale) for one in places]


def _folded(place: int, count: int) -> int:
    """`place` in a clip of `count` frames that runs back and forth."""
    period = 2 * (count - 1)
    place %= period
    return min(place, period - place)


def _drifting(
    image: NDArray[np.uint8], mask: Floats, rng: np.random.Generator, frames: int
) -> list[tuple[Floats, Floats]]:
    """A photo that moves, and grows or shrinks, a little and evenly; half the time not at all."""
    still = rng.random() < 0.5
    across, down = rng.uniform(-_DRIFT, _DRIFT, 2) * min(mask.shape)
    growth = rng.uniform(-_GROWTH, _GROWTH)
    pixels = image.astype(np.float32)
    if still:
        return [(pixels, mask)] * frames
    centre = np.array([mask.shape[1], mask.shape[0]]) / 2
    pairs = []
    for share in np.linspace(-0.5, 0.5, frames):
        scale = 1 + share * growth
        shift = centre * (1 - scale) + share * np.array([across, down])
        move = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        pairs.append((_warped(pixels, move, cv2.BORDER_REFLECT_101), _warped(mask, move, 0)))
    return pairs


def _warped(values: Floats, move: NDArray[np.float64], border: int) -> Floats:
    height, width = values.shape[:2]
    return np.asarray(
        cv2.warpAffine(values, move, (width, height), flags=cv2.INTER_LINEAR, borderMode=border),
        np.float32,
    )
