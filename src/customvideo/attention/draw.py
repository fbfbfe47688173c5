"""Attention drawn over a video: where each learned word was looked at, one colour a word.

It draws maps that somebody else recorded; recording is `customvideo.attention.tape`, and
averaging them over a generation is `customvideo.generation`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from customvideo.video import Frames, Video

__all__ = ["COLOURS", "Colour", "draw_words", "fade", "overlay"]

Colour = tuple[int, int, int]
Map = NDArray[np.floating]

COLOURS: tuple[Colour, ...] = (
    (213, 94, 0),
    (0, 114, 178),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
)
"""Red, green, blue of each word in turn; told apart also by the colour-blind (Okabe & Ito)."""

_GREY = 0.6
"""How far a frame is faded to grey under the colours of several words."""


def overlay(video: Video, maps: Map, colour: Colour, strength: float = 0.75) -> Video:
    """Tint `video` where `maps` (frame, height, width) is high, relative to its highest value.

    The maps are stretched to the frames' size; one map serves all frames. `strength` in [0, 1] is
    how opaque the colour is at the highest value.
    """
    height, width = video.size
    heat = torch.as_tensor(np.asarray(maps, np.float32))[:, None]
    heat = F.interpolate(heat, size=(height, width), mode="bilinear")
    # (frame, height, width, 1), like the pixels
    heat = heat.movedim(1, -1).clamp(min=0)
    opacity = (strength * heat / heat.max().clamp(min=1e-12)).numpy()
    pixels = video.frames * (1 - opacity) + np.asarray(colour, np.float32) * opacity
    return Video(_to_pixels(pixels), video.fps)


def draw_words(
    video: Video, maps: Mapping[str, Map], *, legend: bool = True, scale: int = 1
) -> Video:
    """Draw every word's maps (frame, height, width) over the faded video, each in its colour.

    `scale` enlarges small frames first; `legend` adds a strip below that names the colours.
    """
    drawn = fade(_enlarge(video, scale))
    palette = {word: COLOURS[index % len(COLOURS)] for index, word in enumerate(maps)}
    for word, recorded in maps.items():
        drawn = overlay(drawn, recorded, palette[word])
    return _add_legend(drawn, palette) if legend and palette else drawn


def _enlarge(video: Video, scale: int) -> Video:
    height, width = video.size
    size = (width * scale, height * scale)
    frames = [
        np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))
        for frame in video.frames
    ]
    return Video(np.stack(frames), video.fps)


def fade(video: Video, share: float = _GREY) -> Video:
    """The video with this `share` of its own colour taken away, all of it if 1.

    An orange word over an orange cat would hardly be seen.
    """
    grey = video.frames.mean(axis=-1, keepdims=True)
    return Video(_to_pixels(video.frames * (1 - share) + grey * share), video.fps)


def _add_legend(video: Video, palette: Mapping[str, Colour]) -> Video:
    frames, _, width, _ = video.frames.shape
    side = max(8, width // 24)
    strip = Image.new("RGB", (width, 2 * side), "white")
    canvas = ImageDraw.Draw(strip)
    font = ImageFont.load_default(size=side)
    left = side // 2
    for word, colour in palette.items():
        canvas.rectangle((left, side // 2, left + side, side // 2 + side), fill=colour)
        left += side + side // 2
        canvas.text((left, side), word, fill="black", font=font, anchor="lm")
        left += int(canvas.textlength(word, font=font)) + side
    below = np.repeat(np.asarray(strip)[None], frames, axis=0)
    return Video(np.concatenate([video.frames, below], axis=1), video.fps)


def _to_pixels(values: NDArray[np.floating]) -> Frames:
    return values.round().clip(0, 255).astype(np.uint8)
