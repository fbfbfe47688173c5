"""How often something was preferred, and how sure that is: Wilson's interval for votes of raters.

A rater's votes are alike, so n votes of R raters are worth fewer than n: the interval is Wilson's
(1927) with the effective number of votes and the quantile of Student's t with R - 1 degrees of
freedom, as Korn and Graubard (1998, Survey Methodology 24) correct intervals for clusters.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from customvideo.benchmark.statistics import CONFIDENCE, FEWEST_SETS, Estimate, Values, student

__all__ = ["preference", "wilson"]


def preference(won: Values, asked: Values) -> Estimate | None:
    """The share of votes won, with its interval over raters; None without votes.

    `won` and `asked` are votes per rater, axes (rater,). With fewer than six raters there is no
    interval. In the result, `sets` are raters and `videos` votes.
    """
    voting = asked > 0
    won, asked = won[voting], asked[voting]
    votes, raters = float(asked.sum()), len(asked)
    if not votes:
        return None
    rate = float(won.sum()) / votes
    low = high = None
    if raters >= FEWEST_SETS:
        low, high = wilson(rate, _effective(won, asked, rate))
    return Estimate(rate, low, high, raters, int(votes))


def wilson(rate: float, votes: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a share seen in so many independent votes."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    weight = z * z / votes
    middle = (rate + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(rate * (1 - rate) / votes + weight / (4 * votes))
    return max(0.0, middle - half), min(1.0, middle + half)


def _effective(won: Values, asked: Values, rate: float) -> float:
    """How many independent votes the raters' are worth, never more than there are."""
    votes, raters = float(asked.sum()), len(asked)
    alone = rate * (1 - rate) / votes
    worth = votes
    if alone > 0:
        # The variance of a ratio of sums over clusters.
        spread = float(((won - rate * asked) ** 2).sum()) * raters / (raters - 1)
        worth = votes / max(1.0, spread / votes**2 / alone)
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    return worth * (z / student((1 + CONFIDENCE) / 2, raters - 1)) ** 2
