"""Clips composed of several subjects: what is where, in every frame."""

from __future__ import annotations

import numpy as np
import pytest

from customvideo.errors import SubjectError
from customvideo.subjects.moving import ClipShape, compose_clip
from customvideo.subjects.scene import Style
from tests.subjects.films import with_clip
from tests.subjects.photos import BLUE, RED, make_subject

SHAPE = ClipShape(6, 8.0, 48, 80)
RUNNER = with_clip(make_subject("tom", "cat", RED))
SITTER = make_subject("rex", "dog", BLUE)


def centres(masks: np.ndarray) -> np.ndarray:
    """Columns of the middle of each frame's mask, in pixels."""
    across = np.arange(masks.shape[-1])
    return np.asarray((masks.sum(axis=1) * across).sum(axis=1) / masks.sum(axis=(1, 2)))


@pytest.mark.parametrize("style", ["panel", "paste"])
def test_every_frame_shows_each_where_its_mask_says(style: Style) -> None:
    for seed in range(4):
        scene = compose_clip([RUNNER, SITTER], np.random.default_rng(seed), SHAPE, style=style)
        assert scene.frames.shape == (6, 48, 80, 3)
        assert scene.masks.shape == (2, 6, 48, 80)
        assert scene.masks.sum(axis=0).max() <= 1 + 1e-5
        for mask, colour in zip(scene.masks, (RED, BLUE), strict=True):
            inside = mask > 0.95
            assert inside.any(axis=(1, 2)).all()
            assert np.abs(scene.frames[inside].mean(axis=0) - colour).max() < 25


def test_a_clip_moves_and_a_photo_at_most_drifts() -> None:
    ways, drifts = [], []
    for seed in range(8):
        scene = compose_clip([RUNNER, SITTER], np.random.default_rng(seed), SHAPE, style="paste")
        ways.append(np.abs(np.diff(centres(scene.masks[0]))).sum())
        drifts.append(np.abs(np.diff(centres(scene.masks[1]))).sum())
    assert min(ways) > 6
    assert max(drifts) < 4
    assert min(drifts) < 0.01 < max(drifts)


def test_the_same_draw_is_the_same_clip() -> None:
    one, other = (compose_clip([RUNNER, SITTER], np.random.default_rng(3), SHAPE) for _ in range(2))
    np.testing.assert_array_equal(one.frames, other.frames)
    np.testing.assert_array_equal(one.masks, other.masks)


def test_a_fast_clip_is_thinned_and_a_short_one_runs_back_and_forth() -> None:
    def speed(count: int, fps: float, frames: int = 6) -> np.ndarray:
        subject = with_clip(make_subject("tom", "cat", RED), count, fps)
        shape = ClipShape(frames, 8.0, 64, 96)
        scene = compose_clip([subject], np.random.default_rng(1), shape, style="paste")
        return np.abs(np.diff(centres(scene.masks[0])))

    # Twenty-one frames at 16 a second are eleven at 8: steps are as of a clip of eleven.
    np.testing.assert_allclose(speed(21, 16.0).mean(), speed(11, 8.0).mean(), rtol=0.35)
    assert speed(3, 8.0, 9).min() > 1


def test_nobody_makes_no_clip() -> None:
    with pytest.raises(SubjectError, match="at least one subject"):
        compose_clip([], np.random.default_rng(0), SHAPE)
