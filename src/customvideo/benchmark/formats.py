"""Sheets as files for people and programs: Markdown, LaTeX (booktabs) and CSV.

What stands in a sheet is decided elsewhere (`customvideo.benchmark.cells`); HTML is made by the
pages' templates.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from customvideo.benchmark.cells import MISSING, Block, Cell, Line, Sheet
from customvideo.benchmark.statistics import Difference, Estimate

__all__ = ["to_csv", "to_latex", "to_markdown"]

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "×": r"$\times$",
    "–": "--",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{sign: rf"\{sign}" for sign in "{}$&#_%"},
}

_NUMBERS = (
    *("table", "block", "line", "column", "value", "low", "high"),
    *("relative", "relative_low", "relative_high", "p", "sets", "videos", "best"),
)


def to_markdown(sheets: Sequence[Sheet], title: str) -> str:
    """All sheets as one page of Markdown; the surely best are bold."""
    parts = [f"# {_plain(title)}"]
    for sheet in sheets:
        parts.append(f"## {_plain(sheet.title)}")
        if sheet.intro:
            parts.append(_plain(sheet.intro))
        for block in sheet.blocks:
            if block.title:
                parts.append(f"### {_plain(block.title)}")
            parts.append(_markdown_block(sheet, block))
            parts += [_plain(remark) for remark in block.remarks]
    return "\n\n".join(parts) + "\n"


def to_latex(sheets: Sequence[Sheet], over: str = "subject sets") -> str:
    """All sheets as `table` environments for `booktabs`; labels are `tab:` and the sheet's key.

    `over` says what the intervals are over.
    """
    head = f"% Needs \\usepackage{{booktabs}}. Brackets: 95 % intervals over {over}.\n"
    return head + "\n".join(_latex_table(sheet) for sheet in sheets)


def to_csv(sheets: Sequence[Sheet]) -> str:
    """Every measured cell as one line of raw numbers."""
    memory = io.StringIO()
    writer = csv.writer(memory, lineterminator="\n")
    writer.writerow(_NUMBERS)
    for sheet in sheets:
        for block in sheet.blocks:
            for line in block.lines:
                for head, cell in zip(sheet.heads, line.cells, strict=True):
                    if cell.number is not None:
                        place = (sheet.key, block.title, line.label, head)
                        writer.writerow([*place, *_numbers(cell.number), int(cell.best)])
    return memory.getvalue()


def _numbers(number: Estimate | Difference) -> list[str]:
    compared = ("relative", "relative_low", "relative_high", "p")
    found = [number.mean, number.low, number.high]
    found += [getattr(number, name, None) for name in compared]
    texts = ["" if value is None else f"{value + 0.0:.6g}" for value in found]
    return [*texts, str(number.sets), str(number.videos)]


def _markdown_block(sheet: Sheet, block: Block) -> str:
    rows = [
        [_plain(text) for text in (sheet.corner, *sheet.heads)],
        ["---", *("---:" for _ in sheet.heads)],
        *([_plain(line.label), *map(_markdown_cell, line.cells)] for line in block.lines),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    return _plain(f"{text} {cell.aside}".strip())


def _plain(text: str) -> str:
    """Text that cannot open a tag, a cell or a line."""
    return " ".join(text.split()).replace("<", "&lt;").replace("|", "\\|")


def _latex_table(sheet: Sheet) -> str:
    columns = len(sheet.heads) + 1
    head = " & ".join(_tex(text) for text in (sheet.corner, *sheet.heads))
    body: list[str] = []
    for block in sheet.blocks:
        body.append(r"\midrule")
        if block.title:
            body.append(rf"\multicolumn{{{columns}}}{{l}}{{\emph{{{_tex(block.title)}}}}} \\")
        body += [_latex_line(line) for line in block.lines]
    remarks = " ".join(_tex(remark) for block in sheet.blocks for remark in block.remarks)
    caption = " ".join(filter(None, (f"{_tex(sheet.title)}.", _tex(sheet.intro), remarks)))
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:{sheet.key}}}",
            rf"\begin{{tabular}}{{l{'r' * len(sheet.heads)}}}",
            r"\toprule",
            rf"{head} \\",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex_line(line: Line) -> str:
    label = rf"\emph{{{_tex(line.label)}}}" if line.kind == "reference" else _tex(line.label)
    return " & ".join([label, *map(_latex_cell, line.cells)]) + r" \\"


def _latex_cell(cell: Cell) -> str:
    text = _tex(cell.text)
    if cell.text == MISSING:
        return text
    text = rf"\textbf{{{text}}}" if cell.best else text
    # The braces keep a bracket at a row's end from being read as an option of \\.
    return rf"{text} {{\scriptsize {{{_tex(cell.aside)}}}}}" if cell.aside else text


def _tex(text: str) -> str:
    return "".join(_SPECIAL.get(sign, sign) for sign in text)
