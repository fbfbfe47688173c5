"""Who sees what: balanced at any time, over pairs, prompts and sides."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from customvideo.errors import StudyError
from customvideo.userstudy.design import Design, Shown, round_robin
from customvideo.userstudy.items import SPOILED
from customvideo.userstudy.plan import Checks, StudyPlan
from tests.userstudy.studies import plain_items

NO_CHECKS = Checks(obvious=0, repeats=0)
SIZES = [(2, 1, 1), (2, 7, 5), (3, 6, 12), (4, 20, 12), (5, 4, 9), (6, 11, 30)]


def cells(shown: list[Shown]) -> Counter[tuple[str, frozenset[str]]]:
    return Counter((one.item, frozenset((one.left, one.right))) for one in shown)


def design(methods: int, prompts: int, size: int, seed: int = 0) -> Design:
    items = plain_items([f"m{index}" for index in range(methods)], prompts)
    return Design(items, StudyPlan(per_rater=size, seed=seed, checks=NO_CHECKS))


@pytest.mark.parametrize(("methods", "prompts", "size"), SIZES)
def test_every_comparison_comes_as_often_as_every_other(
    methods: int, prompts: int, size: int
) -> None:
    made = design(methods, prompts, size)
    every = methods * (methods - 1) // 2 * prompts
    shown: list[Shown] = []
    for number in range(25):
        shown += made.block(number)
        counts = cells(shown)
        fewest = min(counts.values()) if len(counts) == every else 0
        assert max(counts.values()) - fewest <= 1
        sides = Counter(shown)
        for one in sides:
            turned = Shown(one.kind, one.item, one.right, one.left)
            assert abs(sides[one] - sides[turned]) <= 1


@pytest.mark.parametrize(("methods", "prompts", "size"), SIZES)
def test_nobody_sees_a_comparison_twice_and_prompts_are_spread(
    methods: int, prompts: int, size: int
) -> None:
    made = design(methods, prompts, size)
    for number in range(25):
        block = made.block(number)
        assert max(cells(block).values()) == 1
        # A block that runs over the end of one round has two orders in it.
        assert max(Counter(one.item for one in block).values()) <= -(-size // prompts) + 1


def test_pairs_of_methods_and_their_sides_are_spread_within_a_block() -> None:
    made = design(4, 20, 12)
    for number in range(10):
        block = made.block(number)
        pairs = Counter(frozenset((one.left, one.right)) for one in block)
        assert set(pairs.values()) <= {1, 2, 3} and len(pairs) == 6
        lefts, rights = Counter(one.left for one in block), Counter(one.right for one in block)
        assert all(abs(lefts[name] - rights[name]) <= 4 for name in {*lefts, *rights})


def test_it_is_a_function_of_the_seed() -> None:
    one, same, other = design(3, 6, 5), design(3, 6, 5), design(3, 6, 5, seed=1)
    # Whoever asks later, and in another order, sees the same.
    assert same.block(4) == one.block(4) and same.block(0) == one.block(0)
    assert other.block(0) != one.block(0)
    assert one.program(3) == same.program(3)


def test_a_tournament_has_every_pair_once_in_rounds() -> None:
    for count in range(2, 9):
        pairs = round_robin(count)
        assert sorted(map(sorted, pairs)) == sorted(map(list, combinations(range(count), 2)))
        games = count // 2
        for start in range(0, len(pairs), games):
            players = [player for pair in pairs[start : start + games] for player in pair]
            assert len(set(players)) == len(players)


def test_attention_checks_are_put_in_between() -> None:
    items = plain_items(prompts=8, checks=3)
    plan = StudyPlan(per_rater=12, checks=Checks(obvious=2, repeats=2))
    made = Design(items, plan)
    sides = Counter()
    for number in range(40):
        program = made.program(number)
        kinds = Counter(one.kind for one in program)
        assert kinds == {"pair": 12, "obvious": 2, "repeat": 2}
        assert program[0].kind == "pair"
        assert [one for one in program if one.kind == "pair"] == made.block(number)
        for place, one in enumerate(program):
            if one.kind == "repeat":
                before = Shown("pair", one.item, one.right, one.left)
                assert place - program.index(before) > 1, "asked again at once"
            elif one.kind == "obvious":
                sides[one.left == SPOILED] += 1
                assert items[one.item].checks in (one.left, one.right)
    assert min(sides.values()) > 20


def test_more_than_there_is_cannot_be_shown() -> None:
    with pytest.raises(StudyError, match="18 comparisons, fewer than per_rater = 19"):
        Design(plain_items(prompts=6), StudyPlan(per_rater=19))
