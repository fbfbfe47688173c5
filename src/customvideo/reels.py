"""Reading clips that strangers made: only so much of them, upright, and at an even rate.

Phones turn their videos by a note in the file and take frames whenever there is light; animations
hold frames as long as they like; and some files are made to exhaust whoever opens them. What comes
out is a plain `Video`. Writing one, and reading back what was written, is `customvideo.video`.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from customvideo.errors import UserError
from customvideo.files import is_file
from customvideo.video import FILMS, UNREADABLE, Video, to_rgb

__all__ = ["KINDS", "Limits", "Reel", "read_clip"]

KINDS = {kind: FILMS[kind] for kind in (".mp4", ".m4v", ".mov", ".webm")} | {".gif": "GIF"}
"""Suffixes of the files that `read_clip` reads, and what reads them."""

_OPAQUE = 255
_INSTANT = 1e-4  # seconds
_MOST_PAGES = 2_000  # of a GIF
_WIDEST = 8.0  # of pixels that are not square


@dataclass(frozen=True)
class Limits:
    """How much of a stranger's file of moving pictures is read; the rest is left out.

    Attributes:
        seconds: from its beginning.
        fps: most frames a second that are kept.
        side: pixels of a frame's longer side; larger ones are shrunk.
        pixels: of one frame in the file; what has more is refused.
        decoded: pixels of all frames together that are decoded at the most.
    """

    seconds: float = 10.0
    fps: float = 24.0
    side: int = 768
    pixels: int = 36_000_000
    decoded: int = 4_000_000_000


@dataclass(frozen=True, eq=False)
class Reel:
    """What `read_clip` finds.

    Attributes:
        video: the frames that were kept.
        size: (height, width) of an upright frame before shrinking.
        alpha: uint8 (frame, height, width), or None if all is opaque.
    """

    video: Video
    size: tuple[int, int]
    alpha: NDArray[np.uint8] | None = None


def read_clip(path: Path, limits: Limits) -> Reel:
    """Read the beginning of a clip, upright, with square pixels, at an even rate.

    The rate is the file's own, on average, between one frame a second and `limits.fps`; of frames
    at uneven times each moment has the one that was shown then.

    Raises:
        UserError: the file is missing, is of none of the kinds `KINDS`, is damaged, or its frames
            are too large.
    """
    kind = KINDS.get(path.suffix.lower())
    if kind is None or not is_file(path):
        raise UserError(f"There is no clip '{path}'; give one of {', '.join(KINDS)}.")
    try:
        with path.open("rb") as file:
            rate, shown = (
                _gif_frames(file, limits) if kind == "GIF" else _film_frames(file, kind, limits)
            )
            rate = min(max(rate, 1.0), limits.fps)
            sizes: list[tuple[int, int]] = []
            frames = list(_evenly(_allowed(shown, limits, sizes), rate, limits))
    except UNREADABLE as error:
        raise UserError(
            f"'{path}' cannot be read as a clip; save it again as an .mp4, or remove it."
        ) from error
    if len(set(sizes)) != 1:
        raise UserError(f"'{path}' changes its size on the way; save it again as an .mp4.")
    pixels = np.stack(frames)
    alpha = pixels[..., 3] if pixels.shape[-1] == 4 and pixels[..., 3].min() < _OPAQUE else None
    return Reel(Video(np.ascontiguousarray(pixels[..., :3]), rate), sizes[0], alpha)


_Shown = Iterator[tuple[float, float, Image.Image]]
"""Pictures, each with the second it is shown at and for how many."""


def _film_frames(file: Any, kind: str, limits: Limits) -> tuple[float, _Shown]:
    # The demuxer is named, and the file already open: no playlist may lead anywhere else.
    container = av.open(file, format=kind)
    streams = container.streams.video
    # Of a codec that nobody here knows there is no context.
    contexts = [one.codec_context for one in streams[:1] if one.codec_context is not None]
    sides = [(one.width, one.height) for one in contexts]
    if not sides or sides[0][0] * sides[0][1] > limits.pixels:
        container.close()
        raise ValueError("no pictures, or too many pixels")
    stream = streams[0]
    stream.codec_context.options = {"max_pixels": str(limits.pixels)}
    rate = float(stream.average_rate or 8)
    wide = float(stream.sample_aspect_ratio or 1)

    def shown() -> _Shown:
        with container:
            for count, frame in enumerate(container.decode(stream)):
                picture = Image.fromarray(to_rgb(frame))
                if 1 / _WIDEST < wide < _WIDEST and wide != 1:
                    picture = picture.resize((max(1, round(picture.width * wide)), picture.height))
                at = count / rate if frame.time is None else frame.time
                yield at, 1 / rate, picture.rotate(frame.rotation, expand=True)

    return rate, shown()


def _gif_frames(file: Any, limits: Limits) -> tuple[float, _Shown]:
    with Image.open(file, formats=("GIF",)) as picture:
        pixels = picture.width * picture.height
        # Several copies of a page are held at once, of four bytes a pixel.
        if pixels > limits.pixels // 4:
            raise ValueError("too many pixels")
        most = min(_MOST_PAGES, 1 + limits.decoded // pixels)
        durations = [_duration(picture)]
        while len(durations) < most and sum(durations) < limits.seconds:
            try:
                picture.seek(len(durations))
            except EOFError:
                break
            durations.append(_duration(picture))

    def shown() -> _Shown:
        with Image.open(file, formats=("GIF",)) as again:
            at = 0.0
            for page, duration in enumerate(durations):
                again.seek(page)
                yield at, duration, again.convert("RGBA")
                at += duration

    return 1 / statistics.median(durations), shown()


def _duration(picture: Image.Image) -> float:
    """Seconds that a GIF's frame is shown; browsers give one that states none a tenth."""
    return max(0, int(picture.info.get("duration", 0))) / 1000 or 0.1


def _allowed(shown: _Shown, limits: Limits, sizes: list[tuple[int, int]]) -> _Shown:
    """The first of the pictures, shrunk, until as much was decoded as may be; `sizes` gets the
    (height, width) that each had."""
    left = limits.decoded
    for at, duration, picture in shown:
        left -= picture.width * picture.height
        if picture.width * picture.height > limits.pixels:
            raise ValueError("too many pixels")
        sizes.append((picture.height, picture.width))
        scale = min(1.0, limits.side / max(picture.size))
        if scale < 1:
            size = [max(1, round(side * scale)) for side in picture.size]
            picture = picture.resize((size[0], size[1]), Image.Resampling.BOX)
        yield at, duration, picture
        if left < 0:
            return


def _evenly(shown: _Shown, rate: float, limits: Limits) -> Iterator[NDArray[np.uint8]]:
    """What is seen at each of `rate` moments a second, from the first picture on."""
    start: float | None = None
    held, until, count = None, 0.0, 0
    most = max(1, round(limits.seconds * rate))
    for at, duration, picture in shown:
        start = at if start is None else start
        while held is not None and count < most and count / rate < at - start - _INSTANT:
            yield held
            count += 1
        held, until = np.asarray(picture), at - start + duration
        if count >= most:
            return
    if held is None:
        raise ValueError("no frames")
    while count < most and (count == 0 or count / rate < until - _INSTANT):
        yield held
        count += 1
