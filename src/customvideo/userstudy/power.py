"""How many raters it takes: studies simulated before the first vote, by their own design and tally.

Simulated raters prefer one method to every other at a known average rate, each in their own way;
a lead is found if its interval keeps clear of 50 %, as in the table of pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from customvideo.benchmark.statistics import FEWEST_SETS, Values
from customvideo.errors import StudyError
from customvideo.userstudy.design import Design
from customvideo.userstudy.items import Item, Items
from customvideo.userstudy.plan import Checks, StudyPlan
from customvideo.userstudy.rates import preference

__all__ = ["Power", "Scenario", "estimate_power", "lead", "vote"]

Methods = NDArray[np.int64]


@dataclass(frozen=True)
class Scenario:
    """What is supposed of a study.

    Attributes:
        methods, prompts, per_rater: its size.
        rate: how often the best method is preferred to each of the others, on average.
        spread: how much raters differ: the standard deviation of a rater's own strengths.
    """

    methods: int
    prompts: int
    per_rater: int
    rate: float
    spread: float = 0.5


@dataclass(frozen=True)
class Power:
    """How often so many raters find what is there.

    Attributes:
        raters: how many.
        votes: on one pair of methods, on average.
        one: how often the lead over one certain other method is clear.
        every: how often the lead over every other method is.
    """

    raters: int
    votes: float
    one: float
    every: float


def estimate_power(
    scenario: Scenario, raters: Sequence[int], *, trials: int = 400, seed: int = 0
) -> list[Power]:
    """The power of studies with so many raters each, from `trials` simulated ones.

    Raises:
        StudyError: the scenario makes no study, or a number of raters is too small.
    """
    if scenario.methods < 2 or not 0.5 < scenario.rate < 1 or scenario.spread < 0:
        raise StudyError(
            "A power estimate needs two methods or more, a rate between 0.5 and 1 such as 0.6, and "
            "a spread of 0 or more."
        )
    if min(raters) < FEWEST_SETS:
        raise StudyError(f"Fewer than {FEWEST_SETS} raters allow no interval; ask for more.")
    left, right = _shown(scenario, max(raters), seed)
    strengths = np.zeros(scenario.methods)
    strengths[0] = lead(scenario.rate, scenario.spread)
    rng = np.random.default_rng([seed, 2])
    found = []
    for count in raters:
        clear = np.array(
            [
                _clear(vote(strengths, scenario.spread, left[:count], right[:count], rng))
                for _ in range(trials)
            ]
        )
        votes = count * scenario.per_rater / math.comb(scenario.methods, 2)
        found.append(Power(count, votes, float(clear.mean()), float(clear.all(1).mean())))
    return found


def lead(rate: float, spread: float) -> float:
    """The lead in strength at which raters who differ so much prefer the better at `rate` on
    average (the logistic-normal mean, by MacKay 1992, "The Evidence Framework Applied to
    Classification Networks")."""
    return math.log(rate / (1 - rate)) * math.sqrt(1 + math.pi * 2 * spread**2 / 8)


def vote(
    strengths: Values, spread: float, left: Methods, right: Methods, rng: np.random.Generator
) -> Values:
    """Votes (rater, winner, loser) of raters who are shown methods `left` and `right`, both
    (rater, comparison); each rater's strengths scatter around `strengths` (method,)."""
    raters, methods = len(left), len(strengths)
    own = strengths + spread * rng.standard_normal((raters, methods))
    who = np.arange(raters)[:, None]
    chance = 1 / (1 + np.exp(own[who, right] - own[who, left]))
    leftward = rng.random(left.shape) < chance
    wins = np.zeros((raters, methods, methods))
    winner, loser = np.where(leftward, left, right), np.where(leftward, right, left)
    np.add.at(wins, (np.broadcast_to(who, left.shape), winner, loser), 1)
    return wins


def _shown(scenario: Scenario, raters: int, seed: int) -> tuple[Methods, Methods]:
    """What the study's raters would see on either side, (rater, comparison)."""
    methods = tuple(map(str, range(scenario.methods)))
    items = tuple(Item(str(index), "", {}, (1, 1)) for index in range(scenario.prompts))
    plan = StudyPlan(seed=seed, per_rater=scenario.per_rater, checks=Checks(obvious=0, repeats=0))
    design = Design(Items(methods, items), plan)
    blocks = [design.block(number) for number in range(raters)]
    left = np.array([[int(one.left) for one in block] for block in blocks])
    right = np.array([[int(one.right) for one in block] for block in blocks])
    return left, right


def _clear(wins: Values) -> list[bool]:
    """Of each other method: whether the first one's lead over it is clear."""
    found = []
    for other in range(1, wins.shape[-1]):
        rate = preference(wins[:, 0, other], wins[:, 0, other] + wins[:, other, 0])
        found.append(rate is not None and rate.low is not None and rate.low > 0.5)
    return found
