"""Runs from Python: recipes put together, folders claimed, adapters finding their backbones."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

import customvideo
from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.config import load_recipe
from customvideo.errors import ConfigError, EvaluationError, StorageError, SubjectError
from customvideo.runs import EvaluatePlan, GeneratePlan, TrainPlan, evaluate, generate, scoring
from customvideo.runs.calling import command
from customvideo.runs.folder import claim, loss_curves, undone_on_error
from customvideo.runs.learning import recipe_of
from customvideo.runs.making import sampling_for, watchable_scale
from customvideo.training.interrupt import Interrupted
from customvideo.video import Video
from tests.cast import make_cast
from tests.evaluation.conftest import tiny_clip, tiny_dino  # noqa: F401
from tests.evaluation.finders import HalvesFinder
from tests.surroundings import train, write_pair
from tests.tiny_wan import build_tiny_wan

QUICK = {
    "steps": 2,
    "batch_size": 1,
    "pool": 2,
    "held_out": 0,
    "canvas": (64, 96),
    "prior_weight": 0.0,
}


@pytest.fixture(scope="module")
def backbone(tiny_zeroscope: Path) -> Backbone:
    return load_backbone(tiny_zeroscope, device="cpu")


def said_nothing(text: str) -> None:
    raise AssertionError(f"nothing should be said, least of all: {text}")


# The Python API


def test_customize_in_six_lines(backbone: Backbone, tmp_path: Path) -> None:
    subjects = make_cast()
    adapter = customvideo.customize(backbone, subjects, tmp_path / "run", **QUICK)
    assert [word.word for word in adapter.words] == ["<tom>", "<rex>"]
    options = customvideo.SamplingConfig(num_steps=2, frames=2, height=64, width=96)
    video = customvideo.generate(backbone, adapter, "a <tom> cat and a <rex> dog", options=options)
    assert video.frames.shape == (2, 64, 96, 3)
    saved = Adapter.load(tmp_path / "run" / "adapter.safetensors")
    assert saved.state_dict().keys() == adapter.state_dict().keys()
    assert all(
        np.array_equal(saved.state_dict()[key].numpy(), value.detach().numpy())
        for key, value in adapter.state_dict().items()
    )


def test_customize_writes_nothing_unless_asked(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    customvideo.customize(backbone, make_cast(), **(QUICK | {"steps": 1}))
    assert not list(tmp_path.iterdir())


def test_customize_suggests_a_key(backbone: Backbone) -> None:
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        customvideo.customize(backbone, make_cast(), stepz=3)


def test_customize_does_not_write_over_a_run(backbone: Backbone, tmp_path: Path) -> None:
    (tmp_path / "adapter.safetensors").write_text("precious")
    with pytest.raises(ConfigError, match="already holds a run"):
        customvideo.customize(backbone, make_cast(), tmp_path, **QUICK)


# Recipes


def test_flags_win_over_sets_and_sets_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("seed = 1\nsteps = 7\nwarmup = 2\n")
    plan = TrainPlan(
        tmp_path / "run",
        recipe=tmp_path / "my.toml",
        sets=["seed=2", "steps=8"],
        choices={"seed": 3, "backbone": None},
    )
    recipe = recipe_of(plan, said_nothing)
    assert (recipe.seed, recipe.steps, recipe.warmup) == (3, 8, 2)


def test_a_named_backbone_brings_its_own_recipe(tmp_path: Path) -> None:
    plan = TrainPlan(tmp_path / "run", choices={"backbone": "zeroscope"})
    recipe = recipe_of(plan, said_nothing)
    assert recipe.backbone == "zeroscope"
    assert recipe.steps == customvideo.config.default_recipe(backbone="zeroscope").steps


def test_without_a_backbone_it_says_that_it_takes_the_toybox(tmp_path: Path) -> None:
    lines: list[str] = []
    recipe = recipe_of(TrainPlan(tmp_path / "run"), lines.append)
    assert recipe.backbone == "toybox"
    assert len(lines) == 1 and "toybox" in lines[0] and "--backbone" in lines[0]


def test_subjects_given_replace_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text('[subjects]\nold = "photos/old"\n')
    plan = TrainPlan(
        tmp_path / "run",
        subjects=["tom:cat=photos/tom", "ada=photos/ada"],
        recipe=tmp_path / "my.toml",
    )
    subjects = recipe_of(plan, said_nothing).subjects
    assert list(subjects) == ["tom", "ada"]
    assert subjects["tom"].category == "cat" and subjects["ada"].category == ""


def test_one_word_for_two_subjects_is_refused(tmp_path: Path) -> None:
    plan = TrainPlan(tmp_path / "run", ["tom:cat=a", "tom:dog=b"], choices={"backbone": "toybox"})
    with pytest.raises(SubjectError, match="share the word '<tom>'"):
        recipe_of(plan, said_nothing)


# Folders


def test_a_new_or_empty_folder_is_free(tmp_path: Path) -> None:
    claim(tmp_path / "new", resume=False)
    claim(tmp_path, resume=False)
    assert not (tmp_path / "new").exists()


def test_a_start_without_a_checkpoint_may_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("steps = 1")
    (tmp_path / "masks").mkdir()
    (tmp_path / ".partial-left-over").write_text("")
    claim(tmp_path, resume=False)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="is a file"):
        claim(tmp_path / "file", resume=False)


def begin(out: Path, error: Exception) -> None:
    with undone_on_error(out):
        (out / "masks").mkdir(parents=True)
        (out / "recipe.toml").write_text("steps = 1")
        raise error


def test_an_error_at_the_start_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        begin(tmp_path / "run", ConfigError("no"))
    assert not list(tmp_path.iterdir())


def test_an_error_at_the_start_leaves_other_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError):
        begin(tmp_path, ConfigError("no"))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_interruption_keeps_what_was_begun(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        begin(tmp_path / "run", Interrupted("later"))
    assert (tmp_path / "run" / "recipe.toml").is_file()


def test_losses_are_read_by_part(tmp_path: Path) -> None:
    lines = [
        '{"step": 1, "loss": 3.0, "parts": {"reconstruction": 2.0, "attention": 1.0}}',
        '{"step": 2, "loss": 2.5, "parts": {"reconstruction": 2.5}}',
    ]
    (tmp_path / "losses.jsonl").write_text("\n".join(lines) + "\n")
    assert loss_curves(tmp_path) == {
        "loss": [(1, 3.0), (2, 2.5)],
        "reconstruction": [(1, 2.0), (2, 2.5)],
        "attention": [(1, 1.0)],
    }


# Videos


def test_sampling_starts_from_the_recipe_of_the_backbone(backbone: Backbone) -> None:
    usual = customvideo.config.default_recipe(backbone=backbone.name).sampling
    changed = sampling_for(None, backbone, {"guidance": 2.0})
    assert changed.guidance == 2.0
    assert changed.num_steps == usual.num_steps
    with pytest.raises(ConfigError, match="num_steps"):
        sampling_for(None, backbone, {"num_step": 3})


def test_sampling_starts_from_the_recipe_beside_the_adapter(
    backbone: Backbone, tmp_path: Path
) -> None:
    (tmp_path / "recipe.toml").write_text("[sampling]\nnum_steps = 7\n")
    options = sampling_for(tmp_path / "adapter.safetensors", backbone, {"guidance": 2.0})
    assert (options.num_steps, options.guidance) == (7, 2.0)


def test_sampling_without_a_recipe_is_that_of_the_family(tmp_path: Path) -> None:
    """An adapter made on somebody's own folder, copied away from its run."""
    backbone = load_backbone(build_tiny_wan(tmp_path / "my-film-model"), device="cpu")
    assert backbone.name == "my-film-model"
    options = sampling_for(tmp_path / "away" / "adapter.safetensors", backbone, {})
    assert options == customvideo.config.load_recipe("customvideo-wan").sampling
    assert options.solver == "native"


@pytest.mark.parametrize(("width", "scale"), [(96, 4), (200, 1), (160, 2), (576, 1)])
def test_toy_videos_are_enlarged_to_be_watched(width: int, scale: int) -> None:
    assert watchable_scale(Video(np.zeros((1, 8, width, 3), np.uint8))) == scale


def test_generate_says_what_it_wrote(
    backbone: Backbone, tiny_zeroscope: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    plan = GeneratePlan(
        ["a cat"],
        tmp_path / "v.mp4",
        seeds=[3],
        sampling={"num_steps": 1, "frames": 1},
        backbone=str(tiny_zeroscope),
    )
    assert generate(plan, lines.append) == [tmp_path / "v.mp4"]
    assert len(lines) == 1 and "v.mp4" in lines[0] and "seed 3" in lines[0]
    # No --size was asked for, so the toy-sized video is enlarged in the file.
    height, width = backbone.size
    assert Video.load(tmp_path / "v.mp4").size == (4 * height, 4 * width)


def test_the_recipe_of_a_run_reads_back(backbone: Backbone, tmp_path: Path) -> None:
    """A recipe that names a folder as backbone survives being written and read."""
    recipe = customvideo.config.default_recipe(backbone=str(tmp_path))
    (tmp_path / "recipe.toml").write_text(customvideo.config.dump_toml(recipe))
    assert load_recipe(tmp_path / "recipe.toml") == recipe


# Commands to be pasted


def test_commands_are_quoted_for_a_shell() -> None:
    text = command("generate", "a <tom> cat", "--adapter", Path("my runs/adapter.safetensors"))
    assert shlex.split(text) == [
        *("customvideo", "generate", "a <tom> cat"),
        *("--adapter", "my runs/adapter.safetensors"),
    ]


@pytest.mark.parametrize(("found", "shown"), [(True, "customvideo"), (False, None)])
def test_a_program_off_the_path_is_called_by_its_path(
    found: bool, shown: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "some place" / "customvideo"
    program.parent.mkdir()
    program.write_text("")
    monkeypatch.setattr("sys.argv", [str(program)])
    monkeypatch.setattr("shutil.which", lambda _: str(program) if found else None)
    assert shlex.split(command("demo")) == [shown or str(program), "demo"]


# Scores


def test_with_a_finder_scores_look_at_each_subject_alone(
    tiny_zeroscope: Path,
    tiny_clip: Path,  # noqa: F811
    tiny_dino: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def resolve(name: str, model: str | None, device: str) -> HalvesFinder:
        asked.append((name, model, device))
        return HalvesFinder("cat", "dog")

    pair, run = write_pair(tmp_path / "photos"), tmp_path / "run"
    assert train(run, pair, tiny_zeroscope).exit_code == 0
    monkeypatch.setattr(scoring, "resolve_segmenter", resolve)
    plan = EvaluatePlan(
        adapter=run / "adapter.safetensors",
        out=tmp_path / "metrics.json",
        subjects=pair[1::2],
        prompts=["a <tom> cat and a <rex> dog"],
        encoders=(f"clip={tiny_clip}", f"dino={tiny_dino}"),
        device="cpu",
        finder="grounding-dino=some/model",
    )
    lines: list[str] = []
    result = evaluate(plan, lines.append)
    assert asked == [("grounding-dino", "some/model", "cpu")]
    assert result["encoders"] == {"clip": f"clip={tiny_clip}", "dino": f"dino={tiny_dino}"}
    assert json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8")) == result
    assert {"dino_i_crop", "clip_i_crop", "co_occurrence", "bleed", "rank1"} <= result.keys()
    assert result["co_occurrence"] == 1
    assert any(line.split() == ["co_occurrence", "1.000"] for line in lines)


def test_the_toybox_brings_its_own_finder_and_others_bring_none(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    toybox = cast(Backbone, SimpleNamespace(name="toybox"))
    monkeypatch.setattr(scoring, "resolve_segmenter", lambda *names: names)
    assert scoring.finder_for(backbone) is None
    assert scoring.finder_for(toybox) == ("toybox", None, "auto")
    assert scoring.finder_for(backbone, "toybox", "cpu") == ("toybox", None, "cpu")


def test_a_finder_must_be_there_and_the_toybox_has_its_own(backbone: Backbone) -> None:
    with pytest.raises(EvaluationError, match="known are grounding-dino, owlv2, toybox"):
        scoring.finder_for(backbone, "nose")
    assert scoring.finder_for(backbone) is None
    assert scoring.finder_for(cast(Backbone, SimpleNamespace(name="toybox"))) is not None
