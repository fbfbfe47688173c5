"""Matches, margins and rates on features made by hand, whose similarities are known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from customvideo.evaluation.binding import Finds, Look, assign, bind, found_all, match
from tests.evaluation.angles import at, cos


def look(category: str, *degrees: float) -> Look:
    return Look(category, at(*degrees), at(*degrees))


def finds(*things: tuple[str, float]) -> Finds:
    features = at(*(angle for _, angle in things)) if things else torch.zeros(0, 0)
    return Finds(tuple(category for category, _ in things), features, features)


TOM, REX = look("cat", 0), look("dog", 90)
"""The cat looks like 0 degrees, the dog like 90."""


def test_what_is_found_and_alike_scores_its_cosine() -> None:
    bound = bind([finds(("cat", 10), ("dog", 70))], [TOM, REX])
    assert bound.dino_i_crop == bound.clip_i_crop == pytest.approx((cos(10), cos(20)))
    assert bound.rank1 == (1, 1)
    assert (bound.co_occurrence, bound.bleed) == (1, 0)
    assert bound.binding_margin == pytest.approx(min(cos(10) - cos(80), cos(20) - cos(70)))


def test_clip_and_dino_see_the_same_crops_each_with_its_own_eyes() -> None:
    found = Finds(("cat", "dog"), clip=at(60, 90), dino=at(0, 90))
    bound = bind([found], [TOM, REX])
    assert bound.dino_i_crop == pytest.approx((1, 1))
    assert bound.clip_i_crop == pytest.approx((0.5, 1))


def test_similarity_is_the_mean_over_the_references() -> None:
    bound = bind([finds(("cat", 0))], [look("cat", 0, 60, 60)])
    assert bound.dino_i_crop == pytest.approx(((1 + 0.5 + 0.5) / 3,))


def test_swapped_identities_are_bleeding() -> None:
    bound = bind([finds(("cat", 90), ("dog", 0))], [TOM, REX])
    assert bound.bleed == 1
    assert bound.binding_margin == pytest.approx(-1)
    assert bound.dino_i_crop == pytest.approx((0, 0))
    assert bound.rank1 == (0, 0)
    assert bound.co_occurrence == 1


def test_one_subject_with_the_others_looks_is_bleeding() -> None:
    bound = bind([finds(("cat", 0), ("dog", 10))], [TOM, REX])
    assert bound.bleed == 1
    assert bound.binding_margin == pytest.approx(cos(80) - cos(10))
    assert bound.rank1 == (1, 0)


@pytest.mark.parametrize("angles", [(0, 0), (0, 30), (45, 45)])
def test_subjects_of_one_look_have_no_margin(angles: tuple[float, float]) -> None:
    # The same references in another order differ by rounding only.
    alike = [look("cat", 0, 10, 25), look("dog", 25, 0, 10)]
    bound = bind([finds(("cat", angles[0]), ("dog", angles[1]))], alike)
    assert bound.binding_margin == pytest.approx(0)
    assert bound.bleed == 1
    assert bound.rank1 == (0, 0)


def test_halfway_between_two_subjects_is_bleeding() -> None:
    bound = bind([finds(("cat", 45), ("dog", 90))], [TOM, REX])
    assert bound.binding_margin == pytest.approx(0)
    assert bound.bleed == 1


def test_a_missing_subject_scores_nothing_and_counts_in_co_occurrence_only() -> None:
    frames = [finds(("cat", 0), ("dog", 90)), finds(("cat", 0)), finds(), finds(("dog", 90))]
    bound = bind(frames, [TOM, REX])
    assert bound.dino_i_crop == pytest.approx((2 / 4, 2 / 4))
    assert bound.co_occurrence == 1 / 4
    assert bound.bleed == 0
    assert bound.rank1 == (1, 1)


def test_without_a_frame_that_shows_all_there_is_nothing_to_say_about_bleeding() -> None:
    bound = bind([finds(("cat", 90)), finds()], [TOM, REX])
    assert (bound.co_occurrence, bound.bleed, bound.binding_margin) == (0, None, None)
    assert bound.dino_i_crop == pytest.approx((0, 0))
    assert bound.rank1 == (0, None)
    nothing = bind([finds()], [TOM, REX])
    assert nothing.dino_i_crop == (0, 0) and nothing.rank1 == (None, None)


def test_a_single_subject_cannot_bleed() -> None:
    bound = bind([finds(("cat", 60), ("dog", 0))], [TOM])
    assert bound.dino_i_crop == pytest.approx((0.5,))
    assert (bound.co_occurrence, bound.bleed, bound.rank1) == (1, None, (None,))


def test_rates_are_shares_of_frames() -> None:
    good, bad = finds(("cat", 0), ("dog", 90)), finds(("cat", 90), ("dog", 0))
    bound = bind([good, good, bad, finds(("cat", 0))], [TOM, REX])
    assert bound.co_occurrence == 3 / 4
    assert bound.bleed == pytest.approx(1 / 3)
    assert bound.binding_margin == pytest.approx((1 + 1 - 1) / 3)
    assert bound.rank1 == pytest.approx((3 / 4, 2 / 3))


def test_of_two_of_one_category_identity_decides() -> None:
    cats = [look("cat", 0), look("cat", 90)]
    bound = bind([finds(("cat", 80), ("cat", 10))], cats)
    assert bound.dino_i_crop == pytest.approx((cos(10), cos(10)))
    assert (bound.co_occurrence, bound.bleed) == (1, 0)
    # Two of the one and none of the other: identity cannot be fooled by the count.
    twice = bind([finds(("cat", 0), ("cat", 5))], cats)
    assert twice.co_occurrence == 1 and twice.bleed == 1
    single = bind([finds(("cat", 0))], cats)
    assert single.dino_i_crop == pytest.approx((1, 0)) and single.co_occurrence == 0


def test_a_thing_under_a_wrong_name_is_who_it_looks_like_if_nothing_else_is_left() -> None:
    bound = bind([finds(("cat", 10), ("bear", 90))], [TOM, REX])
    assert bound.dino_i_crop == pytest.approx((cos(10), 1))
    assert bound.co_occurrence == 0
    # With a dog about, however poor, the bear is nobody.
    bound = bind([finds(("cat", 10), ("bear", 90), ("dog", 30))], [TOM, REX])
    assert bound.dino_i_crop == pytest.approx((cos(10), 0.5))
    assert bound.co_occurrence == 1


def test_without_names_identity_alone_decides() -> None:
    bound = bind([finds(("", 80), ("", 10))], [TOM, REX])
    assert bound.dino_i_crop == pytest.approx((cos(10), cos(10)))
    assert (bound.co_occurrence, bound.bleed) == (1, 0)


def test_the_order_of_things_does_not_matter() -> None:
    things = [("cat", 20.0), ("dog", 55.0), ("cat", 35.0), ("dog", 100.0), ("bear", 0.0)]
    expected = bind([finds(*things)], [TOM, REX])
    for order in itertools.permutations(things):
        assert bind([finds(*order)], [TOM, REX]) == expected
    swapped = bind([finds(*things)], [REX, TOM])
    assert swapped.dino_i_crop == expected.dino_i_crop[::-1]
    assert swapped.binding_margin == expected.binding_margin


def test_a_wider_gallery_is_harder_to_win_and_leaves_the_rest_alone() -> None:
    frames = [finds(("cat", 30), ("dog", 90))]
    small = bind(frames, [TOM, REX])
    wide = bind(frames, [TOM, REX], [look("cat", 25), look("cat", 180)])
    assert small.rank1 == (1, 1)
    assert wide.rank1 == (0, 1)
    assert (wide.bleed, wide.dino_i_crop) == (small.bleed, small.dino_i_crop)
    assert bind(frames, [TOM], [look("cat", 25)]).rank1 == (0,)


def test_three_subjects_are_matched_for_the_greatest_total() -> None:
    # Greedy would give thing 0 to subject 0 (0.9) and leave subject 1 with 0.1.
    similarity = np.array([[0.9, 0.8, 0.0], [0.85, 0.1, 0.0], [0.0, 0.0, 0.3]])
    assert assign(similarity, np.ones((3, 3), bool)) == [1, 0, 2]


@pytest.mark.parametrize("shape", [(1, 3), (2, 2), (2, 5), (3, 4), (4, 5), (4, 2)])
def test_the_match_is_the_best_of_all_matches(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    subjects, things = shape
    for _ in range(20):
        similarity, named = rng.uniform(-1, 1, shape), rng.random(shape) < 0.5
        slots = [*range(things), *([None] * subjects)]
        worth = {
            match: (
                sum(thing is not None for thing in match),
                sum(bool(named[i, m]) for i, m in enumerate(match) if m is not None),
                sum(similarity[i, m] for i, m in enumerate(match) if m is not None),
            )
            for match in set(itertools.permutations(slots, subjects))
        }
        found = tuple(assign(similarity, named))
        assert worth[found] == pytest.approx(max(worth.values()))


def test_everyone_is_there_when_categories_are_found_as_often_as_needed() -> None:
    assert found_all(["cat", "dog"], ["dog", "bear", "Cat"])
    assert not found_all(["cat", "cat"], ["cat", "dog"])
    assert found_all(["cat", "cat"], ["cat", "cat", "cat"])
    assert found_all(["cat", "cat"], ["cat", ""])
    assert not found_all(["cat", "cat"], ["", "dog"])
    assert not found_all(["cat"], [])


def test_present_is_matched_and_correct_is_with_a_positive_margin() -> None:
    frames = [
        finds(("cat", 0), ("dog", 90)),
        finds(("cat", 0), ("dog", 10)),
        finds(("cat", 90), ("dog", 0)),
        finds(("cat", 45)),
    ]
    bound = bind(frames, [TOM, REX])
    # The lone cat is halfway between both: there, and nobody's.
    assert bound.present == (1, 3 / 4)
    assert bound.correct == (2 / 4, 1 / 4)


def test_the_headline_is_identity_times_correct_binding() -> None:
    frames = [finds(("cat", 30), ("dog", 90)), finds(("cat", 80), ("dog", 90)), finds()]
    bound = bind(frames, [TOM, REX])
    assert bound.correct == pytest.approx((1 / 3, 2 / 3))
    identity = (cos(30) + cos(80)) / 3
    assert bound.headline == pytest.approx((identity / 3, 2 / 3 * 2 / 3))


def test_alone_in_a_prompt_presence_is_all_the_binding_there_is() -> None:
    bound = bind([finds(("cat", 60)), finds()], [TOM])
    assert (bound.present, bound.correct, bound.mixed) == ((0.5,), (0.5,), (None,))
    assert bound.headline == pytest.approx((0.5 / 2 * 0.5,))


def test_whom_a_crop_is_nearest_to_is_counted() -> None:
    frames = [
        finds(("cat", 0), ("dog", 90)),
        finds(("cat", 20), ("dog", 30)),
        finds(("cat", 80)),
        finds(),
    ]
    bound = bind(frames, [TOM, REX])
    assert bound.seen_as == ((2, 1), (1, 1))
    # A tie is not the subject's.
    assert bind([finds(("cat", 45))], [TOM, REX]).seen_as == ((0, 1), (0, 0))


def test_a_crop_a_third_of_the_way_to_another_is_mixed() -> None:
    # With photos at 0 and 90 degrees the way to the dog is the sine of the cat's angle.
    for angle, mixed in [(0, 0), (19, 0), (20, 1), (40, 1), (80, 1)]:
        bound = bind([finds(("cat", angle), ("dog", 90))], [TOM, REX])
        assert bound.mixed == (mixed, 0), angle
    bound = bind([finds(("cat", 5)), finds(("cat", 30)), finds()], [TOM, REX])
    assert bound.mixed == (0.5, None)


def test_the_way_starts_where_the_photos_are() -> None:
    # Two who look half alike: 60 degrees apart, so the way from 0.5 to 1; a third is at 0.667.
    pair = [look("cat", 0), look("dog", 60)]
    for angle, mixed in [(0, 0), (11, 0), (13, 1)]:
        assert bind([finds(("cat", angle), ("dog", 60))], pair).mixed == (mixed, 0), angle


def test_those_who_look_alike_are_told_by_their_margin_only() -> None:
    pair = [look("cat", 0), look("dog", 10)]
    assert bind([finds(("cat", 0), ("dog", 10))], pair).mixed == (0, 0)
    assert bind([finds(("cat", 9), ("dog", 10))], pair).mixed == (1, 0)


def test_somebody_unlike_all_is_not_mixed() -> None:
    frames = [Finds(("cat",), at(-60), at(-60))]
    assert bind(frames, [TOM, REX]).mixed == (0, None)


def test_photos_that_differ_leave_less_of_a_way() -> None:
    # The dog's photos are 60 degrees apart, so nobody need be nearer to them than 0.5.
    varied = [look("cat", 0), look("dog", 60, 120)]
    frame = [finds(("cat", 15), ("dog", 90))]
    way = (cos(45) + cos(105)) / 2 / cos(60)
    assert way > 1 / 3 and bind(frame, varied).mixed == (1, 0)


def test_rank_1_within_a_category_asks_those_of_the_category_only() -> None:
    frames = [finds(("cat", 30), ("dog", 90))]
    others = [look("dog", 30), look("Cat", 80)]
    bound = bind(frames, [TOM, REX], others)
    assert bound.rank1 == (0, 1) and bound.rank1_category == (1, 1)
    assert bind(frames, [TOM, REX], [look("cat", 25)]).rank1_category == (0, None)
    assert bind(frames, [TOM, REX]).rank1_category == (None, None)


def test_mudi_s_score_is_the_mean_over_frames() -> None:
    bound = bind([finds(("cat", 0), ("dog", 90)), finds(("cat", 0))], [TOM, REX])
    assert bound.detect_and_compare == pytest.approx((1 + 0) / 2)


def test_the_match_is_that_of_names_then_looks() -> None:
    assert match(finds(("dog", 90), ("cat", 0)), [TOM, REX]) == [1, 0]
    assert match(finds(("cat", 5)), [TOM, REX]) == [0, None]
    assert match(finds(), [TOM, REX]) == [None, None]
