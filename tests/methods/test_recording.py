"""Words that keep to their own places while a video is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import AdapterConfig, new_adapter
from customvideo.backbones.regional import regional
from customvideo.backbones.unet3d import UNet3D, load_folder
from customvideo.errors import ConfigError
from customvideo.generation import SamplingConfig, generate, generate_with_attention
from customvideo.methods.recording import without_others
from customvideo.subjects.prompt import LearnedWord
from tests.cast import make_subject

SMALL = {"num_steps": 3, "frames": 2, "height": 64, "width": 96, "solver": "ddim"}
ALIKE = "a <tom> cat and a <kit> cat"


@pytest.fixture(scope="module")
def backbone(tiny_zeroscope: Path) -> UNet3D:
    return load_folder(tiny_zeroscope, device="cpu")


@pytest.fixture(scope="module")
def adapter(backbone: UNet3D) -> Adapter:
    """Two cats and a dog, with words far apart."""
    torch.manual_seed(0)
    cast = [("tom", "cat"), ("kit", "cat"), ("rex", "dog")]
    subjects = [make_subject(name, kind, seed) for seed, (name, kind) in enumerate(cast)]
    made = new_adapter(
        backbone, subjects, method="customvideo", config=AdapterConfig(initial="random", seed=1)
    )
    with torch.no_grad():
        made.tokens.value.mul_(3)
    return made


def options(regions: str, **more: object) -> SamplingConfig:
    return SamplingConfig.model_validate({**SMALL, "regions": regions, **more})


def test_others_are_left_out_of_the_prompt_and_their_categories_stay() -> None:
    tom, kit, rex = LearnedWord("tom", "cat"), LearnedWord("kit", "cat"), LearnedWord("rex", "dog")
    text = "a <tom> cat, a <kit> cat and a <rex> dog"
    words = (tom, kit, rex)
    alike = without_others(text, tom, words, alike=True)
    assert alike == "a <tom> cat, a cat and a <rex> dog"
    assert without_others(text, tom, words, alike=False) == "a <tom> cat, a cat and a dog"
    assert without_others(text, rex, words, alike=True) == text
    double = LearnedWord("kit", "cat", vectors=2)
    spelt = "a <tom> cat and a <kit> <kit>_1 cat"
    assert without_others(spelt, tom, (tom, double), alike=True) == "a <tom> cat and a cat"


def test_alike_subjects_are_drawn_otherwise_and_others_as_ever(
    backbone: UNet3D, adapter: Adapter
) -> None:
    prompts = [ALIKE, "a <tom> cat and a <rex> dog", "a <tom> cat"]
    plain = generate(backbone, adapter, prompts, options=options("off"))
    apart = generate(backbone, adapter, prompts, options=options("alike"))
    changed = [not np.array_equal(a.frames, b.frames) for a, b in zip(plain, apart, strict=True)]
    assert changed == [True, False, False]
    every = generate(backbone, adapter, prompts, options=options("all"))
    changed = [not np.array_equal(a.frames, b.frames) for a, b in zip(plain, every, strict=True)]
    assert changed == [True, True, False]


def test_the_same_video_alone_and_beside_others(backbone: UNet3D, adapter: Adapter) -> None:
    prompts = [ALIKE, "a <kit> cat and a <tom> cat on the beach"]
    together = generate(backbone, adapter, prompts, seed=[3, 4], options=options("alike"))
    alone = generate(backbone, adapter, prompts[1], seed=4, options=options("alike"))
    assert np.abs(together[1].frames.astype(int) - alone.frames.astype(int)).max() <= 1


def test_words_part_only_after_the_picture_is_laid_out(backbone: UNet3D, adapter: Adapter) -> None:
    plain = generate(backbone, adapter, ALIKE, options=options("off"))
    never = generate(backbone, adapter, ALIKE, options=options("alike", regions_begin=1.0))
    assert np.array_equal(plain.frames, never.frames)


def test_without_guidance_too(backbone: UNet3D, adapter: Adapter) -> None:
    plain = generate(backbone, adapter, ALIKE, options=options("off", guidance=1.0))
    apart = generate(backbone, adapter, ALIKE, options=options("alike", guidance=1.0))
    assert not np.array_equal(plain.frames, apart.frames)


def test_attention_is_recorded_of_the_very_video(backbone: UNet3D, adapter: Adapter) -> None:
    video = generate(backbone, adapter, ALIKE, options=options("alike"))
    same, maps = generate_with_attention(backbone, adapter, ALIKE, options=options("alike"))
    assert np.array_equal(video.frames, same.frames)
    assert set(maps) == {"<tom>", "<kit>"} and all(m.min() >= 0 for m in maps.values())


def test_each_place_reads_its_own_text(backbone: UNet3D) -> None:
    """The left half of what a site puts out is that of one text, the right half of another."""
    texts = ["a cat", "a dog", "a bear"]
    states = [backbone.encode_prompt([text]) for text in texts]
    site = backbone.sites(1, 64, 96)[0]
    module = backbone.layer(site.path)
    _, height, width = site.grid
    left = torch.zeros(height, width)
    left[:, : width // 2] = 1
    where = torch.stack([left.flatten(), 1 - left.flatten()])[:, None, None]
    channels = module.to_q.in_features
    seen = torch.randn(1, height * width, channels, generator=torch.Generator().manual_seed(0))

    def read(text: Tensor) -> Tensor:
        output: Tensor = module(seen, encoder_hidden_states=text)
        return output

    told = torch.stack([states[0].states, states[1].states])
    with torch.no_grad(), regional(backbone, [site], told, lambda _: where):
        mixed = read(states[2].states)
    with torch.no_grad():
        expected = torch.where(
            left.flatten()[None, :, None] > 0, read(states[0].states), read(states[1].states)
        )
    torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=0)
    assert not module._forward_hooks


def test_a_model_that_cannot_is_refused(
    backbone: UNet3D, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(UNet3D, "site_states")
    with pytest.raises(ConfigError, match="no part of a picture can read a text of its own; set"):
        generate(backbone, adapter, ALIKE, options=options("alike"))
