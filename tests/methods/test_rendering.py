"""Rendering: what a method gets that makes its videos itself, and who is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.errors import ConfigError
from customvideo.generation import SamplingConfig, generate, generate_with_attention
from customvideo.methods.base import METHODS
from customvideo.methods.customvideo import CustomVideo
from customvideo.methods.rendering import Draw, Rendering, Renders, renderer
from customvideo.subjects.subject import Subject
from customvideo.video import Video
from tests.cast import make_cast, quick_method

QUICK = SamplingConfig(num_steps=2, frames=3, height=32, width=48)
PROMPT = "a <tom> cat and a <rex> dog"


class Still(CustomVideo):
    """Draws one frame and shows it for the whole video."""

    name = "still"
    asked: list[Rendering] = []  # noqa: RUF012

    def render(self, backbone: Backbone, wanted: Rendering, draw: Draw) -> Sequence[Video]:
        self.asked.append(wanted)
        frames, height, width = wanted.size
        latents = draw(replace(wanted, size=(1, height, width)))
        return wanted.videos(backbone, latents.expand(-1, -1, frames, -1, -1))


@pytest.fixture(scope="module")
def backbone(tiny_zeroscope: Path) -> Backbone:
    return load_backbone(tiny_zeroscope, device="cpu")


@pytest.fixture
def adapters(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> tuple[Adapter, Adapter]:
    """CustomVideo's and Still's, untrained."""
    known = {"still": Still, "customvideo": CustomVideo}
    monkeypatch.setitem(METHODS, "still", "here:still")
    monkeypatch.setattr(
        "customvideo.tables.import_target",
        lambda target: known["still" if target == "here:still" else "customvideo"],
    )
    cast: list[Subject] = make_cast()
    config = quick_method(nu=0.1).config
    return CustomVideo(config).trainable(backbone, cast), Still(config).trainable(backbone, cast)


def test_only_a_method_that_renders_is_asked(adapters: tuple[Adapter, Adapter]) -> None:
    plain, still = adapters
    assert renderer(plain) is None
    found = renderer(still)
    assert isinstance(found, Renders) and isinstance(found, Still)
    assert found.config.nu == 0.1
    unknown = still.header.model_copy(update={"method": "never-heard-of"})
    assert renderer(Adapter(unknown, still.tokens, still.deltas)) is None
    assert not isinstance(CustomVideo(), Renders)


def test_a_method_makes_its_own_videos(
    backbone: Backbone, adapters: tuple[Adapter, Adapter]
) -> None:
    Still.asked.clear()
    videos = generate(backbone, adapters[1], [PROMPT, "a <tom> cat"], seed=[3, 4], options=QUICK)
    assert isinstance(videos, list) and len(videos) == 2
    assert all(video.frames.shape == (3, 32, 48, 3) for video in videos)
    assert all(np.array_equal(video.frames[0], frame) for video in videos for frame in video.frames)
    (wanted,) = Still.asked
    assert wanted.prompts == (PROMPT, "a <tom> cat") and wanted.seeds == (3, 4)
    assert wanted.adapter is adapters[1] and wanted.text.rows == 2 and wanted.negative.rows == 1
    one = generate(backbone, adapters[1], "a <tom> cat", seed=4, options=QUICK)
    assert np.abs(one.frames.astype(int) - videos[1].frames).max() <= 1


def test_no_attention_is_recorded_of_it(
    backbone: Backbone, adapters: tuple[Adapter, Adapter]
) -> None:
    with pytest.raises(ConfigError, match="'still' renders in its own way, of which no attention"):
        generate_with_attention(backbone, adapters[1], PROMPT, options=QUICK)


def test_noise_is_each_rows_own(backbone: Backbone) -> None:
    text: Any = None
    wanted = Rendering((), text, text, (5, 6), (2, 32, 48), 2, 1.0, "ddim")
    both = wanted.noise(backbone)
    assert both.shape == (2, *backbone.latent_shape(2, 32, 48))
    alone = replace(wanted, seeds=(6,)).noise(backbone)
    assert torch.equal(both[1], alone[0]) and not torch.equal(both[0], both[1])
