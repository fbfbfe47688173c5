"""Recipes: TOML in and out, settings from the command line, and one sentence for what is wrong."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from customvideo.config import (
    Recipe,
    SubjectEntry,
    apply_keys,
    apply_sets,
    compose_recipe,
    default_recipe,
    dump_toml,
    load_recipe,
    parse_set,
    recipe_names,
)
from customvideo.errors import ConfigError
from customvideo.methods.base import load_method
from customvideo.methods.customvideo import CustomVideoConfig
from customvideo.subjects.folders import SubjectSpec
from customvideo.training.config import FREE_ON_RESUME, TrainerConfig

PACKAGED = sorted(path.name for path in (files("customvideo") / "recipes").iterdir())


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", PACKAGED)
def test_every_packaged_recipe_is_whole(name: str) -> None:
    text = (files("customvideo") / "recipes" / name).read_text(encoding="utf-8")
    values = tomllib.loads(text)
    recipe = load_recipe(name.removesuffix(".toml"))
    assert name.startswith(f"{recipe.method}-")
    assert (recipe.method, recipe.backbone) == (values["method"], values["backbone"])
    assert recipe.steps == values["steps"]
    assert values["method_options"].items() <= recipe.method_options.items()
    load_method(recipe.method, recipe.method_options)


def test_the_published_recipe_goes_by_its_own_name(tmp_path: Path) -> None:
    large = compose_recipe([("backbone", "zeroscope")], "customvideo-paper")
    assert large == load_recipe("customvideo-paper-unet3d")
    assert (large.method, large.steps, large.batch_size) == ("customvideo", 500, 2)
    assert (large.learning_rate, large.word_learning_rate, large.warmup) == (4e-5, 4e-5, 0)
    options = CustomVideoConfig(**large.method_options)
    assert (options.attention_loss, options.attention_weight, options.nu) == ("mse", 0.2, 0.05)
    assert (options.compose, options.background, options.initial) == ("panel", "keep", "rare")
    assert (options.train, options.rank, options.masked_weight) == ("kv", 0, 1.0)
    assert (options.prior_weight, options.prior_samples, options.level_high) == (1.0, 200, 400)
    toy = load_recipe("customvideo-paper")
    assert toy == load_recipe(Path("customvideo-paper-toybox")) and toy.backbone == "toybox"
    other = {"attention_weight", "masked_weight"}
    assert all(toy.method_options[key] == large.method_options[key] for key in other)
    assert compose_recipe([("nu", 0.1)], "customvideo-paper").method_options["nu"] == 0.1
    assert load_recipe(write(tmp_path / "run.toml", dump_toml(toy))) == toy


def test_a_packaged_recipe_by_name_owes_nothing_to_the_usual_one() -> None:
    """What it leaves out is a setting's default, whatever the usual recipe is tuned to."""
    usual, paper = default_recipe(), load_recipe("customvideo-paper")
    assert usual.pool != TrainerConfig().pool == paper.pool
    assert {"customvideo-paper-toybox", "customvideo-toybox"} < set(recipe_names())


def test_a_file_goes_before_a_packaged_recipe_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "customvideo-paper", "steps = 7\n")
    assert load_recipe("customvideo-paper").steps == 7


def test_the_two_packaged_recipes_differ_as_their_models_do() -> None:
    toy, large = default_recipe(), default_recipe(backbone="zeroscope")
    assert toy.backbone == "toybox"
    assert (large.learning_rate, large.steps, large.batch_size) == (4e-5, 500, 2)
    assert toy.learning_rate > 2 * large.learning_rate
    assert toy.word_learning_rate > 5 * large.word_learning_rate
    for other in ("cerspense/zeroscope_v2_576w", "some/folder", "modelscope"):
        assert default_recipe(backbone=other) == large.model_copy(update={"backbone": other})


def test_a_recipe_survives_toml(tmp_path: Path) -> None:
    recipe = apply_sets(default_recipe(), ["nu=0.1", "canvas=[64, 96]", "subjects.tom=photos/tom"])
    text = dump_toml(recipe)
    assert load_recipe(write(tmp_path / "recipe.toml", text)) == recipe
    assert dump_toml(load_recipe(tmp_path / "recipe.toml")) == text
    values = tomllib.loads(text)
    assert values["steps"] == recipe.steps
    assert values["checkpoint_every"] == recipe.checkpoint_every
    assert values["method_options"]["nu"] == 0.1
    assert values["subjects"]["tom"]["folder"] == "photos/tom"


def test_what_a_recipe_leaves_out_comes_from_the_packaged_one(tmp_path: Path) -> None:
    text = 'backbone = "zeroscope"\nsteps = 7\n[method_options]\nnu = 0.2\n'
    recipe = load_recipe(write(tmp_path / "short.toml", text))
    usual = default_recipe(backbone="zeroscope")
    assert (recipe.steps, recipe.learning_rate) == (7, usual.learning_rate)
    assert recipe.method_options == usual.method_options | {"nu": 0.2}


def test_subjects_as_tables_or_folders(tmp_path: Path) -> None:
    text = '[subjects]\ntom = "photos/tom"\n[subjects.rex]\nfolder = "b"\ncategory = "dog"\n'
    recipe = load_recipe(write(tmp_path / "recipe.toml", text))
    assert recipe.subjects["tom"] == SubjectEntry(folder="photos/tom")
    assert recipe.specs == [
        SubjectSpec("tom", Path("photos/tom"), None),
        SubjectSpec("rex", Path("b"), "dog"),
    ]


@pytest.mark.parametrize(
    ("setting", "read"),
    [
        ("steps=20", lambda recipe: recipe.steps == 20),
        ("learning_rate=1e-3", lambda recipe: recipe.learning_rate == 1e-3),
        ("learning_rate=1", lambda recipe: recipe.learning_rate == 1.0),
        ("canvas=[64, 96]", lambda recipe: recipe.canvas == (64, 96)),
        ("method_options.nu=0.1", lambda recipe: recipe.method_options["nu"] == 0.1),
        ("nu=0.1", lambda recipe: recipe.method_options["nu"] == 0.1),
        ("num_steps=3", lambda recipe: recipe.sampling.num_steps == 3),
        ("sampling.guidance = 2.5", lambda recipe: recipe.sampling.guidance == 2.5),
        ("segmenter=sam", lambda recipe: recipe.masks.segmenter == "sam"),
        ('tracker="tensorboard"', lambda recipe: recipe.tracker == "tensorboard"),
        ("backbone=a/b", lambda recipe: recipe.backbone == "a/b"),
        ("prior_prompt=a toy {category}", lambda r: "toy" in r.method_options["prior_prompt"]),
        ("subjects.tom.folder=a", lambda recipe: recipe.subjects["tom"].folder == "a"),
        ("negative=1\nsteps=2", lambda recipe: recipe.sampling.negative == "1\nsteps=2"),
    ],
)
def test_a_setting_is_found_and_read(setting: str, read: object) -> None:
    assert callable(read)
    assert read(apply_sets(default_recipe(), [setting]))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stepz=20", "no setting 'stepz'; did you mean 'steps'?"),
        ("atention_weight=1", "did you mean 'method_options.attention_weight'?"),
        ("method_options.atention_weight=1", "did you mean 'method_options.attention_weight'?"),
        ("sampling.num_step=1", "did you mean 'sampling.num_steps'?"),
        ("model_options.nu=1", "did you mean 'method_options.nu'?"),
        ("steps=many", "'steps' cannot be 'many': it should be a valid integer"),
        ("steps=0", "'steps' cannot be 0: it should be greater than or equal to 1"),
        ("steps=true", "'steps' cannot be True: it should be a valid integer"),
        ("nu=-1", "'method_options.nu' cannot be -1: it should be greater"),
        ("sampling.guidance=warm", "'sampling.guidance' cannot be 'warm'"),
        ("canvas=[1, 2, 3]", "'canvas' cannot be"),
        ("steps", "Cannot set 'steps'; write key=value"),
        ("=3", "write key=value"),
        ("method=dreambooh", "no method 'dreambooh'"),
        ("nu.deep=1", "no setting 'nu.deep'"),
        ("sampling.nu=1", "did you mean 'method_options.nu'?"),
        ("STEPS=1", "did you mean 'steps'?"),
        ("prior_prompt=hello {cat}", "should be text with {category} in it"),
        ("prior_prompt=hello", "should be text with {category} in it"),
        ("seed=99999999999999999999", "less than or equal to 9223372036854775807"),
    ],
)
def test_a_wrong_setting_is_one_sentence(setting: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        apply_sets(default_recipe(), [setting])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_ambiguous_leaf_lists_its_meanings(monkeypatch: pytest.MonkeyPatch) -> None:
    from customvideo import config

    monkeypatch.setattr(config, "known_keys", lambda cls: ["sampling.seed", "masks.seed"])
    with pytest.raises(ConfigError, match=r"write one of sampling\.seed, masks\.seed"):
        apply_sets(default_recipe(), ["seed=1"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz = 3", "no setting 'stepz'; did you mean 'steps'?"),
        ("[method_options]\nnuu = 3", "'method_options.nuu'; did you mean 'method_options.nu'?"),
        ("[subjects.tom]\ncategory = 'cat'", "'subjects.tom.folder' is missing"),
        ("method_options = 3", "'method_options' cannot be 3"),
        ("method = 3", "no method '3'"),
        ("steps = ", "is not valid TOML"),
    ],
)
def test_a_wrong_recipe_names_its_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe(write(tmp_path / "recipe.toml", text))
    assert message in str(error.value)
    assert str(tmp_path / "recipe.toml") in str(error.value)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml' cannot be read \(no such file") as error:
        load_recipe(tmp_path / "none.toml")
    assert "name one of custom_diffusion-toybox, " in str(error.value)


def test_the_trainers_settings_are_top_level_keys() -> None:
    assert set(TrainerConfig.model_fields) < set(Recipe.model_fields)
    assert set(TrainerConfig.model_fields) > FREE_ON_RESUME


@pytest.mark.parametrize("key", ["backbone", "method"])
def test_a_change_of_backbone_or_method_chooses_the_packaged_recipe(
    key: str, tmp_path: Path
) -> None:
    file = write(tmp_path / "recipe.toml", "warmup = 3\n")
    large = default_recipe(backbone="zeroscope")
    assert compose_recipe([("backbone", "zeroscope")]) == large
    kept = large.model_copy(update={"warmup": 3})
    assert compose_recipe([("backbone", "zeroscope")], file) == kept
    with pytest.raises(ConfigError, match=f"^There is no method|'{key}' cannot be"):
        compose_recipe([(key, 3)], file)


@pytest.mark.parametrize(
    "change",
    [
        "method_options={nu=0.1}",
        ("method_options", {"nu": np.float64(0.1)}),
        ("method_options", CustomVideoConfig(**default_recipe().method_options | {"nu": 0.1})),
    ],
)
def test_a_table_changes_only_the_keys_it_has(change: str | tuple[str, object]) -> None:
    usual = default_recipe()
    changed = apply_keys(usual, [parse_set(change) if isinstance(change, str) else change])
    assert changed.method_options == usual.method_options | {"nu": 0.1}
    assert changed.model_copy(update={"method_options": usual.method_options}) == usual


def test_a_subject_may_change_from_its_folder_to_a_table() -> None:
    sets = ["subjects.tom=photos/tom", "subjects.tom.category=cat"]
    subjects = apply_sets(default_recipe(), sets).subjects
    assert subjects == {"tom": SubjectEntry(folder="photos/tom", category="cat")}
    with pytest.raises(ConfigError, match="'method_options' is 3"):
        apply_sets(default_recipe(), ["method_options=3", "method_options.nu=1"])


def test_settings_from_python_need_not_be_toml() -> None:
    keys = {"canvas": None, "prior_cache": Path("a"), "seed": np.int64(3), "sampling": {}}
    recipe = apply_keys(apply_sets(default_recipe(), ["canvas=[64, 96]"]), keys.items())
    assert recipe == default_recipe().model_copy(update={"prior_cache": "a", "seed": 3})
    with pytest.raises(ConfigError, match="'steps' cannot be None"):
        apply_keys(recipe, [("steps", None)])
