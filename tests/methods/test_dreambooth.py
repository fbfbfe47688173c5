"""DreamBooth and its low-rank form: what trains, what never does, and diffusers as reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from customvideo.adapters.deltas import LowRankDelta, WeightDelta
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.methods.base import Method, Staged
from customvideo.methods.dreambooth import (
    DreamBooth,
    DreamBoothConfig,
    DreamBoothLora,
    DreamBoothLoraConfig,
)
from customvideo.subjects.subject import Subject
from customvideo.training.trainer import Trainer
from tests.cast import CANVAS, make_cast, short_run
from tests.methods.batches import make_batch, move, stock_errors, stock_unet


@pytest.fixture(scope="module")
def backbone(tiny_zeroscope: Path) -> Backbone:
    return load_backbone(tiny_zeroscope, device="cpu")


@pytest.fixture(scope="module")
def cast() -> list[Subject]:
    return make_cast()


def test_every_layer_a_photo_passes_gets_a_delta(backbone: Backbone, cast: list[Subject]) -> None:
    whole = DreamBooth().trainable(backbone, cast)
    weights = sum(value.numel() for value in backbone.denoiser.parameters())
    assert sum(
        value.numel() for delta in whole.deltas.values() for value in delta.parameters()
    ) == (weights)
    assert all(isinstance(delta, WeightDelta) for delta in whole.deltas.values())
    past = DreamBooth(DreamBoothConfig(single_frame="skip")).trainable(backbone, cast)
    assert set(past.deltas) == set(backbone.layers("spatial")) < set(whole.deltas)
    told = DreamBooth(DreamBoothConfig(text_encoder=True)).trainable(backbone, cast)
    assert set(told.deltas) - set(whole.deltas) == set(backbone.layers("encoder"))


def test_the_low_rank_form_adapts_attention_within_a_frame(
    backbone: Backbone, cast: list[Subject]
) -> None:
    adapter = DreamBoothLora().trainable(backbone, cast)
    assert len(adapter.deltas) == 8 * len(backbone.sites(1, *CANVAS))
    assert not any("temp_" in path for path in adapter.deltas)
    assert all(
        isinstance(delta, LowRankDelta) and len(delta.down) == 4
        for delta in adapter.deltas.values()
    )
    told = DreamBoothLora(DreamBoothLoraConfig(text_encoder=True, rank=2))
    more = told.trainable(backbone, cast).deltas
    assert set(more) - set(adapter.deltas) == set(backbone.layers("encoder_attention"))
    assert adapter.header.method == "dreambooth_lora"


@pytest.mark.parametrize("initial", ["rare", "random"])
def test_every_subject_has_a_word_of_its_own(
    backbone: Backbone, cast: list[Subject], initial: Any
) -> None:
    method = DreamBooth(DreamBoothConfig(initial=initial))
    one, other = method.trainable(backbone, cast).tokens.value
    assert (one - other).norm() > 0.5 * one.norm()


def test_a_scene_is_one_photo_and_subjects_alternate(cast: list[Subject]) -> None:
    rng, prompts = np.random.default_rng(0), set()
    for _ in range(12):
        (example,) = DreamBooth().scenes(cast, rng, CANVAS)
        shown = example.masks.any(axis=(1, 2))
        (word,) = example.prompt.mentioned
        assert shown.tolist() == [word.name == "tom", word.name == "rex"]
        prompts.add(example.prompt.text)
    assert prompts == {"a photo of a <tom> cat", "a photo of a <rex> dog"}
    assert DreamBooth().watches(None, 1, *CANVAS) == []  # type: ignore[arg-type]


def test_losses_and_gradients_are_those_of_a_denoiser_that_trains(
    backbone: Backbone, cast: list[Subject], tiny_zeroscope: Path
) -> None:
    method = DreamBooth(DreamBoothConfig(prior_weight=0.7))
    adapter, unet = method.trainable(backbone, cast), stock_unet(tiny_zeroscope)
    move(adapter, 0.02)
    with torch.no_grad():
        for path, delta in adapter.deltas.items():
            layer = unet.get_submodule(path)
            layer.weight += delta.added_weight
            if delta.added_bias is not None:
                layer.bias += delta.added_bias
    with adapter.attach(backbone):
        batch = make_batch(backbone, method, cast, adapter)
        found = method.losses(backbone, batch, None)
        sum(found.values()).backward()  # type: ignore[union-attr]
        error = stock_errors(backbone, unet, batch)
    wanted = {"reconstruction": error[:3].mean(), "prior": 0.7 * error[3:].mean()}
    sum(wanted.values()).backward()  # type: ignore[union-attr]
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value)
    for path, delta in adapter.deltas.items():
        own = unet.get_submodule(path).weight.grad
        torch.testing.assert_close(delta.added_weight.grad, own, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize(
    "method",
    [
        DreamBooth(DreamBoothConfig(prior_weight=0.0, single_frame="skip")),
        DreamBooth(DreamBoothConfig(prior_weight=0.0, text_encoder=True)),
        DreamBoothLora(DreamBoothLoraConfig(prior_weight=0.0, text_encoder=True)),
    ],
    ids=["spatial", "whole", "low rank"],
)
def test_all_but_the_words_trains(method: Method, backbone: Backbone, cast: list[Subject]) -> None:
    assert isinstance(method, Staged)
    adapter = Trainer(short_run(steps=2, pool=2, batch_size=1)).fit(backbone, method, cast)
    torch.manual_seed(short_run().seed)
    start = dict(method.trainable(backbone, cast).named_parameters())
    for name, value in adapter.named_parameters():
        # Over a single frame, temporal attention has one key: what chooses among keys is idle.
        if "to_q" not in name and "to_k" not in name:
            assert torch.equal(value, start[name]) == name.startswith("tokens"), name
