"""The UNet3D backbone: its forward against the stock one, and what it saves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from customvideo.attention.tape import watch
from customvideo.backbones.base import TextStates
from customvideo.backbones.unet3d import UNet3D, text_sites
from customvideo.errors import BackboneError, ConfigError
from tests.tiny import UNET_CONFIG, ZEROSCOPE_UNET_CONFIG

TIMES = torch.tensor([10, 900])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def text(backbone: UNet3D) -> TextStates:
    return backbone.encode_prompt(["a cat", "a dog on the beach"])


@pytest.fixture
def negative(backbone: UNet3D) -> TextStates:
    return backbone.encode_prompt([""])


@contextmanager
def counting(module: nn.Module) -> Iterator[list[int]]:
    """Batch sizes of the calls of `module`."""
    calls: list[int] = []
    handle = module.register_forward_hook(lambda _m, args, _out: calls.append(len(args[0])))
    yield calls
    handle.remove()


def stock_guided(
    stock: Any, latents: Tensor, time: Tensor, text: TextStates, negative: TextStates
) -> Tensor:
    states = torch.cat([negative.states.expand(text.rows, -1, -1), text.states])
    both = stock.unet(torch.cat([latents] * 2), time, states).sample
    without, within = both.chunk(2)
    guided: Tensor = without + 7 * (within - without)
    return guided


# The last two sizes are odd at some level, where the way up must meet the skips' sizes.
SHAPES = [(2, 4, 3, 8, 12), (2, 4, 1, 8, 12), (2, 4, 2, 9, 11), (2, 4, 5, 7, 6)]


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_forward_equals_the_stock_forward(
    backbone: UNet3D, stock: Any, text: TextStates, shape: tuple[int, ...]
) -> None:
    latents = draw(*shape)
    expected = stock.unet(latents, TIMES, text.states).sample
    assert expected.std() > 0.1
    assert (backbone.predict(latents, TIMES, text) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_guided_forward_equals_the_stock_forward(
    backbone: UNet3D, stock: Any, text: TextStates, negative: TextStates, shape: tuple[int, ...]
) -> None:
    latents = draw(*shape)
    expected = stock_guided(stock, latents, TIMES[1], text, negative)
    ours = backbone.predict_guided(latents, TIMES[1], text, negative, 7.0)
    assert (ours - expected).abs().max() <= 5e-5
    with backbone.cached_text(text, negative):
        cached = backbone.predict_guided(latents, TIMES[1], text, negative, 7.0)
    assert torch.equal(cached, ours)


@torch.no_grad()
def test_prepared_model_still_has_its_stock_forward(
    backbone: UNet3D, stock: Any, text: TextStates
) -> None:
    latents = draw(2, 4, 3, 8, 12)
    own: Tensor = backbone.denoiser(latents, TIMES, text.states).sample
    expected = stock.unet(latents, TIMES, text.states).sample
    assert (own - expected).abs().max() <= 1e-5
    assert set(backbone.denoiser.state_dict()) == set(stock.unet.state_dict())


@torch.no_grad()
def test_guidance_halves_share_all_before_the_first_text_attention(
    backbone: UNet3D, text: TextStates, negative: TextStates
) -> None:
    unet = backbone.denoiser
    first = unet.get_submodule("down_blocks.0.attentions.0.transformer_blocks.0")
    with ExitStack() as stack:
        shared = [
            stack.enter_context(counting(module))
            for module in (unet.conv_in, unet.down_blocks[0].resnets[0], first.attn1, first.norm2)
        ]
        parted = stack.enter_context(counting(first.attn2))
        backbone.predict_guided(draw(2, 4, 3, 8, 12), TIMES[0], text, negative, 5.0)
    assert shared == [[2 * 3]] * 4
    assert parted == [2 * 2 * 3]


@torch.no_grad()
def test_text_is_projected_once_per_row_not_per_frame(backbone: UNet3D, text: TextStates) -> None:
    site = backbone.denoiser.get_submodule(text_sites(backbone.denoiser)[0])
    with counting(site.to_k) as keys, counting(site.to_v) as values:
        backbone.predict(draw(2, 4, 3, 8, 12), TIMES, text)
    assert keys == values == [2]


def test_sixteen_of_zeroscopes_33_attentions_read_text() -> None:
    from diffusers import UNet3DConditionModel

    with torch.device("meta"):
        unet = UNet3DConditionModel(**ZEROSCOPE_UNET_CONFIG)
    assert sum(path.endswith("attn2") for path, _ in unet.named_modules()) == 33
    found = text_sites(unet)
    assert len(found) == len(set(found)) == 16
    blocks = [path.split(".attentions")[0] for path in found]
    assert blocks == [
        *("down_blocks.0", "down_blocks.0", "down_blocks.1", "down_blocks.1"),
        *("down_blocks.2", "down_blocks.2", "mid_block"),
        *(["up_blocks.1"] * 3 + ["up_blocks.2"] * 3 + ["up_blocks.3"] * 3),
    ]
    assert {unet.get_submodule(path).to_k.in_features for path in found} == {1024}


def test_site_grids_follow_the_frame_size(backbone: UNet3D) -> None:
    sites = backbone.sites(5, 72, 88)
    grids = {site.path.split(".attentions")[0]: site.grid for site in sites}
    # 72x88 pixels are 9x11 latents; each level halves and rounds up.
    assert grids == {
        "down_blocks.0": (5, 9, 11),
        "down_blocks.1": (5, 5, 6),
        "mid_block": (5, 3, 3),
        "up_blocks.1": (5, 5, 6),
        "up_blocks.2": (5, 9, 11),
    }
    site = sites[0]
    assert (site.kind, site.key, site.value) == ("cross", f"{site.path}.to_k", f"{site.path}.to_v")
    assert site.heads == UNET_CONFIG["block_out_channels"][0] // UNET_CONFIG["attention_head_dim"]


@pytest.mark.parametrize("size", [(0, 64, 96), (3, 60, 96), (3, 64, 4)])
def test_impossible_sizes_are_refused(backbone: UNet3D, size: tuple[int, int, int]) -> None:
    with pytest.raises(BackboneError, match="multiples of 8"):
        backbone.latent_shape(*size)


@torch.no_grad()
def test_cached_text_projects_once_and_is_undone(
    backbone: UNet3D, text: TextStates, negative: TextStates
) -> None:
    attention = backbone.denoiser.get_submodule(text_sites(backbone.denoiser)[0])
    key, names = attention.to_k, list(backbone.denoiser.state_dict())
    latents = draw(2, 4, 3, 8, 12)
    with counting(key) as calls, backbone.cached_text(text, negative):
        for _ in range(3):
            backbone.predict_guided(latents, TIMES[0], text, negative, 5.0)
        assert calls == [4]
        # Another text is not answered from memory.
        backbone.predict(latents, TIMES, text)
        assert calls == [4, 2]
    assert attention.to_k is key
    assert list(backbone.denoiser.state_dict()) == names


def test_cached_text_is_undone_after_an_error(backbone: UNet3D, text: TextStates) -> None:
    attention = backbone.denoiser.get_submodule(text_sites(backbone.denoiser)[0])
    key, value = attention.to_k, attention.to_v
    with pytest.raises(KeyError), backbone.cached_text(text):
        raise KeyError
    assert attention.to_k is key and attention.to_v is value


@torch.no_grad()
def test_cached_text_counts_hooks_once(backbone: UNet3D, text: TextStates) -> None:
    latents = draw(2, 4, 3, 8, 12)
    before = backbone.predict(latents, TIMES, text)
    key = backbone.denoiser.get_submodule(text_sites(backbone.denoiser)[0]).to_k
    handle = key.register_forward_hook(lambda _m, _args, output: output + 1.5 * output.roll(1, -1))
    hooked = backbone.predict(latents, TIMES, text)
    with backbone.cached_text(text):
        cached = [backbone.predict(latents, TIMES, text) for _ in range(2)]
    handle.remove()
    assert not torch.equal(hooked, before)
    assert torch.equal(cached[0], hooked) and torch.equal(cached[1], hooked)
    assert torch.equal(backbone.predict(latents, TIMES, text), before)


@torch.no_grad()
def test_tape_records_during_cached_guided_generation(
    backbone: UNet3D, text: TextStates, negative: TextStates
) -> None:
    latents, sites = draw(2, 4, 3, 8, 12), backbone.sites(3, 64, 96)
    words = torch.zeros(2, 1, backbone.tables()[0].max_length)
    words[:, 0, 2] = 1
    doubled = torch.cat([torch.zeros_like(words), words])
    with watch(backbone.denoiser, sites, words) as tape:
        backbone.predict(latents, TIMES[:1].expand(2), text)
    expected = tape.maps()
    with backbone.cached_text(text, negative):
        for _ in range(2):
            with watch(backbone.denoiser, sites, doubled) as tape:
                backbone.predict_guided(latents, TIMES[0], text, negative, 5.0)
            maps = tape.maps()
    for site in sites:
        assert maps[site.path].shape == (4, 1, *site.grid)
        assert not maps[site.path][:2].any()
        torch.testing.assert_close(maps[site.path][2:], expected[site.path], atol=1e-5, rtol=0)


def test_everything_is_frozen_and_dropout_is_off(backbone: UNet3D) -> None:
    assert not any(parameter.requires_grad for parameter in backbone.denoiser.parameters())
    dropouts = [m for m in backbone.denoiser.modules() if isinstance(m, nn.Dropout) and m.p > 0]
    assert dropouts and not any(module.training for module in dropouts)


def test_prompts_are_encoded_as_the_stock_pipeline_does(backbone: UNet3D, stock: Any) -> None:
    prompts = ["a cat on the beach", "été 猫 a word too long for so small a vocabulary"]
    expected = torch.cat(
        [
            stock.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)[0]
            for prompt in prompts
        ]
    )
    encoded = backbone.encode_prompt(prompts)
    assert encoded.ids.shape == encoded.states.shape[:2] == (2, 32)
    torch.testing.assert_close(encoded.states, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_gradient_reaches_the_input_embedding(backbone: UNet3D, checkpointed: bool) -> None:
    (table,) = backbone.tables()
    nudge = torch.zeros(16, requires_grad=True)
    handle = table.embedding.register_forward_hook(lambda _m, _args, output: output + nudge)
    backbone.checkpointed = checkpointed
    text = backbone.encode_prompt(["a cat", "a dog"])
    backbone.predict(draw(2, 4, 2, 8, 12), TIMES, text).square().mean().backward()
    handle.remove()
    assert nudge.grad is not None and nudge.grad.abs().max() > 1e-6


def test_checkpointing_changes_neither_output_nor_gradient(backbone: UNet3D) -> None:
    states = backbone.encode_prompt(["a cat", "a dog"])
    gradients, outputs = [], []
    for checkpointed in (False, True):
        backbone.checkpointed = checkpointed
        leaf = states.states.detach().clone().requires_grad_()
        output = backbone.predict(draw(2, 4, 2, 8, 12), TIMES, TextStates(leaf, states.ids))
        output.square().mean().backward()
        outputs.append(output.detach())
        gradients.append(leaf.grad)
    assert torch.equal(*outputs)
    torch.testing.assert_close(*gradients, atol=1e-8, rtol=1e-5)


@torch.no_grad()
def test_single_frame_can_skip_the_temporal_modules(backbone: UNet3D, text: TextStates) -> None:
    picture, clip = draw(2, 4, 1, 8, 12), draw(2, 4, 2, 8, 12)
    run, clip_run = backbone.predict(picture, TIMES, text), backbone.predict(clip, TIMES, text)
    backbone.single_frame = "skip"
    with counting(backbone.denoiser.down_blocks[0].temp_convs[0]) as calls:
        skipped = backbone.predict(picture, TIMES, text)
        assert calls == []
        assert torch.equal(backbone.predict(clip, TIMES, text), clip_run)
    assert not torch.allclose(skipped, run, atol=1e-3)


@torch.no_grad()
def test_single_frame_can_be_repeated_to_a_clip(backbone: UNet3D, text: TextStates) -> None:
    picture = draw(2, 4, 1, 8, 12)
    backbone.single_frame = "repeat"
    frames = backbone.frames
    whole = backbone.predict(picture.expand(-1, -1, frames, -1, -1), TIMES, text)
    expected = whole.mean(dim=2, keepdim=True)
    assert torch.equal(backbone.predict(picture, TIMES, text), expected)
    assert {site.grid[0] for site in backbone.sites(1, 64, 96)} == {frames}


def test_unknown_single_frame_mode_is_refused(backbone: UNet3D) -> None:
    with pytest.raises(ConfigError, match="run, skip, repeat"):
        backbone.single_frame = "drop"


def test_frames_are_encoded_and_decoded_one_by_one(backbone: UNet3D, stock: Any) -> None:
    frames = draw(2, 9, 3, 64, 96).clamp(-1, 1)
    latents = backbone.encode_frames(frames)
    assert latents.shape == (2, *backbone.latent_shape(9, 64, 96)) == (2, 4, 9, 8, 12)
    alone = backbone.encode_frames(frames[1:, 4:5])
    torch.testing.assert_close(latents[1:, :, 4:5], alone, atol=1e-5, rtol=0)
    decoded = backbone.decode_frames(latents)
    with torch.no_grad():
        # (row, 3, frame, height, width) in the stock pipeline
        expected = stock.decode_latents(latents).transpose(1, 2)
    # Convolutions over other batches round otherwise: 1.5e-5 was seen with one thread.
    torch.testing.assert_close(decoded, expected, atol=5e-5, rtol=0)
    assert not latents.requires_grad and not decoded.requires_grad
