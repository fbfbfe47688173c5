"""Who is best when only pairs were compared: the model of Bradley and Terry, with its errors.

A method of strength b is preferred to one of strength c with probability 1 / (1 + exp(c - b))
(Bradley and Terry 1952); strengths add up to 0. Raters, not votes, are drawn again for the
intervals, as one rater's votes are alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from customvideo.benchmark.statistics import (
    FEWEST_SETS,
    Estimate,
    Values,
    drawn_sets,
    interval_levels,
)

__all__ = ["Standing", "bradley_terry", "rank"]

DRAWS = 2000
_STEPS, _LARGEST_STEP, _NEAR = 60, 2.0, 1e-10
_PRIOR = 0.5
"""Wins and losses that every method is credited with, spread over its opponents: a method that won
every vote still has a finite strength."""


@dataclass(frozen=True)
class Standing:
    """A method's place among all.

    Attributes:
        method: its index.
        strength: on the logit scale; `sets` are raters and `videos` votes.
        best, worst: the ranks, from 1, that the votes leave possible; None without intervals.
    """

    method: int
    strength: Estimate
    best: int | None
    worst: int | None


def bradley_terry(wins: Values) -> Values:
    """The strengths (…, method) that make the wins (…, winner, loser) likeliest.

    Every batch entry is fitted by itself; the prior is part of the fit.
    """
    methods = wins.shape[-1]
    others = 1 - np.eye(methods)
    wins = wins * others + _PRIOR / (methods - 1) * others
    played = wins + np.swapaxes(wins, -1, -2)
    strengths = np.zeros(wins.shape[:-1])
    for _ in range(_STEPS):
        # Newton's method on a concave likelihood.
        chance = 1 / (1 + np.exp(strengths[..., None, :] - strengths[..., :, None]))
        slope = (wins - played * chance).sum(-1)
        weight = played * chance * (1 - chance)
        # Only differences are fixed by the votes; the constant fixes their sum at 0.
        bend = np.eye(methods) * weight.sum(-1)[..., None] - weight + 1 / methods
        step = np.linalg.solve(bend, slope[..., None])[..., 0]
        strengths = strengths + np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
        if np.abs(step).max() < _NEAR:
            break
    return np.asarray(strengths - strengths.mean(-1, keepdims=True))


def rank(wins: Values, *, draws: int = DRAWS, seed: int = 0) -> list[Standing]:
    """All methods, the best first, by the votes of each rater (rater, winner, loser)."""
    wins = wins[wins.sum((1, 2)) > 0]
    raters, methods = len(wins), wins.shape[-1]
    total = wins.sum(0)
    strengths = bradley_terry(total)
    votes = (total.sum(0) + total.sum(1)).astype(int)
    ends: list[tuple[float | None, float | None]] = [(None, None)] * methods
    better = np.zeros((methods, methods), dtype=bool)
    sure = raters >= FEWEST_SETS
    if sure:
        drawn = drawn_sets(raters, draws, seed) @ wins.reshape(raters, -1)
        found = bradley_terry(drawn.reshape(draws, methods, methods))
        levels = interval_levels(raters)
        ends = [(float(low), float(high)) for low, high in np.quantile(found, levels, axis=0).T]
        leads = found[:, :, None] - found[:, None, :]
        better = np.quantile(leads, levels[0], axis=0) > 0
    return [
        Standing(
            index,
            Estimate(float(strengths[index]), *ends[index], raters, int(votes[index])),
            1 + int(better[:, index].sum()) if sure else None,
            methods - int(better[index].sum()) if sure else None,
        )
        for index in map(int, np.argsort(-strengths, kind="stable"))
    ]
