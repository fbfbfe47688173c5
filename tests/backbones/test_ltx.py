"""LTX-Video against its stock pipeline, what it says of itself, and a training run on it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import initial_rows
from customvideo.adapters.tokens import LearnedTokens, table_rows
from customvideo.attention.tape import watch
from customvideo.backbones import folder as folders
from customvideo.backbones import transformer
from customvideo.backbones.base import TextStates, family_of, load_backbone
from customvideo.backbones.ltx import Ltx, load
from customvideo.backbones.sampling import denoise
from customvideo.config import default_recipe
from customvideo.errors import BackboneError, ConfigError
from customvideo.generation import SamplingConfig, generate, generate_with_attention
from customvideo.subjects.prompt import LearnedWord, Prompt
from customvideo.training.trainer import Trainer
from tests.cast import make_cast, quick_method, short_run
from tests.tiny_ltx import build_tiny_ltx, build_tiny_ltx_timed

TIMES = torch.tensor([137.5, 900.0])
PROMPTS = ["a cat on the beach", "a dog walking and running"]
NEGATIVE = "a blurry car"
QUICK = SamplingConfig(num_steps=2, guidance=3.0, frames=5, height=64, width=96, solver="native")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Positions of 4 frames, a plain decoder; read-only by agreement."""
    return build_tiny_ltx(tmp_path_factory.mktemp("models") / "tiny-ltx")


@pytest.fixture(scope="module")
def timed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Positions of 8 frames, a decoder that is told a time and draws noise."""
    return build_tiny_ltx_timed(tmp_path_factory.mktemp("models") / "tiny-ltx-timed")


@pytest.fixture(scope="module")
def shared(folder: Path) -> Ltx:
    return load(folder, device="cpu")


@pytest.fixture
def backbone(shared: Ltx) -> Iterator[Ltx]:
    yield shared
    shared.checkpointed = False


@pytest.fixture(scope="module")
def timed(timed_folder: Path) -> Ltx:
    return load(timed_folder, device="cpu")


@pytest.fixture(scope="module")
def stock(folder: Path) -> Any:
    return stock_pipeline(folder)


@pytest.fixture
def broken(folder: Path, tmp_path: Path) -> Path:
    """A copy that may be broken."""
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.fixture
def text(backbone: Ltx) -> TextStates:
    return backbone.encode_prompt(PROMPTS)


@pytest.fixture
def negative(backbone: Ltx) -> TextStates:
    return backbone.encode_prompt([NEGATIVE])


def stock_pipeline(folder: Path) -> Any:
    """diffusers' own pipeline of the same folder."""
    from diffusers import LTXPipeline

    logging.getLogger("diffusers").setLevel(logging.ERROR)
    pipeline = LTXPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn_by_stock(
    pipeline: Any, noise: Tensor, size: tuple[int, int, int], *, seed: int = 0, **options: Any
) -> Any:
    """What the stock pipeline makes of `noise` (row, channel, frame, height, width)."""

    def reseed(_pipeline: Any, step: int, _time: Any, kept: dict[str, Any]) -> dict[str, Any]:
        # What a decoder draws comes after the last step.
        torch.manual_seed(seed)
        return kept

    frames, height, width = size
    with torch.random.fork_rng():
        return pipeline(
            prompt=PROMPTS[: len(noise)],
            negative_prompt=[NEGATIVE] * len(noise),
            latents=pipeline._pack_latents(noise),
            num_frames=frames,
            height=height,
            width=width,
            guidance_scale=3.0,
            callback_on_step_end=reseed,
            **options,
        ).frames


@contextmanager
def counting(module: nn.Module) -> Iterator[list[int]]:
    """Batch sizes of the calls of `module`."""
    calls: list[int] = []
    handle = module.register_forward_hook(lambda _m, args, _out: calls.append(len(args[0])))
    yield calls
    handle.remove()


def weights_of(backbone: Ltx) -> dict[str, Tensor]:
    parts = (backbone._pipeline.transformer, backbone._pipeline.text_encoder)
    return {
        f"{index}.{name}": value.clone()
        for index, part in enumerate(parts)
        for name, value in part.state_dict().items()
    }


@torch.no_grad()
def test_prompts_are_encoded_as_the_stock_pipeline_does(backbone: Ltx, stock: Any) -> None:
    prompts = [*PROMPTS, "", "été 猫 " + "running " * 150]
    states, mask, _, _ = stock.encode_prompt(prompts, do_classifier_free_guidance=False)
    found = backbone.encode_prompt(prompts)
    assert found.states.shape[:2] == found.ids.shape == (4, 128)
    assert torch.equal(found.states, states)
    assert found.real is not None and torch.equal(found.real, mask.bool())
    assert found.real.sum(dim=1).tolist() == [6, 6, 1, 128]
    short = backbone.encode_prompt(prompts[:1])
    assert short.ids.shape == (1, 128) and torch.equal(short.ids, found.ids[:1])
    assert (short.states - states[:1]).abs().max() <= 1e-6
    # Were texts not padded to the full length, what is read would be another.
    alone = stock.text_encoder(found.ids[:1, :6]).last_hidden_state
    assert (alone - states[:1, :6]).abs().max() > 0.05


@pytest.mark.parametrize("grid", [(1, 2, 3), (3, 3, 2)])
@torch.no_grad()
def test_forward_equals_the_stock_forward(
    backbone: Ltx, stock: Any, text: TextStates, grid: tuple[int, int, int]
) -> None:
    latents = draw(2, 8, *grid)
    packed = stock.transformer(
        hidden_states=stock._pack_latents(latents),
        encoder_hidden_states=text.states,
        timestep=TIMES,
        encoder_attention_mask=text.real,
        num_frames=grid[0],
        height=grid[1],
        width=grid[2],
        rope_interpolation_scale=(4 / 25, 32, 32),
        return_dict=False,
    )[0]
    expected = stock._unpack_latents(packed, *grid)
    assert expected.std() > 0.1
    assert (backbone.predict(latents, TIMES, text) - expected).abs().max() <= 1e-6


@pytest.mark.parametrize("size", [(5, 64, 96), (9, 96, 64), (1, 64, 96)])
def test_sampling_equals_the_stock_pipeline(
    backbone: Ltx, stock: Any, text: TextStates, negative: TextStates, size: tuple[int, int, int]
) -> None:
    noise = draw(2, *backbone.latent_shape(*size))
    found = denoise(backbone, noise, text, negative, steps=7, guidance=3.0, solver="native")
    packed = drawn_by_stock(stock, noise, size, num_inference_steps=7, output_type="latent")
    expected = stock._unpack_latents(packed, *noise.shape[2:])
    assert (expected[0] - expected[1]).abs().max() > 0.1
    assert (found - expected).abs().max() <= 1e-5
    pixels = drawn_by_stock(stock, noise, size, num_inference_steps=7, output_type="pt")
    assert pixels.shape == (2, size[0], 3, *size[1:]) and pixels.std() > 0.05
    decoded = backbone.decode_frames(found) / 2 + 0.5
    assert (decoded - pixels).abs().max() <= 1e-5


@pytest.mark.parametrize("told", [(0.0, 0.0), (0.05, 0.025)])
def test_a_timed_decoder_equals_the_stock_pipelines(
    timed: Ltx, timed_folder: Path, told: tuple[float, float]
) -> None:
    stock, size = stock_pipeline(timed_folder), (9, 64, 96)
    noise = draw(1, *timed.latent_shape(*size))
    text, negative = timed.encode_prompt(PROMPTS[:1]), timed.encode_prompt([NEGATIVE])
    found = denoise(timed, noise, text, negative, steps=4, guidance=3.0, solver="native")
    options = {"decode_timestep": told[0], "decode_noise_scale": told[1], "output_type": "pt"}
    expected, other = (
        drawn_by_stock(stock, noise, size, seed=seed, num_inference_steps=4, **options)
        for seed in (0, 1)
    )
    timed.decode_timestep, timed.decode_noise_scale = told
    try:
        before = torch.get_rng_state()
        decoded = timed.decode_frames(found) / 2 + 0.5
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(timed.decode_frames(found) / 2 + 0.5, decoded)
    finally:
        timed.decode_timestep = timed.decode_noise_scale = 0.0
    assert (decoded - expected).abs().max() <= 1e-5
    # Another seed shows: the decoder does draw noise.
    assert (decoded - other).abs().max() > 1e-3


@torch.no_grad()
def test_positions_follow_the_frame_rate(broken: Path, stock: Any, backbone: Ltx) -> None:
    (broken / "customvideo.json").write_text(json.dumps({"fps": 10, "size": [64, 96], "frames": 9}))
    slow = load(broken, device="cpu")
    assert (slow.fps, slow.size, slow.frames) == (10.0, (64, 96), 9)
    noise, size = draw(2, *slow.latent_shape(9, 64, 96)), (9, 64, 96)
    wanted = [model.encode_prompt([*PROMPTS]) for model in (slow, backbone)]
    avoided = slow.encode_prompt([NEGATIVE])
    found = denoise(slow, noise, wanted[0], avoided, steps=4, guidance=3.0, solver="native")
    packed = drawn_by_stock(
        stock, noise, size, num_inference_steps=4, frame_rate=10, output_type="latent"
    )
    expected = stock._unpack_latents(packed, *noise.shape[2:])
    assert (found - expected).abs().max() <= 1e-5
    usual = denoise(backbone, noise, wanted[1], avoided, steps=4, guidance=3.0, solver="native")
    assert (usual - expected).abs().max() > 1e-3


@torch.no_grad()
def test_maps_are_the_softmax_of_the_masked_attention(backbone: Ltx, text: TextStates) -> None:
    """Against the same formed from what goes into each attention, mask and norms included."""
    sites, latents = backbone.sites(9, 64, 96), draw(2, *backbone.latent_shape(9, 64, 96))
    assert [site.grid for site in sites] == [(3, 2, 3)] * 3 and {s.heads for s in sites} == {2}
    caught: dict[str, dict[str, Any]] = {}
    handles = []
    for site in sites:
        attention = backbone.denoiser.get_submodule(site.path)

        def keep(_module: nn.Module, args: Any, kwargs: Any, path: str = site.path) -> None:
            caught[path] = {"hidden_states": args[0], **kwargs}

        handles.append(attention.register_forward_pre_hook(keep, with_kwargs=True))
    words = torch.eye(128)[None].expand(2, -1, -1)
    with watch(backbone.denoiser, sites, words, text.real) as tape:
        backbone.predict(latents, TIMES, text)
    for handle in handles:
        handle.remove()

    def normed(values: Tensor, scale: Any) -> Tensor:
        root = (values.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
        return values / root * scale.double()

    for site in sites:
        attention: Any = backbone.denoiser.get_submodule(site.path)
        given = {name: value for name, value in caught[site.path].items() if value is not None}
        q, k = (
            normed(
                given[name].double() @ layer.weight.double().T + layer.bias.double(), norm.weight
            )
            for name, layer, norm in (
                ("hidden_states", attention.to_q, attention.norm_q),
                ("encoder_hidden_states", attention.to_k, attention.norm_k),
            )
        )
        q, k = (part.unflatten(-1, (2, 12)).transpose(1, 2) for part in (q, k))
        scores = q @ k.transpose(-1, -2) / 12**0.5 + given["attention_mask"].double()[:, None]
        expected = scores.softmax(dim=-1).mean(dim=1).transpose(1, 2).unflatten(-1, (3, 2, 3))
        found = tape.maps()[site.path]
        assert (found - expected).abs().max() <= 1e-6
        # Texts are told apart, and paddings get nothing.
        assert expected[0, :6].std() > 1e-3
        assert text.real is not None and not found[~text.real].any()


@torch.no_grad()
def test_padding_changes_nothing_for_the_denoiser(backbone: Ltx, text: TextStates) -> None:
    latents = draw(2, 8, 2, 2, 3)
    assert text.real is not None
    other = text.states.masked_fill(~text.real[..., None], 3.0)
    changed = TextStates(other, text.ids, text.real)
    expected = backbone.predict(latents, TIMES, text)
    assert torch.equal(backbone.predict(latents, TIMES, changed), expected)
    read = TextStates(other, text.ids, torch.ones_like(text.real))
    assert (backbone.predict(latents, TIMES, read) - expected).abs().max() > 1e-2


@torch.no_grad()
def test_cached_text_projects_once_and_is_undone(
    backbone: Ltx, text: TextStates, negative: TextStates
) -> None:
    network: Any = backbone.denoiser
    block = network.transformer_blocks[1].attn2
    layers = (network.caption_projection, block.to_k, block.to_v)
    names = list(network.state_dict())
    latents = draw(2, 8, 2, 2, 3)
    expected = backbone.predict_guided(latents, TIMES[0], text, negative, 3.0)
    with (
        counting(layers[0]) as captions,
        counting(layers[1]) as keys,
        counting(layers[2]) as values,
        backbone.cached_text(text, negative),
    ):
        for scale in (1.0, 2.0, 1.0):
            found = backbone.predict_guided(scale * latents, TIMES[0], text, negative, 3.0)
        assert captions == keys == values == [4]
        # Another text is not answered from memory.
        alone = backbone.predict(latents, TIMES, text)
        assert captions == keys == values == [4, 2]
    assert torch.equal(found, expected)
    assert torch.equal(alone, backbone.predict(latents, TIMES, text))
    assert (network.caption_projection, block.to_k, block.to_v) == layers
    assert list(network.state_dict()) == names


def test_cached_text_is_undone_after_an_error(backbone: Ltx, text: TextStates) -> None:
    network: Any = backbone.denoiser
    before = dict(network.named_modules())
    with pytest.raises(KeyError), backbone.cached_text(text):
        raise KeyError
    assert dict(network.named_modules()) == before


@torch.no_grad()
def test_cached_text_counts_hooks_once(
    backbone: Ltx, text: TextStates, negative: TextStates
) -> None:
    latents = draw(2, 8, 2, 2, 3)
    before = backbone.predict_guided(latents, TIMES[0], text, negative, 3.0)
    key = backbone.denoiser.get_submodule(backbone.sites(1, 64, 96)[0].key)
    handle = key.register_forward_hook(lambda _m, _args, output: output + 1.5 * output.roll(1, -1))
    hooked = backbone.predict_guided(latents, TIMES[0], text, negative, 3.0)
    with backbone.cached_text(text, negative):
        cached = [backbone.predict_guided(latents, TIMES[0], text, negative, 3.0) for _ in range(2)]
    handle.remove()
    assert not torch.allclose(hooked, before, atol=1e-4)
    assert torch.equal(cached[0], hooked) and torch.equal(cached[1], hooked)


def test_checkpointing_changes_neither_output_nor_gradient(backbone: Ltx) -> None:
    encoded = backbone.encode_prompt(PROMPTS)
    gradients, outputs, calls = [], [], []
    norm: Any = backbone.denoiser.get_submodule("transformer_blocks.0.norm1")
    for checkpointed in (False, True):
        backbone.checkpointed = checkpointed
        leaf = encoded.states.detach().clone().requires_grad_()
        with counting(norm) as seen:
            output = backbone.predict(
                draw(2, 8, 2, 2, 3), TIMES, TextStates(leaf, encoded.ids, encoded.real)
            )
            output.square().mean().backward()
        outputs.append(output.detach())
        gradients.append(leaf.grad)
        calls.append(len(seen))
    assert calls == [1, 2]
    assert torch.equal(*outputs)
    torch.testing.assert_close(*gradients, atol=1e-8, rtol=1e-5)
    assert gradients[0] is not None and gradients[0].abs().max() > 1e-6


def test_latents_are_normalised_by_the_models_own_figures(timed: Ltx, timed_folder: Path) -> None:
    vae = stock_pipeline(timed_folder).vae
    frames = draw(2, 9, 3, 64, 96).clamp(-1, 1)
    with torch.no_grad():
        codes = vae.encode(frames.transpose(1, 2)).latent_dist.mode()
    shape = (1, 8, 1, 1, 1)
    expected = (codes - vae.latents_mean.view(shape)) * 0.8 / vae.latents_std.view(shape)
    found = timed.encode_frames(frames)
    assert found.shape == (2, *timed.latent_shape(9, 64, 96)) == (2, 8, 2, 2, 3)
    assert (found - expected).abs().max() <= 1e-5
    assert (found[0] - found[1]).abs().max() > 0.05
    assert not found.requires_grad


def test_rows_are_decoded_alike_wherever_they_stand(timed: Ltx) -> None:
    latents = draw(2, 8, 2, 2, 3)
    both = timed.decode_frames(latents)
    assert torch.equal(timed.decode_frames(latents[1:]), both[1:])
    assert (both[0] - both[1]).abs().max() > 0.01


@pytest.mark.parametrize("frames", [0, 2, 8, 10, 160])
def test_other_lengths_are_refused(timed: Ltx, frames: int) -> None:
    near = {0: 1, 2: 1, 8: 9, 10: 9, 160: 161}[frames]
    with pytest.raises(BackboneError, match=rf"1, 9, 17, … frames, not {frames}: choose {near}\."):
        timed.latent_shape(frames, 64, 96)


@pytest.mark.parametrize("size", [(60, 96), (64, 48), (0, 64)])
def test_other_sizes_are_refused(timed: Ltx, size: tuple[int, int]) -> None:
    with pytest.raises(BackboneError, match=r"cannot make .* multiples of 32\."):
        timed.latent_shape(9, *size)
    with pytest.raises(BackboneError, match="multiples of 32"):
        generate(timed, None, "a cat", options=QUICK.model_copy(update={"height": 60, "frames": 9}))


def test_wrong_frames_cannot_be_encoded(timed: Ltx) -> None:
    with pytest.raises(BackboneError, match="choose 9"):
        timed.encode_frames(torch.zeros(1, 8, 3, 64, 96))


@pytest.mark.parametrize("size", [(9, 64, 96), (33, 512, 704)])
@pytest.mark.parametrize("steps", [2, 50])
def test_times_are_the_stock_pipelines(
    backbone: Ltx, stock: Any, size: tuple[int, int, int], steps: int
) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    latents = torch.zeros(1, *backbone.latent_shape(*size))
    solver = FlowMatchEulerDiscreteScheduler.from_config(backbone.noise.config)
    backbone.noise.schedule(solver, steps, latents)
    positions = latents[0, 0].numel()
    # The line through (1024, 0.95) and (4096, 2.05), and what is left at the last step: 0.1.
    mu = 0.95 + (positions - 1024) * (2.05 - 0.95) / (4096 - 1024)
    even = np.linspace(1, 1 / steps, steps)
    shifted = np.exp(mu) / (np.exp(mu) + (1 / even - 1))
    stretched = 1 - (1 - shifted) * 0.9 / (1 - shifted[-1])
    assert np.allclose(solver.timesteps.numpy(), 1000 * stretched, rtol=1e-5)


@pytest.mark.parametrize("solver", ["native", "euler", "unipc", "dpmsolver++"])
def test_every_solver_ends_near_the_same_video(backbone: Ltx, solver: str) -> None:
    noise, text = draw(1, 8, 2, 2, 3), backbone.encode_prompt(PROMPTS[:1])
    assert solver in backbone.noise.solvers
    expected = denoise(backbone, noise, text, steps=40, guidance=1.0, solver="native")
    found = denoise(backbone, noise, text, steps=40, guidance=1.0, solver=solver)
    assert (found - expected).abs().mean() < 0.05 * (expected - noise).abs().mean()


def test_one_step_is_refused(backbone: Ltx) -> None:
    text = backbone.encode_prompt(PROMPTS[:1])
    with pytest.raises(ConfigError, match="choose at least 2"):
        denoise(backbone, draw(1, 8, 2, 2, 3), text, steps=1, solver="native")


def test_training_draws_times_as_for_a_picture(backbone: Ltx) -> None:
    """A picture of 512x704 has 352 positions, so half of the times are above k / (1 + k)."""
    k = np.exp(0.95 + (352 - 1024) * (2.05 - 0.95) / (4096 - 1024))
    assert backbone.noise.shift == pytest.approx(k)
    drawn = backbone.noise.draw_times(20000, torch.Generator().manual_seed(0))
    assert float(drawn.median()) == pytest.approx(1000 * k / (1 + k), rel=0.01)
    assert float(backbone.noise.last) == 1000


def test_a_linear_shift_is_taken_as_it_is(broken: Path) -> None:
    file = broken / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"time_shift_type": "linear"}))
    k = 0.95 + (352 - 1024) * (2.05 - 0.95) / (4096 - 1024)
    assert load(broken, device="cpu").noise.shift == pytest.approx(k)


def test_a_schedule_that_shifts_by_no_size_is_kept(broken: Path) -> None:
    file = broken / "scheduler" / "scheduler_config.json"
    config = json.loads(file.read_text()) | {"use_dynamic_shifting": False, "shift": 4.0}
    file.write_text(json.dumps(config))
    backbone, noise, size = load(broken, device="cpu"), draw(2, 8, 2, 2, 3), (5, 64, 96)
    assert backbone.noise.shift == 4.0
    wanted, avoided = backbone.encode_prompt(PROMPTS), backbone.encode_prompt([NEGATIVE])
    found = denoise(backbone, noise, wanted, avoided, steps=4, guidance=3.0, solver="native")
    stock = stock_pipeline(broken)
    packed = drawn_by_stock(stock, noise, size, num_inference_steps=4, output_type="latent")
    assert (found - stock._unpack_latents(packed, *noise.shape[2:])).abs().max() <= 1e-5


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder", "vae", "transformer", "scheduler"])
def test_half_a_folder_is_one_sentence(broken: Path, part: str) -> None:
    shutil.rmtree(broken / part)
    with pytest.raises(BackboneError, match=rf"lacks the part '{part}': give a complete") as error:
        load_backbone(broken, device="cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["text_encoder", "vae", "transformer"])
def test_damaged_weights_are_one_sentence(broken: Path, part: str) -> None:
    (weights,) = (broken / part).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BackboneError, match="cannot be loaded") as error:
        load_backbone(broken, device="cpu")
    assert "\n" not in str(error.value)


def test_the_row_knows_its_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for module in (folders, transformer):
        monkeypatch.setattr(module, "fetch", lambda hub: asked.append(hub) or folder)
    backbone = load_backbone("ltx", device="cpu")
    assert set(asked) == {"Lightricks/LTX-Video"} and backbone.name == asked[0]
    assert (backbone.frames, backbone.size, backbone.fps) == (161, (512, 704), 25.0)
    assert family_of("ltx") == family_of(str(folder)) == backbone.family == "ltx"


def test_the_real_network_has_235_million_key_and_value_parameters() -> None:
    from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel

    with torch.device("meta"):
        network, vae = LTXVideoTransformer3DModel(), AutoencoderKLLTXVideo()
    kept = [
        layer
        for path, layer in network.named_modules()
        if path.endswith((".attn2.to_k", ".attn2.to_v"))
    ]
    assert len(kept) == 2 * 28
    count = sum(value.numel() for layer in kept for value in layer.parameters())
    assert round(count / 1e6) == 235
    assert round(sum(value.numel() for value in network.parameters()) / 1e7) == 192
    assert (vae.temporal_compression_ratio, vae.spatial_compression_ratio) == (8, 32)
    assert (network.config.patch_size, network.config.patch_size_t) == (1, 1)
    assert network.config.in_channels == vae.config.latent_channels == 128


def test_learned_words_are_one_id_a_vector_and_leave_no_trace(backbone: Ltx) -> None:
    (table,) = backbone.tables()
    tom, rex = LearnedWord("tom", "cat", 2), LearnedWord("rex", "dog")
    rows = initial_rows(table, [tom, rex], "category", torch.Generator().manual_seed(0))
    learned = LearnedTokens([tom, rex], rows.shape[1], rows)
    before, found, weights = backbone.encode_prompt(PROMPTS), table.tokenizer, weights_of(backbone)
    prompt = Prompt("a <rex> and a <tom> on the beach", (tom, rex)).encoded
    with learned.attach(table):
        text = backbone.encode_prompt([prompt])
        where = learned.select(text.ids)
        # One id a vector, right before the category.
        assert [row.nonzero().flatten().tolist() for row in where[0]] == [[5, 6], [1]]
        assert where[0].sum(dim=1).tolist() == [1.0, 1.0]
        backbone.predict(draw(1, 8, 1, 2, 3), TIMES[:1], text).square().mean().backward()
    assert learned.value.grad is not None
    assert (learned.value.grad.abs().amax(dim=1) > 1e-8).all()
    after = backbone.encode_prompt(PROMPTS)
    assert torch.equal(before.states, after.states) and torch.equal(before.ids, after.ids)
    assert table.tokenizer is found
    assert not table.embedding._forward_hooks and not table.embedding._forward_pre_hooks
    assert len(table_rows(table)) == 64
    now = weights_of(backbone)
    assert all(torch.equal(now[name], value) for name, value in weights.items())


def test_customvideo_trains_saves_loads_and_draws(backbone: Ltx, tmp_path: Path) -> None:
    weights, cast, quiet = weights_of(backbone), make_cast(), Console(quiet=True)
    prompt = "a <tom> cat and a <rex> dog on the beach"
    method = quick_method(
        attention_loss="mse_maxnorm", attention_weight=1.0, prior_weight=1.0, prior_samples=1
    )
    method.config = method.config.model_copy(
        update={"prior_rows": 1, "prior_sampling_steps": 2, "prior_guidance": 3.0}
    )
    config = short_run(
        steps=8,
        learning_rate=2e-2,
        word_learning_rate=1e-1,
        least_cells=0.0,
        canvas=(128, 160),
        gradient_checkpointing=True,
        prior_cache=str(tmp_path / "prior"),
    )
    reports: list[Any] = []
    trainer = Trainer(config, tmp_path / "out", on_step=reports.append, console=quiet)
    adapter = trainer.fit(backbone, method, cast)
    assert all(set(one.parts) == {"reconstruction", "prior", "attention"} for one in reports)
    attention = [report.parts["attention"] for report in reports]
    assert sum(attention[-3:]) < sum(attention[:3])
    start = method.trainable(backbone, cast).state_dict()
    assert all(not torch.equal(start[name], now) for name, now in adapter.state_dict().items())
    assert set(adapter.deltas) == set(backbone.layers("text_kv")) and len(adapter.deltas) == 6

    adapter.save(tmp_path / "pair.safetensors")
    again = Adapter.load(tmp_path / "pair.safetensors")
    drawn = [generate(backbone, one, prompt, seed=1, options=QUICK) for one in (adapter, again)]
    assert np.array_equal(drawn[0].frames, drawn[1].frames)
    assert drawn[0].frames.shape == (5, 64, 96, 3)
    without = QUICK.model_copy(update={"strength": 0.0})
    base = generate(backbone, again, prompt, seed=1, options=without)
    assert not np.array_equal(base.frames, drawn[0].frames)
    video, maps = generate_with_attention(backbone, again, prompt, seed=1, options=QUICK)
    assert np.array_equal(video.frames, drawn[0].frames)
    assert {word: one.shape for word, one in maps.items()} == {
        "<tom>": (2, 2, 3),
        "<rex>": (2, 2, 3),
    }
    now = weights_of(backbone)
    assert all(torch.equal(now[name], value) for name, value in weights.items())
    assert not any(module._forward_hooks for module in backbone.denoiser.modules())


def test_the_packaged_recipe_draws_as_the_pipeline_does(folder: Path) -> None:
    recipe = default_recipe(backbone="ltx")
    assert (recipe.method, recipe.sampling.solver) == ("customvideo", "native")
    assert (recipe.sampling.num_steps, recipe.sampling.guidance) == (50, 3.0)
    found = default_recipe(backbone=str(folder))
    assert found == recipe.model_copy(update={"backbone": str(folder)})
