"""How sure a mean and a difference are: cluster bootstrap and sign-flip test over subject sets.

Videos of one subject set share its photos and one training, so they are no independent evidence:
whole sets are drawn, never single videos (cluster bootstrap; Cameron, Gelbach and Miller 2008,
section II). Two methods are compared on the very same prompts and starting noises, and the same
sets are drawn for both. Numbers come in and go out; no metric and no method is known here.

Every sum is rounded once (`math.fsum`) and sets are taken in the order of their names, so neither
the order of the rows, nor what else is computed, nor how many processes made the videos can change
a digit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CONFIDENCE",
    "FEWEST_SETS",
    "Difference",
    "Estimate",
    "Unit",
    "Values",
    "compare",
    "drawn_sets",
    "estimate",
    "interval_levels",
    "student",
]

CONFIDENCE = 0.95
FEWEST_SETS = 6
"""With fewer sets nothing is claimed: of the 2^5 = 32 signs of five differences two are as extreme
as "all alike", so that no test without further assumptions comes below 5 %."""

_DRAWS = 10_000
_MOST_EXACT = 13
_TIE = 1e-12

Values = NDArray[np.float64]
"""Numbers, axes told where they are used."""


class Unit(NamedTuple):
    """One video: of which subject set, prompt and starting noise."""

    combination: str
    prompt: int
    seed: int


@dataclass(frozen=True)
class Estimate:
    """A mean over videos with its 95 % interval; None where there are too few subject sets."""

    mean: float
    low: float | None
    high: float | None
    sets: int
    videos: int


@dataclass(frozen=True)
class Difference:
    """One method's mean minus another's over the videos that both have.

    Attributes:
        mean, low, high: the difference and its 95 % interval; None where there are too few sets.
        relative, relative_low, relative_high: the same as a share of the other's mean; None where
            that mean is not positive, or not surely so.
        p: how often chance alone would give a difference as great, if neither were better in any
            set; None where there are too few sets.
        sets, videos: what both have.
    """

    mean: float
    low: float | None
    high: float | None
    relative: float | None
    relative_low: float | None
    relative_high: float | None
    p: float | None
    sets: int
    videos: int

    @property
    def clear(self) -> bool:
        """Whether the interval keeps clear of 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def estimate(scores: Mapping[Unit, float], *, draws: int = _DRAWS, seed: int = 0) -> Estimate:
    """The mean of `scores` (video -> value; at least one) and its interval."""
    sums, counts = _per_set(scores, scores)
    low, high = _interval(len(sums), draws, seed, lambda drawn: (drawn @ sums) / (drawn @ counts))
    mean = math.fsum(scores.values()) / len(scores)
    return Estimate(mean, low, high, len(sums), len(scores))


def compare(
    ours: Mapping[Unit, float],
    theirs: Mapping[Unit, float],
    *,
    draws: int = _DRAWS,
    seed: int = 0,
) -> Difference | None:
    """How much higher `ours` is than `theirs` on the videos both have; None if there are none."""
    shared = ours.keys() & theirs.keys()
    if not shared:
        return None
    gained, counts = _per_set({unit: ours[unit] - theirs[unit] for unit in shared}, shared)
    base, _ = _per_set(theirs, shared)
    count, total = len(gained), len(shared)
    low, high = _interval(count, draws, seed, lambda drawn: (drawn @ gained) / (drawn @ counts))
    relative, relative_low, relative_high = _relative(gained, base, draws, seed)
    return Difference(
        mean=math.fsum(gained) / total,
        low=low,
        high=high,
        relative=relative,
        relative_low=relative_low,
        relative_high=relative_high,
        p=_sign_flip(gained, draws, seed) if count >= FEWEST_SETS else None,
        sets=count,
        videos=total,
    )


def _per_set(scores: Mapping[Unit, float], units: Iterable[Unit]) -> tuple[Values, Values]:
    """Sums and counts of `scores` at `units` per subject set, both (set,), by the sets' names."""
    groups: dict[str, list[float]] = {}
    for unit in units:
        groups.setdefault(unit.combination, []).append(scores[unit])
    ordered = [groups[name] for name in sorted(groups)]
    sums = np.array([math.fsum(values) for values in ordered])
    return sums, np.array([float(len(values)) for values in ordered])


def _relative(
    gained: Values, base: Values, draws: int, seed: int
) -> tuple[float | None, float | None, float | None]:
    """`gained` as a share of `base`, both sums per set (set,), with its interval."""
    total = math.fsum(base)
    if total <= 0:
        return None, None, None
    relative = math.fsum(gained) / total
    if len(gained) < FEWEST_SETS or (drawn_sets(len(base), draws, seed) @ base).min() <= 0:
        return relative, None, None
    low, high = _interval(len(gained), draws, seed, lambda drawn: (drawn @ gained) / (drawn @ base))
    return relative, low, high


def _interval(
    sets: int, draws: int, seed: int, statistic: Callable[[Values], Values]
) -> tuple[float | None, float | None]:
    """The percentile interval of `statistic`, a function of how often each set is drawn.

    It takes (draw, set) to (draw,).
    """
    if sets < FEWEST_SETS:
        return None, None
    low, high = np.quantile(statistic(drawn_sets(sets, draws, seed)), interval_levels(sets))
    return float(low), float(high)


def interval_levels(sets: int) -> tuple[float, float]:
    """The two levels between which bootstrapped values of so many sets make a 95 % interval.

    The plain percentile interval is too short for few sets; its levels are widened as Hesterberg
    (2015, "What Teachers Should Know About the Bootstrap", section 3.3) does, which for a mean of
    normal values gives Student's interval.
    """
    widened = math.sqrt(sets / (sets - 1)) * student((1 + CONFIDENCE) / 2, sets - 1)
    tail = NormalDist().cdf(-widened)
    return tail, 1 - tail


@lru_cache(maxsize=32)
def drawn_sets(sets: int, draws: int, seed: int) -> Values:
    """How often each set is drawn in each resampling (draw, set); the same for every question."""
    rng = np.random.default_rng([seed, sets])
    drawn = rng.multinomial(sets, np.full(sets, 1 / sets), size=draws).astype(np.float64)
    drawn.flags.writeable = False
    return drawn


def _sign_flip(gained: Values, draws: int, seed: int) -> float:
    """Two-sided p of the summed differences (set,) if each set's sign were a toss-up.

    All signs are tried if they are few; else `draws` random ones, the seen one counted among them
    (Phipson and Smyth 2010).
    """
    signs = _signs(len(gained), draws, seed)
    seen, possible = abs(math.fsum(gained)), np.abs(signs @ gained)
    extreme = int((possible >= seen - _TIE * np.abs(gained).sum()).sum())
    exact = len(gained) <= _MOST_EXACT
    return extreme / len(signs) if exact else (extreme + 1) / (len(signs) + 1)


@lru_cache(maxsize=32)
def _signs(sets: int, draws: int, seed: int) -> Values:
    """Plus or minus 1 (draw, set): all there are, or `draws` random rows."""
    if sets <= _MOST_EXACT:
        bits = np.arange(2**sets)[:, None] >> np.arange(sets) & 1
    else:
        bits = np.random.default_rng([seed, sets, 1]).integers(0, 2, (draws, sets))
    signs = 2 * bits.astype(np.float64) - 1
    signs.flags.writeable = False
    return signs


def student(level: float, freedom: int) -> float:
    """The quantile of Student's t, by Abramowitz and Stegun (1964), 26.7.5; from five degrees of
    freedom on it is right to three decimals."""
    z = NormalDist().inv_cdf(level)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / freedom**power for power, term in enumerate(terms, start=1))
