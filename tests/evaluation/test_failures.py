"""Each failure at both sides of its threshold."""

from __future__ import annotations

import pytest

from customvideo.evaluation.failures import ENOUGH, blend, copied, drop, freeze, usual_range


def test_blend_is_mixed_in_most_of_the_frames_with_the_subject() -> None:
    assert blend(1.0, 0.6) is True
    assert blend(1.0, 0.5) is False
    assert blend(0.1, 0.6) is True


def test_who_is_never_there_is_not_blended_and_who_is_alone_cannot_be() -> None:
    assert blend(0.0, None) is False
    assert blend(1.0, None) is None


@pytest.mark.parametrize(
    ("present", "expected"), [(1, False), (0.5, False), (0.49, True), (0, True)]
)
def test_drop_is_absent_from_more_than_half(present: float, expected: bool) -> None:
    assert drop(present) is expected


def test_copied_is_four_times_nearer_than_two_photos() -> None:
    # The closest pair is 0.2 apart, so 0.05 is the limit.
    assert copied(0.951, 0.8) is True
    assert copied(0.949, 0.8) is False
    assert copied(None, 0.8) is None


def test_what_the_base_model_reaches_by_chance_is_no_copy() -> None:
    base = [0.5] * 95 + [0.98] * 5
    assert copied(0.97, 0.8, base=[0.5, 0.6]) is True
    assert copied(0.97, 0.8, base=[0.98] * 3) is False
    assert copied(0.97, 0.8, base=base) is True
    # Of one photo there is no pair: the base alone decides, or nobody.
    assert copied(0.97, None, base=[0.5]) is True
    assert copied(0.4, None, base=[0.5]) is False
    assert copied(0.97, None) is None


def test_freeze_is_under_the_fifth_of_the_base_model_s_motion() -> None:
    base = [0.0, 10.0, 20.0, 30.0, 40.0]
    assert freeze(7.9, 1.0, base) is True
    assert freeze(8.0, 1.0, base) is False
    # The base model may stand still itself.
    assert freeze(0.1, 0.0, [0.0] * 5) is False


def test_without_a_base_freeze_is_not_being_dynamic() -> None:
    assert freeze(2.0, 0.0) is True
    assert freeze(9.0, 1.0) is False
    assert freeze(None, None) is freeze(None, None, [1.0]) is None


def test_few_videos_of_a_prompt_are_joined_by_others() -> None:
    few, many = [1.0] * (ENOUGH - 1), [1.0] * ENOUGH
    every = [2.0] * 9
    assert usual_range(few, every) == every
    assert usual_range(many, every) == many
