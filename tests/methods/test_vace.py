"""VACE: nothing is trained, references travel in the adapter, and the stock pipeline films."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanVACEPipeline
from PIL import Image
from rich.console import Console

from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.backbones.reference_models import Ask, Filming, load_vace
from customvideo.benchmark.commands import _jobs
from customvideo.benchmark.editions import load_edition
from customvideo.benchmark.grid import Job, choose
from customvideo.benchmark.job import Worker
from customvideo.benchmark.kit import Kit
from customvideo.benchmark.plan import BenchPlan, Entry, resolve
from customvideo.benchmark.store import Store
from customvideo.config import compose_recipe
from customvideo.errors import ConfigError, SubjectError
from customvideo.generation import (
    CustomVideoWarning,
    SamplingConfig,
    generate,
    generate_with_attention,
)
from customvideo.methods.base import TuningFree, learned_numbers
from customvideo.methods.customvideo import CustomVideo
from customvideo.methods.rendering import Mixes, Renders, renderer
from customvideo.methods.vace import Vace, VaceConfig
from customvideo.runs.learning import Job as Run
from customvideo.runs.learning import facts, sample_scenes
from customvideo.subjects.references import reference_pictures
from customvideo.subjects.subject import Subject
from customvideo.training.trainer import Trainer
from customvideo.video import Video
from tests.benchmark.small import plan_of, told, write_edition
from tests.cast import make_cast, make_subject, short_run
from tests.surroundings import contents, run_cli, write_pair
from tests.tiny_vace import build_tiny_vace

PROMPT = "a <tom> cat and a <rex> dog"
QUICK = SamplingConfig(num_steps=2, guidance=4.0, frames=6, height=32, width=48)
SMALL = {"drawn_height": 32, "drawn_width": 48}


@pytest.fixture(scope="module")
def backbone(tiny_zeroscope: Path) -> Backbone:
    return load_backbone(tiny_zeroscope, device="cpu")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_vace(tmp_path_factory.mktemp("models") / "tiny-vace")


@pytest.fixture
def tiny_vace(built: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder's name, from where it lies."""
    load_vace.cache_clear()
    monkeypatch.chdir(built.parent)
    return f"./{built.name}"


@pytest.fixture(scope="module")
def cast() -> list[Subject]:
    return make_cast()


def quick(folder: str | Path, **changes: Any) -> Vace:
    return Vace(VaceConfig(video_model=str(folder), **changes))


def difference(one: Video, other: Video) -> int:
    return int(np.abs(one.frames.astype(int) - other.frames).max())


def test_it_trains_nothing(
    backbone: Backbone,
    tiny_vace: str,
    cast: list[Subject],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method, out = quick(tiny_vace), tmp_path / "run"
    assert all(isinstance(method, kind) for kind in (TuningFree, Renders, Mixes))
    assert not isinstance(CustomVideo(), TuningFree)

    def refuse(*_: object) -> None:
        raise AssertionError("a training was prepared")

    monkeypatch.setattr(Trainer, "_prepare", refuse)
    trainer = Trainer(short_run(), out, on_step=refuse, console=Console(quiet=True))
    with caplog.at_level(logging.INFO, logger="customvideo"):
        made = trainer.fit(backbone, method, cast)
        again = trainer.fit(backbone, method, cast, resume=True)
    assert [record.getMessage() for record in caplog.records] == [
        "Nothing is trained: VACE goes by the pictures of the subjects that the adapter carries."
    ] * 2
    assert not out.exists(), "neither checkpoints nor losses"
    assert made.state_dict().keys() == again.state_dict().keys()
    for key, value in method.trainable(backbone, cast).state_dict().items():
        assert torch.equal(value, made.state_dict()[key])
        assert torch.equal(value, again.state_dict()[key])
    with pytest.raises(SubjectError, match="at least one"):
        trainer.fit(backbone, method, [])
    assert not made.deltas and learned_numbers(method, made) == 0
    run = Run(compose_recipe([("method", "vace")]), backbone, method, cast)
    assert facts(run, made)["Steps"] == 0 and facts(run, made)["Numbers learned"] == "0"
    assert sample_scenes(run) == []


def test_the_adapter_carries_the_clearest_photos_on_white(
    backbone: Backbone, tiny_vace: str, cast: list[Subject]
) -> None:
    adapter = quick(tiny_vace, views=2, reference_side=32).trainable(backbone, cast)
    names = {f"references.{name}.{index}" for name in ("tom", "rex") for index in (0, 1)}
    assert adapter.extras.keys() == names
    for subject in cast:
        pictures = reference_pictures(subject, 2, 32, 16)
        for index, picture in enumerate(pictures):
            found = adapter.extras[f"references.{subject.name}.{index}"].detach()
            assert found.dtype == torch.float32 and max(found.shape) == 32
            assert np.array_equal(found.numpy(), picture)


def test_the_video_is_the_stock_pipeline_s(
    backbone: Backbone, tiny_vace: str, cast: list[Subject]
) -> None:
    adapter = quick(tiny_vace, conditioning_scale=0.7).trainable(backbone, cast)
    options = QUICK.model_copy(update={"negative": "a <rex> dog on grass"})
    video = generate(backbone, adapter, PROMPT, seed=4, options=options)
    assert isinstance(video, Video) and video.fps == 16
    assert video.frames.shape == (6, 32, 48, 3)
    stock = WanVACEPipeline.from_pretrained(tiny_vace)
    stock.set_progress_bar_config(disable=True)
    found = stock(
        prompt="a cat and a dog",
        negative_prompt="a dog on grass",
        reference_images=[Image.fromarray(reference_pictures(one, 1, 480, 16)[0]) for one in cast],
        conditioning_scale=0.7,
        height=32,
        width=48,
        num_frames=9,
        num_inference_steps=2,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(4),
        output_type="np",
    ).frames[0]
    rounding = 0.5 / 255
    assert np.abs(video.frames / 255 - found[:6]).max() < rounding + 1e-3


def test_a_video_is_its_seed_s_whatever_is_made_beside_it(
    backbone: Backbone, tiny_vace: str, cast: list[Subject]
) -> None:
    adapter = quick(tiny_vace).trainable(backbone, cast)
    both = generate(backbone, adapter, [PROMPT, "a <rex> dog"], seed=[3, 4], options=QUICK)
    alone = generate(backbone, adapter, "a <rex> dog", seed=4, options=QUICK)
    other = generate(backbone, adapter, "a <rex> dog", seed=5, options=QUICK)
    assert np.array_equal(both[1].frames, alone.frames)
    assert difference(alone, other) > 5
    with pytest.raises(ConfigError, match=r"renders in its own way"):
        generate_with_attention(backbone, adapter, PROMPT, options=QUICK)


def test_another_subject_is_another_video(
    backbone: Backbone, tiny_vace: str, cast: list[Subject]
) -> None:
    method, (_, rex) = quick(tiny_vace), cast
    one, other = (
        generate(backbone, method.trainable(backbone, [tom, rex]), PROMPT, options=QUICK)
        for tom in (cast[0], make_subject("tom", "cat", seed=9))
    )
    assert difference(one, other) > 5


def test_who_is_shown_is_whom_the_prompt_names_in_its_order(
    backbone: Backbone, tiny_vace: str, cast: list[Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Ask] = []

    class Recorder:
        fps = 16.0

        def film(self, asked: list[Ask], wanted: Filming) -> list[np.ndarray]:
            seen.extend(asked)
            return [np.zeros((wanted.frames, *wanted.size, 3), np.uint8) for _ in asked]

    monkeypatch.setattr("customvideo.methods.vace.load_vace", lambda *_: Recorder())
    adapter = quick(tiny_vace, views=2).trainable(backbone, cast)
    tom, rex = (reference_pictures(one, 2, 480, 16) for one in cast)
    asked = {
        "a <tom> cat and a <rex> dog": ("a cat and a dog", [*tom, *rex]),
        "a <rex> dog and a <tom> cat": ("a dog and a cat", [*rex, *tom]),
        "a <rex> on the beach": ("a dog on the beach", rex),
        "a duck": ("a duck", []),
    }
    with pytest.warns(CustomVideoWarning, match="no learned word"):
        generate(backbone, adapter, list(asked), options=QUICK)
    for one, (text, pictures) in zip(seen, asked.values(), strict=True):
        assert one.prompt == text
        assert len(one.pictures) == len(pictures)
        assert all(map(np.array_equal, one.pictures, pictures))


def test_a_saved_adapter_makes_the_same_video(
    backbone: Backbone, tiny_vace: str, cast: list[Subject], tmp_path: Path
) -> None:
    adapter = quick(tiny_vace, drawn_height=16, drawn_width=20).trainable(backbone, cast)
    adapter.save(tmp_path / "adapter.safetensors")
    loaded = Adapter.load(tmp_path / "adapter.safetensors")
    assert isinstance(renderer(loaded), Vace)
    one, other = (generate(backbone, who, PROMPT, options=QUICK) for who in (adapter, loaded))
    # Drawn at 16x32, the next size that the model makes, and scaled to what was asked for.
    assert one.frames.shape == (6, 32, 48, 3)
    assert np.array_equal(one.frames, other.frames)


def test_what_cannot_be_used_is_one_sentence(
    backbone: Backbone, built: Path, tiny_zeroscope: Path, tiny_vace: str, cast: list[Subject]
) -> None:
    with pytest.raises(ConfigError, match=r"no video model folder '\./nowhere'"):
        quick("./nowhere").trainable(backbone, cast)
    with pytest.raises(ConfigError, match=r"video model folder .* keeps no absolute path"):
        quick(built).trainable(backbone, cast)
    with pytest.raises(ConfigError, match=r"holds TextToVideoSDPipeline: only a WanVACEPipeline"):
        quick(tiny_zeroscope).trainable(backbone, cast)
    for wrong in ({"views": 0}, {"reference_side": 100}, {"drawn_height": 8}, {"flow_shift": 0.0}):
        with pytest.raises(ValueError):
            VaceConfig(**wrong)


def test_on_the_toybox_only_a_folder_will_do(tiny_vace: str, tmp_path: Path) -> None:
    pair, out = write_pair(tmp_path / "photos"), tmp_path / "run"
    asked = ["train", *pair, "--method", "vace", "--backbone", "toybox", "--out", out]
    refused = run_cli(*asked, "--device", "cpu")
    assert refused.exit_code == 2 and "Traceback" not in refused.output
    (said,) = [line for line in refused.stderr.splitlines() if line.startswith("customvideo:")]
    assert "knows nothing of the world of the backbone 'toybox'" in said
    assert "--set video_model=FOLDER" in said and said.endswith(".")
    assert not out.exists()
    sets = [f"{key}={value}" for key, value in (SMALL | {"video_model": tiny_vace}).items()]
    flags = [part for one in sets for part in ("--set", one)]
    made = run_cli(*asked, *flags, "--device", "cpu")
    assert made.exit_code == 0, made.output
    assert made.stderr.count("Nothing is trained: VACE goes by the pictures") == 1
    assert {"adapter.safetensors", "recipe.toml", "report.html"} <= contents(out).keys()
    assert not any(name.startswith(("checkpoints", "losses")) for name in contents(out))
    film = tmp_path / "film.mp4"
    adapter = ["--adapter", out / "adapter.safetensors", "--steps", "2", "--frames", "2"]
    filmed = run_cli("generate", PROMPT, *adapter, "--out", film, "--device", "cpu")
    assert filmed.exit_code == 0, filmed.output
    assert len(Video.load(film)) == 2
    again = run_cli(*asked, *flags, "--resume", "--device", "cpu")
    assert again.exit_code == 2 and "finished and without checkpoints" in again.stderr


def test_a_benchmark_job_of_it_runs_through(
    tiny_vace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edition = load_edition(write_edition(tmp_path / "toys"))
    kit, store = Kit(edition, "cpu"), Store(tmp_path / "results")
    wanted, notes = the_job(kit, tiny_vace), list[str]()
    outcome = Worker(store, kit).do(wanted, notes.append)
    assert (outcome.ended, outcome.message) == ("done", "")
    assert notes == ["video 1/1", "scoring"], "there is nothing to learn"
    folder = store.folder(wanted)
    mixed = told(folder.path / "job.json")["ingredients"]
    assert mixed.keys() == {"video_model", "video_model_weights", "video_model_schedule"}
    assert len(Video.load(folder.video((0, 0)))) == 2
    assert folder.scored is not None and len(folder.scored.rows) == len(wanted.subjects)
    assert not folder.losses.exists() and folder.adapter.is_file()
    # Other weights are another job, even under the same name.
    monkeypatch.chdir(build_tiny_vace(tmp_path / "elsewhere" / "tiny-vace", seed=1).parent)
    load_vace.cache_clear()
    other = the_job(kit, tiny_vace)
    load_vace.cache_clear()
    assert other.recipe == wanted.recipe and other.digest != wanted.digest


def the_job(kit: Kit, folder: str) -> Job:
    """VACE on the first pair of the toybox, one prompt, one seed."""
    entries = {"vace": {"method": "vace", "video_model": folder, **SMALL}}
    changes = {"backbone": "toybox", "sampling": {"num_steps": 1, "frames": 2}}
    plan = plan_of(kit.edition.root, entries=entries, changes=changes, base=False, ceiling=False)
    (found,) = _jobs(plan, kit, choose(plan, kit.edition), everything(plan))
    return found


def everything(plan: BenchPlan) -> list[Entry]:
    base, entries = resolve(plan, "toybox")
    return [base, *entries]
