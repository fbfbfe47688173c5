"""What a table is made of: cells, lines, blocks, whole sheets.

A `Sheet` is finished text, its raw numbers beside it, so that Markdown, LaTeX, CSV and HTML
(`customvideo.benchmark.formats`, the pages' templates) say the same. What stands in one is decided
in `customvideo.benchmark.sheets` and `customvideo.userstudy.sheets`.
"""

from __future__ import annotations

from dataclasses import dataclass

from customvideo.benchmark.statistics import Difference, Estimate

__all__ = ["MISSING", "Block", "Cell", "Line", "Sheet"]

MISSING = "–"


@dataclass(frozen=True)
class Cell:
    """One entry: `text`, smaller beside it `aside`, and the numbers both were made of.

    `best` is for a lead that is certain; `tone` is "better" or "worse" for a certain difference.
    """

    text: str = MISSING
    aside: str = ""
    best: bool = False
    tone: str = ""
    number: Estimate | Difference | None = None


@dataclass(frozen=True)
class Line:
    """A row: what it is about, a smaller note to that, its cells; `kind` is "ours", "reference" or
    nothing."""

    label: str
    cells: tuple[Cell, ...]
    note: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Block:
    """Rows that are compared with each other; `remarks` say what the numbers do not settle."""

    title: str
    lines: tuple[Line, ...]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """A table: `corner` stands over the labels, `heads` over the cells."""

    key: str
    title: str
    intro: str
    corner: str
    heads: tuple[str, ...]
    blocks: tuple[Block, ...]
