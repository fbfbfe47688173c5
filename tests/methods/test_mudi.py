"""MuDI: Seg-Mix pictures, cut-outs that survive training and a file, and noise with a mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.generation import SamplingConfig, generate
from customvideo.methods.mudi import MuDI, MuDIConfig, _subjects, layout
from customvideo.methods.rendering import Rendering, renderer
from customvideo.subjects.subject import Subject
from customvideo.training.trainer import Trainer
from tests.cast import CANVAS, make_cast, short_run

CONFIG = MuDIConfig(rank=2, prior_weight=0.0, segmix_prompt="{subjects}")
PROMPT = "a <tom> cat and a <rex> dog"


@pytest.fixture(scope="module")
def backbone(tiny_zeroscope: Path) -> Backbone:
    return load_backbone(tiny_zeroscope, device="cpu")


@pytest.fixture(scope="module")
def cast() -> list[Subject]:
    return make_cast()


@pytest.fixture(scope="module")
def adapter(backbone: Backbone, cast: list[Subject]) -> Adapter:
    return MuDI(CONFIG).trainable(backbone, cast)


def start(backbone: Backbone, method: MuDI, adapter: Adapter, prompts: list[str]) -> Any:
    """The noise the sampler starts from, shifted and not."""
    text, seeds = backbone.encode_prompt(prompts), tuple(range(5, 5 + len(prompts)))
    wanted = Rendering(tuple(prompts), text, text, seeds, (2, *CANVAS), 2, 1.0, "ddim", adapter)
    asked: list[torch.Tensor] = []

    def draw(asking: Rendering) -> torch.Tensor:
        asked.append(asking.noise(backbone))
        return asked[0]

    method.render(backbone, wanted, draw)
    return asked[0], wanted.noise(backbone)


def test_some_pictures_are_cut_outs_of_everybody(cast: list[Subject]) -> None:
    rng, several, plain = np.random.default_rng(0), 0, 0
    for _ in range(60):
        (example,) = MuDI().scenes(cast, rng, CANVAS)
        if len(example.prompt.mentioned) == 2:
            several += 1
            assert example.prompt.text.endswith(", simple background")
            outside = example.frames[0][example.masks.sum(axis=0) < 0.01]
            plain += int(outside.std() < 20)
    assert 9 <= several == plain <= 27
    (alone,) = MuDI(MuDIConfig(segmix_share=1.0)).scenes(cast[:1], rng, CANVAS)
    assert len(alone.prompt.mentioned) == 1


def test_the_adapter_carries_cut_outs(adapter: Adapter, cast: list[Subject]) -> None:
    assert adapter.extras.keys() == {"cutouts.tom", "cutouts.rex"}
    for subject in cast:
        pixels = adapter.extras[f"cutouts.{subject.name}"].detach()
        assert pixels.shape == (2, 64, 64, 4)
        for view, (image, mask) in zip(
            pixels, zip(subject.images, subject.masks, strict=True), strict=True
        ):
            wanted = torch.from_numpy(image[mask > 0.5]).float().mean(dim=0) / 255
            found = view[..., :3][view[..., 3] > 0.9].mean(dim=0)
            assert torch.allclose(found, wanted, atol=0.03)


def test_noise_is_shifted_where_the_subjects_of_the_prompt_are(
    backbone: Backbone, adapter: Adapter, cast: list[Subject]
) -> None:
    prompts = [PROMPT, "a <tom> cat", "a duck"]
    shifted, plain = start(backbone, MuDI(CONFIG), adapter, prompts)
    shift = shifted - plain
    assert not shift[2].any()
    assert torch.allclose(shift[:, :, 0], shift[:, :, 1], atol=1e-5), "every frame alike"
    for row, chosen in enumerate([cast, cast[:1]]):
        subjects = _subjects(adapter)[: len(chosen)]
        image, mask = layout(subjects, 5 + row, CANVAS)
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None, None] / 127.5 - 1
        signal = backbone.noise.alphas_cumprod[-1].sqrt()
        cells = torch.from_numpy(mask).reshape(8, 8, 12, 8).mean(dim=(1, 3))
        wanted = signal * backbone.encode_frames(pixels)[0, :, 0] * cells
        torch.testing.assert_close(shift[row, :, 0], wanted, atol=1e-5, rtol=1e-4)
        assert (cells == 0).any() and (cells > 0.9).any()


def test_the_shift_scales_and_can_be_left_out(
    backbone: Backbone, adapter: Adapter, cast: list[Subject]
) -> None:
    one, plain = start(backbone, MuDI(CONFIG), adapter, [PROMPT])
    two, _ = start(backbone, MuDI(CONFIG.model_copy(update={"shift": 2.0})), adapter, [PROMPT])
    torch.testing.assert_close(two - plain, 2 * (one - plain), atol=1e-5, rtol=1e-4)
    without = MuDI(CONFIG.model_copy(update={"shift": 0.0}))
    bare = without.trainable(backbone, cast)
    assert not bare.extras
    zero, plain = start(backbone, without, bare, [PROMPT])
    assert torch.equal(zero, plain)


def test_cut_outs_survive_training_and_a_file(
    tiny_zeroscope: Path, cast: list[Subject], tmp_path: Path
) -> None:
    backbone = load_backbone(tiny_zeroscope, device="cpu")
    method = MuDI(CONFIG)
    trained = Trainer(short_run(steps=2), console=Console(quiet=True)).fit(backbone, method, cast)
    before = MuDI(CONFIG).trainable(backbone, cast)
    trained.save(tmp_path / "adapter.safetensors")
    loaded = Adapter.load(tmp_path / "adapter.safetensors")
    for name, value in before.extras.items():
        assert torch.allclose(loaded.extras[name], value, rtol=1e-3)
    assert any(delta.up.any() for delta in loaded.deltas.values())
    assert isinstance(renderer(loaded), MuDI)
    quick = SamplingConfig(num_steps=2, frames=2, height=64, width=96)
    video = generate(backbone, loaded, PROMPT, seed=3, options=quick)
    again = generate(backbone, loaded, PROMPT, seed=3, options=quick)
    assert video.frames.shape == (2, 64, 96, 3)
    assert np.array_equal(video.frames, again.frames)
