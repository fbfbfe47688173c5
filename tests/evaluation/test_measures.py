"""How numbers are printed."""

from __future__ import annotations

import pytest

from customvideo.benchmark.rows import SCORES
from customvideo.evaluation.measures import MEASURES, measure


def test_every_score_of_the_rows_has_a_line() -> None:
    assert set(SCORES) <= set(MEASURES)
    unsorted = {name for name in SCORES if MEASURES[name].group == "other"}
    assert unsorted == {"clip_t_scaled", "retention"}


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("clip_t", 0.31249, "0.312"),
        ("binding_margin", -0.0001, "0.000"),
        ("bleed", 0.125, "12.5 %"),
        ("train_seconds", 119.96, "120.0 s"),
        ("train_seconds", 1230.0, "20.5 min"),
        ("train_seconds", 9000.0, "2.5 h"),
        ("trained_parameters", 1_934_000.0, "1.93 M"),
        ("trained_parameters", 999_900.0, "1000 k"),
        ("peak_memory_mb", 812.4, "812 MB"),
        ("peak_memory_mb", 23_450.0, "23.4 GB"),
        ("adapter_bytes", 3_812_345.0, "3.81 MB"),
        ("adapter_bytes", 17.0, "17 B"),
    ],
)
def test_values_carry_their_units(name: str, value: float, text: str) -> None:
    assert measure(name).format(value) == text


def test_differences_carry_signs_and_shares_differ_by_points() -> None:
    assert measure("clip_t").format_change(0.0123) == "+0.012"
    assert measure("clip_t").format_change(-0.0001) == "0.000"
    assert measure("bleed").format_change(-0.125) == "-12.5 pts"
    assert measure("bleed").format_interval(0.25, 0.5) == "[25.0, 50.0 %]"
    assert measure("bleed").format_interval(-0.25, 0.5, signed=True) == "[-25.0, +50.0 pts]"
    assert measure("adapter_bytes").format_interval(900.0, 1e6) == "[900 B, 1 MB]"


def test_an_unknown_score_has_no_better_direction() -> None:
    shown = measure("inner_glow")
    assert (shown.title, shown.short, shown.arrow, shown.group) == (
        *("Inner glow", "inner glow", "", "other"),
    )
