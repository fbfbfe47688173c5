"""Made-up clips: a coloured blob that crosses the picture, with its exact masks."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from customvideo.subjects.clips import Clip
from customvideo.subjects.subject import Subject
from tests.subjects.photos import GREY, RED

Frames = NDArray[np.uint8]


def crossing(
    count: int = 10, height: int = 64, width: int = 96, colour: tuple[int, int, int] = RED
) -> tuple[Frames, NDArray[np.float32]]:
    """(frames, masks): a textured ellipse goes from left to right before a textured wall."""
    rng = np.random.default_rng(0)
    wall = (np.array(GREY) + rng.integers(-20, 20, (height, width, 1))).astype(np.float64)
    coat = rng.integers(-25, 25, (height, width, 1))
    frames, masks = [], []
    for index in range(count):
        shift = round(width * (0.25 + 0.5 * index / max(1, count - 1)))
        rows, columns = np.mgrid[:height, :width]
        inside = ((rows - height / 2) / (0.3 * height)) ** 2 + (
            (columns - shift) / (0.15 * width)
        ) ** 2
        mask = inside < 1
        moved = np.roll(coat, shift, axis=1)
        picture = np.where(mask[..., None], np.array(colour) + moved, wall)
        frames.append(picture.clip(0, 255).astype(np.uint8))
        masks.append(mask.astype(np.float32))
    return np.stack(frames), np.stack(masks)


def by_colour(image: Frames, category: str) -> NDArray[np.float32]:
    """A segmenter that knows what the blob looks like."""
    del category
    distance = np.abs(image.astype(int) - np.array(RED)).max(axis=-1)
    return np.asarray(distance < 70, np.float32)


def make_clip(count: int = 10, fps: float = 8.0, file: str = "run.mp4", caption: str = "") -> Clip:
    frames, masks = crossing(count)
    return Clip(frames, (masks * 255).astype(np.uint8), fps, file, caption)


def with_clip(subject: Subject, count: int = 10, fps: float = 8.0) -> Subject:
    """The subject with a clip besides."""
    return replace(subject, clips=(make_clip(count, fps),))


def write_uneven(path: Path, at: list[int], size: tuple[int, int] = (64, 96)) -> Path:
    """An MP4 whose frame i, of grey 40 i, is shown `at[i]` thousandths of a second."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=30)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, moment in enumerate(at):
            pixels = np.full((*size, 3), 40 * index, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = moment, Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path
