"""Captions are short, natural, true to the world, and from a closed vocabulary."""

from __future__ import annotations

import numpy as np
import pytest

from customvideo.toybox import captions as tc
from customvideo.toybox import world as tw


def _words(text: str) -> list[str]:
    return text.replace(",", " ,").split()


@pytest.fixture(scope="module")
def pairs() -> list[tuple[tw.World, str]]:
    rng = np.random.default_rng(2)
    drawn = [tw.sample_world(rng) for _ in range(700)]
    return [(world, tc.caption(world, rng)) for world in drawn]


def _toy(**changes: object) -> tw.Individual:
    given = {
        "category": "cat",
        "proportions": (0.0,) * 6,
        "main": "orange",
        "second": "white",
        "colours": ("orange", "orange", "orange", "white"),
        "accessory_colour": "blue",
    }
    return tw.Individual(**{**given, **changes})  # type: ignore[arg-type]


def _alone(toy: tw.Individual, action: str = "run") -> tw.World:
    rng = np.random.default_rng(0)
    return tw.sample_world(rng, individuals=[toy], place="beach", action=action)


def _most_common(world: tw.World, detail: str) -> str:
    said = [tc.caption(world, np.random.default_rng(k), detail) for k in range(25)]
    return max(set(said), key=said.count)


def test_every_word_is_in_the_vocabulary(pairs: list[tuple[tw.World, str]]) -> None:
    known = set(tc.vocabulary())
    assert {w for _, text in pairs for w in _words(text)} - {","} <= known
    assert tc.vocabulary() == sorted(known)


def test_captions_fit_a_text_encoder(pairs: list[tuple[tw.World, str]]) -> None:
    assert max(len(_words(text)) for _, text in pairs) <= 44


def test_every_subject_is_named(pairs: list[tuple[tw.World, str]]) -> None:
    for world, text in pairs:
        for toy in world.individuals:
            assert toy.category in text


def test_three_in_ten_have_no_colours(pairs: list[tuple[tw.World, str]]) -> None:
    bodies = [toy.colours[0] in text for world, text in pairs for toy in world.individuals[:1]]
    assert 0.25 < 1 - np.mean(bodies) < 0.36


def test_place_and_action_are_rarely_left_out(pairs: list[tuple[tw.World, str]]) -> None:
    placed = [any(p in text for p in tc.PLACE_PHRASES[world.place]) for world, text in pairs]
    acting = [
        any(
            tc.verb(toy.category, a) in text
            for toy, a in zip(w.individuals, w.actions, strict=True)
        )
        for w, text in pairs
    ]
    assert 0.92 < np.mean(placed) < 0.98
    assert 0.92 < np.mean(acting) < 1.0


def test_the_order_of_the_words_says_nothing_about_sides() -> None:
    rng = np.random.default_rng(5)
    toys = [_toy(category="cat"), _toy(category="dog")]
    agree = []
    for _ in range(400):
        world = tw.sample_world(rng, individuals=toys)
        text = tc.caption(world, rng, "bare")
        first = 0 if text.index("cat") < text.index("dog") else 1
        agree.append(world.order[0] == first)
    assert 0.42 < np.mean(agree) < 0.58


def test_full_detail_names_every_part() -> None:
    toy = _toy(pattern="stripes", pattern_colour="black", accessory="hat")
    text = " ".join(_most_common(_alone(toy), "full").split())
    assert text.startswith("an orange cat with black stripes and a white tail wearing a blue hat")
    assert text.endswith("running on the beach")


@pytest.mark.parametrize(
    ("detail", "expected"),
    [("short", "an orange cat running on the beach"), ("bare", "a cat running on the beach")],
)
def test_less_detail_says_less(detail: str, expected: str) -> None:
    assert _most_common(_alone(_toy()), detail) == expected


def test_colours_detail_names_one_more_thing() -> None:
    expected = "an orange cat with a white tail running on the beach"
    assert _most_common(_alone(_toy()), "colours") == expected


def test_names_stand_before_the_noun() -> None:
    rng = np.random.default_rng(0)
    toys = [_toy(category="cat"), _toy(category="elephant")]
    world = tw.sample_world(rng, individuals=toys)
    for _ in range(30):
        text = tc.caption(world, rng, "bare", {0: "<tom>", 1: "<ida>"})
        assert "a <tom> cat" in text
        assert "a <ida> elephant" in text


def test_same_category_groups_are_sometimes_counted() -> None:
    rng = np.random.default_rng(0)
    world = tw.sample_world(rng, count=3, same_category=True)
    said = {tc.caption(world, rng, "bare") for _ in range(60)}
    assert any(text.startswith("three ") for text in said)
    assert any(text.startswith("a") for text in said)


@pytest.mark.parametrize(
    ("category", "action", "expected"),
    [
        ("bear", "wave", "waving"),
        ("horse", "wave", "nodding"),
        ("car", "walk", "driving"),
        ("train", "roll", "driving"),
        ("cat", "roll", "rolling"),
    ],
)
def test_verbs_suit_the_body(category: str, action: str, expected: str) -> None:
    assert tc.verb(category, action) == expected


def test_who_follows_is_behind() -> None:
    """Whoever heads right and stands left follows; the words must agree."""
    rng = np.random.default_rng(1)
    toys = [_toy(category="cat"), _toy(category="dog")]
    seen = 0
    for _ in range(300):
        world = tw.sample_world(rng, individuals=toys, action="walk")
        text = tc.caption(world, rng, "bare")
        heads_right = np.cos(world.headings[0]) > 0
        leader = toys[world.order[-1] if heads_right else world.order[0]].category
        if " behind " in text:
            assert text.split(" behind ")[1].startswith("a " + leader)
            seen += 1
        elif " ahead of " in text:
            assert text.startswith("a " + leader)
            seen += 1
    assert seen > 10


def test_nouns() -> None:
    assert set(tc.CATEGORY_NOUNS) == set(tw.CATEGORIES)
    assert tc.noun("cat") == "cat"
