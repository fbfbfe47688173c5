"""Intervals and tests against known answers, and against simulations where the truth is known."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from customvideo.benchmark import statistics
from customvideo.benchmark.statistics import FEWEST_SETS, Unit, compare, estimate

# 97.5 % quantiles of Student's t, from any printed table.
STUDENT = {5: 2.5706, 9: 2.2622, 15: 2.1314, 29: 2.0452, 67: 1.9960, 1000: 1.9623}


def scores(values: np.ndarray) -> dict[Unit, float]:
    """Values (set, video) as scores."""
    return {
        Unit(f"set{row:03}", column, 0): float(value)
        for (row, column), value in np.ndenumerate(np.atleast_2d(values))
    }


def width(found: statistics.Estimate | statistics.Difference | None) -> float:
    assert found is not None and found.low is not None and found.high is not None
    return found.high - found.low


@pytest.mark.parametrize(("freedom", "quantile"), STUDENT.items())
def test_students_quantiles_are_the_printed_ones(freedom: int, quantile: float) -> None:
    assert statistics.student(0.975, freedom) == pytest.approx(quantile, abs=1e-3)


@pytest.mark.parametrize("count", [8, 30])
def test_for_independent_normal_values_it_is_students_interval(count: int) -> None:
    values = np.random.default_rng(3).normal(0.5, 0.1, (count, 1))
    found = estimate(scores(values), draws=40_000)
    half = STUDENT.get(count - 1, 2.3646) * values.std(ddof=1) / math.sqrt(count)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.12 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.12 * half)


@pytest.mark.parametrize("count", [8, 20])
def test_the_interval_covers_the_truth_as_often_as_it_says(count: int) -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        sets = rng.normal(0.5, 0.1, (count, 1)) + rng.normal(0, 0.05, (count, 3))
        found = estimate(scores(sets), draws=1500)
        assert found.low is not None and found.high is not None
        covered += found.low <= 0.5 <= found.high
    # 0.95 with a standard error of 0.011.
    assert 0.92 <= covered / 400 <= 0.98


def test_videos_of_one_set_are_no_independent_evidence() -> None:
    rng = np.random.default_rng(1)
    sets = rng.normal(0.5, 0.1, (12, 1)) + rng.normal(0, 0.01, (12, 8))
    clustered = estimate(scores(sets))
    pretended = estimate(scores(sets.reshape(-1, 1)))
    assert clustered.mean == pretended.mean and clustered.videos == pretended.videos == 96
    assert width(clustered) > 2 * width(pretended)


def test_unequal_sets_count_by_their_videos() -> None:
    values = {Unit("large", n, 0): 1.0 for n in range(3)} | {Unit("small", 0, 0): 0.0}
    found = estimate(values)
    assert (found.mean, found.sets, found.videos) == (0.75, 2, 4)


def test_pairing_removes_what_both_share() -> None:
    rng = np.random.default_rng(2)
    difficulty = rng.normal(0, 0.1, (20, 1))
    ours = scores(0.52 + difficulty + rng.normal(0, 0.01, (20, 2)))
    theirs = scores(0.50 + difficulty + rng.normal(0, 0.01, (20, 2)))
    found = compare(ours, theirs)
    assert found is not None and found.clear and found.p is not None and found.p < 0.01
    assert width(found) < 0.2 * width(estimate(ours))
    assert found.mean == pytest.approx(estimate(ours).mean - estimate(theirs).mean)


def test_only_what_both_have_is_compared() -> None:
    ours = scores(np.full((8, 2), 0.5))
    theirs = {unit: 0.25 for unit in ours if unit.prompt == 0} | {Unit("else", 0, 0): 9.0}
    found = compare(ours, theirs)
    assert found is not None
    assert (found.mean, found.sets, found.videos) == (0.25, 8, 8)
    assert found.relative == 1.0 and (found.relative_low, found.relative_high) == (1.0, 1.0)
    assert compare(ours, {Unit("else", 0, 0): 1.0}) is None


def test_a_share_of_nothing_or_less_is_not_told() -> None:
    ours = scores(np.linspace(0, 1, 10)[:, None])
    for base in (0.0, -0.3):
        found = compare(ours, dict.fromkeys(ours, base))
        assert found is not None and found.relative is None and found.relative_low is None
    # Positive, but not surely: resampling meets sets that sum to less than nothing.
    wavering = scores(np.array([[-1.0], [1.1]] * 5))
    found = compare(ours, wavering)
    assert found is not None and found.relative is not None and found.relative_low is None


def test_few_sets_claim_nothing() -> None:
    values = scores(np.arange(FEWEST_SETS - 1.0)[:, None])
    found = estimate(values)
    assert found.mean == 2.0 and found.low is None and found.high is None
    difference = compare(values, dict.fromkeys(values, -1.0))
    assert difference is not None and not difference.clear
    assert difference.p is None and difference.low is None


def test_the_sign_test_is_exact_for_few_sets() -> None:
    gained = np.array([0.3, -0.1, 0.2, 0.05, 0.4, 0.15, -0.02])
    signs = np.array(list(product((-1, 1), repeat=len(gained))))
    sums = np.abs((signs * gained).sum(1))
    expected = np.mean(sums >= abs(gained.sum()) - 1e-9)
    found = compare(scores(gained[:, None]), scores(np.zeros((7, 1))))
    assert found is not None and found.p == expected
    # All alike: two of 2^7 signs are as extreme.
    alike = compare(scores(np.ones((7, 1))), scores(np.zeros((7, 1))))
    assert alike is not None and alike.p == 2 / 2**7


def test_random_signs_agree_with_all_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    gained = np.random.default_rng(4).normal(0.4, 1, 12)
    exact = statistics._sign_flip(gained, 20_000, 0)
    statistics._signs.cache_clear()
    monkeypatch.setattr(statistics, "_MOST_EXACT", 5)
    drawn = statistics._sign_flip(gained, 20_000, 0)
    statistics._signs.cache_clear()
    assert drawn == pytest.approx(exact, abs=0.01) and drawn != exact


def test_p_is_rarely_small_where_nothing_differs() -> None:
    rng = np.random.default_rng(5)
    small = 0
    for _ in range(400):
        found = compare(scores(rng.normal(size=(10, 2))), scores(rng.normal(size=(10, 2))), draws=9)
        assert found is not None and found.p is not None
        small += found.p <= 0.05
    assert 0.02 <= small / 400 <= 0.08


def test_no_order_and_no_second_asking_changes_a_digit() -> None:
    rng = np.random.default_rng(6)
    ours, theirs = (scores(rng.normal(size=(15, 4))) for _ in range(2))
    shuffled = {unit: ours[unit] for unit in sorted(ours, key=lambda unit: (unit.prompt, unit))}
    assert list(shuffled) != list(ours)
    assert estimate(shuffled) == estimate(ours)
    assert compare(shuffled, theirs) == compare(ours, theirs)
    assert estimate(ours, seed=1) != estimate(ours)
