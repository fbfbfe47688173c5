"""Every kind of delta on a whole model: nothing at first, exact there and back, and what it means.

What a kind computes is compared with a model whose weights were really changed, with the formula
it is named after, or with diffusers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from diffusers.models.attention_processor import CustomDiffusionAttnProcessor
from torch import Tensor, nn
from torch.nn import functional as F

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import DeltaSpec, new_adapter
from customvideo.adapters.deltas import BottleneckDelta, LowRankDelta, WeightDelta
from customvideo.adapters.header import metadata, read_file
from customvideo.backbones.base import Backbone
from customvideo.errors import AdapterError
from customvideo.subjects.subject import Subject

Specs = dict[str, DeltaSpec]

WEIGHT, BOTTLENECK = DeltaSpec(kind="weight"), DeltaSpec(kind="bottleneck")
PROMPTS = ["a <tom> cat and a <rex> dog", "a cat on the beach"]
TIMES = torch.tensor([500, 20])
BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"


def specs(backbone: Backbone, kind: str) -> Specs:
    if kind == "whole denoiser":
        return dict.fromkeys(backbone.layers("denoiser"), WEIGHT)
    if kind == "text encoder":
        low = dict.fromkeys(backbone.layers("encoder_attention"), DeltaSpec(rank=2))
        return dict.fromkeys(backbone.layers("encoder"), WEIGHT) | low
    if kind == "bottlenecks":
        return {site.path: BOTTLENECK for site in backbone.sites(1, *backbone.size)}
    assert kind == "ladder"
    return (
        dict.fromkeys(backbone.layers("text_kv"), DeltaSpec(holds_first=True))
        | dict.fromkeys(backbone.layers("text_qo"), DeltaSpec(rank=2))
        | dict.fromkeys(backbone.layers("self"), DeltaSpec(rank=3))
    )


KINDS = ["whole denoiser", "text encoder", "bottlenecks", "ladder"]


def make(backbone: Backbone, subjects: list[Subject], paths: Specs, scale: float = 0.0) -> Adapter:
    """An adapter whose deltas are `scale` away from nothing; its words stay where they start."""
    adapter = new_adapter(backbone, subjects, method="m", paths=paths)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for delta in adapter.deltas.values() if scale else ():
            for value in delta.parameters():
                # Not `randn(shape)`, whose order would be another layout's.
                value.copy_(value + scale * torch.randn(value.shape, generator=generator))
    return adapter


@pytest.fixture
def latents(backbone: Backbone) -> Tensor:
    shape = (2, *backbone.latent_shape(2, 32, 48))
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def predict(backbone: Backbone, latents: Tensor) -> Tensor:
    return backbone.predict(latents, TIMES, backbone.encode_prompt(PROMPTS))


def guided(backbone: Backbone, latents: Tensor) -> Tensor:
    text, negative = backbone.encode_prompt(PROMPTS), backbone.encode_prompt([""])
    return backbone.predict_guided(latents, TIMES[0], text, negative, 4.0)


def modules(backbone: Backbone) -> dict[str, nn.Module]:
    encoder = backbone.layer("text_encoder.encoder")
    named = {f"text_encoder.{path}": module for path, module in encoder.named_modules()}
    return dict(backbone.denoiser.named_modules()) | named


@pytest.fixture
def kept(backbone: Backbone) -> Iterator[Callable[[], None]]:
    """Afterwards every module, parameter and value is the very one that was there before."""
    parameters = {
        (path, name): (value, value.clone(), value.stride())
        for path, module in modules(backbone).items()
        for name, value in module._parameters.items()
        if value is not None
    }

    def check() -> None:
        now = modules(backbone)
        for (path, name), (parameter, value, stride) in parameters.items():
            assert now[path]._parameters[name] is parameter
            assert torch.equal(parameter, value) and parameter.stride() == stride
            assert parameter.grad is None
        for module in now.values():
            assert "forward" not in module.__dict__
            assert not module._forward_hooks and not module._forward_pre_hooks

    yield check
    check()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_an_untrained_one_is_exactly_nothing(
    backbone: Backbone, subjects: list[Subject], latents: Tensor, kind: str, kept: Any
) -> None:
    before, halves = predict(backbone, latents), guided(backbone, latents)
    adapter = make(backbone, subjects, specs(backbone, kind))
    with adapter.attach(backbone):
        assert torch.equal(predict(backbone, latents)[1], before[1])
        assert torch.equal(guided(backbone, latents)[1], halves[1])
        for delta in adapter.deltas.values():
            for value in delta.parameters():
                value += 0.1
        assert not torch.equal(predict(backbone, latents)[1], before[1])


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_there_and_back_is_exact(
    backbone: Backbone,
    subjects: list[Subject],
    latents: Tensor,
    kind: str,
    tmp_path: Path,
    kept: Any,
) -> None:
    before, halves = predict(backbone, latents), guided(backbone, latents)
    adapter = make(backbone, subjects, specs(backbone, kind), scale=0.1)
    with adapter.attach(backbone):
        expected, expected_halves = predict(backbone, latents), guided(backbone, latents)
    assert (expected - before).abs().amax(dim=(1, 2, 3, 4)).gt(1e-3).all()
    assert torch.equal(predict(backbone, latents), before)
    adapter.save(tmp_path / "one.safetensors")
    loaded = Adapter.load(tmp_path / "one.safetensors")
    with loaded.attach(backbone):
        assert torch.equal(predict(backbone, latents), expected)
        assert torch.equal(guided(backbone, latents), expected_halves)
    assert torch.equal(guided(backbone, latents), halves)
    loaded.save(tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (
        tmp_path / "two.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_guidance_and_remembered_texts_hear_it(
    backbone: Backbone, subjects: list[Subject], latents: Tensor, kind: str, kept: Any
) -> None:
    with make(backbone, subjects, specs(backbone, kind), scale=0.1).attach(backbone):
        text, negative = backbone.encode_prompt(PROMPTS), backbone.encode_prompt([""])
        wanted = backbone.predict(latents, TIMES[:1].expand(2), text)
        unwanted = backbone.predict(latents, TIMES[:1].expand(2), backbone.encode_prompt([""] * 2))
        halves = backbone.predict_guided(latents, TIMES[0], text, negative, 4.0)
        torch.testing.assert_close(halves, unwanted + 4 * (wanted - unwanted), atol=1e-3, rtol=1e-3)
        with backbone.cached_text(text, negative):
            again = backbone.predict_guided(latents, TIMES[0], text, negative, 4.0)
        assert torch.equal(again, halves)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_all_of_it_and_nothing_else(
    backbone: Any, subjects: list[Subject], latents: Tensor, kind: str, kept: Any
) -> None:
    """And they are the same where activations are recomputed in the backward pass."""
    gradients = []
    for checkpointed in (False, True):
        adapter = make(backbone, subjects, specs(backbone, kind), scale=0.1)
        backbone.checkpointed = checkpointed
        try:
            with adapter.attach(backbone):
                predict(backbone, latents).square().mean().backward()
        finally:
            backbone.checkpointed = False
        named = dict(adapter.named_parameters())
        assert all(value.grad is not None and value.grad.any() for value in named.values())
        gradients.append({name: value.grad for name, value in named.items()})
    once, again = gradients
    assert all(torch.allclose(once[name], again[name], atol=1e-6) for name in once)


@contextmanager
def really_changed(backbone: Backbone, adapter: Adapter, strength: float) -> Iterator[None]:
    """The model with the adapter's weight deltas added to its own weights."""
    found: list[tuple[Tensor, Tensor]] = []
    for path, delta in adapter.deltas.items():
        layer: Any = backbone.layer(path)
        assert isinstance(delta, WeightDelta)
        for value, added in ((layer.weight, delta.added_weight), (layer.bias, delta.added_bias)):
            if added is not None:
                found.append((value, value.clone()))
                value.add_(strength * added)
    try:
        yield
    finally:
        for value, before in found:
            value.copy_(before)


@pytest.mark.parametrize("strength", [1.0, 0.5])
@torch.no_grad()
def test_a_weight_delta_is_a_changed_weight(
    backbone: Backbone, subjects: list[Subject], latents: Tensor, strength: float, kept: Any
) -> None:
    paths = specs(backbone, "whole denoiser") | dict.fromkeys(backbone.layers("encoder"), WEIGHT)
    kinds = {type(backbone.layer(path)).__name__ for path in paths}
    assert kinds == {"Conv2d", "GroupNorm", "LayerNorm", "Linear", "TimeConvolution"}
    adapter = make(backbone, subjects, paths, scale=0.1)
    with adapter.attach(backbone, strength):
        found = predict(backbone, latents)
    with really_changed(backbone, adapter, strength), adapter.attach(backbone, strength=0):
        assert torch.equal(found, predict(backbone, latents))


@torch.no_grad()
def test_a_weight_delta_keeps_the_memory_layout(
    backbone: Backbone, subjects: list[Subject], latents: Tensor, tmp_path: Path
) -> None:
    path = "down_blocks.0.resnets.0.conv1"
    layer: Any = backbone.layer(path)
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    make(backbone, subjects, {path: WEIGHT}, scale=0.1).save(tmp_path / "a.safetensors")
    seen: list[tuple[int, ...]] = []
    convolve = layer._conv_forward

    def note(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        seen.append(weight.stride())
        output: Tensor = convolve(inputs, weight, bias)
        return output

    with Adapter.load(tmp_path / "a.safetensors").attach(backbone):
        layer._conv_forward = note
        try:
            predict(backbone, latents)
        finally:
            del layer._conv_forward
    assert seen == [layer.weight.stride()]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_inside_a_layer_leaves_its_own_weight(
    backbone: Backbone, subjects: list[Subject], latents: Tensor, error: Any, kept: Any
) -> None:
    layer: Any = backbone.layer("conv_out")

    def fail(*_args: object) -> None:
        raise error

    with make(backbone, subjects, {"conv_out": WEIGHT}, scale=0.1).attach(backbone):
        layer._conv_forward, own = fail, layer.weight
        try:
            with pytest.raises(error):
                predict(backbone, latents)
        finally:
            del layer._conv_forward
        assert layer.weight is own


@torch.no_grad()
def test_two_adapters_add_up(
    backbone: Backbone, subjects: list[Subject], latents: Tensor, kept: Any
) -> None:
    first = make(backbone, subjects[:1], {"conv_in": WEIGHT}, scale=0.1)
    second = make(backbone, subjects[1:], {"conv_in": WEIGHT}, scale=0.2)
    both = make(backbone, subjects, {"conv_in": WEIGHT})
    for name, value in both.deltas["conv_in"].named_parameters():
        value += sum(getattr(one.deltas["conv_in"], name) for one in (first, second))
    with both.attach(backbone):
        expected = predict(backbone, latents)[1]
    with first.attach(backbone):
        alone = predict(backbone, latents)
        with second.attach(backbone):
            torch.testing.assert_close(predict(backbone, latents)[1], expected)
        assert torch.equal(predict(backbone, latents), alone)


@torch.no_grad()
def test_a_bottleneck_stands_beside_the_attention(
    backbone: Backbone, subjects: list[Subject], latents: Tensor, kept: Any
) -> None:
    """x <- attn2(LN(x), c) + [x + W_up GELU(W_down x)], x before its norm."""
    site = backbone.sites(1, *backbone.size)[0]
    assert (site.path, site.norm) == (f"{BLOCK}.attn2", f"{BLOCK}.norm2")
    adapter = make(backbone, subjects, {site.path: BOTTLENECK}, scale=0.3)
    delta = adapter.deltas[site.path]
    assert isinstance(delta, BottleneckDelta) and delta.narrow.shape == (4, 8)
    streams: list[Tensor] = []
    outputs: list[Tensor] = []
    handles = [
        backbone.layer(site.norm).register_forward_pre_hook(
            lambda _m, args: streams.append(args[0])
        ),
        backbone.layer(site.path).register_forward_hook(lambda _m, _a, out: outputs.append(out)),
    ]
    with adapter.attach(backbone, strength=0):
        predict(backbone, latents)
    with adapter.attach(backbone, strength=0.5):
        predict(backbone, latents)
    for handle in handles:
        handle.remove()
    assert torch.equal(*streams)
    inner = F.gelu(streams[0] @ delta.narrow.T + delta.narrow_bias)
    wanted = outputs[0] + 0.5 * (inner @ delta.widen.T + delta.widen_bias)
    torch.testing.assert_close(outputs[1], wanted)


def test_a_new_bottleneck_widens_to_zero() -> None:
    delta = BottleneckDelta(6, generator=torch.Generator().manual_seed(0))
    assert not delta(torch.randn(3, 6)).any()
    assert delta.narrow.any() and delta.narrow.abs().max() <= 6**-0.5
    # d^2 + 1.5 d numbers at a hidden width of d / 2.
    assert sum(value.numel() for value in delta.parameters()) == 36 + 9
    assert delta(torch.randn(3, 6, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("rank", [None, 2])
def test_the_first_position_trains_as_in_custom_diffusion(
    backbone: Backbone, subjects: list[Subject], rank: int | None
) -> None:
    """Against diffusers' processor with the summed weights: output and all gradients."""
    attention: Any = backbone.layer(f"{BLOCK}.attn2")
    paths = dict.fromkeys((f"{BLOCK}.attn2.to_k", f"{BLOCK}.attn2.to_v"), DeltaSpec(rank=rank))
    held = {path: DeltaSpec(rank=rank, holds_first=True) for path in paths}
    hidden, text = torch.randn(2, 12, 8), torch.randn(2, 5, 16)
    results = {}
    for name, chosen in (("plain", paths), ("held", held)):
        adapter, states = make(backbone, subjects, chosen, scale=0.3), text.clone().requires_grad_()
        with adapter.attach(backbone):
            output = attention(hidden, encoder_hidden_states=states)
        output.square().sum().backward()
        matrices = [delta.merged() for delta in adapter.deltas.values()]
        results[name] = output, states.grad, adapter
    stock, summed = CustomDiffusionAttnProcessor(True, False, 8, 16), text.clone().requires_grad_()
    with torch.no_grad():
        for own, base, added in zip(
            (stock.to_k_custom_diffusion, stock.to_v_custom_diffusion),
            (attention.to_k, attention.to_v),
            matrices,
            strict=True,
        ):
            own.weight.copy_(base.weight + added)
    expected = stock(attention, hidden, summed)
    expected.square().sum().backward()

    output, gradient, adapter = results["held"]
    assert torch.equal(output, results["plain"][0])
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradient, summed.grad, atol=1e-5, rtol=1e-4)
    assert not gradient[:, 0].any() and results["plain"][1][:, 0].any()
    for delta, own in zip(
        adapter.deltas.values(),
        (stock.to_k_custom_diffusion.weight.grad, stock.to_v_custom_diffusion.weight.grad),
        strict=True,
    ):
        if isinstance(delta, LowRankDelta):
            torch.testing.assert_close(delta.up.grad, own @ delta.down.T, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(delta.down.grad, delta.up.T @ own, atol=1e-5, rtol=1e-4)
        else:
            torch.testing.assert_close(delta.weight.grad, own, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_text_encoder_deltas_change_what_prompts_mean(
    backbone: Backbone, subjects: list[Subject], kept: Any
) -> None:
    before = backbone.encode_prompt(["a cat"])
    adapter = make(backbone, subjects, specs(backbone, "text encoder"), scale=0.1)
    assert all(path.startswith("text_encoder.") for path in adapter.deltas)
    with adapter.attach(backbone):
        changed = backbone.encode_prompt(["a cat"])
    assert torch.equal(changed.ids, before.ids)
    assert (changed.states - before.states).abs().max() > 1e-3
    assert torch.equal(backbone.encode_prompt(["a cat"]).states, before.states)


def test_every_path_has_its_own_rank(backbone: Backbone, subjects: list[Subject]) -> None:
    deltas = make(backbone, subjects, specs(backbone, "ladder")).deltas
    shapes = {
        path: {name: tuple(value.shape) for name, value in delta.named_parameters()}
        for path, delta in deltas.items()
    }
    assert shapes[f"{BLOCK}.attn2.to_k"] == {"weight": (8, 16)}
    assert shapes[f"{BLOCK}.attn2.to_out.0"] == {"down": (2, 8), "up": (8, 2)}
    assert shapes[f"{BLOCK}.attn1.to_q"] == {"down": (3, 8), "up": (8, 3)}


def test_a_path_must_suit_its_kind(backbone: Backbone, subjects: list[Subject]) -> None:
    for path, spec, message in (
        ("conv_in", DeltaSpec(), "no linear layer 'conv_in'"),
        ("conv_act", WEIGHT, "no layer with a weight 'conv_act'"),
        ("nowhere", WEIGHT, "no layer with a weight 'nowhere'"),
        (f"{BLOCK}.attn1", BOTTLENECK, f"no text attention '{BLOCK}.attn1'"),
        ("text_encoder.nowhere", DeltaSpec(), "no linear layer 'text_encoder.nowhere'"),
    ):
        with pytest.raises(AdapterError, match=message):
            make(backbone, subjects, {path: spec})


@pytest.mark.parametrize(
    ("path", "spec"),
    [("conv_in", WEIGHT), (f"{BLOCK}.norm1", WEIGHT), (f"{BLOCK}.attn2", BOTTLENECK)],
)
def test_a_layer_of_another_size_is_refused(
    backbone: Backbone,
    subjects: list[Subject],
    path: str,
    spec: DeltaSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapter, layer = make(backbone, subjects, {path: spec}), backbone.layer

    def other(asked: str) -> nn.Module:
        return nn.Conv2d(2, 3, 1) if asked == "conv_in" else nn.LayerNorm(5)

    monkeypatch.setattr(backbone, "layer", other)
    with pytest.raises(
        AdapterError, match=rf"changes its layer '{path}', .* which is (3x2|5 wide)"
    ):
        adapter.attach(backbone)
    monkeypatch.setattr(backbone, "layer", layer)


def test_files_of_the_first_format_are_still_read(
    backbone: Backbone, subjects: list[Subject], latents: Tensor, tmp_path: Path
) -> None:
    adapter = new_adapter(backbone, subjects, method="customvideo")
    adapter.save(tmp_path / "new.safetensors")
    header, tensors = read_file(tmp_path / "new.safetensors")
    [(key, text)] = metadata(header).items()
    old = json.dumps(json.loads(text) | {"format_version": 1})
    (tmp_path / "old.safetensors").write_bytes(safetensors.torch.save(tensors, metadata={key: old}))
    loaded = Adapter.load(tmp_path / "old.safetensors")
    with torch.no_grad(), adapter.attach(backbone):
        expected = predict(backbone, latents)
    with torch.no_grad(), loaded.attach(backbone):
        assert torch.equal(predict(backbone, latents), expected)


def test_extras_are_trained_and_kept_and_change_nothing(
    backbone: Backbone, subjects: list[Subject], latents: Tensor, tmp_path: Path
) -> None:
    plain = make(backbone, subjects, {"conv_in": WEIGHT}, scale=0.1)
    adapter = plain.with_extras({"gate.weight": torch.randn(3, 2), "bias": torch.zeros(())})
    _, weights = adapter.parameter_groups(1.0, 2.0)
    assert {id(value) for value in adapter.extras.values()} < {id(v) for v in weights["params"]}
    adapter.save(tmp_path / "a.safetensors")
    loaded = Adapter.load(tmp_path / "a.safetensors")
    assert loaded.extras.keys() == adapter.extras.keys() == {"gate.weight", "bias"}
    assert all(torch.equal(loaded.extras[name], adapter.extras[name]) for name in adapter.extras)
    with torch.no_grad(), plain.attach(backbone):
        expected = predict(backbone, latents)
    with torch.no_grad(), loaded.attach(backbone):
        assert torch.equal(predict(backbone, latents), expected)


def test_a_part_may_be_frozen(backbone: Backbone, subjects: list[Subject]) -> None:
    adapter = make(backbone, subjects, {"conv_in": WEIGHT, "conv_out": WEIGHT})
    adapter = adapter.with_extras({"gate": torch.zeros(2)})

    def trained() -> set[str]:
        return {name.split(".")[1] for name, v in adapter.named_parameters() if v.requires_grad}

    everything = {"value", "conv_in", "conv_out", "gate"}
    assert trained() == everything
    for words, paths, wanted in (
        (True, (), {"value"}),
        (False, None, everything - {"value"}),
        (False, ["conv_out"], {"conv_out", "gate"}),
        (True, None, everything),
    ):
        adapter.train_only(words=words, paths=paths)
        assert trained() == wanted
