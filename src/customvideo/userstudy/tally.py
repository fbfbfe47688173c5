"""From ballots to numbers: who counts, who was preferred how often, who is best, who agrees.

It reads nothing and writes nothing. How numbers are shown is `customvideo.userstudy.sheets`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from customvideo.benchmark.statistics import Estimate, Values
from customvideo.userstudy.agreement import agreement
from customvideo.userstudy.exclusion import reasons
from customvideo.userstudy.plan import Exclusion, Question, StudyPlan
from customvideo.userstudy.ranking import Standing, rank
from customvideo.userstudy.rates import preference
from customvideo.userstudy.store import Ballot

__all__ = ["Answers", "Excluded", "Tally", "tally"]


@dataclass(frozen=True)
class Excluded:
    """A rater who is left out, and why."""

    rater: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Answers:
    """What the raters said to one question.

    Attributes:
        question: which.
        rates: of each method, the share of its comparisons that it won; None if it had none.
        pairs: (one, two) -> the share of votes that preferred `one`, by the methods' indices.
        standings: the methods, the best first; empty without votes.
        agreement: Krippendorff's alpha; None where nobody saw what somebody else saw.
        left: the share of votes for what stood on the left.
    """

    question: Question
    rates: tuple[Estimate | None, ...]
    pairs: dict[tuple[int, int], Estimate]
    standings: tuple[Standing, ...]
    agreement: Estimate | None
    left: Estimate | None


@dataclass(frozen=True)
class Tally:
    """All that a study says.

    Attributes:
        methods: their names; others refer to them by index.
        raters: how many gave an answer; `counted` of them count.
        comparisons: how many of theirs count, attention checks not among them.
    """

    methods: tuple[str, ...]
    raters: int
    counted: int
    comparisons: int
    excluded: tuple[Excluded, ...]
    answers: tuple[Answers, ...]


def tally(ballots: Sequence[Ballot], methods: Sequence[str], plan: StudyPlan) -> Tally:
    """Count the ballots by the plan's rules."""
    excluded = _excluded(ballots, plan.exclusion)
    out = {one.rater for one in excluded}
    counted = [one for one in ballots if one.rater not in out and one.shown.kind == "pair"]
    return Tally(
        methods=tuple(methods),
        raters=len({one.rater for one in ballots}),
        counted=len({one.rater for one in counted}),
        comparisons=len(counted),
        excluded=tuple(excluded),
        answers=tuple(_answers(one, counted, methods, plan.seed) for one in plan.questions),
    )


def _excluded(ballots: Sequence[Ballot], rules: Exclusion) -> list[Excluded]:
    by_rater: dict[int, list[Ballot]] = {}
    for one in ballots:
        by_rater.setdefault(one.rater, []).append(one)
    found = ((rater, reasons(own, rules)) for rater, own in sorted(by_rater.items()))
    return [Excluded(rater, tuple(why)) for rater, why in found if why]


def _answers(
    question: Question, ballots: Sequence[Ballot], methods: Sequence[str], seed: int
) -> Answers:
    counted = [one for one in ballots if question.key in one.answers]
    wins, left = _votes(question.key, counted, methods)
    won, lost = wins.sum(2), wins.sum(1)
    pairs = {
        (one, two): rate
        for one in range(len(methods))
        for two in range(one + 1, len(methods))
        if (rate := preference(wins[:, one, two], wins[:, one, two] + wins[:, two, one]))
    }
    return Answers(
        question=question,
        rates=tuple(
            preference(won[:, index], won[:, index] + lost[:, index])
            for index in range(len(methods))
        ),
        pairs=pairs,
        standings=tuple(rank(wins, seed=seed)) if len(counted) else (),
        agreement=agreement(_choices(question.key, counted), seed=seed),
        left=preference(left, wins.sum((1, 2))),
    )


def _votes(key: str, ballots: Sequence[Ballot], methods: Sequence[str]) -> tuple[Values, Values]:
    """Wins (rater, winner, loser), and votes for the left side (rater,)."""
    place = {name: index for index, name in enumerate(methods)}
    raters = {rater: index for index, rater in enumerate(sorted({one.rater for one in ballots}))}
    wins = np.zeros((len(raters), len(methods), len(methods)))
    left = np.zeros(len(raters))
    for one in ballots:
        chosen, other = place[one.shown.left], place[one.shown.right]
        if one.answers[key] == "left":
            left[raters[one.rater]] += 1
        else:
            chosen, other = other, chosen
        wins[raters[one.rater], chosen, other] += 1
    return wins, left


def _choices(key: str, ballots: Sequence[Ballot]) -> Values:
    """How often each of the two videos was chosen, (comparison, video)."""
    counts: dict[tuple[str, str, str], list[int]] = {}
    for one in ballots:
        first, second = sorted((one.shown.left, one.shown.right))
        chosen = one.shown.left if one.answers[key] == "left" else one.shown.right
        counts.setdefault((one.shown.item, first, second), [0, 0])[chosen != first] += 1
    return np.array(list(counts.values()), dtype=np.float64).reshape(-1, 2)
