"""Gates are passed or not by what the rows say, and nobody is judged without evidence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from customvideo.benchmark.board import Board
from customvideo.benchmark.formats import to_csv, to_latex, to_markdown
from customvideo.benchmark.gates import GATES, Standing, judge
from customvideo.benchmark.rows import ResultRow
from customvideo.benchmark.sheets import make_sheets
from tests.benchmark.scoreboard import make_rows

GOOD: dict[str, Any] = {
    **{"present": 1.0, "correct": 1.0, "blend": 0.0, "drop": 0.0},
    **{"freeze": 0.0, "copy": 0.0, "retention": 0.0},
}


def rows(**changes: float | None) -> list[ResultRow]:
    """A method that passes everything but for `changes`, beside the base and true footage."""
    made = make_rows(["customvideo", "base", "ceiling"], pairs=6, larger=0)
    return [
        replace(row, **{**GOOD, **(changes if row.method == "customvideo" else {})}) for row in made
    ]


def standings(found: list[ResultRow]) -> dict[str, Standing | None]:
    board = Board(found)
    names = [gate.name for gate in GATES]
    return dict(zip(names, judge(board, "customvideo"), strict=True))


def test_who_does_nothing_wrong_passes_everything() -> None:
    found = standings(rows())
    assert all(one is not None and one.passed for one in found.values())
    assert found["Presence"] is not None and found["Presence"].text == "100.0 %"
    assert found["Presence"].value.sets == 6


@pytest.mark.parametrize(
    ("gate", "just", "over"),
    [
        ("Presence", {"present": 0.9, "correct": 0.9}, {"present": 0.89, "correct": 0.89}),
        # Of the frames with the subject: where it is missing, nothing is bound wrongly.
        ("Binding", {"present": 0.5, "correct": 0.475}, {"present": 1.0, "correct": 0.94}),
        ("Hard failures", {}, {"blend": 1.0}),
        ("Hard failures", {}, {"drop": 1.0}),
        ("Motion", {"freeze": 0.5}, {"freeze": 0.51}),
        ("Leakage", {"copy": 0.0}, {"copy": 0.01}),
        ("Retention", {"retention": -0.05}, {"retention": -0.051}),
    ],
)
def test_each_gate_has_its_limit(gate: str, just: dict[str, float], over: dict[str, float]) -> None:
    passes, fails = (standings(rows(**changes))[gate] for changes in (just, over))
    assert passes is not None and passes.passed
    assert fails is not None and not fails.passed


def test_both_kinds_of_hard_failure_count_once() -> None:
    found = standings(rows(blend=1.0, drop=1.0))["Hard failures"]
    assert found is not None and found.value.mean == 1.0


def test_true_footage_says_how_often_chance_copies() -> None:
    copied = [
        replace(row, copy=1.0) if row.method in ("customvideo", "ceiling") else row
        for row in rows()
    ]
    found = standings(copied)["Leakage"]
    assert found is not None and found.passed


def test_without_evidence_nobody_is_judged() -> None:
    alone = [row for row in rows(present=None, retention=None) if row.method == "customvideo"]
    found = standings(alone)
    unknown = {"Presence", "Binding", "Motion", "Leakage", "Retention"}
    assert {name for name, one in found.items() if one is None} == unknown


def test_the_gates_are_a_table() -> None:
    sheets = make_sheets(Board(rows(retention=-0.2)))
    (sheet,) = [one for one in sheets if one.key == "gates"]
    assert sheet.heads == tuple(gate.name for gate in GATES)
    (ours,) = [line for line in sheet.blocks[0].lines if line.label == "customvideo"]
    cell = ours.cells[sheet.heads.index("Retention")]
    assert (cell.text, cell.aside, cell.tone) == ("-20.0 pts", "fails", "worse")
    assert all(gate.limit in sheet.intro for gate in GATES)
    for write in (to_csv, to_latex):
        assert "Retention" in write(sheets)
    assert "## Gates" in to_markdown(sheets, "T")
