"""The sampler keeps its promised mixture and everything it draws is well formed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from customvideo.toybox import world as tw
from customvideo.toybox.bodies import build_body


@pytest.fixture(scope="module")
def worlds() -> list[tw.World]:
    rng = np.random.default_rng(3)
    return [tw.sample_world(rng) for _ in range(700)]


def test_vocabulary_of_the_world() -> None:
    assert len(tw.CATEGORIES) == 13
    assert len(tw.PLACES) >= 8
    assert len(tw.ACTIONS) == 6
    assert len(tw.PATTERNS) == 4
    assert len(tw.ACCESSORIES) == 5


def test_colours_are_plainly_distinct() -> None:
    values = np.array(list(tw.COLOURS.values()), float)
    distance = np.linalg.norm(values[:, None] - values[None], axis=-1)
    assert len(values) == 14
    assert distance[~np.eye(len(values), dtype=bool)].min() > 50


def test_counts_follow_the_default_mix(worlds: list[tw.World]) -> None:
    shares = Counter(len(world.individuals) for world in worlds)
    expected = dict(zip((1, 2, 3, 4), tw.COUNT_WEIGHTS, strict=True))
    for count, weight in expected.items():
        assert shares[count] / len(worlds) == pytest.approx(weight, abs=0.06)


def test_a_quarter_of_the_groups_is_of_one_category(worlds: list[tw.World]) -> None:
    groups = [world for world in worlds if len(world.individuals) > 1]
    alike = [w for w in groups if len({i.category for i in w.individuals}) == 1]
    assert 0.24 < len(alike) / len(groups) < 0.34


def test_actions_are_mostly_shared(worlds: list[tw.World]) -> None:
    groups = [world for world in worlds if len(world.individuals) > 1]
    shared = sum(len(set(world.actions)) == 1 for world in groups)
    assert 0.82 < shared / len(groups) < 0.95


def test_every_value_occurs(worlds: list[tw.World]) -> None:
    assert {world.place for world in worlds} == set(tw.PLACES)
    assert {a for world in worlds for a in world.actions} == set(tw.ACTIONS)
    toys = [toy for world in worlds for toy in world.individuals]
    assert {toy.category for toy in toys} == set(tw.CATEGORIES)
    assert {toy.pattern for toy in toys} == set(tw.PATTERNS)
    assert {toy.accessory for toy in toys} == set(tw.ACCESSORIES)
    assert {world.relation for world in worlds} == set(tw.RELATIONS)


def test_the_first_individual_stands_on_either_side(worlds: list[tw.World]) -> None:
    pairs = [world for world in worlds if len(world.individuals) == 2]
    left = sum(world.order[0] == 0 for world in pairs)
    assert 0.4 < left / len(pairs) < 0.6


def test_a_toy_shows_both_its_main_colours_and_a_visible_pattern(worlds: list[tw.World]) -> None:
    for world in worlds:
        for toy in world.individuals:
            assert toy.colours[0] == toy.main != toy.second
            assert toy.second in toy.colours
            assert toy.pattern_colour != toy.main


def test_the_same_generator_state_gives_the_same_world() -> None:
    one, two = (tw.sample_world(np.random.default_rng(9)) for _ in range(2))
    assert one == two


def test_what_is_given_is_kept() -> None:
    rng = np.random.default_rng(0)
    toys = [tw.sample_individual(rng, "cat"), tw.sample_individual(rng, "cat")]
    world = tw.sample_world(rng, individuals=toys, place="moon", action="jump")
    assert (list(world.individuals), world.place) == (toys, "moon")
    assert world.actions == ("jump", "jump")
    alike = tw.sample_world(rng, count=4, same_category=True)
    assert len(alike.individuals) == 4
    assert len({toy.category for toy in alike.individuals}) == 1
    mixed = tw.sample_world(rng, count=4, same_category=False)
    assert len({toy.category for toy in mixed.individuals}) == 4


def test_a_rejected_individual_is_drawn_again() -> None:
    rng = np.random.default_rng(0)
    drawn = [tw.sample_individual(rng, None, lambda toy: toy.main == "red") for _ in range(5)]
    assert {toy.main for toy in drawn} == {"red"}


@pytest.mark.parametrize("category", tw.CATEGORIES)
def test_every_body_can_wear_everything(category: str) -> None:
    rng = np.random.default_rng(1)
    toy = tw.sample_individual(rng, category)
    for accessory in tw.ACCESSORIES:
        worn = tw.Individual(**{**vars(toy), "accessory": accessory})
        body = build_body(worn)
        has = any(part.paint == "accessory" for part in body.parts)
        assert has == (accessory != "none")
        assert all(part.joint in body.joints for part in body.parts)
        assert min(min(part.radii) for part in body.parts) > 0


def test_arms_are_where_the_captions_say() -> None:
    rng = np.random.default_rng(1)
    armed = {
        category
        for category in tw.CATEGORIES
        if "arm_l" in build_body(tw.sample_individual(rng, category)).joints
    }
    assert armed == tw.ARMED
