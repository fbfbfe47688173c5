"""What every row of the BACKBONES table owes to the rest of the package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from customvideo.attention.tape import watch
from customvideo.backbones.base import Backbone, LayerGroup, guided_inside
from customvideo.backbones.noise import reached

SIZE = (5, 64, 96)
"""Frames, height and width of everything here; all families take five frames."""


@pytest.fixture
def latents(backbone: Backbone) -> Tensor:
    shape = (2, *backbone.latent_shape(*SIZE))
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def kept(backbone: Backbone) -> Iterator[Callable[[], None]]:
    """Afterwards, neither weights nor hooks nor modules of the denoiser are other than before."""
    weights = {name: value.clone() for name, value in backbone.denoiser.state_dict().items()}
    modules = dict(backbone.denoiser.named_modules())

    def check() -> None:
        after = backbone.denoiser.state_dict()
        assert after.keys() == weights.keys()
        assert all(torch.equal(after[name], value) for name, value in weights.items())
        now = dict(backbone.denoiser.named_modules())
        assert now.keys() == modules.keys()
        assert all(now[name] is module for name, module in modules.items())
        assert not any(module._forward_hooks for module in now.values())

    yield check
    check()


def test_describes_itself(backbone: Backbone) -> None:
    assert isinstance(backbone, Backbone)
    assert backbone.name and backbone.family and len(backbone.fingerprint) == 64
    assert backbone.frames >= 1 and backbone.fps > 0
    assert backbone.latent_shape(backbone.frames, *backbone.size)[1] >= 1


def test_is_frozen_in_evaluation_mode(backbone: Backbone) -> None:
    assert not any(p.requires_grad for p in backbone.denoiser.parameters())
    assert not any(module.training for module in backbone.denoiser.modules())


def test_text_has_one_state_per_token(backbone: Backbone) -> None:
    text = backbone.encode_prompt(["a cat", ""])
    (rows, tokens), table = text.ids.shape, backbone.tables()[0]
    assert (rows, tokens) == text.states.shape[:2] and rows == text.rows == 2
    assert tokens <= table.max_length
    assert not torch.equal(text.states[0], text.states[1])


def test_tables_hold_the_embedding_that_is_called(backbone: Backbone) -> None:
    for table in backbone.tables():
        calls: list[int] = []
        handle = table.embedding.register_forward_hook(
            lambda _module, args, _output, seen=calls: seen.append(args[0].shape[0])
        )
        backbone.encode_prompt(["a cat"])
        handle.remove()
        assert calls == [1]


def test_a_replaced_tokenizer_is_used(backbone: Backbone) -> None:
    table = backbone.tables()[0]
    found = table.tokenizer

    class Shouting:
        def __call__(self, texts: list[str], **options: Any) -> Any:
            # A model may put its own words around the prompt.
            return found([text.replace("cat", "cat dog") for text in texts], **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(found, name)

    expected = backbone.encode_prompt(["a cat dog"]).ids
    table.tokenizer = Shouting()
    replaced = backbone.encode_prompt(["a cat"]).ids
    table.tokenizer = found
    assert torch.equal(replaced, expected)


@torch.no_grad()
def test_predicts_rows_independently(
    backbone: Backbone, latents: Tensor, kept: Callable[[], None]
) -> None:
    text, times = backbone.encode_prompt(["a cat", "a dog"]), torch.tensor([1, 700])
    both = backbone.predict(latents, times, text)
    alone = backbone.predict(latents[1:], times[1:], backbone.encode_prompt(["a dog"]))
    assert both.shape == latents.shape and both.dtype == latents.dtype
    torch.testing.assert_close(both[1:], alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(both[0], both[1], atol=1e-2)


@torch.no_grad()
def test_guidance_is_two_predictions(
    backbone: Backbone, latents: Tensor, kept: Callable[[], None]
) -> None:
    if guided_inside(backbone):
        pytest.skip("Its network is told the guidance.")
    text, negative = backbone.encode_prompt(["a cat", "a dog"]), backbone.encode_prompt([""])
    time = torch.tensor(400)
    wanted = backbone.predict(latents, time.expand(2), text)
    unwanted = backbone.predict(latents, time.expand(2), backbone.encode_prompt([""] * 2))
    expected = unwanted + 4.0 * (wanted - unwanted)
    guided = backbone.predict_guided(latents, time, text, negative, 4.0)
    torch.testing.assert_close(guided, expected, atol=1e-4, rtol=1e-4)
    with backbone.cached_text(text, negative):
        cached = backbone.predict_guided(latents, time, text, negative, 4.0)
    torch.testing.assert_close(cached, guided, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_guidance_inside_is_one_prediction(
    backbone: Backbone, latents: Tensor, kept: Callable[[], None]
) -> None:
    if not guided_inside(backbone):
        pytest.skip("It is guided by two predictions.")
    text, time = backbone.encode_prompt(["a cat", "a dog"]), torch.tensor(400)
    seen: list[int] = []
    handle = backbone.denoiser.register_forward_pre_hook(
        lambda _module, _args, given: seen.append(len(given["hidden_states"])), with_kwargs=True
    )
    guided = backbone.predict_guided(latents, time, text, backbone.encode_prompt([""]), 4.0)
    handle.remove()
    assert seen == [2]
    other = backbone.predict_guided(latents, time, text, backbone.encode_prompt(["a car"]), 4.0)
    assert torch.equal(other, guided)
    plain = backbone.predict(latents, time.expand(2), text)
    assert not torch.allclose(guided, plain, atol=1e-2)
    told = backbone.predict_guided(latents, time, text, text, 1.0)
    torch.testing.assert_close(told, plain, atol=1e-5, rtol=1e-5)
    with backbone.cached_text(text):
        cached = backbone.predict_guided(latents, time, text, text, 4.0)
    torch.testing.assert_close(cached, guided, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_sites_are_where_text_is_read(
    backbone: Backbone, latents: Tensor, kept: Callable[[], None]
) -> None:
    sites, text = backbone.sites(*SIZE), backbone.encode_prompt(["a cat", "a dog"])
    words, maps = torch.ones(2, 1, text.ids.shape[1]), {}
    for times in torch.tensor([[5, 5], [995, 995]]):
        there = reached(backbone.noise, sites, times)
        with watch(backbone.denoiser, there, words, text.real) as tape:
            backbone.predict(latents, times, text)
        maps |= tape.maps()
    for site in sites:
        found = maps[site.path]
        assert found.shape == (2, 1, *site.grid)
        # All tokens together hold all the attention there is, or leave some to the video.
        if site.kind == "cross":
            torch.testing.assert_close(found, torch.ones_like(found), atol=1e-4, rtol=0)
        else:
            assert found.min() > 0 and found.max() < 1
        for path in (site.key, site.value):
            assert isinstance(backbone.denoiser.get_submodule(path), torch.nn.Linear)


def test_layers_are_named_in_groups(backbone: Backbone) -> None:
    def weights(group: LayerGroup) -> list[tuple[int, ...]]:
        paths = backbone.layers(group)
        assert len(set(paths)) == len(paths) > 0
        return [tuple(cast(Any, backbone.layer(path)).weight.shape) for path in paths]

    groups: tuple[LayerGroup, ...] = ("text_kv", "text_qo", "self", "encoder_attention")
    assert all(len(shape) == 2 for group in groups for shape in weights(group))
    sites = backbone.sites(*SIZE)
    assert backbone.layers("text_kv") == [path for site in sites for path in (site.key, site.value)]
    assert all(site.norm == "" or backbone.layer(site.norm) for site in sites)
    whole, spatial = set(backbone.layers("denoiser")), set(backbone.layers("spatial"))
    assert set(backbone.layers("text_kv") + backbone.layers("self")) < spatial <= whole
    assert set(backbone.layers("encoder_attention")) < set(backbone.layers("encoder"))
    assert whole.isdisjoint(backbone.layers("encoder"))
    weights("denoiser")
    weights("encoder")
    with pytest.raises(AttributeError):
        backbone.layer("nowhere")


def test_gradient_flows_to_the_text(backbone: Backbone, latents: Tensor) -> None:
    (embedding,) = [table.embedding for table in backbone.tables()[:1]]
    nudge = torch.zeros((), requires_grad=True)
    handle = embedding.register_forward_hook(
        lambda _module, _args, output: output + nudge * torch.arange(output.shape[-1])
    )
    text = backbone.encode_prompt(["a cat", "a dog"])
    backbone.predict(latents, torch.tensor([5, 500]), text).square().mean().backward()
    handle.remove()
    assert nudge.grad is not None and nudge.grad != 0


def test_frames_go_to_latents_and_back(backbone: Backbone) -> None:
    frames = torch.zeros(1, *SIZE[:1], 3, *SIZE[1:])
    frames[..., :48] = 0.5
    latents = backbone.encode_frames(frames)
    assert latents.shape == (1, *backbone.latent_shape(*SIZE))
    assert torch.equal(latents, backbone.encode_frames(frames))
    assert backbone.decode_frames(latents).shape == frames.shape


def test_a_picture_is_a_video_of_one_frame(backbone: Backbone) -> None:
    shape = (1, *backbone.latent_shape(1, *SIZE[1:]))
    text = backbone.encode_prompt(["a cat"])
    assert backbone.predict(torch.zeros(shape), torch.tensor([9]), text).shape == shape
