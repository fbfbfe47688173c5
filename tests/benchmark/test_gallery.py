"""Videos are found where a benchmark leaves them, and only so many are put into a page."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest

from customvideo.benchmark.board import Board
from customvideo.benchmark.gallery import Card, Gallery, edition_photos, kept_jobs
from customvideo.benchmark.grid import Job, Made
from customvideo.benchmark.rows import ResultRow
from customvideo.benchmark.store import JobFolder
from customvideo.config import compose_recipe
from tests.benchmark.kept import make_video, some_photos, write_results
from tests.benchmark.scoreboard import make_rows

LABELS = ["base", "dreambooth", "customvideo", "customvideo-no-prior"]


@pytest.fixture
def rows() -> list[ResultRow]:
    return make_rows(LABELS, pairs=2, larger=1)


@pytest.fixture
def results(tmp_path: Path, rows: list[ResultRow]) -> Path:
    return write_results(tmp_path / "my results", rows)


def cards(results: Path, rows: list[ResultRow], max_mb: float = 5) -> list[Card]:
    gallery = Gallery(results, some_photos, max_mb)
    return gallery.cards(Board(rows), results.parent / "tables")


def test_a_card_shows_everybody_on_one_prompt(results: Path, rows: list[ResultRow]) -> None:
    shown = cards(results, rows)
    assert [card.group for card in shown] == [
        *("Pairs of one category", "Pairs", "Triples", "Quadruples"),
    ]
    card = shown[0]
    assert [film.label for film in card.films] == [
        *("dreambooth", "customvideo", "base", "customvideo-no-prior"),
    ]
    assert card.prompt == "a <s200> cat and a <s201> cat on the beach" and card.seed == 0
    assert [(one.word, len(one.photos)) for one in card.people] == [("<s200>", 2), ("<s201>", 2)]
    (row,) = [row for row in rows if row.key == ("customvideo", card.name, 0, 0, "s200")]
    assert f"all there {100 * (row.co_occurrence or 0):.1f} %" in card.films[1].notes


def test_what_is_embedded_is_the_video_itself(results: Path, rows: list[ResultRow]) -> None:
    card = cards(results, rows)[0]
    file = results / "jobs" / f"customvideo-{card.name}" / "videos" / "0-0.mp4"
    assert card.films[1].moves and not card.films[1].link
    assert base64.b64decode(card.films[1].source.partition(",")[2]) == file.read_bytes()


def test_all_other_videos_are_links_that_lead_there(results: Path, rows: list[ResultRow]) -> None:
    for card in cards(results, rows):
        ((told, films),) = card.more
        assert told == f"{card.prompt.replace('on the beach', 'in the snow')}, seed 0"
        assert len(films) == len(LABELS)
        for film in films:
            assert not film.source and film.link.startswith("../my%20results/jobs/")
            assert (results.parent / "tables" / unquote(film.link)).resolve().is_file()


def test_the_page_grows_no_further_than_allowed(results: Path, rows: list[ResultRow]) -> None:
    everything = cards(results, rows)
    sources = [film.source for card in everything for film in card.films]
    sources += [photo for card in everything for one in card.people for photo in one.photos]
    total = sum(map(len, sources)) + 300 * len(sources)
    some = cards(results, rows, 0.6 * total / 1e6)
    films = [film for card in some for film in card.films]
    held = [film for film in films if film.source]
    assert 0 < len(held) < len(films)
    assert all(bool(film.source) != bool(film.link) for film in films)
    photos = sum(len(photo) for card in some for one in card.people for photo in one.photos)
    assert sum(len(film.source) for film in held) + photos <= 0.6 * total
    gallery = Gallery(results, some_photos, total / 1e6)
    spent = gallery.cards(Board(rows), results.parent / "tables", 0.4 * total)
    assert spent == some, "what the page itself takes is not left for videos"
    # Ablations are the first to go.
    assert {film.label for film in held} <= {"dreambooth", "customvideo", "base"}
    assert sum(card.left_out[0] for card in some) == len(films) - len(held)
    assert sum(card.left_out[1] for card in some) == 0
    none = cards(results, rows, 0)
    assert sum(card.left_out[1] for card in none) == 2 * (2 + 2 + 3 + 4)
    assert not any(film.source for card in none for film in card.films)
    assert not any(one.photos for card in none for one in card.people)


def test_other_formats_are_shown_too(results: Path, rows: list[ResultRow]) -> None:
    name = cards(results, rows)[0].name
    videos = results / "jobs" / f"customvideo-{name}" / "videos"
    (videos / "0-0.mp4").unlink()
    make_video().save(videos / "0-0.gif")
    film = cards(results, rows)[0].films[1]
    assert film.source.startswith("data:image/gif") and not film.moves


def test_attention_videos_are_shown_where_there_are_some(
    results: Path, rows: list[ResultRow]
) -> None:
    name = cards(results, rows)[0].name
    folder = results / "jobs" / f"customvideo-{name}" / "attention"
    for file in ("0-0-s200.mp4", "1-0-s200.mp4", "0-0.txt"):
        make_video().save(folder / "x.mp4")
        (folder / "x.mp4").rename(folder / file)
    attention = [card.attention for card in cards(results, rows)]
    assert [film.label for film in attention[0]] == ["s200"] and not any(attention[1:])


def test_what_is_missing_or_damaged_is_left_out(results: Path, rows: list[ResultRow]) -> None:
    (gone, damaged, unlabelled, other) = sorted((results / "jobs").iterdir())[:4]
    shutil.rmtree(gone)
    (damaged / "job.json").write_text("{")
    told = json.loads((unlabelled / "job.json").read_text())
    (unlabelled / "job.json").write_text(json.dumps(told | {"method": ""}))
    (other / "job.json").write_text(json.dumps({"method": "base"}))
    assert len(kept_jobs(results)) == len(list((results / "jobs").iterdir())) - 3
    shown = cards(results, rows)
    assert len(shown) == 4 and "base" not in {film.label for film in shown[0].films}


def test_without_videos_there_are_no_cards(tmp_path: Path, rows: list[ResultRow]) -> None:
    assert cards(tmp_path / "nowhere", rows) == []
    assert cards(write_results(tmp_path / "bare", rows, videos=False), rows) == []


def test_the_benchmarks_own_descriptions_are_understood(tmp_path: Path) -> None:
    made = Made("fingerprint", "fp32", (("tom", "cat", "0" * 64), ("rex", "dog", "1" * 64)))
    recipe = compose_recipe([("backbone", "toybox")])
    prompts = ("a <tom> cat and a <rex> dog",)
    job = Job("trained", "customvideo", "tom+rex", prompts, ((0, 3),), recipe, made)
    folder = JobFolder(tmp_path / "jobs" / job.digest)
    folder.describe(job)
    (found,) = kept_jobs(tmp_path)
    assert (found.method, found.combination, found.prompts) == (
        *("customvideo", "tom+rex"),
        prompts,
    )
    assert found.subjects == (("tom", "cat"), ("rex", "dog")) and found.samples == ((0, 3),)
    assert found.folder.path == folder.path


def test_photos_of_an_edition_that_is_gone_are_none(tmp_path: Path) -> None:
    assert list(edition_photos(str(tmp_path / "gone"))("tom")) == []
    assert list(edition_photos("")("tom")) == []


def test_photos_of_an_own_edition_are_found(tmp_path: Path) -> None:
    from PIL import Image

    for name, category in (("tom", "cat"), ("rex", "dog")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "subject.toml").write_text(f'category = "{category}"\n')
        Image.new("RGB", (48, 40), (200, 80, 40)).save(tmp_path / name / "one.png")
    (photo,) = edition_photos(str(tmp_path))("tom")
    assert photo.shape == (40, 48, 3)
    assert list(edition_photos(str(tmp_path))("ida")) == []
