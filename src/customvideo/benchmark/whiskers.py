"""The simplest plot: a line for each label, its value a mark and its interval a whisker.

Also how the plots of all kinds name and round what they show. Which values there are is decided
in `customvideo.benchmark.plots` and `customvideo.userstudy.plots`.
"""

from __future__ import annotations

from collections.abc import Mapping

from customvideo.benchmark.drawing import Axis, Drawing, outline
from customvideo.benchmark.statistics import Estimate
from customvideo.evaluation.measures import Measure

__all__ = ["Series", "round_number", "shortened", "titled", "told", "whiskers"]

Series = Mapping[str, Estimate]
"""Label -> its value in a plot."""

_WIDTH = 420.0
_LEFT, _RIGHT, _TOP = 132.0, 18.0, 14.0
_ROW, _FOOT = 26.0, 26.0
_LONGEST = 20


def whiskers(shown: Measure, series: Series, styles: Mapping[str, str]) -> Drawing | None:
    """A mark and a whisker for each label, in the series' order; None if there are not two.

    `styles` gives each label's style, as `customvideo.benchmark.drawing.outline` knows them.
    """
    if len(series) < 2:
        return None
    bottom = _TOP + _ROW * len(series)
    drawing = Drawing(titled(shown), told(shown, series), _WIDTH, bottom + _FOOT)
    axis = Axis.around(series.values(), shown, _LEFT, _WIDTH - _RIGHT)
    for mark in axis.marks():
        drawing.line("axis", (axis.at(mark), _TOP - 4), (axis.at(mark), bottom))
        drawing.write(round_number(shown, mark), (axis.at(mark), bottom + 18), "middle")
    for index, (label, found) in enumerate(series.items()):
        y, style = _TOP + _ROW * (index + 0.5), styles[label]
        drawing.write(shortened(label), (_LEFT - 14, y + 4), "end", style=f"label {style}")
        if found.low is not None and found.high is not None:
            ends = (axis.at(found.low), y), (axis.at(found.high), y)
            drawing.line(f"whisker {style}", *ends)
        drawing.path(f"mark {style}", outline(style, axis.at(found.mean), y))
    return drawing


def told(shown: Measure, series: Series) -> str:
    """The plot in words: for those who cannot see it."""
    values = ", ".join(f"{label} {shown.format(found.mean)}" for label, found in series.items())
    return f"{shown.title}: {values}."


def titled(shown: Measure) -> str:
    """What heads a plot of the measure."""
    better = {1: " (higher is better)", -1: " (lower is better)"}.get(shown.better, "")
    return f"{shown.title}{better}"


def round_number(shown: Measure, value: float) -> str:
    """A round number, without the digits a measured one would have."""
    return f"{100 * value:.3g} %" if shown.kind == "share" else f"{value:.4g}"


def shortened(label: str) -> str:
    """A label that fits beside a plot."""
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"
