"""DreamVideo: bottlenecks beside text attention, words first, and errors inside the masks only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.deltas import BottleneckDelta
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.methods.base import Batch, Staged
from customvideo.methods.dreamvideo import DreamVideo, DreamVideoConfig
from customvideo.subjects.subject import Subject
from customvideo.training.batch import Batches, ScenePool, WordFinder, Workshop
from customvideo.training.trainer import Trainer
from tests.cast import CANVAS, make_cast, short_run


@pytest.fixture(scope="module")
def backbone(tiny_zeroscope: Path) -> Backbone:
    return load_backbone(tiny_zeroscope, device="cpu")


@pytest.fixture(scope="module")
def cast() -> list[Subject]:
    return make_cast()


@pytest.fixture(scope="module")
def batch(backbone: Backbone, cast: list[Subject]) -> Iterator[Batch]:
    """Two rows, with an untrained adapter attached meanwhile."""
    method = DreamVideo()
    adapter = method.trainable(backbone, cast)
    with adapter.attach(backbone):
        pool = ScenePool(Workshop(backbone, method, cast, CANVAS, seed=0), 2)
        batches = Batches(pool, WordFinder(backbone, adapter), None, short_run())
        yield batches.passes(1, 0)[0].batch


def error(backbone: Backbone, batch: Batch, noise: torch.Tensor) -> torch.Tensor:
    """|| e - e_theta(z_t, t, text) ||^2 at every latent position (row, height, width)."""
    with torch.no_grad():
        noisy = backbone.noise.mix(batch.latents, noise, batch.times)
        predicted = backbone.predict(noisy, batch.times, backbone.encode_prompt(batch.texts))
    return (predicted - noise).square().mean(dim=(1, 2))


def test_words_start_as_categories_and_every_site_gets_a_bottleneck(
    backbone: Backbone, cast: list[Subject]
) -> None:
    method = DreamVideo()
    adapter = method.trainable(backbone, cast)
    assert list(adapter.deltas) == [site.path for site in backbone.sites(1, *CANVAS)]
    assert all(isinstance(delta, BottleneckDelta) for delta in adapter.deltas.values())
    table = backbone.tables()[0]
    (cat,) = table.tokenizer.encode("cat", add_special_tokens=False)
    assert torch.equal(adapter.tokens.value[0].detach(), table.embedding.weight[cat].detach())
    assert method.watches(backbone, 1, *CANVAS) == []
    assert method.prior(backbone, cast) is None


def test_a_scene_shows_and_names_one_subject(cast: list[Subject]) -> None:
    rng, seen = np.random.default_rng(0), set()
    for _ in range(8):
        (example,) = DreamVideo().scenes(cast, rng, CANVAS)
        (word,) = example.prompt.mentioned
        assert [bool(mask.any()) for mask in example.masks] == [s.name == word.name for s in cast]
        seen.add(word.name)
    assert seen == {"tom", "rex"}


def test_errors_outside_the_mask_count_nothing_but_in_the_mean(
    backbone: Backbone, batch: Batch
) -> None:
    found = DreamVideo(DreamVideoConfig(offset_noise=0.0)).losses(backbone, batch, None)
    plain = error(backbone, batch, batch.noise)
    wanted = (plain * batch.masks.sum(dim=1)).sum() / plain.numel()
    assert found.keys() == {"reconstruction"}
    assert found["reconstruction"].item() == pytest.approx(wanted.item(), rel=1e-5)
    whole = DreamVideo(DreamVideoConfig(offset_noise=0.0, masked=False))
    everywhere = whole.losses(backbone, batch, None)["reconstruction"]
    assert everywhere.item() == pytest.approx(plain.mean().item(), rel=1e-5)


def test_offset_noise_is_one_value_a_channel(backbone: Backbone, batch: Batch) -> None:
    method = DreamVideo(DreamVideoConfig(offset_noise=0.5, masked=False))
    offset = 0.5 * batch.noise[:, :, :, :1, :1].expand_as(batch.noise)
    wanted = error(backbone, batch, batch.noise + offset).mean()
    found = method.losses(backbone, batch, None)["reconstruction"]
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert torch.equal(
        method.score(backbone, batch, None),
        DreamVideo().score(backbone, batch, None),
    ), "held-out scenes are scored without"


def test_the_words_train_first_and_then_stay(
    tiny_zeroscope: Path, cast: list[Subject], tmp_path: Path
) -> None:
    # Another backbone than the one that `batch` keeps an adapter on.
    backbone, method = (
        load_backbone(tiny_zeroscope, device="cpu"),
        DreamVideo(DreamVideoConfig(word_steps=1)),
    )
    assert isinstance(method, Staged)
    config = short_run(steps=2, checkpoint_every=1)
    Trainer(config, tmp_path, console=Console(quiet=True)).fit(backbone, method, cast)
    folders = sorted((tmp_path / "checkpoints").iterdir())
    words, adapters = (Adapter.load(one / "adapter.safetensors").state_dict() for one in folders)
    start = method.trainable(backbone, cast).state_dict()
    widened = [name for name in start if name.endswith(".widen")]
    assert not torch.equal(words["tokens.value"], start["tokens.value"])
    assert torch.equal(adapters["tokens.value"], words["tokens.value"])
    assert not any(words[name].any() for name in widened)
    assert all(adapters[name].any() for name in widened)
