"""DisenDiff's losses by hand, and videos that an image-to-video model makes of its pictures."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.attention.tape import watch
from customvideo.backbones.animators import Animation, load_animator
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.config import compose_recipe
from customvideo.errors import ConfigError
from customvideo.generation import SamplingConfig, generate, generate_with_attention
from customvideo.methods.disendiff_svd import (
    DisenDiffSvd,
    DisenDiffSvdConfig,
    averaged,
    calibration,
    prepared,
    soft_iou,
)
from customvideo.methods.rendering import renderer
from customvideo.subjects.subject import Subject
from customvideo.training.trainer import Trainer
from tests.cast import CANVAS, make_cast, short_run
from tests.methods.batches import make_batch
from tests.tiny_svd import build_tiny_svd

PROMPT = "a <tom> cat and a <rex> dog"
QUICK = SamplingConfig(num_steps=2, frames=3, height=64, width=96)


@pytest.fixture(scope="module")
def backbone(tiny_zeroscope: Path) -> Backbone:
    return load_backbone(tiny_zeroscope, device="cpu")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_svd(tmp_path_factory.mktemp("animators") / "tiny-svd")


@pytest.fixture
def tiny_svd(built: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder's name, from where it lies."""
    monkeypatch.chdir(built.parent)
    return f"./{built.name}"


@pytest.fixture(scope="module")
def cast() -> list[Subject]:
    return make_cast()


def quick(animator: str | Path, **changes: Any) -> DisenDiffSvd:
    settings = {"prior_weight": 0.0, "animation_steps": 2, "animator": str(animator), **changes}
    return DisenDiffSvd(DisenDiffSvdConfig(**settings))


def spot(row: int, column: int) -> Tensor:
    """An 8x8 map with a single position that is read."""
    found = torch.zeros(8, 8)
    found[row, column] = 0.5
    return found


def test_soft_iou_by_hand() -> None:
    first, second = torch.tensor([[1.0, 0.5], [0.0, 0.0]]), torch.tensor([[0.5, 0.5], [0.0, 1.0]])
    # Shared 0.5 + 0.25; in all 1.5 + 2.0 - 0.75.
    assert float(soft_iou(first, second)) == pytest.approx(1.75 / 3.75)
    assert float(soft_iou(torch.zeros(3, 3), torch.zeros(3, 3))) == 1.0


def test_maps_are_stretched_and_smoothed() -> None:
    found = prepared((0.1 + spot(2, 3))[None, None])[0, 0]
    beside = math.exp(-1) / (1 + 2 * math.exp(-1)) ** 2
    assert float(found[2, 3]) == pytest.approx(1 / (1 + 2 * math.exp(-1)) ** 2, rel=1e-5)
    assert float(found[2, 2]) == pytest.approx(beside, rel=1e-5)
    assert float(found[1, 2]) == pytest.approx(beside * math.exp(-1), rel=1e-5)
    assert float(found.sum()) == pytest.approx(1.0, rel=1e-5)
    assert not found[:, 5].any()


def test_the_losses_on_attention_by_hand() -> None:
    """Three words, each read in one place: smoothed, a spot is nine numbers of a known size."""
    line = 1 + 2 * math.exp(-1)
    # The sums over a smoothed spot squared, cubed and to the fourth.
    squares = ((1 + 2 * math.exp(-2)) / line**2) ** 2
    cubes = ((1 + 2 * math.exp(-3)) / line**3) ** 2
    places = [spot(2, 2), spot(2, 2), spot(5, 5)]
    words, kinds = (
        torch.stack(places)[None],
        torch.stack([spot(2, 2), spot(5, 5), spot(5, 5)])[None],
    )
    together = (cubes + 1) / (1 + squares - cubes + 1)
    apart = 1 / (1 + squares + 1)
    bound = (1 - together) + (1 - apart) + (1 - together)
    # Categories: the second and the third are read in one place, the first elsewhere.
    fourths = ((1 + 2 * math.exp(-4)) / line**4) ** 2
    same = (fourths + 1) / (2 * squares - fourths + 1)
    other = 1 / (2 * squares + 1)
    everybody = torch.ones(1, 3, dtype=torch.bool)
    wanted = bound + (2 * other + same) / 3
    assert float(calibration(words, kinds, everybody)) == pytest.approx(wanted, rel=1e-4)
    # Who is not there counts neither alone nor in a pair, and a row of nobody is no row.
    some = torch.tensor([[True, True, False], [False, False, False]])
    both = calibration(words.expand(2, -1, -1, -1), kinds.expand(2, -1, -1, -1), some)
    assert float(both) == pytest.approx((1 - together) + (1 - apart) + other, rel=1e-4)


def test_binding_moves_the_word_and_not_its_category() -> None:
    words = torch.rand(1, 1, 6, 6, requires_grad=True)
    kinds = torch.rand(1, 1, 6, 6, requires_grad=True)
    calibration(words, kinds, torch.ones(1, 1, dtype=torch.bool)).backward()
    assert words.grad is not None and words.grad.any()
    assert kinds.grad is None or not kinds.grad.any()


def test_maps_of_several_sites_are_averaged_on_the_finest_grid() -> None:
    maps = {"a": torch.ones(1, 2, 2, 4, 6), "b": torch.zeros(1, 2, 2, 4, 6)}
    assert torch.equal(averaged(maps), torch.full((1, 2, 4, 6), 0.5))
    maps["c"] = torch.full((1, 2, 1, 2, 3), 0.5)
    assert torch.allclose(averaged(maps), torch.full((1, 2, 4, 6), 0.5))


def test_the_tape_sees_words_and_their_categories(backbone: Backbone, cast: list[Subject]) -> None:
    method = quick("svd-xt", prior_weight=1.0)
    adapter = method.trainable(backbone, cast)
    with adapter.attach(backbone):
        batch = make_batch(backbone, method, cast, adapter)
        columns = method.columns(batch)
        assert columns.shape[1] == 4
        assert torch.equal(columns[:, :2], batch.words)
        assert torch.equal(columns[:, 2:].roll(-1, dims=-1), batch.words)
        sites = method.watches(backbone, 1, *CANVAS)
        with watch(backbone.denoiser, sites, columns) as tape:
            losses = method.losses(backbone, batch, tape)
            words, kinds = averaged(tape.maps()).chunk(2, dim=1)
        wanted = 0.01 * calibration(words[:3], kinds[:3], batch.present[:3])
        torch.testing.assert_close(losses["attention"], wanted)
        assert losses.keys() == {"reconstruction", "prior", "attention"}
        losses["attention"].backward()
        reached = {
            name
            for name, value in adapter.named_parameters()
            if value.grad is not None and value.grad.any()
        }
        assert any("to_k" in name for name in reached)
        assert any("words" in name or "tokens" in name for name in reached)
    assert (
        DisenDiffSvd(DisenDiffSvdConfig(attention_weight=0.0)).watches(backbone, 1, *CANVAS) == []
    )


def test_it_learns_and_makes_videos_through_a_folder(
    tiny_zeroscope: Path, tiny_svd: str, cast: list[Subject], tmp_path: Path
) -> None:
    backbone = load_backbone(tiny_zeroscope, device="cpu")
    method, seen = quick(tiny_svd), []
    trainer = Trainer(short_run(steps=2), on_step=seen.append, console=Console(quiet=True))
    trained = trainer.fit(backbone, method, cast)
    assert all("attention" in report.parts for report in seen)
    trained.save(tmp_path / "adapter.safetensors")
    loaded = Adapter.load(tmp_path / "adapter.safetensors")
    assert isinstance(renderer(loaded), DisenDiffSvd)


def test_the_video_is_the_first_stage_s_picture_animated(
    backbone: Backbone, tiny_svd: str, cast: list[Subject]
) -> None:
    adapter = quick(tiny_svd).trainable(backbone, cast)
    several = generate(backbone, adapter, PROMPT, seed=[3, 4], options=QUICK)
    assert [video.frames.shape for video in several] == [(3, 64, 96, 3)] * 2
    assert several[0].fps == backbone.fps
    picture = generate(
        backbone, adapter, PROMPT, seed=4, options=QUICK.model_copy(update={"frames": 1})
    )
    animator = load_animator(tiny_svd, "cpu")
    wanted = Animation(frames=3, size=(64, 96), steps=2)
    (clip,) = animator.animate(picture.frames, [4], wanted)
    assert np.abs(several[1].frames.astype(int) - clip).max() <= 1
    with pytest.raises(ConfigError, match=r"renders in its own way"):
        generate_with_attention(backbone, adapter, PROMPT, options=QUICK)


def test_another_size_for_the_animation_leaves_the_video_s(
    backbone: Backbone, tiny_svd: str, cast: list[Subject]
) -> None:
    method = quick(tiny_svd, animation_height=32, animation_width=32)
    adapter = method.trainable(backbone, cast)
    assert generate(backbone, adapter, PROMPT, options=QUICK).frames.shape == (3, 64, 96, 3)


def test_only_sizes_that_can_be_animated_are_settings() -> None:
    for side in ("animation_height", "animation_width"):
        with pytest.raises(ValueError, match="multiple of 8"):
            DisenDiffSvdConfig(**{side: 100})


def test_importing_it_says_nothing() -> None:
    for module in ("customvideo.methods.disendiff_svd", "customvideo.toybox.animator"):
        command = [sys.executable, "-c", f"import {module}"]
        said = subprocess.run(command, capture_output=True, check=True, text=True)
        assert (said.stdout, said.stderr) == ("", "")


def test_a_missing_animator_is_named_before_training(
    backbone: Backbone, cast: list[Subject], tiny_zeroscope: Path, built: Path
) -> None:
    with pytest.raises(ConfigError, match=r"no animator folder '/nowhere'"):
        quick("/nowhere").trainable(backbone, cast)
    with pytest.raises(ConfigError, match=r"keeps no absolute path"):
        quick(built).trainable(backbone, cast)
    with pytest.raises(ConfigError, match=r"holds TextToVideoSDPipeline"):
        quick(tiny_zeroscope).trainable(backbone, cast)


def test_on_the_toybox_a_short_run_makes_a_clip(cast: list[Subject]) -> None:
    recipe = compose_recipe([("method", "disendiff_svd"), ("backbone", "toybox")])
    toybox = load_backbone("toybox", device="cpu")
    method = DisenDiffSvd(
        DisenDiffSvdConfig(**{**recipe.method_options, "prior_weight": 0.0, "animation_steps": 2})
    )
    trainer = Trainer(short_run(steps=2), console=Console(quiet=True))
    trained = trainer.fit(toybox, method, cast)
    options = SamplingConfig(num_steps=2)
    video = generate(toybox, trained, PROMPT, seed=1, options=options)
    assert video.frames.shape == (8, 64, 96, 3) and video.fps == 8.0
