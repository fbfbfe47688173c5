"""The table of results: the same rows give the same bytes, and no other file is taken for one."""

from __future__ import annotations

import csv
import random
from dataclasses import replace
from pathlib import Path

import pytest

from customvideo.benchmark.rows import COLUMNS, SCORES, ResultRow, read_rows, write_rows
from customvideo.errors import StorageError
from tests.benchmark.scoreboard import make_rows

ROW = ResultRow("dreambooth", "tom+rex", 2, False, 0, 7, "tom", "cat", True, clip_t=0.3125)


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [ROW, replace(ROW, subject='rex, the "dog"', bleed=0.0, adapter_bytes=3_812_345.0)]
    write_rows(tmp_path / "rows.csv", rows)
    assert read_rows(tmp_path / "rows.csv") == sorted(rows, key=lambda row: row.key)


def test_the_same_rows_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    rows = make_rows(pairs=3, larger=1)
    write_rows(tmp_path / "one.csv", rows)
    random.Random(0).shuffle(rows)
    write_rows(tmp_path / "two.csv", rows)
    write_rows(tmp_path / "three.csv", read_rows(tmp_path / "two.csv"))
    one, two, three = (tmp_path / f"{n}.csv" for n in ("one", "two", "three"))
    assert one.read_bytes() == two.read_bytes() == three.read_bytes()
    assert b"\r" not in one.read_bytes()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0.1 + 0.2, "0.3"),
        (1 / 3, "0.333333"),
        (-1e-9, "0"),
        (1.0, "1"),
        (1_900_000.0, "1900000"),
        (12, "12"),
    ],
)
def test_numbers_are_short_and_say_what_they_are(
    tmp_path: Path, value: float | None, text: str
) -> None:
    write_rows(tmp_path / "rows.csv", [replace(ROW, dino_i=value)])
    (line,) = csv.DictReader((tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines())
    assert line["dino_i"] == text and line["small"] == "1" and line["same_category"] == "0"


def test_the_columns_are_those_agreed_upon() -> None:
    assert COLUMNS[:9] == (
        *("method", "combination", "subjects", "same_category", "prompt", "seed"),
        *("subject", "category", "small"),
    )
    assert COLUMNS[9:] == SCORES and len(set(COLUMNS)) == len(COLUMNS) == 40


def test_a_score_is_a_number() -> None:
    with pytest.raises(AssertionError, match="clip_t"):
        replace(ROW, clip_t=float("nan"))


def written(path: Path, *, change: tuple[str, str]) -> Path:
    write_rows(path, [ROW])
    text = path.read_text(encoding="utf-8")
    assert change[0] in text
    path.write_text(text.replace(*change, 1), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("prompt,", ""), "lacks the column 'prompt'"),
        (("seams,", "seams,shine,"), "column 'shine' that is unknown"),
        (("method,", "name,"), "no table of results"),
        (("0.3125", "nan"), "'nan' in line 2"),
        (("0.3125", "much"), "'much' in line 2"),
        (("tom+rex,2", "tom+rex,two"), "'two' in line 2"),
        (("cat,1", "cat,yes"), "'yes' in line 2"),
        (("tom+rex,", "tom,rex,"), "Line 2"),
        ((",cat,1", ",1"), "Line 2"),
    ],
)
def test_another_file_is_refused_in_one_sentence(
    tmp_path: Path, change: tuple[str, str], told: str
) -> None:
    path = written(tmp_path / "rows.csv", change=change)
    with pytest.raises(StorageError, match=told) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", b'a,"b\nc'])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(StorageError, match=r"table of results"):
        read_rows(tmp_path / "rows.csv")


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="customvideo bench run"):
        read_rows(tmp_path / "rows.csv")


def test_a_spreadsheets_mark_does_no_harm(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.csv", change=("method", "\ufeffmethod"))
    assert read_rows(path) == [ROW]


def test_nothing_is_said_twice(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="dreambooth, tom"):
        write_rows(tmp_path / "rows.csv", [ROW, replace(ROW, clip_t=0.5)])
    assert not (tmp_path / "rows.csv").exists()
    write_rows(tmp_path / "rows.csv", [ROW])
    with (tmp_path / "rows.csv").open("a", encoding="utf-8") as file:
        file.write((tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()[1] + "\n")
    with pytest.raises(StorageError, match="two things"):
        read_rows(tmp_path / "rows.csv")
