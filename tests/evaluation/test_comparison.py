"""Retention and the swap test, with features whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from customvideo.errors import EvaluationError
from customvideo.evaluation.comparison import (
    frame_similarity,
    motion_ratio,
    retention,
    slot_equivariance,
    slot_similarity,
)
from customvideo.evaluation.encoders import Pictures
from customvideo.video import Video
from tests.evaluation.angles import at, cos


class AngleClip:
    """A frame's brightness is its angle; every text lies at 0 degrees."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        return at(*[0] * len(texts))

    def encode_images(self, images: Pictures) -> Tensor:
        return at(*images.mean((1, 2, 3)))


def video(*brightness: int) -> Video:
    return Video(np.stack([np.full((24, 32, 3), value, np.uint8) for value in brightness]))


def test_a_model_that_changed_nothing_retains_everything() -> None:
    kept = retention([video(10, 20)], [video(10, 20)], ["a cat"], AngleClip())
    assert (kept.clip_t_change, kept.frame_similarity) == (0, pytest.approx(1))


def test_what_is_lost_is_the_text_and_the_likeness() -> None:
    base, customized = [video(0, 0), video(10)], [video(60, 60), video(10)]
    kept = retention(base, customized, ["a cat", "a dog"], AngleClip())
    assert kept.clip_t_change == pytest.approx((0.5 - 1) / 2)
    assert kept.frame_similarity == pytest.approx((0.5 + 1) / 2)
    assert kept.motion_ratio is None


def test_unequal_counts_are_one_sentence() -> None:
    for base, texts in [([], []), ([video(1)], []), ([video(1)], ["a"] * 2)]:
        with pytest.raises(EvaluationError, match="give one of each for every prompt") as caught:
            retention(base, [video(1)], texts, AngleClip())
        assert "\n" not in str(caught.value)


def test_frames_are_compared_at_the_same_place() -> None:
    assert frame_similarity(at(0, 90), at(0, 90)) == pytest.approx(1)
    assert frame_similarity(at(0, 90), at(90, 0)) == pytest.approx(0)
    assert frame_similarity(at(0, 30, 7), at(60, 30)) == pytest.approx((0.5 + 1) / 2)


def test_motion_is_a_share_of_what_it_was() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 90, 3), dtype=np.uint8)
    wide = noise.repeat(3, axis=0).repeat(3, axis=1)
    slow, fast = (Video(np.stack([wide[:, s * k : s * k + 144] for k in range(5)])) for s in (1, 3))
    still = Video(np.stack([wide[:, :144]] * 5))
    assert motion_ratio(slow, slow) == pytest.approx(1)
    assert motion_ratio(slow, fast) == pytest.approx(3, rel=0.3)
    assert motion_ratio(fast, still) == 0
    assert (
        motion_ratio(still, slow)
        is motion_ratio(video(1), slow)
        is motion_ratio(slow, video(1))
        is None
    )


TOM, REX = at(0), at(90)


def test_slots_are_compared_with_every_identity() -> None:
    found = slot_similarity([at(0, 60), at(90)], [TOM, REX])
    np.testing.assert_allclose(found, [[0.75, cos(30) / 2], [0, 1]], atol=1e-12)
    assert slot_similarity([torch.zeros(0, 0)], [TOM, REX]).tolist() == [[0, 0]]


def test_subjects_that_change_places_with_their_photos_are_equivariant() -> None:
    before = slot_similarity([at(10), at(80)], [TOM, REX])
    assert slot_equivariance(before, slot_similarity([at(80), at(10)], [TOM, REX]), [1, 0]) == (
        pytest.approx(1)
    )
    assert slot_equivariance(before, before, [1, 0]) == pytest.approx(0)
    half = (before + before[::-1]) / 2
    assert slot_equivariance(before, half, [1, 0]) == pytest.approx(0.5)


def test_three_go_where_their_photos_went() -> None:
    looks = [0, 50, 90]
    references = [at(angle) for angle in looks]
    before = slot_similarity(references, references)
    order = [1, 2, 0]
    after = slot_similarity([at(looks[k]) for k in order], references)
    assert slot_equivariance(before, after, order) == pytest.approx(1)
    other = slot_equivariance(before, after, [2, 0, 1])
    assert other is not None and other < 0.7


def test_where_no_change_is_asked_for_there_is_no_answer() -> None:
    before = slot_similarity([at(0), at(90)], [TOM, REX])
    assert slot_equivariance(before, before, [0, 1]) is None
    alike = slot_similarity([at(0), at(0)], [TOM, TOM])
    assert slot_equivariance(alike, alike, [1, 0]) is None
