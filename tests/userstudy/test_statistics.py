"""The numbers: against printed examples, and against simulated raters whose preference is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from customvideo.benchmark.statistics import Values
from customvideo.errors import StudyError
from customvideo.userstudy.agreement import agreement, krippendorff
from customvideo.userstudy.power import Scenario, estimate_power, lead, vote
from customvideo.userstudy.ranking import bradley_terry, rank
from customvideo.userstudy.rates import preference, wilson

RATERS, SHOWN = 30, 12


def counted(units: list[str]) -> Values:
    """Answers to each unit, such as "112", counted (unit, answer)."""
    kinds = sorted(set("".join(units)))
    return np.array([[unit.count(kind) for kind in kinds] for unit in units], dtype=np.float64)


def studied(rng: np.random.Generator, rate: float, spread: float, methods: int = 3) -> Values:
    """The votes of a study in which method 0 is preferred to each other at that rate."""
    pairs = np.array([(i, j) for i in range(methods) for j in range(methods) if i != j])
    shown = pairs[rng.permuted(np.tile(np.arange(len(pairs)), (RATERS, 2)), axis=1)[:, :SHOWN]]
    strengths = np.zeros(methods)
    strengths[0] = lead(rate, spread)
    return vote(strengths, spread, shown[..., 0], shown[..., 1], rng)


@pytest.mark.parametrize(
    ("won", "votes", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
    ],
)
def test_wilsons_interval_is_the_printed_one(won: int, votes: int, low: float, high: float) -> None:
    assert wilson(won / votes, votes) == pytest.approx((low, high), abs=1e-4)


def test_votes_that_agree_within_raters_are_worth_less() -> None:
    asked = np.full(20, 10.0)
    alike = np.array([10.0] * 10 + [0.0] * 10)
    mixed = np.array([6.0, 4.0] * 10)
    one, other = preference(alike, asked), preference(mixed, asked)
    assert one is not None and other is not None
    assert one.mean == other.mean == 0.5 and one.videos == 200
    assert one.low is not None and one.high is not None
    assert other.low is not None and other.high is not None
    # Twenty raters of one mind each are twenty votes, with Student's 19 degrees of freedom.
    assert one.high - one.low == pytest.approx(0.44, abs=0.03)
    assert other.high - other.low == pytest.approx(0.146, abs=0.01)


def test_few_raters_allow_no_interval_and_none_no_rate() -> None:
    few = preference(np.full(5, 3.0), np.full(5, 4.0))
    assert few is not None and (few.mean, few.low, few.high, few.sets) == (0.75, None, None, 5)
    assert preference(np.zeros(9), np.zeros(9)) is None
    unasked = preference(np.array([2.0, 0.0]), np.array([2.0, 0.0]))
    assert unasked is not None and unasked.sets == 1


def test_alpha_is_that_of_krippendorffs_own_examples() -> None:
    # Krippendorff (2011): two observers and ten binary units; four observers and nominal data.
    two = ["01", "11", "01", "00", "00", "01", "00", "00", "10", "00"]
    assert krippendorff(counted(two)) == pytest.approx(0.095, abs=5e-4)
    four = ["111", "2232", "3333", "3333", "2222", "1234", "4444", "1121", "2222", "555", "11", "3"]
    assert krippendorff(counted(four)) == pytest.approx(0.743, abs=5e-4)


def test_alpha_is_one_for_one_mind_and_nothing_by_chance() -> None:
    assert krippendorff(np.array([[3.0, 0], [0, 2]])) == 1
    assert krippendorff(np.array([[1.0, 0], [0, 1]])) is None
    rng = np.random.default_rng(0)
    first = rng.binomial(6, 0.5, 400)
    found = agreement(np.stack([first, 6 - first], 1).astype(np.float64))
    assert found is not None and found.low is not None and found.high is not None
    assert found.low < 0 < found.high and abs(found.mean) < 0.05
    assert (found.sets, found.videos) == (400, 2400)


def test_which_video_is_called_the_first_does_not_matter() -> None:
    counts = np.array([[5.0, 1], [4, 2], [6, 0], [1, 5], [5, 1], [6, 0], [3, 3]])
    one, other = agreement(counts), agreement(counts[:, ::-1])
    assert one == other
    # Everybody prefers the same one, whoever is listed first: that is agreement.
    same = agreement(np.array([[6.0, 0]] * 8))
    assert same is not None and same.mean == 1


def test_bradley_and_terry_find_the_strengths_of_exact_rates() -> None:
    truth = np.array([1.2, 0.3, -0.4, -1.1])
    chance = 1 / (1 + np.exp(truth[None, :] - truth[:, None]))
    found = bradley_terry(1e6 * chance)
    assert found == pytest.approx(truth, abs=1e-4)
    assert bradley_terry(np.stack([1e6 * chance, 1e6 * chance.T])) == pytest.approx(
        np.stack([truth, -truth]), abs=1e-4
    )


def test_who_wins_every_vote_still_has_a_strength() -> None:
    wins = np.zeros((8, 3, 3))
    wins[:, 0, 1:] = 5
    wins[:, 1, 2] = wins[:, 2, 1] = 2
    first, *others = rank(wins)
    assert first.method == 0 and (first.best, first.worst) == (1, 1)
    assert math.isfinite(first.strength.mean) and first.strength.mean > 2
    assert {(one.best, one.worst) for one in others} == {(2, 3)}


def test_nobody_is_ranked_surely_by_few_raters() -> None:
    wins = np.zeros((5, 2, 2))
    wins[:, 0, 1] = 9
    assert [(one.best, one.worst, one.strength.low) for one in rank(wins)] == [
        (None, None, None)
    ] * 2


@pytest.mark.parametrize("spread", [0.0, 0.8])
def test_intervals_cover_the_truth_as_often_as_they_say(spread: float) -> None:
    rng = np.random.default_rng(7)
    rate, studies = 0.65, 200
    rates, strengths = [], []
    truth = math.log(rate / (1 - rate)) * np.array([2, -1, -1]) / 3
    for _ in range(studies):
        wins = studied(rng, rate, spread)
        found = preference(wins[:, 0, 1], wins[:, 0, 1] + wins[:, 1, 0])
        assert found is not None and found.low is not None and found.high is not None
        rates.append(found.low <= rate <= found.high)
        for one in rank(wins, draws=400):
            low, high = one.strength.low, one.strength.high
            assert low is not None and high is not None
            strengths.append(low <= truth[one.method] <= high)
    assert 0.92 <= np.mean(rates) <= 0.99
    assert 0.92 <= np.mean(strengths) <= 0.98


def test_power_grows_with_raters_and_is_that_of_the_table_of_pairs() -> None:
    scenario = Scenario(methods=2, prompts=10, per_rater=10, rate=0.6, spread=0.0)
    few, many = estimate_power(scenario, [20, 40], trials=200)
    assert (few.votes, many.votes) == (200, 400)
    # A share of 0.6 in so many independent votes, tested against 0.5 at 5 %, is found in 81 and
    # 98 %; twenty raters who might have been alike are worth a little less.
    assert 0.6 < few.one < 0.85 and many.one > 0.9
    assert few.one == few.every
    nothing = Scenario(methods=3, prompts=10, per_rater=10, rate=0.5001, spread=0.5)
    (chance,) = estimate_power(nothing, [20], trials=300)
    assert chance.one < 0.05


@pytest.mark.parametrize(
    ("scenario", "raters"),
    [
        (Scenario(2, 10, 10, 0.5), [10]),
        (Scenario(2, 10, 10, 1.0), [10]),
        (Scenario(1, 10, 10, 0.6), [10]),
        (Scenario(2, 10, 10, 0.6), [5]),
        (Scenario(2, 10, 11, 0.6), [10]),
    ],
)
def test_what_is_no_study_has_no_power(scenario: Scenario, raters: list[int]) -> None:
    with pytest.raises(StudyError):
        estimate_power(scenario, raters, trials=50)
