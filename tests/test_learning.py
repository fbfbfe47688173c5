"""Runs of the user's own material: what is checked first, what is said, what stays after a fall."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import customvideo
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.config import default_recipe
from customvideo.errors import ConfigError, StorageError
from customvideo.generation import CustomVideoWarning
from customvideo.methods.base import load_method
from customvideo.runs import TrainPlan, learning
from customvideo.runs.folder import require_writable, undone_on_error
from customvideo.runs.learning import recipe_of
from customvideo.runs.masking import mask_effect, say_masks
from customvideo.training.interrupt import Interrupted
from customvideo.training.progress import read_losses
from tests.cast import make_cast
from tests.surroundings import run_cli, train, write_pair, write_photos

QUICK: dict[str, Any] = {
    "steps": 1,
    "batch_size": 1,
    "pool": 2,
    "held_out": 0,
    "canvas": (64, 96),
    "prior_weight": 0.0,
}


@pytest.fixture(scope="module")
def backbone(tiny_zeroscope: Path) -> Backbone:
    return load_backbone(tiny_zeroscope, device="cpu")


# The Python API


def test_customize_takes_tables_and_python_values(backbone: Backbone, tmp_path: Path) -> None:
    options = {"nu": 0.2, "prior_weight": 0.0}
    keys = QUICK | {"steps": np.int64(1), "canvas": None, "prior_cache": tmp_path}
    del keys["prior_weight"]
    adapter = customvideo.customize(
        backbone, make_cast(), method_options=options, sampling={"num_steps": 2}, **keys
    )
    usual = default_recipe(backbone=backbone.name).method_options
    assert adapter.header.settings == usual | options


def test_an_error_while_customizing_leaves_nothing(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        (tmp_path / "run" / "checkpoints").mkdir(parents=True)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(learning.Trainer, "fit", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        customvideo.customize(backbone, make_cast(), tmp_path / "run", **QUICK)
    assert not list(tmp_path.iterdir())


def test_a_category_the_backbone_never_learned_is_warned_of(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone, "known_nouns", frozenset({"cat", "duck"}))
    with pytest.warns(CustomVideoWarning, match=r"never learned 'dog'.*knows cat, duck") as caught:
        customvideo.customize(backbone, make_cast(), **QUICK)
    assert len(caught) == 1 and caught[0].filename == __file__


# Recipes


def test_a_backbone_that_is_set_brings_its_own_recipe(tmp_path: Path) -> None:
    def say(text: str) -> None:
        raise AssertionError(f"nothing should be said, least of all: {text}")

    recipe = recipe_of(TrainPlan(tmp_path / "run", sets=["backbone=zeroscope"]), say)
    assert recipe == default_recipe(backbone="zeroscope")


def test_a_run_goes_on_from_any_folder(
    tiny_zeroscope: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pair(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    nearby = Path(os.path.relpath(tiny_zeroscope))
    assert train(Path("run"), ["--subject", "tom:cat=photos/tom"], nearby).exit_code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = run_cli("train", "--out", "../run", "--resume", "--set", "steps=5")
    assert result.exit_code == 0, result.output
    # Whose disk it was is nobody's business who is given the adapter.
    assert str(tmp_path).encode() not in Path("../run/adapter.safetensors").read_bytes()


def test_groups_of_a_run_are_in_its_recipe(tmp_path: Path) -> None:
    texts = ["tom:cat=a", "rex:dog=b", "tom+rex=c"]
    recipe = recipe_of(TrainPlan(tmp_path / "run", texts), print)
    assert list(recipe.subjects) == ["tom", "rex"] and recipe.groups == {"tom+rex": "c"}
    again = recipe_of(TrainPlan(tmp_path / "run", sets=['groups={"tom+rex"="c"}']), print)
    assert again.group_specs == recipe.group_specs


def test_a_run_learns_from_group_photos(tiny_zeroscope: Path, tmp_path: Path) -> None:
    (tmp_path / "together").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (48, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "together" / "01.png")
    pair = write_pair(tmp_path / "photos")
    flags = [*pair, "--subject", f"tom+rex={tmp_path / 'together'}"]
    result = train(tmp_path / "run", flags, tiny_zeroscope)
    assert result.exit_code == 2 and "Nobody says where <tom> is" in result.output
    boxes = [{"label": "tom", "bbox": [0, 0, 0.5, 1]}, {"label": "rex", "bbox": [0.5, 0, 1, 1]}]
    (tmp_path / "together" / "01.bbox").write_text(json.dumps(boxes))
    result = train(tmp_path / "run", flags, tiny_zeroscope)
    assert result.exit_code == 0, result.output
    assert "together" in (tmp_path / "run" / "recipe.toml").read_text()


def test_a_run_says_what_masks_did(tiny_zeroscope: Path, tmp_path: Path) -> None:
    pair = write_pair(tmp_path / "photos")
    result = train(tmp_path / "run", pair, tiny_zeroscope)
    assert "What 'customvideo' does with masks: attention control" in result.output
    assert "the masks covered" in result.output and "inside them and" in result.output
    lines = read_losses(tmp_path / "run" / "losses.jsonl")
    assert all(set(line["measured"]) == {"covered", "inside", "outside"} for line in lines)
    assert all(0 < line["measured"]["covered"] < 1 for line in lines)
    said: list[str] = []
    say_masks(load_method("custom_diffusion"), make_cast(), tmp_path, said.append)
    assert said[-1].startswith("The method 'custom_diffusion' reads no masks but to crop photos")
    assert mask_effect(tmp_path / "nothing") == ""


# Folders


def begin(out: Path, error: BaseException) -> None:
    with undone_on_error(out):
        (out / "masks").mkdir(parents=True)
        raise error


@pytest.mark.parametrize("error", [ConfigError("no"), KeyError("cat"), RuntimeError("memory")])
def test_any_error_at_the_start_leaves_nothing(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)):
        begin(tmp_path / "deep" / "run", error)
    assert not list(tmp_path.iterdir())


def test_an_error_leaves_what_was_there_before(tmp_path: Path) -> None:
    (tmp_path / "losses.jsonl").write_text("")
    with pytest.raises(ConfigError):
        begin(tmp_path, ConfigError("no"))
    assert [path.name for path in tmp_path.iterdir()] == ["losses.jsonl"]


@pytest.mark.parametrize("error", [Interrupted("later"), KeyboardInterrupt()])
def test_a_stop_keeps_what_was_begun(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)):
        begin(tmp_path / "run", error)
    assert (tmp_path / "run" / "masks").is_dir()


def test_a_place_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    require_writable(tmp_path)
    require_writable(tmp_path / "deep" / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(StorageError, match="choose another"):
        require_writable(tmp_path / "notes.txt" / "run")


# What a run says


def test_a_run_tells_of_its_masks_and_of_an_odd_one(tiny_zeroscope: Path, tmp_path: Path) -> None:
    folder, out = write_photos(tmp_path / "tom", count=4), tmp_path / "run"
    (folder / "masks" / "0.png").unlink()
    small = np.zeros((48, 56), np.uint8)
    small[:8, :16] = 255
    Image.fromarray(small).save(folder / "masks" / "2.png")
    result = train(out, ["--subject", f"tom:cat={folder}"], tiny_zeroscope)
    assert result.exit_code == 0, result.output
    assert "Finding <tom> in 1 photo\n" in result.stdout
    (note,) = [line for line in result.stderr.splitlines() if "mask of" in line]
    assert "'2.png' covers 5%" in note and str(out / "masks" / "tom" / "2.png") in note


def test_a_stop_while_loading_does_not_speak_of_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(learning, "load_backbone", stop)
    pair = write_pair(tmp_path / "photos")
    result = run_cli("train", *pair, "--out", tmp_path / "run")
    assert result.exit_code == 130 and "nothing was made" in result.stderr
    assert not (tmp_path / "run").exists()
