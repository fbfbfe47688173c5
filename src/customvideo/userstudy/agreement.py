"""How far raters agree: Krippendorff's alpha for answers without order.

Alpha is 1 where everybody agrees and 0 where they agree as often as by chance (Krippendorff 2011,
"Computing Krippendorff's Alpha-Reliability"). Raters need not have seen the same comparisons.
"""

from __future__ import annotations

import numpy as np

from customvideo.benchmark.statistics import (
    FEWEST_SETS,
    Estimate,
    Values,
    drawn_sets,
    interval_levels,
)

__all__ = ["agreement", "krippendorff"]

_DRAWS = 2000


def krippendorff(counts: Values) -> float | None:
    """Nominal alpha of the answers to units, counted (unit, answer).

    Units with fewer than two answers say nothing. None where nothing can be said: no unit is left,
    or all answers there are the same.
    """
    counts = counts[counts.sum(1) > 1]
    if not len(counts):
        return None
    seen, expected = _disagreement(counts), _expected(counts.sum(0))
    return None if expected == 0 else 1 - float(seen.sum() / counts.sum()) / expected


def agreement(counts: Values, *, seed: int = 0) -> Estimate | None:
    """Alpha of choices between two videos, counted (comparison, video), with its interval.

    Which of the two counts as the first means nothing, so each comparison counts both ways round.
    The interval is over comparisons, drawn again. `sets` are the comparisons with at least two
    raters, `videos` the votes on them.
    """
    counts = counts[counts.sum(1) > 1]
    alpha = krippendorff(np.concatenate([counts, counts[:, ::-1]]))
    if alpha is None:
        return None
    units, votes = len(counts), counts.sum(1)
    low = high = None
    if units >= FEWEST_SETS:
        drawn = drawn_sets(units, _DRAWS, seed)
        total = drawn @ votes
        # Both ways round, each answer is given as often as the other.
        chance = total / (2 * total - 1)
        found = 1 - (drawn @ _disagreement(counts)) / total / chance
        low, high = map(float, np.quantile(found, interval_levels(units)))
    return Estimate(alpha, low, high, units, int(votes.sum()))


def _disagreement(counts: Values) -> Values:
    """Of each unit (unit,): the pairs of unlike answers, each weighed by 1 / (answers - 1)."""
    votes = counts.sum(1, keepdims=True)
    return np.asarray((counts * (votes - counts)).sum(1) / (votes[:, 0] - 1))


def _expected(answers: Values) -> float:
    """How often two answers of all are unlike."""
    total = float(answers.sum())
    return float((answers * (total - answers)).sum() / (total * (total - 1)))
