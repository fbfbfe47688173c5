"""The plots of a study: each method's preference rate, and its strength, question by question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from customvideo.benchmark.drawing import Drawing
from customvideo.benchmark.whiskers import whiskers
from customvideo.userstudy.sheets import RATE, STRENGTH
from customvideo.userstudy.tally import Answers, Tally

__all__ = ["make_plots"]

_STYLES = 8


def make_plots(found: Tally) -> dict[str, list[Drawing]]:
    """The plots there are numbers for, by the key of the sheet they belong to."""
    styles = {name: f"s{index % _STYLES}" for index, name in enumerate(found.methods)}
    asked = [one for one in found.answers if one.standings]
    rates = [_rates(one, found.methods, styles) for one in asked]
    strengths = [_strengths(one, found.methods, styles) for one in asked]
    return {"preference": _there(rates), "ranking": _there(strengths)}


def _rates(answers: Answers, methods: Sequence[str], styles: dict[str, str]) -> Drawing | None:
    shown = replace(RATE, title=answers.question.title)
    series = {name: rate for name, rate in zip(methods, answers.rates, strict=True) if rate}
    return whiskers(shown, series, styles)


def _strengths(answers: Answers, methods: Sequence[str], styles: dict[str, str]) -> Drawing | None:
    shown = replace(STRENGTH, title=f"{answers.question.title}, strength")
    series = {methods[place.method]: place.strength for place in answers.standings}
    return whiskers(shown, series, styles)


def _there(plots: list[Drawing | None]) -> list[Drawing]:
    return [plot for plot in plots if plot is not None]
