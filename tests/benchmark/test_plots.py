"""Plots: everything inside the frame, nothing by colour alone, nothing invented."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest

from customvideo.benchmark.board import Board
from customvideo.benchmark.drawing import Axis, Drawing, keep_apart, outline
from customvideo.benchmark.plots import make_plots
from customvideo.benchmark.statistics import Estimate
from customvideo.evaluation.measures import measure
from tests.benchmark.scoreboard import SKILL, make_rows


@pytest.fixture(scope="module")
def plots() -> dict[str, list[Drawing]]:
    return make_plots(Board(make_rows()))


def places(drawing: Drawing) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for shape in drawing.shapes:
        at = dict(shape.places)
        if shape.element == "line":
            found += [(float(at["x1"]), float(at["y1"])), (float(at["x2"]), float(at["y2"]))]
        elif shape.element == "text":
            found.append((float(at["x"]), float(at["y"])))
        else:
            numbers = [float(number) for number in re.findall(r"-?[\d.]+", at["d"])]
            found += list(zip(numbers[::2], numbers[1::2], strict=True))
    return found


def marks(drawing: Drawing) -> list[str]:
    return [s.style.removeprefix("mark ") for s in drawing.shapes if s.style.startswith("mark ")]


def test_every_section_has_its_plots(plots: dict[str, list[Drawing]]) -> None:
    assert {key: len(found) for key, found in plots.items()} == {
        "main": 8,
        "same-category": 1,
        "scaling": 3,
    }
    assert plots["main"][0].title == "Identity match, each cut out against text match"


def test_everything_is_inside_the_frame(plots: dict[str, list[Drawing]]) -> None:
    for drawing in (drawing for found in plots.values() for drawing in found):
        for x, y in places(drawing):
            assert 0 <= x <= drawing.width and 0 <= y <= drawing.height, drawing.title


def test_each_method_has_a_mark_of_its_own_and_its_name(plots: dict[str, list[Drawing]]) -> None:
    shown = [label for label in SKILL if "-" not in label]
    interval = plots["main"][1]
    assert sorted(marks(interval)) == ["ours", "reference", "reference", "s0", "s1", "s2"]
    for drawing in (drawing for found in plots.values() for drawing in found):
        names = {shape.text for shape in drawing.shapes if "label" in shape.style}
        assert names == set(shown), drawing.title
        assert all(label in drawing.summary for label in shown)


def test_marks_differ_in_shape() -> None:
    styles = ["ours", *(f"s{index}" for index in range(8))]
    shapes = {tuple((round(x, 3), round(y, 3)) for x, y in outline(s, 0, 0)) for s in styles}
    assert len(shapes) == len(styles)


def test_names_do_not_cover_each_other(plots: dict[str, list[Drawing]]) -> None:
    for drawing in [plots["main"][0], *plots["scaling"]]:
        heights = sorted(
            float(dict(shape.places)["y"]) for shape in drawing.shapes if "label" in shape.style
        )
        assert all(b - a >= 14 for a, b in pairwise(heights))


@pytest.mark.parametrize("wanted", [[5.0, 5.0, 5.0], [90.0, 99.0, 98.0], [0.0, 50.0, 51.0], []])
def test_keeping_apart_keeps_order_and_bounds(wanted: list[float]) -> None:
    moved = keep_apart(wanted, 10, 0, 100)
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    assert all(0 <= place <= 100 for place in moved)
    ordered = [moved[index] for index in order]
    assert all(b - a >= 10 - 1e-9 for a, b in pairwise(ordered))


def test_where_there_is_no_room_names_are_spread_evenly() -> None:
    assert keep_apart([3.0, 1.0, 2.0], 10, 0, 10) == [10.0, 0.0, 5.0]


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (0.28, 0.2801), (-3.0, 2e6), (0.5, 0.5), (0.0, 0.0)]
)
def test_axes_have_a_few_round_marks(low: float, high: float) -> None:
    values = [Estimate(value, None, None, 1, 1) for value in (low, high)]
    axis = Axis.around(values, measure("clip_t"), 10, 110)
    assert 3 <= len(axis.marks()) <= 6
    assert all(10 - 1e-6 <= axis.at(mark) <= 110 + 1e-6 for mark in axis.marks())


def test_a_share_is_not_drawn_beyond_all() -> None:
    values = [Estimate(0.5, 0.02, 0.99, 9, 9), Estimate(1.0, 1.0, 1.0, 9, 9)]
    axis = Axis.around(values, measure("bleed"), 0, 100)
    assert (axis.low, axis.high) == (0.0, 1.0)
    full = Axis.around([Estimate(1.0, 1.0, 1.0, 9, 9)], measure("bleed"), 0, 100)
    assert full.low < 1.0 == full.high


def test_without_numbers_there_is_no_plot() -> None:
    lonely = make_plots(Board(make_rows(["customvideo"], pairs=4, larger=0)))
    assert lonely == {"main": [], "same-category": [], "scaling": []}
    rows = [replace(row, bleed=None, dino_i_crop=None, dino_i=None) for row in make_rows()]
    titles = [plot.title for found in make_plots(Board(rows)).values() for plot in found]
    assert titles and not any("ixed" in title or "dentity" in title for title in titles)


def test_few_sets_have_marks_without_whiskers() -> None:
    plots = make_plots(Board(make_rows(pairs=4, larger=0)))
    styles = {shape.style for found in plots["main"] for shape in found.shapes}
    assert any("mark" in style for style in styles)
    assert not any("whisker" in style for style in styles)
