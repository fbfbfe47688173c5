"""Class-prior samples: drawn once by the base model, then read from where they are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from customvideo.backbones.base import Backbone
from customvideo.config import apply_sets, default_recipe
from customvideo.errors import StorageError
from customvideo.methods.base import PriorPlan, load_method
from customvideo.subjects.subject import Subject
from customvideo.toybox.backbone import WEIGHTS
from customvideo.training import prior as prior_module
from customvideo.training.prior import PriorRequest, build_prior, default_cache, prior_latents
from customvideo.training.trainer import Trainer
from tests.cast import CANVAS, make_subject, quick_method, short_run

REQUEST = PriorRequest("a cat", frames=1, height=64, width=96, steps=1, guidance=2.0)
PLAN = PriorPlan(("cat", "dog"), samples=2, rows=1, sampling_steps=1)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples each call of the sampling loop drew."""
    counts: list[int] = []
    real = prior_module.denoise

    def counting(backbone: Any, latents: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        counts.append(len(latents))
        return real(backbone, latents, *args, **options)

    monkeypatch.setattr(prior_module, "denoise", counting)
    return counts


def test_samples_are_drawn_once(backbone: Backbone, tmp_path: Path, drawn: list[int]) -> None:
    said: list[str] = []
    first = prior_latents(backbone, REQUEST, 2, cache=tmp_path, notify=said.append)
    assert first.shape == (2, *backbone.latent_shape(1, 64, 96))
    assert first.dtype == torch.float32
    assert not torch.equal(first[0], first[1])
    again = prior_latents(backbone, REQUEST, 2, cache=tmp_path, notify=said.append)
    assert torch.equal(first, again)
    assert drawn == [4]
    assert said == ["drawing class-prior samples of 'a cat': 0 of 2"]


def test_more_samples_continue_the_first(
    backbone: Backbone, tmp_path: Path, drawn: list[int]
) -> None:
    few = prior_latents(backbone, REQUEST, 3, cache=tmp_path)
    many = prior_latents(backbone, REQUEST, 6, cache=tmp_path)
    assert torch.equal(many[:3], few)
    assert len(drawn) == 2
    other = prior_latents(backbone, REQUEST, 3, cache=tmp_path / "elsewhere")
    assert torch.equal(other, few)


def test_another_request_is_another_sample(
    backbone: Backbone, tmp_path: Path, drawn: list[int]
) -> None:
    cat = prior_latents(backbone, REQUEST, 1, cache=tmp_path)
    longer = PriorRequest("a cat", frames=2, height=64, width=96, steps=1, guidance=2.0)
    assert prior_latents(backbone, longer, 1, cache=tmp_path).shape[2] == 2
    assert len(drawn) == 2
    assert cat.shape[2] == 1


def test_a_damaged_sample_is_drawn_again(
    backbone: Backbone, tmp_path: Path, drawn: list[int]
) -> None:
    first = prior_latents(backbone, REQUEST, 1, cache=tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:50])
    assert torch.equal(prior_latents(backbone, REQUEST, 1, cache=tmp_path), first)
    assert len(drawn) == 2


MADE = {"prompt": "a {category}", "steps": "1", "guidance": "7.5"}


@pytest.fixture
def shipped(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """Three pictures of a cat that come with the backbone, drawn as `MADE` says."""
    samples = torch.randn(3, 4, 1, 8, 12).half()
    save_file({"cat/1": samples}, tmp_path / "prior.safetensors", metadata=MADE)
    monkeypatch.setattr(backbone, "shipped_prior", tmp_path / "prior.safetensors", raising=False)
    return samples.float()


def test_shipped_samples_come_first(
    backbone: Backbone, shipped: torch.Tensor, tmp_path: Path, drawn: list[int]
) -> None:
    pool = build_prior(backbone, PLAN, CANVAS, cache=tmp_path / "cache")
    assert torch.equal(pool.pictures["cat"], shipped[:2])
    assert pool.pictures["dog"].shape == (2, 4, 1, 8, 12)
    assert len(drawn) == 1
    assert pool.clips == {}


@pytest.mark.parametrize(
    "change",
    [
        {"samples": 4},
        {"template": "a photo of a {category}"},
        {"sampling_steps": 2},
        {"guidance": 7.0},
        {"canvas": (64, 64)},
    ],
)
def test_shipped_samples_of_another_kind_are_drawn_instead(
    change: dict[str, Any],
    backbone: Backbone,
    shipped: torch.Tensor,
    tmp_path: Path,
    drawn: list[int],
) -> None:
    canvas = change.pop("canvas", CANVAS)
    plan = replace(PLAN, categories=("cat",), **change)
    pictures = build_prior(backbone, plan, canvas, cache=tmp_path / "cache").pictures["cat"]
    assert len(pictures) == plan.samples and drawn == [4]
    assert pictures.shape[-2:] != shipped.shape[-2:] or not torch.equal(pictures[:2], shipped[:2])


@pytest.mark.skipif(not (WEIGHTS / "prior.safetensors").exists(), reason="needs the weights")
def test_the_toybox_recipe_asks_for_what_the_toybox_ships(
    backbone: Backbone, tmp_path: Path, drawn: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = WEIGHTS / "prior.safetensors"
    monkeypatch.setattr(backbone, "shipped_prior", file, raising=False)
    shape = load_file(file)["cat/1"].shape
    monkeypatch.setattr(backbone, "latent_shape", lambda frames, *_: (shape[1], frames, *shape[3:]))
    recipe = apply_sets(default_recipe(), ["prior_clips_every=5"])
    method = load_method(recipe.method, recipe.method_options)
    monkeypatch.setattr(backbone, "frames", 8)
    plan = method.prior(backbone, [make_subject("tom", "cat", 1)])
    assert plan is not None
    pool = build_prior(backbone, plan, CANVAS, cache=tmp_path)
    assert drawn == [] and len(pool.pictures["cat"]) == 4 and len(pool.clips["cat"]) == 1


def test_a_cache_that_cannot_be_written_is_named(backbone: Backbone, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        prior_latents(backbone, REQUEST, 1, cache=tmp_path / "file")


def test_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "customvideo/prior"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_cache() == Path("/home/someone/.cache/customvideo/prior")


def test_training_with_pictures_and_clips(
    backbone: Backbone,
    cast: list[Subject],
    tmp_path: Path,
    quiet: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backbone, "frames", 2)
    method = quick_method(
        prior_weight=0.5,
        prior_samples=2,
        prior_rows=1,
        prior_sampling_steps=1,
        prior_clips_every=2,
        prior_clip_samples=1,
    )
    reports = []
    config = short_run(steps=2, prior_cache=str(tmp_path))
    trainer = Trainer(config, on_step=reports.append, console=quiet)
    trainer.fit(backbone, method, cast)
    assert all(set(r.parts) == {"reconstruction", "prior", "attention"} for r in reports)
    # The clip's term comes on top of the pictures'.
    assert reports[1].parts["prior"] > 1.5 * reports[0].parts["prior"]
