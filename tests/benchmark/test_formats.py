"""The same tables in three notations."""

from __future__ import annotations

import csv
import re

import pytest

from customvideo.benchmark.board import Board
from customvideo.benchmark.cells import Block, Cell, Line, Sheet
from customvideo.benchmark.formats import to_csv, to_latex, to_markdown
from customvideo.benchmark.sheets import make_sheets
from tests.benchmark.scoreboard import make_rows

NASTY = Sheet(
    "nasty",
    "50 % of <it> | & more_ #1",
    "{a} ~ ^ \\ $",
    "Method",
    ("a|b ↑",),
    (Block("", (Line("x_y", (Cell("1.0", "[0.5, 1.5]", best=True),)), Line("z", (Cell(),)))),),
)


@pytest.fixture(scope="module")
def sheets() -> list[Sheet]:
    return make_sheets(Board(make_rows()))


def test_markdown_tables_are_rectangular(sheets: list[Sheet]) -> None:
    text = to_markdown(sheets, "Results")
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert len(tables) == sum(len(sheet.blocks) for sheet in sheets)
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert "**0.539** [0.491, 0.590]" in text and text.startswith("# Results\n\n## Main results")
    assert text.endswith("\n") and "\n\n\n" not in text


def test_markdown_text_opens_nothing() -> None:
    text = to_markdown([NASTY], "<script>")
    assert "<script>" not in text and "<it>" not in text
    assert "| Method | a\\|b ↑ |" in text and "| x_y | **1.0** [0.5, 1.5] |" in text


def test_latex_is_balanced_and_escaped(sheets: list[Sheet]) -> None:
    text = to_latex([*sheets, NASTY])
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == len(sheets) + 1
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert r"50 \% of \textless{}it\textgreater{} | \& more\_ \#1" in text
    assert r"\{a\} \textasciitilde{} \textasciicircum{} \textbackslash{} \$" in text
    assert r"x\_y & \textbf{1.0} {\scriptsize {[0.5, 1.5]}} \\" in text and r"z & -- \\" in text
    for sheet in sheets:
        table = text.partition(rf"\label{{tab:{sheet.key}}}")[2].partition(r"\end{tabular}")[0]
        rows = re.findall(r"^(.*) \\\\$", table, re.MULTILINE)
        counts = {len(re.findall(r"(?<!\\)&", row)) for row in rows if "multicolumn" not in row}
        assert counts == {len(sheet.heads)}
    assert text.isascii()


def test_csv_has_the_numbers_behind_the_tables(sheets: list[Sheet]) -> None:
    rows = list(csv.DictReader(to_csv(sheets).splitlines()))
    (found,) = [
        row
        for row in rows
        if (row["table"], row["line"], row["column"]) == ("main", "customvideo", "DINO-I crop ↑")
    ]
    estimate = Board(make_rows()).estimate("customvideo", "dino_i_crop")
    assert estimate is not None and estimate.low is not None
    assert float(found["value"]) == pytest.approx(estimate.mean, rel=1e-5)
    assert float(found["low"]) == pytest.approx(estimate.low, rel=1e-5)
    assert (found["sets"], found["videos"], found["best"], found["p"]) == ("30", "60", "1", "")
    against = [row for row in rows if row["table"] == "against" and row["p"]]
    assert against and all(row["column"] == "difference" for row in against)
