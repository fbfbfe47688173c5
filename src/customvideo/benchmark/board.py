"""All results at hand: means, intervals and comparisons by the names of methods and scores.

A `Board` knows which labels are the method under test, its ablations, its rivals, or mere points of
reference; how an interval is made is `customvideo.benchmark.statistics`, how it is shown, tables
and plots decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cached_property

from customvideo.benchmark.plan import BASE, CEILING
from customvideo.benchmark.rows import ResultRow
from customvideo.benchmark.statistics import Difference, Estimate, Unit, compare, estimate
from customvideo.evaluation.measures import MEASURES, Measure, measure

__all__ = ["OURS", "REFERENCES", "Board"]

OURS = "customvideo"
REFERENCES = {
    BASE: "the model before it learned anything",
    CEILING: "true footage of the subjects, the most that can be asked for",
}
"""Labels that compete with nobody: between them all others should lie."""

_INHERITED = frozenset({"method", "combination", "subjects", "same_category", "prompt", "seed"}) | {
    "subject",
    "category",
    "small",
}


class Board:
    """Rows of a benchmark, asked for by method and score.

    A video's score is the mean over its subjects that have one, a mean is over videos. `ours` is
    the label of the method under test; labels that go on after it with a hyphen are its ablations.
    """

    def __init__(self, rows: Iterable[ResultRow], ours: str = OURS) -> None:
        self.rows = sorted(rows, key=lambda row: row.key)
        self.ours = ours
        self._scores: dict[tuple[str, str], Mapping[Unit, float]] = {}
        self._estimates: dict[tuple[str, str], Estimate | None] = {}
        self._by_method: dict[str, list[ResultRow]] = {}
        for row in self.rows:
            self._by_method.setdefault(row.method, []).append(row)

    @property
    def methods(self) -> list[str]:
        """All that are to be compared: rivals by name, then the method under test."""
        return [*self.rivals, *([self.ours] if self.ours in self._by_method else [])]

    @property
    def rivals(self) -> list[str]:
        """Labels that are neither the method under test, nor its ablations, nor references."""
        known = {self.ours, *self.ablations, *REFERENCES}
        return [label for label in self._by_method if label not in known]

    @property
    def ablations(self) -> list[str]:
        """Labels of the method under test with something changed, by name."""
        return [label for label in self._by_method if label.startswith(f"{self.ours}-")]

    @property
    def references(self) -> list[str]:
        """Labels that only show what is possible."""
        return [label for label in REFERENCES if label in self._by_method]

    @property
    def measures(self) -> list[Measure]:
        """Every score that somebody has, the known ones in the order they are printed."""
        # One row's class stands for all: a score added to it appears by itself.
        columns = [field.name for row in self.rows[:1] for field in fields(row)]
        scores = [name for name in columns if name not in _INHERITED]
        present = [
            name for name in scores if any(getattr(row, name) is not None for row in self.rows)
        ]
        known = [name for name in MEASURES if name in present]
        return [measure(name) for name in [*known, *(n for n in present if n not in MEASURES)]]

    @property
    def sizes(self) -> list[int]:
        """How many subjects the sets have, smallest first."""
        return sorted({row.subjects for row in self.rows})

    @cached_property
    def common(self) -> Board:
        """The same for sets of those sizes alone of which everybody that is compared has some.

        Three subjects are harder than two: whoever tried them would look worse in a mean over all.
        Where nothing is left, this very board.
        """
        sizes = [{row.subjects for row in self.of(method)} for method in self.methods]
        shared = set.intersection(*sizes) if sizes else set()
        if not shared or shared == set(self.sizes):
            return self
        return self.where(lambda row: row.subjects in shared)

    def of(self, method: str) -> Sequence[ResultRow]:
        """The rows of `method`."""
        return self._by_method.get(method, ())

    def where(self, test: Callable[[ResultRow], bool]) -> Board:
        """The same for the rows that pass `test` alone."""
        return Board((row for row in self.rows if test(row)), self.ours)

    def scores(self, method: str, name: str) -> Mapping[Unit, float]:
        """Video -> score `name`, for the videos of `method` that have one."""
        if (method, name) not in self._scores:
            self._scores[method, name] = _by_video(self._by_method.get(method, ()), name)
        return self._scores[method, name]

    def estimate(self, method: str, name: str) -> Estimate | None:
        """The mean of a score over the videos of `method`; None if none has it."""
        if (method, name) not in self._estimates:
            scores = self.scores(method, name)
            self._estimates[method, name] = estimate(scores) if scores else None
        return self._estimates[method, name]

    def compare(self, method: str, other: str, name: str) -> Difference | None:
        """`method` minus `other` where both have the score; None if nowhere."""
        return compare(self.scores(method, name), self.scores(other, name))

    def ranked(self, methods: Sequence[str], shown: Measure) -> list[str]:
        """Those of `methods` that have the score, best first; equals stay in order.

        Empty where the score has no better direction.
        """
        means = {
            method: found.mean
            for method in methods
            if (found := self.estimate(method, shown.name)) is not None
        }
        if not shown.better:
            return []
        return sorted(means, key=lambda method: -shown.better * means[method])


def _by_video(rows: Iterable[ResultRow], name: str) -> dict[Unit, float]:
    values: dict[Unit, list[float]] = {}
    for row in rows:
        value = getattr(row, name)
        if value is not None:
            values.setdefault(Unit(row.combination, row.prompt, row.seed), []).append(value)
    return {unit: math.fsum(found) / len(found) for unit, found in values.items()}
