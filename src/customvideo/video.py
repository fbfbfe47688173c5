"""A video as an array of frames, and how it becomes a file of moving pictures.

What models make and metrics read is a `Video`; how it becomes H.264, GIF or a contact sheet, and
comes back, is decided here alone. Clips that strangers made are read by `customvideo.reels`. It is
NOT a video editor and knows no model: no resizing to a model's size, no sound, no streaming of long
films (frames are held in memory).
"""

from __future__ import annotations

import base64
import io
import math
import struct
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from customvideo.errors import UserError
from customvideo.files import is_file, write_bytes

__all__ = [
    "FILMS",
    "UNREADABLE",
    "Frames",
    "Video",
    "data_uri",
    "plays_everywhere",
    "side_by_side",
    "to_rgb",
]

Frames = NDArray[np.uint8]
"""Pixels with axes (frame, height, width, 3), red, green, blue, 0 to 255."""

_WHITE = 255
_BT709 = 1  # the code of BT.709 primaries, transfer and matrix in ITU-T H.273
_STUDIO_RANGE = 1
_PALETTE_PIXELS = 20_000
_MP4_TAGS = {"major_brand", "minor_version", "compatible_brands", "encoder"}
_STREAM_TAGS = {"language", "handler_name", "vendor_id", "encoder"}
_MOST_PIXELS = 1_000_000_000
"""Of all frames together: twenty seconds of 1920x1080 at 24 a second."""
_MOST_IN_FRAME = 36_000_000
UNREADABLE = (
    av.FFmpegError,
    OSError,
    ValueError,
    EOFError,
    IndexError,
    MemoryError,
    SyntaxError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    struct.error,
)
"""What the codecs raise at damaged files; a broken PNG is a SyntaxError to Pillow."""


@dataclass(frozen=True, eq=False)
class Video:
    """Frames and how many of them are shown in a second.

    Attributes:
        frames: uint8 pixels, axes (frame, height, width, 3); at least one frame.
        fps: frames per second.
    """

    frames: Frames
    fps: float = 8.0

    def __post_init__(self) -> None:
        shape = self.frames.shape
        if self.frames.dtype != np.uint8 or len(shape) != 4 or shape[-1] != 3 or 0 in shape:
            raise UserError(
                "A video needs uint8 frames of shape (frame, height, width, 3), "
                f"not {self.frames.dtype} of shape {shape}."
            )
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise UserError(
                f"A video needs a positive number of frames per second, not {self.fps}."
            )

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.frames.shape[1], self.frames.shape[2]

    def save(self, path: Path | str, *, scale: int = 1) -> Path:
        """Write the video in the format its suffix names, all or nothing, and return the path.

        `.mp4` is H.264 that every browser plays (a frame of odd height or width gains one
        repeated row or column), `.gif` a looping animation, `.png` the contact sheet. The same
        frames give the same bytes. `scale` enlarges small frames by that whole factor first.

        Raises:
            UserError: the suffix names no format known here.
            StorageError: the place cannot be written.
        """
        target = Path(path)
        encode = _ENCODERS.get(target.suffix.lower())
        if encode is None:
            known = ", ".join(_ENCODERS)
            raise UserError(f"Cannot save a video as '{target}': name it with one of {known}.")
        write_bytes(target, encode(_enlarge(self, scale)))
        return target

    @classmethod
    def load(cls, path: Path | str) -> Video:
        """Read a video, an animation, or a picture (one frame).

        Raises:
            UserError: the file is missing or is none of these.
        """
        source = Path(path)
        if not is_file(source):
            raise UserError(f"There is no video '{source}'; check the path.")
        try:
            if source.suffix.lower() in _PICTURES:
                return _read_picture(source)
            if source.suffix.lower() in FILMS:
                return _read_film(source)
            raise ValueError("no suffix that is known")
        except UNREADABLE as error:
            raise UserError(
                f"'{source}' cannot be read as a video; give an .mp4, .gif or picture file."
            ) from error

    def sheet(self, columns: int | None = None, *, gap: int = 2) -> NDArray[np.uint8]:
        """Lay the frames out on white, row by row: uint8 (height, width, 3).

        `columns` defaults to four, or to as many as there are frames; `gap` is in pixels.
        """
        count, height, width, _ = self.frames.shape
        columns = min(count, 4 if columns is None else max(1, columns))
        rows = math.ceil(count / columns)
        page = np.full(
            (rows * (height + gap) - gap, columns * (width + gap) - gap, 3), _WHITE, np.uint8
        )
        for index, frame in enumerate(self.frames):
            top = index // columns * (height + gap)
            left = index % columns * (width + gap)
            page[top : top + height, left : left + width] = frame
        return page


def side_by_side(videos: Sequence[Video], gap: int = 8) -> Video:
    """Show videos next to each other, left to right, `gap` white pixels apart.

    A lower one is centred on white, a shorter one holds its last frame.

    Raises:
        UserError: there are none, or they run at different speeds.
    """
    speeds = sorted({video.fps for video in videos})
    if len(speeds) != 1:
        raise UserError(f"Videos side by side need one speed, not {speeds or 'no videos'}.")
    count = max(len(video) for video in videos)
    height = max(video.size[0] for video in videos)
    panels: list[Frames] = []
    for video in videos:
        if panels:
            panels.append(np.full((count, height, gap, 3), _WHITE, np.uint8))
        panels.append(_fit(video.frames, count, height))
    return Video(np.concatenate(panels, axis=2), speeds[0])


def plays_everywhere(path: Path | str) -> bool:
    """Whether the file is as `Video.save` writes an `.mp4`, though others may have written it.

    That is H.264 as every browser plays it, without sound, title or comment.
    """
    try:
        with open(path, "rb") as file, av.open(file, format="mp4") as container:
            (stream,) = container.streams
            context = stream.codec_context
            known = set(container.metadata) <= _MP4_TAGS and set(stream.metadata) <= _STREAM_TAGS
            kind = (context.name, getattr(context, "pix_fmt", ""))
            return known and "mp4" in container.format.name and kind == ("h264", "yuv420p")
    except (*UNREADABLE, AttributeError):
        # Of a codec that nobody here knows there is no context.
        return False


def data_uri(video: Video, *, scale: int = 1) -> str:
    """The video as an MP4 inside one string, for pages that have to stand alone."""
    encoded = base64.b64encode(_encode_mp4(_enlarge(video, scale))).decode()
    return f"data:video/mp4;base64,{encoded}"


def _fit(frames: Frames, count: int, height: int) -> Frames:
    spare = height - frames.shape[1]
    edges = ((0, 0), (spare // 2, spare - spare // 2), (0, 0), (0, 0))
    padded = np.pad(frames, edges, constant_values=_WHITE)
    return np.pad(padded, ((0, count - len(frames)), (0, 0), (0, 0), (0, 0)), mode="edge")


def _enlarge(video: Video, scale: int) -> Video:
    if scale < 1:
        raise UserError(f"A video can be enlarged by 1, 2, 3 … times, not {scale}.")
    if scale == 1:
        return video
    height, width = video.size
    size = (width * scale, height * scale)
    frames = [Image.fromarray(f).resize(size, Image.Resampling.LANCZOS) for f in video.frames]
    return Video(np.stack([np.asarray(frame) for frame in frames]), video.fps)


def _encode_mp4(video: Video) -> bytes:
    height, width = video.size
    frames = np.pad(video.frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    memory = io.BytesIO()
    # Room kept for the index in front of the pictures, so that a browser can start at once.
    container = {"moov_size": str(4096 + 64 * len(frames)), "fflags": "+bitexact"}
    with av.open(memory, "w", format="mp4", options=container) as output:
        stream = _add_h264(output, video.fps, frames.shape[1:3])
        for pixels in frames:
            output.mux(stream.encode(_to_yuv(pixels)))
        output.mux(stream.encode())
    return memory.getvalue()


def _add_h264(output: Any, fps: float, size: tuple[int, ...]) -> Any:
    # The same bytes everywhere: x264's output depends on the number of threads, on the processor's
    # instructions and, through its macroblock tree, even on memory nobody has written.
    quality = {
        "crf": "14",
        "preset": "slow",
        "threads": "1",
        "x264-params": "mbtree=0:cpu-independent=1",
    }
    stream = output.add_stream(
        "libx264", rate=Fraction(fps).limit_denominator(1001), options=quality
    )
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.thread_count = 1
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _STUDIO_RANGE
    return stream


def _to_yuv(pixels: NDArray[np.uint8]) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    return frame.reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
    )


def _encode_gif(video: Video) -> bytes:
    # One palette for all frames: with one each, still backgrounds would flicker.
    palette = Image.fromarray(_sample(video.frames)).quantize(
        256, Image.Quantize.MEDIANCUT, kmeans=1
    )
    frames = [Image.fromarray(frame).quantize(palette=palette) for frame in video.frames]
    memory = io.BytesIO()
    frames[0].save(
        memory,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        duration=_gif_durations(len(frames), video.fps),
        loop=0,
        optimize=False,
    )
    return memory.getvalue()


def _sample(frames: Frames) -> NDArray[np.uint8]:
    """Pixels (n, 1, 3) from all over the video, few enough to find a palette in a moment."""
    pixels = frames.reshape(-1, 1, 3)
    # An odd stride does not keep to the same columns.
    return np.ascontiguousarray(pixels[:: len(pixels) // _PALETTE_PIXELS | 1])


def _gif_durations(count: int, fps: float) -> list[int]:
    """Milliseconds per frame; GIF counts hundredths of a second, so the rounding is carried on."""
    marks = [round(100 * index / fps) for index in range(count + 1)]
    return [10 * max(1, end - start) for start, end in pairwise(marks)]


def _encode_png(video: Video) -> bytes:
    memory = io.BytesIO()
    Image.fromarray(video.sheet()).save(memory, format="PNG")
    return memory.getvalue()


def _read_film(path: Path) -> Video:
    # The demuxer is named, and the file already open: no playlist may lead anywhere else.
    with (
        path.open("rb") as file,
        av.open(file, "r", format=FILMS[path.suffix.lower()]) as container,
    ):
        stream = container.streams.video[0] if container.streams.video else None
        if stream is None:
            raise ValueError("no pictures")
        frames: list[NDArray[np.uint8]] = []
        for frame in container.decode(stream):
            frames.append(to_rgb(frame))
            _require_bounded(len(frames) * frame.width * frame.height)
        if not frames:
            raise ValueError("no frames")
        return Video(np.stack(frames), float(stream.average_rate or 8))


def to_rgb(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """A decoded frame's pixels (height, width, 3)."""
    return cast("NDArray[np.uint8]", frame.to_ndarray(format="rgb24"))


def _require_bounded(pixels: int) -> None:
    if pixels > _MOST_PIXELS:
        raise ValueError("more than a video has")


def _read_picture(path: Path) -> Video:
    frames: list[NDArray[np.uint8]] = []
    durations: list[int] = []
    # Pillow only warns of pictures that could exhaust the memory, and has decoders that start other
    # programs.
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        picture = Image.open(path, formats=_FORMATS)
    with picture:
        for count, page in enumerate(ImageSequence.Iterator(picture), start=1):
            if page.width * page.height > _MOST_IN_FRAME:
                raise ValueError("more than a frame has")
            _require_bounded(count * page.width * page.height)
            durations.append(int(page.info.get("duration", 0)) or 125)
            frames.append(np.asarray(page.convert("RGB")))
    # A GIF shows a frame that equals its neighbour once, for longer.
    repeats = [round(duration / min(durations)) for duration in durations]
    _require_bounded(sum(repeats) * frames[0].shape[0] * frames[0].shape[1])
    total = np.repeat(np.stack(frames), repeats, axis=0)
    return Video(total, 1000 * len(total) / sum(durations))


FILMS = {
    **{".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".webm": "webm"},
    **{".mkv": "matroska", ".avi": "avi"},
}
"""Suffix of a film -> what reads it."""
_FORMATS = ("GIF", "PNG", "JPEG", "WEBP")
_PICTURES = frozenset({".gif", ".png", ".jpg", ".jpeg", ".webp"})
_ENCODERS: dict[str, Callable[[Video], bytes]] = {
    ".mp4": _encode_mp4,
    ".gif": _encode_gif,
    ".png": _encode_png,
}
