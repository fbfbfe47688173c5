"""`study.toml`: what is written is read, and what is wrong is named."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from customvideo.errors import ConfigError, StudyError
from customvideo.userstudy.items import ITEMS, MEDIA, read_items
from customvideo.userstudy.plan import PLAN, QUESTIONS, StudyPlan, read_plan, write_plan
from customvideo.userstudy.store import Store
from customvideo.userstudy.study import close, open_study
from tests.userstudy.studies import make_study


def test_the_papers_four_questions_are_asked() -> None:
    assert [one.key for one in StudyPlan().questions] == ["text", "subject", "motion", "overall"]


def test_a_plan_comes_back_from_its_file(tmp_path: Path) -> None:
    plan = StudyPlan(
        title='Quotes " and \\ and ümläute',
        consent='One.\n\nTwo """ three.',
        closes=datetime(2030, 1, 2, 3, 4, tzinfo=UTC),
        questions=QUESTIONS[1:],
    )
    (tmp_path / PLAN).write_text(write_plan(plan), encoding="utf-8")
    assert read_plan(tmp_path) == plan
    assert "[exclusion]" in write_plan(plan) and "left out" in write_plan(plan)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("per_ratter = 3", "did you mean 'per_rater'"),
        ("per_rater = 0", "per_rater"),
        ("questions = []", "a list of 1 or more"),
        ("[exclusion]\none_side = 0.2", "exclusion.one_side"),
        ('[[questions]]\nkey = "Bad Key"\ntitle = "t"\ntext = "t"', "questions.0.key"),
        ("per_rater = 1\n[checks]\nrepeats = 5", "at most as many checks.repeats"),
        ("seed = ", "cannot be read as TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / PLAN).write_text(line, encoding="utf-8")
    with pytest.raises((ConfigError, StudyError), match=said) as caught:
        read_plan(tmp_path)
    assert PLAN in str(caught.value)


def test_a_folder_without_a_study_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="customvideo study new"):
        open_study(tmp_path)


def test_missing_videos_and_damaged_lists_are_told(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", prompts=2, per_rater=3)
    video = next((folder / MEDIA).glob("*.mp4"))
    video.rename(tmp_path / "away.mp4")
    with pytest.raises(StudyError, match=video.name):
        read_items(folder)
    (folder / ITEMS).write_text(json.dumps({"version": 2}), encoding="utf-8")
    with pytest.raises(StudyError, match="missing or damaged"):
        read_items(folder)


def test_from_the_first_rater_on_nothing_may_change_but_the_end(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", prompts=2, per_rater=3)
    path = folder / PLAN
    with Store(folder) as store:
        open_study(folder).seal(store)
        path.write_text(path.read_text().replace("seed = 0", "seed = 1"))
        changed = open_study(folder)
        # Nobody has voted: it may change still.
        changed.seal(store)
        store.join("token", changed.design.program, 10)
        path.write_text(path.read_text().replace("one_side = 0.95", "one_side = 0.5"))
        with pytest.raises(StudyError, match="was changed after somebody had voted"):
            open_study(folder).seal(store)
        path.write_text(
            "closes = 2020-01-01T00:00:00Z\n"
            + path.read_text().replace("one_side = 0.5", "one_side = 0.95")
        )
        ended = open_study(folder)
        ended.seal(store)
        assert not ended.open_in(store)


def test_a_study_ends_at_its_time_or_when_it_is_closed(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", prompts=2, per_rater=3)
    soon = datetime.now().replace(microsecond=0) + timedelta(hours=1)
    path = folder / PLAN
    path.write_text(f"closes = {soon.isoformat()}\n{path.read_text()}")
    assert tomllib.loads(path.read_text())["closes"] == soon
    with Store(folder) as store:
        study = open_study(folder)
        assert study.open_in(store)
        close(store)
        assert not study.open_in(store)
