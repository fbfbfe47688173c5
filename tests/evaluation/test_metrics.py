"""Every formula on features made by hand, whose scores are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from customvideo.evaluation.metrics import (
    clip_i,
    clip_t,
    clip_t_scaled,
    dino_i,
    dino_i_gain,
    frame_change,
    temporal_consistency,
    temporal_consistency_all_pairs,
)
from tests.evaluation.angles import at


def test_clip_t_is_the_text_times_the_mean_that_is_not_normalised_again() -> None:
    # The mean of 0° and 90° has length 0.71; normalised again, the score would be 1.
    assert clip_t(at(0, 90), at(45)[0]) == pytest.approx(math.sqrt(0.5))


def test_clip_t_scaled_is_two_and_a_half_times_and_never_negative() -> None:
    assert clip_t_scaled(at(60), at(0)[0]) == pytest.approx(1.25)
    assert clip_t(at(120), at(0)[0]) == pytest.approx(-0.5)
    assert clip_t_scaled(at(120), at(0)[0]) == 0


@pytest.mark.parametrize("score", [clip_i, dino_i])
def test_image_alignment_is_the_mean_over_all_pairs(score: type) -> None:
    # cos 0, 60, 90, 30 degrees
    expected = (1 + 0.5 + 0 + math.sqrt(3) / 2) / 4
    assert score(at(0, 90), at(0, 60)) == pytest.approx(expected)


def test_image_alignment_weighs_references_of_unequal_number_alike() -> None:
    frames, references = at(0, 10, 40), at(5, 80)
    expected = float((frames @ references.T).mean())
    assert clip_i(frames, references) == pytest.approx(expected)


def test_temporal_consistency_looks_at_neighbours_only() -> None:
    frames = at(0, 60, 60)
    assert temporal_consistency(frames) == pytest.approx((0.5 + 1) / 2)
    assert temporal_consistency_all_pairs(frames) == pytest.approx((0.5 + 0.5 + 1) / 3)


def test_a_single_frame_has_no_consistency() -> None:
    assert temporal_consistency(at(0)) is None
    assert temporal_consistency_all_pairs(at(0)) is None
    assert frame_change(np.zeros((1, 2, 2, 3), np.uint8)) is None


def test_frame_change_exposes_a_frozen_video() -> None:
    frames = np.zeros((3, 4, 5, 3), np.uint8)
    assert frame_change(frames) == 0
    frames[1] = 255
    assert frame_change(frames) == 1
    frames[1] = 51
    assert frame_change(frames) == pytest.approx(0.2)


def test_gain_is_the_share_of_the_way_to_true_footage() -> None:
    assert dino_i_gain(0.2, 0.5, 0.8) == pytest.approx(0.5)
    assert dino_i_gain(0.2, 0.2, 0.8) == 0
    assert dino_i_gain(0.2, 0.8, 0.8) == 1
    assert dino_i_gain(0.4, 0.2, 0.8) == pytest.approx(-0.5)
    assert dino_i_gain(0.2, 0.9, 0.8) == pytest.approx(7 / 6)


@pytest.mark.parametrize("before", [0.8, 0.9])
def test_where_there_is_no_way_to_go_there_is_no_gain(before: float) -> None:
    assert dino_i_gain(before, 0.9, 0.8) is None
