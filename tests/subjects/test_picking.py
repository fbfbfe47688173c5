"""Frames picked for variety."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from customvideo.subjects.picking import pick_frames, sharpness

ALL = np.ones(6, bool)


def looks(*kinds: int) -> NDArray[np.uint8]:
    """Frames of noise; equal kinds look alike but for a trifle."""
    frames = []
    for index, kind in enumerate(kinds):
        frame = np.random.default_rng(kind).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        frame = cv2.resize(frame, (96, 72), interpolation=cv2.INTER_NEAREST)
        frame[:2, :2] = index
        frames.append(frame)
    return np.stack(frames)


def test_each_look_is_taken_before_any_is_taken_twice() -> None:
    frames = looks(1, 1, 2, 2, 3, 3)
    assert [index // 2 for index in pick_frames(frames, 3, ALL)] == [0, 1, 2]


def test_blurred_frames_and_those_that_may_not_be_are_left_out() -> None:
    frames = looks(1, 2, 3, 4, 5, 6)
    frames[2] = cv2.GaussianBlur(frames[2], (0, 0), 4)
    assert sharpness(frames).argmin() == 2
    usable = ALL.copy()
    usable[4] = False
    assert pick_frames(frames, 6, usable) == [0, 1, 3, 5]


def test_nothing_is_taken_twice_nor_out_of_nothing() -> None:
    frames = np.repeat(looks(1), 6, axis=0)
    assert len(pick_frames(frames, 4, ALL)) == 1
    assert pick_frames(frames, 4, ~ALL) == []
    still = np.full((6, 40, 40, 3), 128, np.uint8)
    assert len(pick_frames(still, 4, ALL)) == 1
