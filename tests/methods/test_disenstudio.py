"""DisenStudio: columns that read their own subject, in training and in sampling, and its losses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from customvideo.backbones.base import Backbone, TextStates, load_backbone
from customvideo.errors import ConfigError
from customvideo.generation import SamplingConfig, generate
from customvideo.methods.base import Batch
from customvideo.methods.disenstudio import (
    DisenStudio,
    DisenStudioConfig,
    alone,
    columns_of,
    in_columns,
)
from customvideo.methods.rendering import renderer
from customvideo.subjects.prompt import LearnedWord
from customvideo.subjects.subject import Subject
from customvideo.training.batch import Batches, ScenePool, WordFinder, Workshop
from customvideo.training.prior import PriorPool
from customvideo.training.trainer import Trainer
from tests.cast import CANVAS, make_cast, short_run

CONFIG = DisenStudioConfig(rank=2)
TOM, REX, ADA = LearnedWord("tom", "cat"), LearnedWord("rex", "dog"), LearnedWord("ada", "duck")
HALVES = torch.tensor([[[0.0, 0.5], [0.5, 1.0]]])


@pytest.fixture(scope="module")
def backbone(tiny_zeroscope: Path) -> Backbone:
    return load_backbone(tiny_zeroscope, device="cpu")


@pytest.fixture(scope="module")
def cast() -> list[Subject]:
    return make_cast()


@pytest.fixture(scope="module")
def made(
    tiny_zeroscope: Path, cast: list[Subject]
) -> Iterator[tuple[Backbone, DisenStudio, Batch]]:
    """Two scenes and two prior rows, on a backbone with the untrained adapter attached."""
    backbone, method = load_backbone(tiny_zeroscope, device="cpu"), DisenStudio(CONFIG)
    plan = method.prior(backbone, cast)
    assert plan is not None
    prior = PriorPool(plan, {name: torch.randn(1, 4, 1, 8, 12) for name in ("cat", "dog")}, {})
    adapter = method.trainable(backbone, cast)
    with adapter.attach(backbone):
        pool = ScenePool(Workshop(backbone, method, cast, CANVAS, seed=0), 2)
        batches = Batches(pool, WordFinder(backbone, adapter), prior, short_run())
        yield backbone, method, batches.passes(1, 0)[0].batch


def test_each_column_reads_its_subject_alone() -> None:
    text = "a photo of a <tom> cat, an <ada> duck and a <rex> dog running on the beach"
    assert alone(text, [TOM, REX, ADA]) == [
        "a photo of a <tom> cat running on the beach",
        "a photo of a <rex> dog running on the beach",
        "a photo of an <ada> duck running on the beach",
    ]
    assert alone("<rex> dog chasing <tom> cats", [TOM, REX]) == ["<tom> cats", "<rex> dog"]
    assert alone("a <tom> cat on grass", [TOM, REX]) == ["a <tom> cat on grass"] * 2
    assert alone("a beach", [TOM]) == ["a beach"]
    two = LearnedWord("tom", "polar bear", 2)
    text = "a <tom> <tom>_1 polar bear and a <rex> dog"
    assert alone(text, [two, REX]) == ["a <tom> <tom>_1 polar bear", "a <rex> dog"]


def test_columns_follow_the_order_of_mention() -> None:
    texts = ["a <rex> dog and a <tom> cat", "a <tom> cat", "a beach"]
    bands = columns_of(texts, [TOM, REX, ADA])
    assert bands.shape == (3, 3, 2)
    assert bands[0].tolist() == [[0.5, 1.0], [0.0, 0.5], [0.0, 0.0]]
    assert not bands[1:].any()


def test_a_scene_puts_everyone_into_a_column(cast: list[Subject]) -> None:
    rng, first, chosen = np.random.default_rng(0), set(), set()
    for _ in range(12):
        (example,) = DisenStudio().scenes(cast, rng, CANVAS)
        assert {word.name for word in example.prompt.mentioned} == {"tom", "rex"}
        for mask, (left, right) in zip(example.masks, example.extra["bands"], strict=True):
            columns = np.flatnonzero(mask.any(axis=0)) / CANVAS[1]
            assert left <= columns.min() and columns.max() < right
        first.add(int(example.extra["bands"][0, 0] == 0))
        chosen.add(int(example.extra["chosen"].argmax()))
        assert example.extra["chosen"].sum() == 1
    assert first == chosen == {0, 1}


@pytest.mark.parametrize("guided", [False, True])
def test_a_site_reads_each_columns_text(backbone: Backbone, guided: bool) -> None:
    """Against the attention called with each text over the whole picture."""
    sites = backbone.sites(2, *CANVAS)
    site = sites[0]
    module: Any = backbone.layer(site.path)
    channels, width = module.to_q.in_features, module.to_k.in_features
    copies = 2 if guided else 1
    hidden = torch.randn(copies * 2, site.cells, channels)
    own, texts = torch.randn(copies, 5, width), torch.randn(2, 1, 5, width)
    with torch.no_grad():
        plain = module(hidden, encoder_hidden_states=own)
        each = [module(hidden[-2:], encoder_hidden_states=text) for text in texts]
        with in_columns(backbone, sites, texts, HALVES):
            found = module(hidden, encoder_hidden_states=own)
        after = module(hidden, encoder_hidden_states=own)
    across = (torch.arange(site.cells) % site.grid[2]) < site.grid[2] // 2
    wanted = torch.where(across[None, :, None], each[0], each[1])
    torch.testing.assert_close(found[-2:], wanted, atol=1e-5, rtol=1e-4)
    assert torch.equal(found[:-2], plain[:-2]), "the negative half reads what it always did"
    assert torch.equal(after, plain)


def test_without_columns_nothing_is_hooked(backbone: Backbone) -> None:
    sites = backbone.sites(1, *CANVAS)
    with in_columns(backbone, sites, HALVES, torch.zeros_like(HALVES)):
        assert not any(backbone.layer(site.path)._forward_hooks for site in sites)


def test_the_losses_are_the_three(made: tuple[Backbone, DisenStudio, Batch]) -> None:
    backbone, method, batch = made
    found = method.losses(backbone, batch, None)
    with torch.no_grad():
        noisy = backbone.noise.mix(batch.latents, batch.noise, batch.times)

        def error(bands: torch.Tensor) -> torch.Tensor:
            told = [text for word in zip(*map(read, batch.texts), strict=True) for text in word]
            states = backbone.encode_prompt(told).states.unflatten(0, (2, -1))
            with in_columns(backbone, backbone.sites(1, *CANVAS), states, bands):
                text: TextStates = backbone.encode_prompt(batch.texts)
                predicted = backbone.predict(noisy, batch.times, text)
            return (predicted - batch.noise).square().mean(dim=(1, 2))

        def read(text: str) -> list[str]:
            return alone(text, [TOM, REX])

        bands, chosen = batch.extra["bands"], batch.extra["chosen"]
        assert not bands[2:].any() and bands[:2].any()
        both, one = error(bands), error(bands * chosen[..., None])
    inside = torch.stack([batch.masks[row, int(chosen[row].argmax())] for row in range(2)])
    wanted = {
        "reconstruction": both[:2].mean(),
        "prior": both[2:].mean(),
        "single": (one[:2] * inside).mean(),
    }
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-4), name
    assert not torch.allclose(both[:2], one[:2]), "columns that are not read differ"
    only = replace(batch, prior=torch.ones(4, dtype=torch.bool), extra={})
    assert method.losses(backbone, only, None).keys() == {"prior"}


def test_it_trains_and_renders_in_columns(tiny_zeroscope: Path, cast: list[Subject]) -> None:
    backbone = load_backbone(tiny_zeroscope, device="cpu")
    method = DisenStudio(CONFIG.model_copy(update={"prior_weight": 0.0}))
    quiet = Console(quiet=True)
    adapter = Trainer(short_run(steps=1), console=quiet).fit(backbone, method, cast)
    assert isinstance(renderer(adapter), DisenStudio)
    quick = SamplingConfig(num_steps=2, frames=2, height=64, width=96)
    prompts = ["a <tom> cat and a <rex> dog", "a <rex> dog"]
    both, lone = generate(backbone, adapter, prompts, seed=[3, 3], options=quick)
    header = adapter.header.model_copy(update={"method": "never-heard-of"})
    adapter.header = header
    plain, same = generate(backbone, adapter, prompts, seed=[3, 3], options=quick)
    assert both.frames.shape == (2, 64, 96, 3)
    assert (both.frames != plain.frames).any()
    assert np.abs(lone.frames.astype(int) - same.frames).max() <= 1
    with pytest.raises(ConfigError, match="gradient_checkpointing=false"):
        Trainer(short_run(gradient_checkpointing=True), console=quiet).fit(backbone, method, cast)
