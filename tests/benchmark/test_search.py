"""A search: what is tried, what wins, and what is logged of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from customvideo import tables
from customvideo.benchmark.grid import Made
from customvideo.benchmark.plan import resolve
from customvideo.benchmark.rows import ResultRow, read_rows, write_rows
from customvideo.benchmark.search import compose_search, log, trials
from customvideo.benchmark.store import JobFolder
from customvideo.config import compose_recipe, default_recipe
from customvideo.errors import ConfigError
from customvideo.methods.base import METHODS
from tests.benchmark.scoreboard import make_rows
from tests.benchmark.small import QUICK, a_job, write_edition
from tests.surroundings import run_cli

RATES = {"customvideo@x0.333": 1e-4, "customvideo@x1": 3e-4, "customvideo@x3": 9e-4}


def test_every_method_is_tried_with_three_rates_around_its_recipe() -> None:
    plan = compose_search()
    assert (plan.edition, plan.prompts, plan.seeds) == ("toybox-development", 2, 1)
    assert not plan.base and not plan.ceiling
    # What trains nothing has no rates.
    trained = METHODS.keys() - {"vace"}
    assert {label.partition("@")[0] for label in plan.entries} == trained
    assert len(plan.entries) == 3 * len(trained)
    _, entries = resolve(plan, "toybox")
    for entry in entries:
        method, _, setting = entry.label.partition("@")
        usual = default_recipe(method)
        factor = {"x0.333": 1 / 3, "x1": 1, "x3": 3}[setting]
        assert entry.recipe.method == method
        assert entry.recipe.learning_rate == pytest.approx(usual.learning_rate * factor, rel=1e-3)
        assert entry.recipe.word_learning_rate == pytest.approx(
            usual.word_learning_rate * factor, rel=1e-3
        )
        assert (entry.recipe.steps, entry.recipe.seed) == (usual.steps, usual.seed)


def test_methods_of_other_packages_are_tried_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def added(group: str) -> list[EntryPoint]:
        return [EntryPoint("mine", METHODS["mudi"], group)]

    monkeypatch.setattr(tables, "entry_points", added)
    assert compose_search().entries.keys() > {"mine@x0.333", "mine@x1", "mine@x3"}


def test_methods_factors_and_budget_can_be_said() -> None:
    plan = compose_search(
        flags={"pairs": 2}, methods=["dreambooth"], factors=[9, 1], changes={"steps": 7}
    )
    assert list(plan.entries) == ["dreambooth@x1", "dreambooth@x9"] and plan.pairs == 2
    _, (one, nine) = resolve(plan, "toybox")
    assert one.recipe.steps == nine.recipe.steps == 7
    assert nine.recipe.learning_rate == pytest.approx(9 * one.recipe.learning_rate)


def test_other_settings_are_a_plan(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text('pairs = 1\n[entries]\n"customvideo@nu-0" = { nu = 0.0 }\n')
    plan = compose_search(file, {"seeds": 3})
    assert plan.entries == {"customvideo@nu-0": {"method": "customvideo", "nu": 0.0}}
    # What it does not say is a search's, not a benchmark's.
    assert (plan.edition, plan.prompts, plan.seeds) == ("toybox-development", 2, 3)
    assert not plan.base and not plan.ceiling and plan.pairs == 1
    with pytest.raises(ConfigError, match="no --method"):
        compose_search(file, methods=["mudi"])
    file.write_text("[entries]\ncustomvideo = {}\n")
    with pytest.raises(ConfigError, match="'customvideo@SETTING'"):
        compose_search(file)


def test_a_label_says_the_method(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text('[entries]\n"dreamvideo@slow" = { learning_rate = 1e-5 }\n')
    _, (entry,) = resolve(compose_search(file), "toybox")
    assert entry.recipe.method == "dreamvideo"
    file.write_text('[entries]\n"dreamvideo@slow" = { method = "mudi" }\n')
    with pytest.raises(ConfigError, match=r"setting of mudi; call it 'mudi@slow'"):
        compose_search(file)
    file.write_text('[entries]\n"dreamvido@slow" = { learning_rate = 1e-5 }\n')
    with pytest.raises(ConfigError, match="of no method"):
        compose_search(file)
    # A name of one's own is as good, if something says the method.
    file.write_text('[entries]\n"mine@slow" = { method = "mudi" }\n')
    assert list(compose_search(file).entries) == ["mine@slow"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"methods": ["dreambooht"]}, "no method 'dreambooht'"),
        ({"methods": ["mudi", "vace"]}, "'vace' trains nothing and has no rates"),
        ({"factors": [0.0]}, "factor above 0"),
        ({"factors": [math.inf]}, "factor above 0"),
        ({"factors": [math.nan]}, "factor above 0"),
        ({"factors": [1, 1.0001]}, r"factors 1 and 1\.0001 are too close"),
        ({"flags": {"edition": "toybocks"}}, "no edition or folder 'toybocks'"),
    ],
)
def test_what_cannot_be_searched(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(Exception, match=said):
        compose_search(**asked)


def write_search(folder: Path, rows: list[ResultRow]) -> Path:
    """A folder as `bench run` leaves it: rows, and the description of a job for each label."""
    write_rows(folder / "rows.csv", rows)
    told = {"version": 1, "edition_from": "toybox-development"}
    (folder / "bench.json").write_text(json.dumps(told))
    for label, rate in RATES.items():
        recipe = compose_recipe([*QUICK.items(), ("learning_rate", rate)])
        made = Made(label, "fp32", (("tom", "cat", "1a"), ("rex", "dog", "2b")))
        job = a_job(method=label, recipe=recipe, made=made)
        JobFolder(folder / "jobs" / job.digest).describe(job)
    return folder


def scored(**changes: float) -> list[ResultRow]:
    """Rows of the three settings on eight pairs: the same, but that `changes` are added."""
    one = make_rows(["customvideo"], pairs=8, larger=0)
    return [
        replace(row, method=label, headline=(row.headline or 0) + changes.get(label[-2:], 0.0))
        for label in RATES
        for row in one
    ]


def test_the_best_headline_wins(tmp_path: Path) -> None:
    found = trials(write_search(tmp_path, scored(x1=0.1, x3=0.05)))
    assert [trial.label for trial in found] == list(RATES)
    assert [trial.won for trial in found] == [False, True, False]
    assert [trial.recipe.learning_rate for trial in found] == list(RATES.values())
    leads = [trial.lead for trial in found]
    assert [lead and round(lead.mean, 6) for lead in leads] == [-0.1, 0.05, -0.05]


def test_a_trial_that_lacks_videos_cannot_win(tmp_path: Path) -> None:
    rows = scored(x1=0.1)
    short = [row for row in rows if row.method != "customvideo@x1" or row.combination[-1] != "0"]
    folder = write_search(tmp_path, short)
    found = {trial.setting: trial for trial in trials(folder)}
    assert not found["x1"].complete and not found["x1"].won
    text = log(folder, trials(folder)).read_text(encoding="utf-8")
    assert "cannot win: customvideo@x1." in text


def test_as_many_videos_as_the_others_are_not_all_of_them(tmp_path: Path) -> None:
    short = [
        row
        for row in scored(x1=0.1)
        if row.combination[-1] != {"customvideo@x1": "0", "customvideo@x3": "1"}.get(row.method)
    ]
    found = {trial.setting: trial for trial in trials(write_search(tmp_path, short))}
    assert [one.setting for one in found.values() if one.complete] == ["x0.333"]
    assert found["x0.333"].won


def test_everything_is_logged(tmp_path: Path) -> None:
    folder = write_search(tmp_path, scored(x3=0.1))
    table = log(folder, trials(folder))
    assert table == folder / "search" / "search.md"
    assert (folder / "search" / "rows.csv").read_bytes() == (folder / "rows.csv").read_bytes()
    text = table.read_text(encoding="utf-8")
    assert "3 settings of each method, the same 8 subject sets" in text
    lines = [line for line in text.splitlines() if line.startswith("| customvideo")]
    assert len(lines) == 3 and "**x3** | 0.0009 | 0.0017 | 2 | **" in lines[2]
    assert "+0.100" in lines[2] and "**" not in lines[0]
    assert "so look further: customvideo@x3." in text
    # Asked again, it says the same.
    before = table.read_bytes()
    assert log(folder, trials(folder)).read_bytes() == before


def test_a_search_runs_logs_and_says_what_won(tmp_path: Path) -> None:
    edition = write_edition(tmp_path / "toys")
    quick = json.dumps(QUICK["sampling"]["num_steps"])
    sets = [f"{key}={json.dumps(value)}" for key, value in QUICK.items() if key != "sampling"]
    sets += [f"sampling.num_steps={quick}", "sampling.frames=2"]
    flags: list[object] = [part for one in sets for part in ("--set", one)]
    flags += ["--edition", edition, "--method", "customvideo", "--factor", "1", "--factor", "3"]
    flags += ["--pairs", "1", "--prompts", "1", "--device", "cpu", "--out", tmp_path / "out"]
    result = run_cli("bench", "search", *flags)
    assert result.exit_code == 0, result.output
    assert "2 jobs: 0 are done" in result.output and "Best of customvideo: x" in result.output
    text = (tmp_path / "out" / "search" / "search.md").read_text(encoding="utf-8")
    assert "| customvideo |" in text
    labels = {row.method for row in read_rows(tmp_path / "out" / "search" / "rows.csv")}
    assert labels == {"customvideo@x1", "customvideo@x3"}
    # More factors are added to what is there.
    more = run_cli("bench", "search", *flags, "--factor", "0.5")
    assert more.exit_code == 0 and "3 jobs: 2 are done, 1 to do" in more.output
