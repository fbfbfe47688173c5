"""VideoDreamer: lone and mixed pictures, the feature that mixed ones get, and its three losses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import Backbone, TextStates, load_backbone
from customvideo.methods.base import Batch
from customvideo.methods.videodreamer import VideoDreamer, VideoDreamerConfig, picture_feature
from customvideo.subjects.subject import Subject
from customvideo.training.batch import Batches, ScenePool, WordFinder, Workshop
from customvideo.training.trainer import Trainer
from tests.cast import CANVAS, make_cast, short_run

CONFIG = VideoDreamerConfig(mixed_prompt="a picture of {subjects}", rank=2)
"""The paper's prompt is too long for the tiny model, which spells words in bytes."""


@pytest.fixture(scope="module")
def backbone(tiny_zeroscope: Path) -> Backbone:
    return load_backbone(tiny_zeroscope, device="cpu")


@pytest.fixture(scope="module")
def cast() -> list[Subject]:
    return make_cast()


@pytest.fixture(scope="module")
def made(backbone: Backbone, cast: list[Subject]) -> Iterator[tuple[VideoDreamer, Batch]]:
    """The method and four rows, some of them mixed, with its untrained adapter attached."""
    method = VideoDreamer(CONFIG)
    adapter = method.trainable(backbone, cast)
    with adapter.attach(backbone):
        pool = ScenePool(Workshop(backbone, method, cast, CANVAS, seed=0), 8)
        batches = Batches(pool, WordFinder(backbone, adapter), None, short_run(batch_size=4))
        drawn = (batches.passes(step, 0)[0].batch for step in range(1, 20))
        batch = next(one for one in drawn if 0 < (one.present.sum(dim=1) == 2).sum() < 4)
        yield method, batch


def errors(backbone: Backbone, batch: Batch, text: TextStates) -> torch.Tensor:
    """The mean error of each row, (row,)."""
    with torch.no_grad():
        noisy = backbone.noise.mix(batch.latents, batch.noise, batch.times)
        predicted = backbone.predict(noisy, batch.times, text)
    return (predicted - batch.noise).square().flatten(1).mean(dim=1)


def test_attention_of_denoiser_and_text_encoder_trains_in_low_rank(
    backbone: Backbone, cast: list[Subject]
) -> None:
    adapter = VideoDreamer(CONFIG).trainable(backbone, cast)
    groups = ("text_kv", "text_qo", "self", "encoder_attention")
    assert set(adapter.deltas) == {path for group in groups for path in backbone.layers(group)}
    assert {delta.down.shape[0] for delta in adapter.deltas.values()} == {2}
    assert adapter.header.method == "videodreamer"
    assert adapter.extras and not VideoDreamer(CONFIG).trainable(backbone, cast[:1]).extras


def test_pictures_are_lone_or_mixed(cast: list[Subject]) -> None:
    method, rng, counts = VideoDreamer(), np.random.default_rng(0), []
    for _ in range(40):
        (example,) = method.scenes(cast, rng, CANVAS)
        names = {word.name for word in example.prompt.mentioned}
        shown = {one.name for one, mask in zip(cast, example.masks, strict=True) if mask.any()}
        assert names == shown
        assert (len(names) == 2) == example.prompt.text.startswith("a picture is divided into")
        counts.append(len(names))
    assert 10 < counts.count(2) < 30
    (alone,) = method.scenes(cast[:1], rng, CANVAS)
    assert len(alone.prompt.mentioned) == 1


def test_the_feature_is_the_gated_adapter(backbone: Backbone, cast: list[Subject]) -> None:
    parts = {name: torch.randn_like(value) for name, value in made_parts(backbone, cast).items()}
    latents = torch.randn(3, *backbone.latent_shape(1, *CANVAS))
    found = picture_feature(parts, latents)
    # 8x12 cells, pooled by hand to 4x4.
    pooled = latents[:, :, 0].reshape(3, -1, 4, 2, 4, 3).mean(dim=(3, 5)).flatten(1)
    gated = pooled / (1 + (-parts["gate"]).exp())
    inner = (gated @ parts["first.weight"].T + parts["first.bias"]).clamp(min=0)
    wanted = inner @ parts["second.weight"].T + parts["second.bias"]
    torch.testing.assert_close(found, wanted + gated @ parts["lift.weight"].T)
    assert found.shape == (3, backbone.encode_prompt([""]).states.shape[-1])


def made_parts(backbone: Backbone, cast: list[Subject]) -> dict[str, torch.Tensor]:
    adapter = VideoDreamer(CONFIG).trainable
    return {name: value.detach() for name, value in adapter(backbone, cast).extras.items()}


def test_the_losses_are_the_three(backbone: Backbone, made: tuple[VideoDreamer, Batch]) -> None:
    method, batch = made
    found = method.losses(backbone, batch, None)
    mixed = batch.present.sum(dim=1) == 2
    with torch.no_grad():
        text = backbone.encode_prompt(batch.texts)
        feature = picture_feature(method._parts, batch.latents)[:, None]
    plain = errors(backbone, batch, text)
    told = errors(backbone, batch, TextStates(text.states + feature, text.ids))
    assert not torch.allclose(plain, told, rtol=1e-3), "the feature changes predictions"
    wanted = {
        "reconstruction": plain[~mixed].mean(),
        "mixed": told[mixed].mean(),
        "weak": 0.01 * plain[mixed].mean(),
    }
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-4), name


def test_held_out_scenes_are_scored_without_the_feature(
    backbone: Backbone, made: tuple[VideoDreamer, Batch]
) -> None:
    method, batch = made
    with torch.no_grad():
        score = method.score(backbone, batch, None)
        for part in method._parts.values():
            part.mul_(2)
        again = method.score(backbone, batch, None)
        for part in method._parts.values():
            part.div_(2)
    assert torch.equal(score, again)


def test_it_trains_whatever_the_first_rows_are(tiny_zeroscope: Path, cast: list[Subject]) -> None:
    backbone, method = load_backbone(tiny_zeroscope, device="cpu"), VideoDreamer(CONFIG)
    # Of one row each, so that some steps have no mixed picture and some have nothing else.
    config = short_run(steps=3, batch_size=1, learning_rate=1e-2)
    adapter = Trainer(config, console=Console(quiet=True)).fit(backbone, method, cast)
    assert isinstance(adapter, Adapter)
    started = made_parts(backbone, cast)["gate"]
    assert any(delta.up.any() for delta in adapter.deltas.values())
    assert adapter.extras["gate"].shape == started.shape
