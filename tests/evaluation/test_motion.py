"""Flow, dynamic degree and smoothness on textures whose motion is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from customvideo.evaluation.motion import (
    DYNAMIC,
    dynamic_degree,
    motion,
    motion_smoothness,
    steps,
)


def texture(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(0).uniform(0, 255, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.clip(127 + 4 * (smooth - 127), 0, 255).astype(np.uint8)


def sliding(pixels: int, frames: int = 5, height: int = 96, width: int = 144) -> np.ndarray:
    """A texture that moves to the left by so many pixels a frame."""
    wide = texture(height, width + pixels * frames)
    return np.stack([wide[:, pixels * k : pixels * k + width] for k in range(frames)])


@pytest.mark.parametrize("pixels", [1, 2, 4])
def test_a_step_is_the_way_the_fastest_pixels_go(pixels: int) -> None:
    found = steps(sliding(pixels), fps=8)
    assert found.shape == (4,)
    # In pixels where the shorter side has 256.
    assert found == pytest.approx(np.full(4, pixels * 256 / 96), rel=0.25)
    assert motion(found) == pytest.approx(found.mean())


def test_only_the_fastest_twentieth_counts() -> None:
    still = texture(96, 144)
    frames = np.stack([still] * 3)
    moving = sliding(3, frames=3, height=40, width=60)
    frames[:, 20:60, 30:90] = moving
    assert steps(frames, 8) == pytest.approx(np.full(2, 3 * 256 / 96), rel=0.3)
    frames[:, :, :] = still
    assert steps(frames, 8) == pytest.approx(np.zeros(2))


def test_noise_alone_is_no_motion() -> None:
    noise = np.random.default_rng(2).integers(-2, 3, (3, 96, 144, 3))
    frames = np.clip(texture(96, 144) + noise, 0, 255).astype(np.uint8)
    assert steps(frames, 8) == pytest.approx(np.zeros(2))


def test_rate_and_size_make_no_difference_to_speed() -> None:
    frames = sliding(1, frames=9)
    at_eight = steps(frames, 8)
    # At 16 frames a second every other frame is looked at: twice as far in an eighth of a second.
    assert steps(frames, 16).shape == (4,)
    assert steps(frames, 16).mean() == pytest.approx(2 * at_eight.mean(), rel=0.1)
    # At 4, a step takes two eighths of a second.
    assert steps(frames, 4) == pytest.approx(at_eight / 2)
    doubled = np.stack([cv2.resize(frame, None, fx=4, fy=4) for frame in frames])
    assert steps(doubled, 8).mean() == pytest.approx(at_eight.mean(), rel=0.2)


def test_a_video_is_dynamic_if_enough_pairs_move() -> None:
    fast, slow = DYNAMIC + 1, DYNAMIC - 1
    # Of 8 frames (7 pairs), 2 pairs; exactly at the threshold is not over it.
    assert dynamic_degree(np.array([fast, fast, *[slow] * 5])) == 1
    assert dynamic_degree(np.array([fast, DYNAMIC, *[slow] * 5])) == 0
    assert dynamic_degree(np.full(15, slow)) == 0
    # Of 2 frames VBench would ask for none.
    assert dynamic_degree(np.array([slow])) == 0
    assert dynamic_degree(np.array([fast])) == 1
    assert dynamic_degree(np.zeros(0)) is motion(np.zeros(0)) is None


def test_one_frame_has_neither_motion_nor_smoothness() -> None:
    frame = texture(32, 48)
    assert len(steps(frame[None], 8)) == 0
    assert motion_smoothness(frame[None]) is motion_smoothness(np.stack([frame] * 2)) is None
    assert motion_smoothness(np.stack([frame] * 3)) == 1


def test_steady_motion_is_smoother_than_jumps_and_noise() -> None:
    steady = sliding(2, frames=7)
    order = [0, 4, 1, 5, 2, 6, 3]
    noise = np.random.default_rng(1).integers(0, 256, steady.shape, dtype=np.uint8)
    smooth, jumpy, wild = (motion_smoothness(f) for f in (steady, steady[order], noise))
    assert smooth is not None and jumpy is not None and wild is not None
    assert smooth > 0.97 > jumpy > wild
    # The flow is what finds the middle: the mean of both neighbours is further away.
    between = (steady[0].astype(float) + steady[2]) / 2
    assert 1 - np.abs(between - steady[1]).mean() / 255 < smooth - 0.01


def test_smoothness_is_one_minus_the_mean_error() -> None:
    frames = np.full((3, 32, 48, 3), 100, np.uint8)
    frames[1] = 151
    assert motion_smoothness(frames) == pytest.approx(1 - 51 / 255)
    # Of an even number the last has no frame after it.
    longer = np.concatenate([frames, np.zeros_like(frames[:1])])
    assert motion_smoothness(longer) == pytest.approx(1 - 51 / 255)


def test_threads_change_no_number() -> None:
    frames, before = sliding(2), cv2.getNumThreads()
    try:
        found = []
        for threads in (1, 3):
            cv2.setNumThreads(threads)
            found.append((steps(frames, 8).tolist(), motion_smoothness(frames)))
    finally:
        cv2.setNumThreads(before)
    assert found[0] == found[1]
