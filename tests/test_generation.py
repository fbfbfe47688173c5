"""From a prompt to a video: seeds, batches, adapters, attention, and what is warned of."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import new_adapter
from customvideo.attention.site import intermediate
from customvideo.backbones.unet3d import UNet3D, load_folder
from customvideo.errors import AdapterError, BackboneError, ConfigError
from customvideo.generation import (
    CustomVideoWarning,
    SamplingConfig,
    generate,
    generate_with_attention,
)
from customvideo.subjects.subject import Subject
from tests.tiny import MAX_LENGTH

QUICK = SamplingConfig(num_steps=2, frames=2, height=64, width=96)
PROMPT = "a <tom> cat and a <rex> dog"


def make_subject(name: str, category: str) -> Subject:
    """One grey photo; nothing here looks at it."""
    image, mask = np.full((32, 32, 3), 99, np.uint8), np.zeros((32, 32), np.float32)
    mask[8:24, 8:24] = 1
    return Subject(name, f"<{name}>", category, (image,), (mask,), ("photo.png",))


@pytest.fixture(scope="module")
def shared(tiny_zeroscope: Path) -> UNet3D:
    return load_folder(tiny_zeroscope, device="cpu")


@pytest.fixture
def backbone(shared: UNet3D) -> Iterator[UNet3D]:
    yield shared
    shared.known_words = None


@pytest.fixture(scope="module")
def adapter(shared: UNet3D) -> Adapter:
    """Words and weights far enough from nothing to change the picture."""
    subjects = [make_subject("tom", "cat"), make_subject("rex", "dog")]
    adapter = new_adapter(shared, subjects, method="test")
    generator = torch.Generator().manual_seed(0)
    for parameter in adapter.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return adapter


def test_the_same_seed_gives_the_same_video(backbone: UNet3D, adapter: Adapter) -> None:
    one = generate(backbone, adapter, PROMPT, seed=5, options=QUICK)
    again = generate(backbone, adapter, PROMPT, seed=5, options=QUICK)
    other = generate(backbone, adapter, PROMPT, seed=6, options=QUICK)
    assert one.frames.shape == (2, 64, 96, 3) and one.fps == backbone.fps
    assert np.array_equal(one.frames, again.frames)
    assert not np.array_equal(one.frames, other.frames)
    assert one.frames.std() > 1


def test_the_global_random_state_is_left_alone(backbone: UNet3D) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    generate(backbone, None, "a cat", options=QUICK)
    assert torch.equal(torch.get_rng_state(), state)


def test_several_prompts_at_once_are_as_one_at_a_time(backbone: UNet3D, adapter: Adapter) -> None:
    prompts = [PROMPT, "a <tom> cat on the beach", "a <rex>", "a dog and a <tom>", "a <rex> dog"]
    seeds = [3, 4, 5, 6, 7]
    together = generate(backbone, adapter, prompts, seed=seeds, options=QUICK)
    assert isinstance(together, list) and len(together) == 5
    for prompt, seed, video in zip(prompts, seeds, together, strict=True):
        alone = generate(backbone, adapter, prompt, seed=seed, options=QUICK)
        difference = np.abs(alone.frames.astype(int) - video.frames.astype(int))
        # Another batch size may round a value the other way.
        assert difference.max() <= 1


def test_one_prompt_serves_many_seeds_and_the_reverse(backbone: UNet3D) -> None:
    by_seed = generate(backbone, None, "a cat", seed=[1, 2], options=QUICK)
    by_prompt = generate(backbone, None, ["a cat", "a dog"], seed=1, options=QUICK)
    assert isinstance(by_seed, list) and isinstance(by_prompt, list)
    assert not np.array_equal(by_seed[0].frames, by_seed[1].frames)
    assert not np.array_equal(by_prompt[0].frames, by_prompt[1].frames)
    assert np.abs(by_seed[0].frames.astype(int) - by_prompt[0].frames).max() <= 1


def test_the_adapter_counts_meanwhile_and_is_off_afterwards(
    backbone: UNet3D, adapter: Adapter
) -> None:
    before = generate(backbone, None, "a cat", options=QUICK)
    with_adapter = generate(backbone, adapter, "a <tom> cat", options=QUICK)
    after = generate(backbone, None, "a cat", options=QUICK)
    assert np.array_equal(before.frames, after.frames)
    assert not np.array_equal(before.frames, with_adapter.frames)
    assert "<tom>" not in backbone.tables()[0].tokenizer.get_vocab()
    assert not any(module._forward_hooks for module in backbone.denoiser.modules())


def test_the_adapter_is_off_after_an_error(backbone: UNet3D, adapter: Adapter) -> None:
    odd = SamplingConfig(num_steps=2, frames=2, height=60, width=96)
    with pytest.raises(BackboneError, match="multiples of 8"):
        generate(backbone, adapter, PROMPT, options=odd)
    assert "<tom>" not in backbone.tables()[0].tokenizer.get_vocab()
    assert not any(module._forward_hooks for module in backbone.denoiser.modules())


def test_strength_scales_the_adapter(backbone: UNet3D, adapter: Adapter) -> None:
    full, half, none = (
        generate(backbone, adapter, PROMPT, options=QUICK.model_copy(update={"strength": s}))
        for s in (1.0, 0.5, 0.0)
    )
    change = [np.abs(v.frames.astype(int) - none.frames).mean() for v in (half, full)]
    assert 0 < change[0] < change[1]


def test_a_negative_prompt_may_hold_learned_words(backbone: UNet3D, adapter: Adapter) -> None:
    options = [QUICK.model_copy(update={"negative": text}) for text in ("", "a <rex>", "a dog")]
    videos = [generate(backbone, adapter, "a <tom> cat", options=each) for each in options]
    assert not np.array_equal(videos[0].frames, videos[1].frames)
    assert not np.array_equal(videos[1].frames, videos[2].frames)


def test_an_adapter_for_another_backbone_is_refused(
    backbone: UNet3D, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone, "fingerprint", "0" * 64)
    with pytest.raises(AdapterError, match="tiny-zeroscope"):
        generate(backbone, adapter, PROMPT, options=QUICK)


def test_prompts_and_seeds_must_match(backbone: UNet3D, adapter: Adapter) -> None:
    with pytest.raises(ConfigError, match="2 prompts cannot be paired with 3 seeds"):
        generate(backbone, None, ["a cat", "a dog"], seed=[1, 2, 3], options=QUICK)
    for seed in (-1, 2**63, 1.5, "3"):
        with pytest.raises(ConfigError, match=f"The seed {seed!r} is"):
            generate(backbone, None, "a cat", seed=seed, options=QUICK)  # type: ignore[call-overload]
        with pytest.raises(ConfigError, match=f"The seed {seed!r} is"):
            generate_with_attention(backbone, adapter, PROMPT, seed=seed)  # type: ignore[arg-type]
    for nothing in ([], "a cat"):
        with pytest.raises(ConfigError, match="nothing to generate"):
            generate(backbone, None, nothing, seed=[], options=QUICK)


def test_any_whole_number_is_a_seed(backbone: UNet3D) -> None:
    options = QUICK.model_copy(update={"num_steps": 1, "frames": 1})
    plain = generate(backbone, None, "a cat", seed=3, options=options)
    for seed in (np.int64(3), torch.tensor(3)):
        same = generate(backbone, None, "a cat", seed=seed, options=options)  # type: ignore[call-overload]
        assert np.array_equal(same.frames, plain.frames)
    several = generate(backbone, None, "a cat", seed=np.array([3]), options=options)  # type: ignore[call-overload]
    assert np.array_equal(several[0].frames, plain.frames)


@pytest.mark.parametrize(
    "wrong", [{"num_steps": 0}, {"guidance": -1.0}, {"solver": "magic"}, {"colour": "red"}]
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SamplingConfig.model_validate(wrong)


def test_a_good_prompt_is_silent(backbone: UNet3D, adapter: Adapter) -> None:
    backbone.known_words = frozenset({"a", "cat", "and", "dog"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(backbone, adapter, PROMPT, options=QUICK)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a cat on the beach", "no learned word.*write <tom>, <rex>"),
        ("a <tom> cat and a <tim> dog", "Nobody learned <tim>.*knows <tom>, <rex>"),
        ("a <tom> cat " + "and a dog " * (MAX_LENGTH // 3), "longer than the backbone"),
        ("a <tom> cat and a Zeppelin", "never learned 'zeppelin'"),
    ],
)
def test_a_doubtful_prompt_is_warned_of_once(
    backbone: UNet3D, adapter: Adapter, prompt: str, words: str
) -> None:
    backbone.known_words = frozenset({"a", "cat", "dog", "and", "on", "the", "beach"})
    with pytest.warns(CustomVideoWarning, match=words) as caught:
        videos = generate(backbone, adapter, prompt, seed=[0, 1], options=QUICK)
    assert isinstance(videos, list) and len(videos) == 2
    assert len(caught) == 1 and caught[0].filename == __file__


def test_a_learned_word_without_its_adapter_is_warned_of(backbone: UNet3D) -> None:
    with pytest.warns(CustomVideoWarning, match="Nobody learned <tom>.*no adapter"):
        generate(backbone, None, "a <tom> cat", options=QUICK)


@pytest.mark.parametrize("guidance", [5.0, 1.0])
def test_attention_is_recorded_beside_the_same_video(
    backbone: UNet3D, adapter: Adapter, guidance: float
) -> None:
    options = QUICK.model_copy(update={"guidance": guidance})
    video, maps = generate_with_attention(backbone, adapter, PROMPT, seed=2, options=options)
    plain = generate(backbone, adapter, PROMPT, seed=2, options=options)
    assert np.array_equal(video.frames, plain.frames)
    grid = max(site.grid for site in intermediate(backbone.sites(2, 64, 96)))
    assert list(maps) == ["<tom>", "<rex>"]
    for found in maps.values():
        assert found.shape == grid and found.dtype == np.float32
        assert found.min() > 0 and found.max() < 1 and found.std() > 0
    assert not np.allclose(maps["<tom>"], maps["<rex>"], atol=1e-6)


def test_attention_is_recorded_for_the_words_in_the_prompt(
    backbone: UNet3D, adapter: Adapter
) -> None:
    _, maps = generate_with_attention(backbone, adapter, "a <rex> dog", options=QUICK)
    assert list(maps) == ["<rex>"] and maps["<rex>"].max() > 0
    video, none = generate_with_attention(backbone, None, "a dog", options=QUICK)
    assert none == {} and len(video) == 2
