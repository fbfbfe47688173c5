"""Attention drawn over a video."""

from __future__ import annotations

import numpy as np

from customvideo.attention.draw import COLOURS, draw_words, overlay
from customvideo.video import Video

GREY = Video(np.full((2, 32, 48, 3), 128, np.uint8), fps=6.0)


def corner(row: slice, column: slice) -> np.ndarray:
    """Maps (2, 4, 6) that are high in one corner."""
    maps = np.zeros((2, 4, 6), np.float32)
    maps[:, row, column] = 0.02
    return maps


LEFT, RIGHT = corner(slice(0, 2), slice(0, 2)), corner(slice(2, 4), slice(4, 6))


def test_the_colour_lies_where_the_map_is_high() -> None:
    drawn = overlay(GREY, LEFT, (255, 0, 0), strength=1.0)
    assert drawn.frames.shape == GREY.frames.shape and drawn.fps == GREY.fps
    assert drawn.frames[0, 2, 2].tolist() == [255, 0, 0]
    assert drawn.frames[0, 28, 44].tolist() == [128, 128, 128]


def test_strength_is_the_opacity_at_the_highest_value() -> None:
    drawn = overlay(GREY, LEFT, (255, 0, 0), strength=0.5)
    assert drawn.frames[0, 2, 2].tolist() == [192, 64, 64]
    faint = overlay(GREY, LEFT / 1000, (255, 0, 0), strength=0.5)
    assert np.array_equal(drawn.frames, faint.frames)


def test_each_frame_has_its_own_map() -> None:
    moving = np.stack([LEFT[0], RIGHT[0]])
    drawn = overlay(GREY, moving, (0, 0, 255))
    assert drawn.frames[0, 2, 2, 2] > 200 and drawn.frames[1, 2, 2, 2] == 128
    assert drawn.frames[1, 28, 44, 2] > 200


def test_an_empty_map_draws_nothing() -> None:
    assert np.array_equal(overlay(GREY, np.zeros((2, 4, 6)), (255, 0, 0)).frames, GREY.frames)


def test_every_word_has_its_colour_and_its_legend() -> None:
    maps = {"<tom>": LEFT, "<rex>": RIGHT}
    drawn = draw_words(GREY, maps, scale=4)
    bare = draw_words(GREY, maps, legend=False, scale=4)
    assert bare.frames.shape == (2, 128, 192, 3)
    assert drawn.frames.shape[1] > 128 and drawn.frames.shape[2] == 192
    assert np.array_equal(drawn.frames[:, :128], bare.frames)
    legend = {tuple(pixel) for pixel in drawn.frames[0, 128:].reshape(-1, 3).tolist()}
    assert set(COLOURS[:2]) <= legend and COLOURS[2] not in legend
    towards = np.abs(bare.frames[0, 8, 8].astype(int) - COLOURS[0]).sum()
    assert towards < np.abs(bare.frames[0, 8, 8].astype(int) - COLOURS[1]).sum()


def test_no_words_leave_a_faded_video() -> None:
    assert np.array_equal(draw_words(GREY, {}).frames, GREY.frames)
