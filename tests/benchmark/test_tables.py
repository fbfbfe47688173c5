"""From a folder of results to files: whole, the same every time, whatever the order of the rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from customvideo.benchmark.rows import write_rows
from customvideo.benchmark.tables import render_tables
from customvideo.errors import BenchmarkError, StorageError
from tests.benchmark.kept import some_photos, write_results
from tests.benchmark.scoreboard import make_rows, with_method
from tests.test_report import Page

LABELS = ["base", "dreambooth", "customvideo", "customvideo-no-prior"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = make_rows(LABELS, pairs=8, larger=1)
    return write_results(tmp_path_factory.mktemp("bench"), rows)


def test_four_files_are_written_and_the_page_comes_first(results: Path, tmp_path: Path) -> None:
    files = render_tables(results, tmp_path / "new" / "tables", photos=some_photos)
    assert [file.name for file in files] == [
        *("tables.html", "tables.md", "tables.csv", "tables.tex"),
    ]
    assert sorted(files) == sorted((tmp_path / "new" / "tables").iterdir())
    page = Page(files[0])
    assert "CustomStudio, ./own" in page.text and "8 of 2, 1 of 3, 1 of 4" in page.text
    assert len(page.all("video")) == 10 * len(LABELS)


def test_asked_again_they_say_the_same(results: Path, tmp_path: Path) -> None:
    first, second = (
        render_tables(results, tmp_path / name, photos=some_photos) for name in ("one", "two")
    )
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_another_method_can_be_under_test(results: Path, tmp_path: Path) -> None:
    page, *_ = render_tables(results, tmp_path, ours="dreambooth", photos=some_photos)
    assert "dreambooth against the best other" in Page(page).text


def test_failed_jobs_are_counted(tmp_path: Path) -> None:
    rows = make_rows(["customvideo", "rival"], pairs=2, larger=0)
    results = write_results(tmp_path / "bench", rows)
    for folder in list((results / "jobs").iterdir())[:3]:
        (folder / "failed.json").write_text('{"message": "no room", "error": "MemoryError"}')
    page, *_ = render_tables(results, tmp_path / "tables", photos=some_photos)
    assert "Jobs that failed3" in Page(page).text.replace("\n", "")


def test_without_an_edition_photos_are_left_out(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", with_method(make_rows(["base"], 1, 0), "customvideo"))
    page, *_ = render_tables(tmp_path, tmp_path / "tables")
    assert not Page(page).all("img")


def test_nothing_to_show_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="customvideo bench run"):
        render_tables(tmp_path, tmp_path / "tables")
    write_rows(tmp_path / "rows.csv", [])
    with pytest.raises(BenchmarkError, match="no results yet"):
        render_tables(tmp_path, tmp_path / "tables")
    assert not (tmp_path / "tables").exists()
