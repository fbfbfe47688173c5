"""From a benchmark's rows to what people read: Markdown, CSV, LaTeX, and a page to look at.

What stands in the tables is decided in `customvideo.benchmark.sheets`, what the page shows in
`customvideo.benchmark.page`; this file brings them together. Nothing is measured here: asked again,
it says the same.
"""

from __future__ import annotations

from pathlib import Path

from customvideo.benchmark.board import OURS, Board
from customvideo.benchmark.formats import to_csv, to_latex, to_markdown
from customvideo.benchmark.gallery import Gallery, Photos, edition_photos, kept_jobs
from customvideo.benchmark.page import write_page
from customvideo.benchmark.rows import read_rows
from customvideo.benchmark.sheets import make_sheets
from customvideo.benchmark.store import ROWS, Store
from customvideo.errors import BenchmarkError
from customvideo.files import write_text

__all__ = ["MAX_MB", "render_tables"]

MAX_MB = 24.0
"""Megabytes of the page, unless somebody says otherwise."""

_PAGE, _MARKDOWN, _CSV, _LATEX = "tables.html", "tables.md", "tables.csv", "tables.tex"


def render_tables(
    results: Path,
    out: Path,
    *,
    ours: str = OURS,
    max_mb: float = MAX_MB,
    photos: Photos | None = None,
) -> list[Path]:
    """Write the tables of the benchmark in `results` into the folder `out`, and return the files.

    They are `tables.html` (first), `tables.md`, `tables.csv` and `tables.tex`. `ours` is the label
    of the method under test. Photos and videos go into the page until it has `max_mb` megabytes,
    the other videos are links. `photos` finds the subjects' photos, None for those of the edition.

    Raises:
        BenchmarkError: there is not a single result.
        StorageError: the rows cannot be read, or `out` cannot be written.
    """
    rows = read_rows(results / ROWS)
    if not rows:
        raise BenchmarkError(
            f"'{results / ROWS}' has no results yet; let 'customvideo bench run' finish a job."
        )
    board = Board(rows, ours)
    store = Store(results)
    sheets = make_sheets(board)
    title = f"CustomStudio, {store.edition or 'an edition of its own'}"
    gallery = Gallery(results, photos or edition_photos(store.edition), max_mb)
    write_text(out / _MARKDOWN, to_markdown(sheets, title))
    write_text(out / _CSV, to_csv(sheets))
    write_text(out / _LATEX, to_latex(sheets))
    facts = _facts(board, results)
    page = write_page(out / _PAGE, title, board, sheets=sheets, gallery=gallery, facts=facts)
    return [page, *(out / name for name in (_MARKDOWN, _CSV, _LATEX))]


def _facts(board: Board, results: Path) -> dict[str, str]:
    """What the tables were made of."""
    failed = sum(job.folder.failure is not None for job in kept_jobs(results))
    sizes = sorted({(row.combination, row.subjects) for row in board.rows})
    counts = {n: sum(size == n for _, size in sizes) for n in sorted({n for _, n in sizes})}
    return {
        "Edition": Store(results).edition or "unknown",
        "Subject sets": ", ".join(f"{count} of {size}" for size, count in counts.items()),
        "Prompts and seeds": f"{len({(row.prompt, row.seed) for row in board.rows})} of each set",
        "Videos": str(len({row.key[:4] for row in board.rows})),
        "Method under test": board.ours,
        "Others": ", ".join(board.rivals) or "none",
        "Ablations": ", ".join(board.ablations) or "none",
        "Jobs that failed": str(failed),
    }
