"""The Wan family: its samples, texts, latents and maps against diffusers' own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanPipeline,
)
from torch import Tensor, nn
from transformers import T5Tokenizer

from customvideo.adapters.tokens import LearnedTokens
from customvideo.attention.site import intermediate
from customvideo.attention.tape import watch
from customvideo.backbones.base import TextStates, TextTable
from customvideo.backbones.noise import reached
from customvideo.backbones.sampling import denoise
from customvideo.backbones.wan import Wan, load
from customvideo.subjects.prompt import LearnedWord, Prompt
from tests.cast import make_cast, quick_method
from tests.tiny_wan import build_tiny_wan, build_tiny_wan_every_token, build_tiny_wan_experts

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "2.1": build_tiny_wan,
    "every-token": build_tiny_wan_every_token,
    "experts": build_tiny_wan_experts,
}
SIZE = (5, 64, 96)
PROMPTS = ["a cat on the beach", "a dog"]
NEGATIVE = "a car"


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True, eq=False)
class Pair:
    """A tiny model as a backbone and as the stock pipeline of the same folder."""

    folder: Path
    backbone: Wan
    stock: Any

    @property
    def latents(self) -> Tensor:
        return draw(2, *self.backbone.latent_shape(*SIZE))


@pytest.fixture(scope="module", params=BUILDERS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    folder = BUILDERS[request.param](tmp_path_factory.mktemp("wan") / "tiny-wan")
    stock = WanPipeline.from_pretrained(folder)
    stock.set_progress_bar_config(disable=True)
    return Pair(folder, load(folder, device="cpu"), stock)


@pytest.fixture
def text(pair: Pair) -> TextStates:
    with torch.no_grad():
        return pair.backbone.encode_prompt(PROMPTS)


@contextmanager
def counting(module: Any) -> Iterator[list[int]]:
    """Batch sizes of the calls of `module`."""
    calls: list[int] = []
    handle = module.register_forward_hook(lambda _m, args, _out: calls.append(len(args[0])))
    yield calls
    handle.remove()


def keeper(seen: dict[str, tuple[Tensor, Tensor]], path: str) -> Any:
    """A hook that keeps what the attention at `path` is given."""
    return lambda _module, args: seen.update({path: args[:2]})


def times_of(backbone: Wan) -> list[Tensor]:
    """Times (row,) for two rows, one for each network."""
    return [torch.tensor([950.0, 950.0]), torch.tensor([400.0, 400.0])][-len(networks(backbone)) :]


def networks(backbone: Wan) -> list[Any]:
    both = backbone.denoiser
    return list(both.values()) if isinstance(both, nn.ModuleDict) else [both]


def solver(name: str, config: dict[str, Any]) -> Any:
    """The scheduler that stands for one of our solvers in the stock pipeline."""
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    if name == "euler":
        return FlowMatchEulerDiscreteScheduler.from_config(config, shift=3.0)
    if name == "dpmsolver++":
        return DPMSolverMultistepScheduler.from_config(config, **flow)
    return UniPCMultistepScheduler.from_config(config)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", ["native", "unipc", "euler", "dpmsolver++"])
@torch.no_grad()
def test_sampling_equals_the_stock_pipeline(pair: Pair, name: str) -> None:
    backbone, stock, latents = pair.backbone, pair.stock, pair.latents
    stock.scheduler = solver(name, dict(stock.scheduler.config))
    seen: list[Tensor] = []

    def keep(_pipeline: Any, _step: int, _time: Any, found: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append(found["latents"])
        return found

    frames = stock(
        prompt=PROMPTS,
        negative_prompt=[NEGATIVE] * 2,
        num_frames=SIZE[0],
        height=SIZE[1],
        width=SIZE[2],
        num_inference_steps=4,
        guidance_scale=5.0,
        latents=latents,
        callback_on_step_end=keep,
        output_type="pt",
    ).frames
    ours = denoise(
        backbone,
        latents,
        backbone.encode_prompt(PROMPTS),
        backbone.encode_prompt([NEGATIVE]),
        steps=4,
        guidance=5.0,
        solver=name,
    )
    assert len(seen) == 4 and seen[-1].std() > 0.5 and frames.std() > 0.1
    # 1e-5 and 5e-6 were seen.
    assert (ours - seen[-1]).abs().max() <= 5e-5
    assert (backbone.decode_frames(ours) / 2 + 0.5 - frames).abs().max() <= 5e-5


@torch.no_grad()
def test_prompts_are_encoded_as_the_stock_pipeline_does(pair: Pair) -> None:
    prompts = ["a cat on  the &amp; beach", ""]
    expected, _ = pair.stock.encode_prompt(prompts, None, False, max_sequence_length=512)
    found = pair.backbone.encode_prompt(prompts)
    assert found.states.shape == (2, 512, 16) and found.real is not None
    torch.testing.assert_close(found.states, expected, atol=1e-6, rtol=0)
    assert torch.equal(found.real, expected.abs().amax(dim=-1) > 0)


@torch.no_grad()
def test_latents_are_normalised_channel_by_channel(pair: Pair) -> None:
    backbone, vae = pair.backbone, pair.stock.vae
    frames = draw(2, SIZE[0], 3, *SIZE[1:]).clamp(-1, 1)
    found = backbone.encode_frames(frames)
    codes = vae.encode(frames.transpose(1, 2)).latent_dist.mode()
    mean, deviation = vae.config.latents_mean, vae.config.latents_std
    assert len(set(mean)) == len(set(deviation)) == found.shape[1] == vae.config.z_dim
    for channel in range(found.shape[1]):
        expected = (codes[:, channel] - mean[channel]) / deviation[channel]
        torch.testing.assert_close(found[:, channel], expected, atol=1e-4, rtol=1e-4)
    assert (found[0] - found[1]).std() > 0.1
    decoded = vae.decode(codes).sample.transpose(1, 2)
    torch.testing.assert_close(backbone.decode_frames(found), decoded, atol=2e-3, rtol=0)
    # One photo is one latent frame, the same as a clip's first.
    alone = backbone.encode_frames(frames[:, :1])
    torch.testing.assert_close(alone[:, :, 0], found[:, :, 0], atol=1e-4, rtol=1e-4)


def test_the_noise_is_a_line_between_data_and_noise(pair: Pair) -> None:
    noise, clean, drawn = pair.backbone.noise, draw(3, 16, 1, 2, 2), draw(3, 16, 1, 2, 2, seed=1)
    mixed = noise.mix(clean, drawn, torch.tensor([0.0, 250.0, 1000.0]))
    assert torch.equal(mixed[0], clean[0]) and torch.equal(mixed[2], drawn[2])
    torch.testing.assert_close(mixed[1], 0.75 * clean[1] + 0.25 * drawn[1])
    assert torch.equal(noise.target(clean, drawn, torch.zeros(3)), drawn - clean)
    assert noise.shift == 3.0
    times = noise.draw_times(20_000, torch.Generator().manual_seed(0))
    # The median of a logit-normal is a half, which a shift of 3 takes to three quarters.
    assert float(times.median()) == pytest.approx(750, abs=10)


@torch.no_grad()
def test_maps_are_the_whole_softmax_shared_by_the_real_tokens(pair: Pair, text: TextStates) -> None:
    backbone, latents = pair.backbone, pair.latents
    assert text.real is not None
    words = torch.zeros(2, 2, 512)
    words[:, 0, 1], words[0, 1, 3:5] = 1, 0.5
    for times in times_of(backbone):
        sites = reached(backbone.noise, backbone.sites(*SIZE), times)
        seen: dict[str, tuple[Tensor, Tensor]] = {}
        with ExitStack() as stack:
            for site in sites:
                module = backbone.denoiser.get_submodule(site.path)
                hook = module.register_forward_pre_hook(keeper(seen, site.path))
                stack.callback(hook.remove)
            with watch(backbone.denoiser, sites, words, text.real) as tape:
                backbone.predict(latents, times, text)
        assert len(sites) == 3 and seen.keys() == tape.maps().keys()
        for site in sites:
            attention: Any = backbone.denoiser.get_submodule(site.path)
            hidden, states = seen[site.path]
            query = attention.norm_q(attention.to_q(hidden)).unflatten(2, (site.heads, -1))
            key = attention.norm_k(attention.to_k(states)).unflatten(2, (site.heads, -1))
            scores = torch.einsum("rphc,rthc->rhpt", query, key) / query.shape[-1] ** 0.5
            whole = scores.softmax(dim=-1)
            shared = whole * text.real[:, None, None].float()
            shared = shared / shared.sum(dim=-1, keepdim=True)
            expected = torch.einsum("rhpt,rwt->rwp", shared, words) / site.heads
            found = tape.maps()[site.path]
            assert found.shape == (2, 2, *site.grid)
            torch.testing.assert_close(found.flatten(2), expected, atol=1e-6, rtol=1e-4)
            # Unshared, the padding would take most of it.
            assert whole[..., 1].mean() < 0.1 < found[:, 0].mean()


@torch.no_grad()
def test_cached_text_projects_once_and_is_undone(pair: Pair, text: TextStates) -> None:
    backbone, latents = pair.backbone, pair.latents
    negative = backbone.encode_prompt([NEGATIVE])
    layers = [network.blocks[0].attn2.to_k for network in networks(backbone)]
    names = list(backbone.denoiser.state_dict())
    # What hooks add, as an adapter's do, is remembered with the rest.
    handles = [layer.register_forward_hook(lambda _m, _a, out: out + 1.5) for layer in layers]
    asked = [time[0] for time in times_of(backbone)]
    plain = [backbone.predict_guided(latents, time, text, negative, 5.0) for time in asked]
    with ExitStack() as stack:
        calls = [stack.enter_context(counting(layer)) for layer in layers]
        stack.enter_context(backbone.cached_text(text, negative))
        for _ in range(3):
            for time, expected in zip(asked, plain, strict=True):
                found = backbone.predict_guided(latents, time, text, negative, 5.0)
                assert torch.equal(found, expected)
        assert calls == [[4]] * len(layers)
        # Another text is not answered from memory.
        backbone.predict(latents, asked[0].expand(2), text)
        assert calls[0] == [4, 2]
    for handle in handles:
        handle.remove()
    assert [network.blocks[0].attn2.to_k for network in networks(backbone)] == layers
    assert list(backbone.denoiser.state_dict()) == names
    with pytest.raises(KeyError), backbone.cached_text(text):
        raise KeyError
    assert [network.blocks[0].attn2.to_k for network in networks(backbone)] == layers


def test_learned_words_are_one_id_a_vector_and_leave_no_trace(pair: Pair) -> None:
    backbone, latents = pair.backbone, pair.latents
    adapter = quick_method(vectors=2).trainable(backbone, make_cast())
    prompt = Prompt("a <tom> cat and a <rex> dog on the beach", adapter.words)
    weights = {key: value.clone() for key, value in backbone.denoiser.state_dict().items()}
    (table,) = backbone.tables()
    rows, tokenizer = table.embedding.weight, table.tokenizer
    assert isinstance(rows, Tensor)
    kept, usual = rows.clone(), backbone.encode_prompt([prompt.plain])
    base = backbone.predict(latents[:1], torch.tensor([400]), usual)
    with adapter.attach(backbone):
        told = backbone.encode_prompt([prompt.encoded])
        assert torch.equal(told.ids[0] >= len(tokenizer), told.ids[0] > rows.shape[0] - 1)
        assert sorted(told.ids[0][told.ids[0] >= len(tokenizer)].tolist()) == [
            len(tokenizer) + index for index in range(4)
        ]
        found = adapter.tokens.select(told.ids)[0]
        assert found.sum(dim=-1).tolist() == [1, 1] and (found == 0.5).sum().item() == 4
        for times in times_of(backbone):
            adapter.zero_grad()
            told = backbone.encode_prompt([prompt.encoded])
            backbone.predict(latents[:1], times[:1], told).square().mean().backward()
            gradient = adapter.tokens.value.grad
            assert gradient is not None and (gradient.abs().amax(dim=1) > 1e-8).all()
            fed = [path for path, delta in adapter.deltas.items() if delta.weight.grad is not None]
            there = reached(backbone.noise, backbone.sites(*SIZE), times[:1])
            assert fed == [path for site in there for path in (site.key, site.value)]
    assert table.tokenizer is tokenizer and torch.equal(rows, kept)
    after = backbone.denoiser.state_dict()
    assert all(torch.equal(after[key], value) for key, value in weights.items())
    assert torch.equal(backbone.encode_prompt([prompt.plain]).states, usual.states)
    assert torch.equal(backbone.predict(latents[:1], torch.tensor([400]), usual), base)
    assert all(parameter.grad is None for parameter in backbone.denoiser.parameters())


def test_a_sentencepiece_tokenizer_reads_words_as_one_id_each() -> None:
    whole = [(f"▁{word}", -3.0) for word in ("a", "cat", "dog", "and")]
    pieces = [(piece, -6.0) for piece in ("▁", *"abcdefghijklmnopqrstuvwxyz<>_1")]
    special = [(piece, 0.0) for piece in ("<pad>", "</s>", "<unk>")]
    tokenizer = T5Tokenizer(vocab=special + whole + pieces, extra_ids=3)
    table = TextTable(tokenizer, nn.Embedding(len(tokenizer) + 9, 4), 512)
    words = (LearnedWord("tom", "cat", 2), LearnedWord("rex", "dog", 1))
    tokens = LearnedTokens(words, 4, torch.ones(3, 4))
    plain = tokenizer("a cat and a dog").input_ids
    with tokens.attach(table):
        text = Prompt("a <tom> cat and a <rex> dog", words).encoded
        ids = torch.tensor([table.tokenizer(text).input_ids])
        first = len(tokenizer)
        assert ids[0].tolist() == [
            *(plain[0], first, first + 1, *plain[1:4], first + 2, *plain[4:]),
        ]
        assert torch.equal(table.embedding(ids)[0, [1, 2, 6]], torch.ones(3, 4))
    assert table.tokenizer is tokenizer


def test_checkpointing_changes_neither_output_nor_gradient(pair: Pair, text: TextStates) -> None:
    backbone, results = pair.backbone, []
    for wanted in (False, True):
        backbone.checkpointed = wanted
        leaf = text.states.detach().clone().requires_grad_()
        words = torch.zeros(2, 1, 512)
        words[:, 0, 1] = 1
        times = torch.tensor([300.0, 600.0])
        sites = intermediate(reached(backbone.noise, backbone.sites(*SIZE), times))
        with watch(backbone.denoiser, sites, words, text.real) as tape:
            told = TextStates(leaf, text.ids, text.real)
            output = backbone.predict(pair.latents, times, told)
            seen = tape.maps(require_grad=True)[sites[0].path]
            (output.square().mean() + seen.mean()).backward()
        results.append((output.detach(), seen.detach(), leaf.grad))
    backbone.checkpointed = False
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-5)


@torch.no_grad()
def test_bf16_reads_and_predicts_near_float32(pair: Pair, text: TextStates) -> None:
    half = load(pair.folder, device="cpu", dtype="bf16")
    assert half.dtype == torch.bfloat16 and half.fingerprint == pair.backbone.fingerprint
    frames = draw(1, SIZE[0], 3, *SIZE[1:]).clamp(-1, 1)
    # The autoencoder stays in float32.
    assert torch.equal(half.encode_frames(frames), pair.backbone.encode_frames(frames))
    told, negative = half.encode_prompt(PROMPTS), half.encode_prompt([NEGATIVE])
    for times in times_of(half):
        found = half.predict(pair.latents, times, told)
        expected = pair.backbone.predict(pair.latents, times, text)
        assert found.dtype == torch.float32
        assert (found - expected).norm() / expected.norm() < 0.05
    with counting(networks(half)[-1].blocks[0].attn2.to_k) as n, half.cached_text(told, negative):
        for _ in range(2):
            half.predict_guided(pair.latents, torch.tensor(400.0), told, negative, 5.0)
    assert n == [4]
