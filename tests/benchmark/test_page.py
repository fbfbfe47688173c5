"""The page: it stands alone, says what is not settled, and trusts no text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from customvideo.benchmark.board import Board
from customvideo.benchmark.gallery import Gallery
from customvideo.benchmark.page import verdicts, write_page
from customvideo.benchmark.rows import ResultRow
from customvideo.benchmark.sheets import make_sheets
from customvideo.errors import StorageError
from tests.benchmark.kept import some_photos, write_results
from tests.benchmark.scoreboard import make_rows, with_method
from tests.test_report import NASTY, Page


def make_page(folder: Path, rows: list[ResultRow], *, max_mb: float = 5, title: str = "T") -> Page:
    results = write_results(folder / "results", rows)
    board = Board(rows)
    path = write_page(
        folder / "tables" / "page.html",
        title,
        board,
        sheets=make_sheets(board),
        gallery=Gallery(results, some_photos, max_mb),
        facts={"Edition": title},
    )
    return Page(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return make_page(folder, make_rows(pairs=8, larger=1))


def test_the_page_loads_nothing_from_anywhere(page: Page, folder: Path) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "poster", "srcset", "data", "action"):
            assert str(attributes.get(name, "data:")).startswith("data:"), tag
        link = str(attributes.get("href", "#"))
        if not link.startswith(("#", "data:")):
            assert tag == "a" and (folder / "tables" / unquote(link)).is_file()
    style = "".join(page.inside["style"])
    assert "url(" not in style and "@import" not in style
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert str(policy).startswith("default-src 'none'")


def test_tables_plots_and_videos_are_all_there(page: Page) -> None:
    sections = [section["id"] for section in page.all("section")]
    assert sections[0] == "main" and sections[-2:] == ["videos", "reading"]
    assert len(page.all("video")) == 10 * 8
    assert len(page.all("img")) == (8 * 2 + 3 + 4) * 2
    assert len(page.all("svg")) == 12
    targets = {str(a["href"])[1:] for a in page.all("a") if str(a["href"]).startswith("#")}
    assert targets <= set(sections)
    assert len(sections) == len(set(sections)) and len(page.all("h1")) == 1


def test_the_page_can_be_read_without_seeing_it(page: Page) -> None:
    assert all(image["alt"] for image in page.all("img"))
    assert all(video["aria-label"] for video in page.all("video"))
    assert all(drawing["aria-label"] for drawing in page.all("svg"))
    assert page.all("html")[0]["lang"] == "en"
    assert {cell.get("scope") for cell in page.all("th")} == {"col", "row", "rowgroup"}


def test_the_page_fits_phones_and_dark_rooms(page: Page) -> None:
    viewport = {"name": "viewport", "content": "width=device-width, initial-scale=1"}
    assert viewport in page.all("meta")
    style = "".join(page.inside["style"])
    assert "prefers-color-scheme: dark" in style and "position: sticky" in style


def test_what_is_not_settled_is_said(page: Page) -> None:
    assert "Not settled: CLIP-T" in page.text
    assert "fewer than 6 allow no interval" in page.text


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    tame = make_rows(["customvideo", "rival"], pairs=2, larger=0)
    # What stands for a folder's name must be able to be one.
    nasty = [replace(row, category=NASTY, subject=f"{NASTY}{row.subject}") for row in tame]
    pages = [
        make_page(tmp_path / name, rows, title=title)
        for name, rows, title in (("tame", tame, "T"), ("nasty", nasty, NASTY))
    ]
    assert [tag for tag, _ in pages[0].elements] == [tag for tag, _ in pages[1].elements]
    assert pages[0].inside["script"] == pages[1].inside["script"]
    assert not any("onerror" in attributes for _, attributes in pages[1].elements)
    assert NASTY in pages[1].text


def test_what_does_not_fit_is_a_link(tmp_path: Path) -> None:
    page = make_page(tmp_path, make_rows(["customvideo", "rival"], pairs=2, larger=0), max_mb=0)
    assert not page.all("video") and not page.all("img")
    away = [link for link in page.all("a") if link.get("class") == "away"]
    assert len(away) == 4 and all(link["aria-label"] for link in away)
    assert "links lead to videos beside it" in page.text
    assert "To keep this page within 0 MB, 4 of 4 videos are links and 8 photos left out." in (
        " ".join(page.text.split())
    )


def test_the_page_itself_stays_within_what_is_allowed(tmp_path: Path) -> None:
    rows = make_rows(["customvideo", "rival"], pairs=8, larger=0)

    def make(max_mb: float) -> tuple[int, Page]:
        page = make_page(tmp_path / str(max_mb), rows, max_mb=max_mb)
        return (tmp_path / str(max_mb) / "tables" / "page.html").stat().st_size, page

    (bare, _), (full, whole) = make(0), make(5)
    assert "To keep this page" not in whole.text
    for share in (0.3, 0.6):
        allowed = bare + share * (full - bare)
        size, page = make(allowed / 1e6)
        assert bare < size <= allowed
        assert "To keep this page within" in page.text and page.all("img")


def test_without_videos_the_numbers_are_still_shown(tmp_path: Path) -> None:
    rows = make_rows(["customvideo", "rival"], pairs=2, larger=0)
    board = Board(rows)
    path = write_page(
        tmp_path / "page.html",
        "T",
        board,
        sheets=make_sheets(board),
        gallery=Gallery(tmp_path, some_photos, 5),
        facts={},
    )
    page = Page(path)
    assert "videos" not in [section["id"] for section in page.all("section")]
    assert "links lead" not in page.text and page.all("table")


def test_verdicts_say_what_is_better_what_is_worse_and_what_is_open() -> None:
    rows = make_rows(["customvideo", "dreambooth"], larger=0)
    found = {verdict.title: verdict for verdict in verdicts(Board(rows))}
    assert list(found) == [
        *("Headline ↑", "Identity match, each cut out ↑", "Mixed up ↓", "Text match ↑"),
    ]
    better = found["Identity match, each cut out ↑"]
    ours, theirs = (
        np.mean([row.dino_i_crop for row in rows if row.method == method and row.subjects == 2])
        for method in ("customvideo", "dreambooth")
    )
    assert better.tone == "better"
    assert better.told == f"{100 * (ours / theirs - 1):+.1f} % against dreambooth"
    mixed = found["Mixed up ↓"]
    assert mixed.tone == "better" and mixed.told.startswith("-") and "pts" in mixed.told
    assert found["Text match ↑"].tone == "" and "not settled" in found["Text match ↑"].aside
    swapped = {"customvideo": "dreambooth", "dreambooth": "customvideo"}
    turned = [replace(row, method=swapped[row.method]) for row in rows]
    assert {v.title: v.tone for v in verdicts(Board(turned))}["Mixed up ↓"] == "worse"
    alone = with_method(rows[:1], "customvideo")
    assert verdicts(Board(alone)) == []


def test_an_unwritable_place_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    board = Board(make_rows(["customvideo"], pairs=1, larger=0))
    with pytest.raises(StorageError):
        write_page(
            tmp_path / "file" / "page.html",
            "T",
            board,
            sheets=[],
            gallery=Gallery(tmp_path, some_photos, 1),
            facts={},
        )
