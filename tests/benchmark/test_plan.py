"""What a benchmark run is asked for: files, flags, entries, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from customvideo.benchmark.plan import BASE, BenchPlan, compose_plan, packaged_entries, resolve
from customvideo.config import compose_recipe, default_recipe, dump_toml
from customvideo.errors import ConfigError
from customvideo.methods.base import METHODS

PLAN = """
edition = "toybox"
pairs = 12
[changes]
steps = 100
[entries]
plain = {}
mine = { recipe = "recipes/mine.toml", nu = 0.2 }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "recipes").mkdir()
    recipe = compose_recipe([("learning_rate", 7e-4), ("nu", 0.5)])
    (tmp_path / "recipes" / "mine.toml").write_text(dump_toml(recipe), encoding="utf-8")
    path = tmp_path / "plan.toml"
    path.write_text(PLAN, encoding="utf-8")
    return path


def test_nothing_asked_for_is_everything() -> None:
    plan = compose_plan()
    assert plan.entries == packaged_entries()
    assert (plan.edition, plan.pairs, plan.prompts) == ("toybox", None, None)


def test_flags_come_after_the_file(file: Path) -> None:
    plan = compose_plan(file, {"pairs": 3, "seeds": 4}, changes={"steps": 9})
    assert (plan.pairs, plan.seeds, plan.changes["steps"]) == (3, 4, 9)
    assert compose_plan(file).changes["steps"] == 100


def test_an_entry_is_its_packaged_recipe_changed_twice(file: Path) -> None:
    base, (plain, mine) = resolve(compose_plan(file), "toybox")
    assert (base.label, plain.label, mine.label) == (BASE, "plain", "mine")
    assert plain.recipe == compose_recipe([("backbone", "toybox"), ("steps", 100)])
    # The file first, what the plan changes for all, and last what the entry changes itself.
    assert mine.recipe.learning_rate == 7e-4 and mine.recipe.steps == 100
    assert mine.recipe.method_options["nu"] == 0.2
    assert base.recipe.sampling == plain.recipe.sampling


def test_an_ablation_stays_one_whatever_all_entries_change() -> None:
    plan = BenchPlan(entries={"off": {"attention_weight": 0.0}}, changes={"attention_weight": 2.0})
    _, (off,) = resolve(plan, "toybox")
    assert off.recipe.method_options["attention_weight"] == 0.0


def test_entries_can_be_picked_from_the_plan_the_package_or_a_file(file: Path) -> None:
    picks = ["plain", "customvideo-no-control", f"third={file.parent / 'recipes' / 'mine.toml'}"]
    plan = compose_plan(file, picks=picks)
    assert list(plan.entries) == ["plain", "customvideo-no-control", "third"]
    assert resolve(plan, "toybox")[1][2].recipe.learning_rate == 7e-4


def test_a_packaged_recipe_goes_by_its_name(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('[entries]\npaper = { recipe = "customvideo-paper" }')
    for backbone in ("toybox", "zeroscope"):
        _, (paper,) = resolve(compose_plan(plan), backbone)
        assert paper.recipe == compose_recipe([("backbone", backbone)], "customvideo-paper")
        assert paper.recipe.backbone == backbone


@pytest.mark.parametrize("backbone", ["toybox", "zeroscope"])
def test_every_packaged_entry_can_be_made(backbone: str) -> None:
    """A line of the list that a method or setting does not understand is found here."""
    _, entries = resolve(BenchPlan(entries=packaged_entries()), backbone)
    assert {entry.recipe.backbone for entry in entries} == {backbone}
    # What the complete method does anyway is no ablation there.
    labels = {entry.label for entry in entries}
    same = {"customvideo-panel", "customvideo-together", "customvideo-no-regions"}
    repeats = {"toybox": {"customvideo-paste"}, "zeroscope": same}
    assert labels == packaged_entries().keys() - repeats[backbone]
    # A method that is in the table is compared, unless its model is none of the base model's.
    assert METHODS.keys() - {"vace"} == {entry.recipe.method for entry in entries}


def test_vace_is_compared_where_it_is_asked_for() -> None:
    """Nobody should fetch its large model unasked, and the toybox has none."""
    (vace,) = resolve(compose_plan(picks=["vace=vace"]), "zeroscope")[1]
    assert (vace.label, vace.recipe) == ("vace", default_recipe("vace", "zeroscope"))
    picked = BenchPlan(entries={"mine": {"method": "vace", "views": 2}})
    (mine,) = resolve(picked, "zeroscope")[1]
    assert mine.recipe.method_options == vace.recipe.method_options | {"views": 2}


def test_seeds_go_on_counting_from_training_to_training() -> None:
    plan = BenchPlan(seeds=2, trainings=3)
    assert [list(plan.seeds_of(training)) for training in range(3)] == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"entries": {"mine": {"method": "dreambooht"}}}, ("'mine'", "no method 'dreambooht'")),
        ({"entries": {"mine": {"nuu": 1.0}}}, ("'mine'", "'nuu'", "did you mean")),
        ({"entries": {"base": {}}}, ("'base'", "label")),
        ({"entries": {"My own": {}}}, ("'My own'", "lower-case")),
        ({"entries": {"one": {}, "two": {"nu": 0.05}}}, ("'one' and 'two'", "same recipe")),
        ({"entries": {"mine": {"recipe": "nowhere.toml"}}}, ("'mine'", "nowhere.toml")),
        ({"changes": {"stepz": 3}, "entries": {"a": {}}}, ("'stepz'", "did you mean 'steps'")),
        ({}, ("no entry",)),
    ],
)
def test_what_cannot_be_resolved(settings: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(BenchPlan(**settings), "toybox")
    assert all(part in str(caught.value) for part in parts), caught.value


def test_a_backbone_has_to_be_named_where_the_edition_names_none() -> None:
    plan = BenchPlan(edition="photos", entries={"customvideo": {}})
    with pytest.raises(ConfigError, match="--set backbone=zeroscope"):
        resolve(plan, None)
    named = BenchPlan(entries={"customvideo": {}}, changes={"backbone": "toybox"})
    assert resolve(named, None)[0].recipe.backbone == "toybox"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("pears = 3", ("'pears'", "did you mean 'pairs'")),
        ("pairs = 0", ("'pairs'",)),
        ("pairs = ", ("not valid TOML", "plan.toml")),
        ("[entries]\nmine = 3", ("'entries.mine'",)),
    ],
)
def test_a_plan_that_cannot_be_read(text: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        compose_plan(file)
    assert all(part in str(caught.value) for part in parts), caught.value


def test_a_missing_plan_and_an_unknown_entry(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        compose_plan(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="did you mean 'customvideo'"):
        compose_plan(picks=["customvdeo"])
