"""HunyuanVideo against its stock pipeline, how it reads prompts, and a training run on it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import initial_rows
from customvideo.adapters.tokens import LearnedTokens
from customvideo.attention.tape import watch
from customvideo.backbones import folder as folders
from customvideo.backbones import transformer
from customvideo.backbones.base import TextStates, family_of, guided_inside, load_backbone
from customvideo.backbones.hunyuan import Hunyuan, load
from customvideo.backbones.sampling import denoise
from customvideo.config import default_recipe
from customvideo.errors import BackboneError
from customvideo.generation import (
    CustomVideoWarning,
    SamplingConfig,
    generate,
    generate_with_attention,
)
from customvideo.subjects.prompt import LearnedWord, Prompt
from customvideo.training.trainer import Trainer
from tests.cast import make_cast, quick_method, short_run
from tests.tiny_hunyuan import build_tiny_hunyuan, build_tiny_hunyuan_unguided

TIMES = torch.tensor([137.5, 900.0])
PROMPTS = ["a cat on the beach", "a dog walking and running"]
QUICK = SamplingConfig(num_steps=2, guidance=6.0, frames=5, height=64, width=96, solver="native")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its network is told the guidance; read-only by agreement."""
    return build_tiny_hunyuan(tmp_path_factory.mktemp("models") / "tiny-hunyuan")


@pytest.fixture(scope="module")
def unguided_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its network is not; read-only by agreement."""
    return build_tiny_hunyuan_unguided(tmp_path_factory.mktemp("models") / "tiny-unguided")


@pytest.fixture(scope="module")
def shared(folder: Path) -> Hunyuan:
    return load(folder, device="cpu")


@pytest.fixture
def backbone(shared: Hunyuan) -> Iterator[Hunyuan]:
    yield shared
    shared.checkpointed = False


@pytest.fixture(scope="module")
def stock(folder: Path) -> Any:
    return stock_pipeline(folder)


@pytest.fixture
def broken(folder: Path, tmp_path: Path) -> Path:
    """A copy that may be broken."""
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.fixture
def text(backbone: Hunyuan) -> TextStates:
    return backbone.encode_prompt(PROMPTS)


def stock_pipeline(folder: Path) -> Any:
    """diffusers' own pipeline of the same folder."""
    from diffusers import HunyuanVideoPipeline

    logging.getLogger("diffusers").setLevel(logging.ERROR)
    pipeline = HunyuanVideoPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn_by_stock(pipeline: Any, noise: Tensor, size: tuple[int, int, int], **options: Any) -> Any:
    """What the stock pipeline makes of `noise` (row, channel, frame, height, width)."""
    frames, height, width = size
    return pipeline(
        prompt=PROMPTS,
        latents=noise,
        num_frames=frames,
        height=height,
        width=width,
        num_inference_steps=6,
        **options,
    ).frames


@contextmanager
def counting(module: nn.Module) -> Iterator[list[int]]:
    """Rows of the calls of `module`, whose input is given by name."""
    calls: list[int] = []
    handle = module.register_forward_pre_hook(
        lambda _m, args, kwargs: calls.append(len(args[0] if args else kwargs["hidden_states"])),
        with_kwargs=True,
    )
    yield calls
    handle.remove()


def weights_of(backbone: Hunyuan) -> dict[str, Tensor]:
    return {
        f"{part}.{name}": value.clone()
        for part in ("transformer", "text_encoder", "text_encoder_2")
        for name, value in getattr(backbone._pipeline, part).state_dict().items()
    }


@torch.no_grad()
def test_prompts_are_encoded_as_the_stock_pipeline_does(backbone: Hunyuan, stock: Any) -> None:
    prompts = [*PROMPTS, "", "été {} 猫 " + "running " * 300]
    states, pooled, mask = stock.encode_prompt(prompts)
    found = backbone.encode_prompt(prompts)
    assert found.states.shape[:2] == found.ids.shape == (4, 256)
    assert torch.equal(found.states, states)
    assert found.pooled is not None and torch.equal(found.pooled, pooled)
    assert found.real is not None and torch.equal(found.real, mask.bool())
    # With the token that closes the template.
    assert found.real.sum(dim=1).tolist() == [6, 6, 1, 256]
    assert (pooled[0] - pooled[1]).abs().max() > 0.1


@torch.no_grad()
def test_ids_stand_where_their_states_do(backbone: Hunyuan, stock: Any) -> None:
    """The token that is another is the first whose state is another: LLaMA looks back only."""
    one, other = backbone.encode_prompt(["a cat on the beach", "a cat in the street"]).states
    ids, others = backbone.encode_prompt(["a cat on the beach", "a cat in the street"]).ids
    assert stock.tokenizer.decode(ids[:6]) == "a cat on the beach<|eot_id|>"
    assert (ids != others).int().argmax() == 2
    assert torch.equal(one[:2], other[:2])
    assert (one[2] - other[2]).abs().max() > 0.1


@torch.no_grad()
def test_a_template_of_another_length_is_left_out_whole(broken: Path) -> None:
    """As the pipeline does that is told no length."""
    from customvideo.backbones.hunyuan import _TEMPLATE

    path = broken / "tokenizer" / "tokenizer.json"
    content = json.loads(path.read_text())
    # Nothing of the template's words is left but their bytes; the braces stay one token.
    content["model"]["merges"] = [["{", "}"]]
    content["model"]["vocab"]["{}"] = len(content["model"]["vocab"]) - 1
    path.write_text(json.dumps(content))
    found, pipeline = load(broken, device="cpu"), stock_pipeline(broken)
    states, _, mask = pipeline.encode_prompt(PROMPTS, prompt_template={"template": _TEMPLATE})
    assert found._begin > 400
    text = found.encode_prompt(PROMPTS)
    assert text.real is not None and torch.equal(text.real, mask.bool())
    assert torch.equal(text.states, states)
    assert pipeline.tokenizer.decode(text.ids[0][text.real[0]]) == f"{PROMPTS[0]}<|eot_id|>"


def test_a_tokenizer_called_after_llama_2_is_still_its_own(broken: Path, backbone: Hunyuan) -> None:
    """As the published folder's is, which transformers 5 would split without its spaces."""
    from transformers import LlamaTokenizerFast

    for path, key, value in (
        ("model_index.json", "tokenizer", ["transformers", "LlamaTokenizerFast"]),
        ("tokenizer/tokenizer_config.json", "tokenizer_class", "LlamaTokenizerFast"),
        ("tokenizer/tokenizer_config.json", "padding_side", "left"),
    ):
        content = json.loads((broken / path).read_text())
        (broken / path).write_text(json.dumps(content | {key: value}))
    wrong = LlamaTokenizerFast.from_pretrained(broken / "tokenizer")
    assert wrong.decode(wrong(PROMPTS[0]).input_ids, skip_special_tokens=True) != PROMPTS[0]
    found = load(broken, device="cpu").encode_prompt(PROMPTS)
    expected = backbone.encode_prompt(PROMPTS)
    assert torch.equal(found.ids, expected.ids) and torch.equal(found.states, expected.states)


@pytest.mark.parametrize("grid", [(1, 4, 6), (3, 6, 4)])
@torch.no_grad()
def test_forward_equals_the_stock_forward(
    backbone: Hunyuan, stock: Any, text: TextStates, grid: tuple[int, int, int]
) -> None:
    latents = draw(2, 4, *grid)
    states, pooled, mask = stock.encode_prompt(PROMPTS)
    told: dict[str, Any] = {
        "hidden_states": latents,
        "timestep": TIMES[1:].expand(2),
        "encoder_hidden_states": states,
        "encoder_attention_mask": mask,
        "pooled_projections": pooled,
        "return_dict": False,
    }
    for guidance in (1.0, 6.0):
        expected = stock.transformer(guidance=torch.full((2,), 1000 * guidance), **told)[0]
        found = backbone.predict_guided(latents, TIMES[1], text, text, guidance)
        assert expected.std() > 0.1
        assert (found - expected).abs().max() <= 1e-6
    unguided = stock.transformer(guidance=torch.full((2,), 1000.0), **told)[0]
    assert (backbone.predict(latents, TIMES[1:].expand(2), text) - unguided).abs().max() <= 1e-6


@pytest.mark.parametrize("size", [(5, 64, 96), (9, 96, 64), (1, 64, 96)])
def test_sampling_equals_the_stock_pipeline(
    backbone: Hunyuan, stock: Any, text: TextStates, size: tuple[int, int, int]
) -> None:
    noise = draw(2, *backbone.latent_shape(*size))
    reader = backbone._pipeline.text_encoder
    with counting(backbone.denoiser) as calls, counting(reader) as prompts:
        found = denoise(backbone, noise, text, steps=6, guidance=6.0, solver="native")
    # No second half, and no empty prompt for it.
    assert calls == [2] * 6 and prompts == []
    expected = drawn_by_stock(stock, noise, size, output_type="latent")
    assert (expected[0] - expected[1]).abs().max() > 0.1
    assert (found - expected).abs().max() <= 1e-5
    weaker = drawn_by_stock(stock, noise, size, guidance_scale=1.0, output_type="latent")
    assert (weaker - expected).abs().max() > 0.01
    off = denoise(backbone, noise, text, steps=6, guidance=1.0, solver="native")
    assert (off - weaker).abs().max() <= 1e-5
    pixels = drawn_by_stock(stock, noise, size, output_type="pt")
    assert pixels.shape == (2, size[0], 3, *size[1:]) and pixels.std() > 0.05
    decoded = backbone.decode_frames(found) / 2 + 0.5
    assert (decoded - pixels).abs().max() <= 1e-5


def test_an_undistilled_network_is_guided_as_the_stock_pipeline_does(
    unguided_folder: Path,
) -> None:
    size, backbone, stock = (
        (5, 64, 96),
        *(read(unguided_folder) for read in (load_on_cpu, stock_pipeline)),
    )
    assert not guided_inside(backbone)
    noise = draw(2, *backbone.latent_shape(*size))
    text, negative = backbone.encode_prompt(PROMPTS), backbone.encode_prompt(["a car"])
    found = denoise(backbone, noise, text, negative, steps=6, guidance=4.0, solver="native")
    expected = drawn_by_stock(
        stock,
        noise,
        size,
        negative_prompt=["a car"] * 2,
        true_cfg_scale=4.0,
        output_type="latent",
    )
    alone = drawn_by_stock(stock, noise, size, output_type="latent")
    assert (expected - alone).abs().max() > 0.01
    assert (found - expected).abs().max() <= 1e-5


def load_on_cpu(folder: Path) -> Hunyuan:
    return load(folder, device="cpu")


@pytest.mark.parametrize("solver", ["native", "euler", "unipc", "dpmsolver++"])
def test_every_solver_visits_the_models_own_range(backbone: Hunyuan, solver: str) -> None:
    text, times = backbone.encode_prompt(PROMPTS[:1]), []
    noise = draw(1, *backbone.latent_shape(1, 64, 96))
    found = denoise(
        backbone,
        noise,
        text,
        steps=4,
        guidance=6.0,
        solver=solver,
        callback=lambda _step, time, _latents: times.append(time),
    )
    assert found.isfinite().all()
    assert times[0] >= 998 and times == sorted(times, reverse=True)
    if solver in ("native", "euler"):
        # s <- 7 s / (1 + 6 s) of 1, 3/4, 1/2, 1/4
        assert times == [1000, 954, 875, 700]


@torch.no_grad()
def test_maps_are_the_softmax_over_video_and_real_text(backbone: Hunyuan, text: TextStates) -> None:
    """Against the same formed from the attention's inputs, with norms, turns and mask our own."""
    grid = (2, 4, 6)
    sites, latents = backbone.sites(5, 128, 192), draw(2, *backbone.latent_shape(5, 128, 192))
    assert all(site.grid == (2, 8, 12) for site in sites)
    sites, latents = backbone.sites(5, 64, 96), draw(2, *backbone.latent_shape(5, 64, 96))
    assert [site.grid for site in sites] == [grid] * 3 and {s.heads for s in sites} == {2}
    assert {(site.kind, site.text_first) for site in sites} == {("joint", False)}
    caught: dict[str, dict[str, Tensor]] = {}
    handles = []
    for site in sites:

        def keep(_module: nn.Module, _args: Any, kwargs: Any, path: str = site.path) -> None:
            caught[path] = kwargs

        attention = backbone.denoiser.get_submodule(site.path)
        handles.append(attention.register_forward_pre_hook(keep, with_kwargs=True))
    words = torch.eye(256)[None].expand(2, -1, -1)
    with watch(backbone.denoiser, sites, words, text.real) as tape:
        backbone.predict(latents, TIMES, text)
    for handle in handles:
        handle.remove()
    assert text.real is not None
    turns = angles(grid)
    for site in sites:
        attention: Any = backbone.denoiser.get_submodule(site.path)
        video, states = (
            caught[site.path][name].double() for name in ("hidden_states", "encoder_hidden_states")
        )
        query = turned(projected(video, attention.to_q, attention.norm_q), turns)
        keys = [
            turned(projected(video, attention.to_k, attention.norm_k), turns),
            projected(states, attention.add_k_proj, attention.norm_added_k),
        ]
        scores = query @ torch.cat(keys, dim=2).transpose(-1, -2) / 12**0.5
        scores[..., 48:].masked_fill_(~text.real[:, None, None], -torch.inf)
        shares = scores.softmax(dim=-1).mean(dim=1)[..., 48:]
        expected = shares.transpose(1, 2).unflatten(-1, grid)
        found = tape.maps()[site.path]
        assert (found - expected).abs().max() <= 1e-6
        # Texts are told apart, and paddings get nothing.
        assert expected[0, :6].std() > 1e-3 and not found[~text.real].any()


def projected(states: Tensor, layer: Any, norm: Any) -> Tensor:
    """(row, head, position, channel) under the root mean square norm of each head."""
    values = states @ layer.weight.double().T + layer.bias.double()
    values = values.unflatten(-1, (2, 12)).transpose(1, 2)
    root = (values.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
    scaled: Tensor = values / root * norm.weight.double()
    return scaled


def angles(grid: tuple[int, int, int]) -> Tensor:
    """By how much each pair of channels is turned (position, pair): 2 pairs an axis, base 256."""
    places = torch.cartesian_prod(*(torch.arange(size) for size in grid)).double()
    return (places[:, :, None] / 256 ** (torch.arange(2) / 2).double()).flatten(1)


def turned(values: Tensor, by: Tensor) -> Tensor:
    pairs = torch.view_as_complex(values.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(by), by)).flatten(-2)


@torch.no_grad()
def test_padding_changes_nothing_for_the_denoiser(backbone: Hunyuan, text: TextStates) -> None:
    latents = draw(2, 4, 2, 4, 6)
    assert text.real is not None
    other = text.states.masked_fill(~text.real[..., None], 3.0)
    expected = backbone.predict(latents, TIMES, text)
    changed = TextStates(other, text.ids, text.real, text.pooled)
    assert (backbone.predict(latents, TIMES, changed) - expected).abs().max() <= 1e-6
    read = TextStates(other, text.ids, torch.ones_like(text.real), text.pooled)
    assert (backbone.predict(latents, TIMES, read) - expected).abs().max() > 1e-2


def test_checkpointing_changes_neither_output_nor_gradient(backbone: Hunyuan) -> None:
    encoded = backbone.encode_prompt(PROMPTS)
    sites = backbone.sites(5, 64, 96)
    words = torch.zeros(2, 1, 256)
    words[:, :, 1] = 1
    gradients, outputs, calls = [], [], []
    block = backbone.denoiser.get_submodule("transformer_blocks.0")
    for checkpointed in (False, True):
        backbone.checkpointed = checkpointed
        leaf = encoded.states.detach().clone().requires_grad_()
        told = TextStates(leaf, encoded.ids, encoded.real, encoded.pooled)
        with counting(block) as seen, watch(backbone.denoiser, sites, words) as tape:
            output = backbone.predict(draw(2, 4, 2, 8, 12), TIMES, told)
            maps = tape.maps(require_grad=True)
            (output.square().mean() + sum(found.mean() for found in maps.values())).backward()
        outputs.append(output.detach())
        gradients.append(leaf.grad)
        calls.append(len(seen))
    assert calls == [1, 2]
    assert torch.equal(*outputs)
    torch.testing.assert_close(*gradients, atol=1e-7, rtol=1e-5)
    assert gradients[0] is not None and gradients[0].abs().max() > 1e-6


def test_latents_are_scaled_as_the_pipeline_does(backbone: Hunyuan, stock: Any) -> None:
    frames = draw(2, 9, 3, 64, 96).clamp(-1, 1)
    with torch.no_grad():
        codes = stock.vae.encode(frames.transpose(1, 2)).latent_dist.mode()
    found = backbone.encode_frames(frames)
    assert found.shape == (2, *backbone.latent_shape(9, 64, 96)) == (2, 4, 3, 8, 12)
    # Rows alone round otherwise than together, and the largest is 5.
    assert (found - codes * 0.476986).abs().max() <= 5e-5
    assert (found[0] - found[1]).abs().max() > 0.05
    assert not found.requires_grad


@pytest.mark.parametrize("frames", [0, 2, 8, 128])
def test_other_lengths_are_refused(backbone: Hunyuan, frames: int) -> None:
    near = {0: 1, 2: 1, 8: 9, 128: 129}[frames]
    with pytest.raises(BackboneError, match=rf"1, 5, 9, … frames, not {frames}: choose {near}\."):
        backbone.latent_shape(frames, 64, 96)


@pytest.mark.parametrize("size", [(0, 96), (64, 0), (72, 96), (64, 88)])
def test_other_sizes_are_refused(backbone: Hunyuan, size: tuple[int, int]) -> None:
    with pytest.raises(BackboneError, match="multiples of 16"):
        backbone.latent_shape(5, *size)
    with pytest.raises(BackboneError, match="multiples of 16"):
        backbone.encode_frames(torch.zeros(1, 5, 3, *size))


def test_it_is_found_by_its_folder_and_by_its_row(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = load_backbone(folder, device="cpu")
    assert isinstance(found, Hunyuan) and family_of(str(folder)) == found.family == "hunyuan"
    assert (found.fps, found.frames, found.size) == (24.0, 129, (720, 1280))
    assert guided_inside(found)
    for module in (folders, transformer):
        monkeypatch.setattr(module, "fetch", lambda _name: folder)
    row = load_backbone("hunyuan", device="cpu")
    assert (row.name, row.licence) == ("hunyuanvideo-community/HunyuanVideo", "other")
    assert row.fingerprint == found.fingerprint and family_of("hunyuan") == "hunyuan"


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder_2", "vae", "scheduler"])
def test_half_a_folder_is_refused(broken: Path, part: str) -> None:
    shutil.rmtree(broken / part)
    with pytest.raises(BackboneError, match=f"lacks the part '{part}'"):
        load(broken, device="cpu")


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "text_encoder_2"])
def test_damaged_weights_are_one_sentence(broken: Path, part: str) -> None:
    (weights,) = (broken / part).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BackboneError, match="cannot be loaded") as caught:
        load(broken, device="cpu")
    assert "\n" not in str(caught.value)


def test_only_texts_own_weights_are_keys_and_values(broken: Path) -> None:
    """On the real network, without its numbers."""
    from diffusers import HunyuanVideoTransformer3DModel

    found = load(broken, device="cpu")
    with torch.device("meta"):
        found._pipeline.transformer = HunyuanVideoTransformer3DModel()
    whole = sum(weight.numel() for weight in found.denoiser.parameters())
    trained = [found.layer(path) for path in found.layers("text_kv")]
    counted = sum(weight.numel() for layer in trained for weight in layer.parameters())
    # 20 blocks, keys and values, 3072 x 3072 and a bias: 378 M of 12.8 B.
    assert counted == 20 * 2 * (3072 * 3072 + 3072) == 377_610_240
    assert round(whole / 1e9, 1) == 12.8
    chosen = [*found.layers("text_kv"), *found.layers("self"), *found.layers("text_qo")]
    assert not any(path.startswith(("single_", "context_embedder")) for path in chosen)
    (grid,) = {site.grid for site in found.sites(129, 720, 1280)}
    assert grid == (33, 45, 80) and len(found.sites(129, 720, 1280)) == 20


@pytest.fixture
def tokens(backbone: Hunyuan) -> LearnedTokens:
    words = [LearnedWord("tom", "cat", 2), LearnedWord("otto", "dog")]
    table = backbone.tables()[0]
    rows = initial_rows(table, words, "category", torch.Generator().manual_seed(0))
    return LearnedTokens(words, rows.shape[-1], rows)


def test_learned_words_are_one_id_a_vector_and_train(
    backbone: Hunyuan, tokens: LearnedTokens
) -> None:
    before, table = weights_of(backbone), backbone.tables()[0]
    tokenizer, first = table.tokenizer, len(table.tokenizer)
    prompts = [Prompt(text, tokens.words).encoded for text in ("a <tom> cat", "an <otto> dog")]
    plain = backbone.encode_prompt(prompts)
    with tokens.attach(table):
        text = backbone.encode_prompt(prompts)
        # Before each vector a piece of one space, as in LLaMA 3's vocabulary. A token that takes it
        # along takes the template's line break along, too, where a prompt begins with the word,
        # and the stock pipeline would then cut off the word instead of the template.
        read = [tokenizer.convert_ids_to_tokens(ids) for ids in (text.ids[0], text.ids[1])]
        assert read[0][:6] == ["a", "Ġ", None, "Ġ", None, "Ġcat"] and "Ġ" not in read[0][6:]
        assert read[1][1:4] == ["Ġ", None, "Ġdog"] and "Ġ" not in read[1][4:]
        alone = backbone.encode_prompt([Prompt("<tom>", tokens.words).encoded]).ids[0]
        assert alone[0] == first
        assert text.ids[0][text.ids[0] >= first].tolist() == [first, first + 1]
        assert text.ids[1][text.ids[1] >= first].tolist() == [first + 2]
        chosen = tokens.select(text.ids)
        assert chosen.sum(dim=-1).tolist() == [[1, 0], [0, 1]]
        assert (text.ids[0] == first).int().argmax() == chosen[0, 0].argmax()
        backbone.predict(draw(2, 4, 2, 4, 6), TIMES, text).square().mean().backward()
    assert tokens.value.grad is not None
    assert (tokens.value.grad.abs().amax(dim=1) > 1e-7).all()
    assert table.tokenizer is tokenizer
    again = backbone.encode_prompt(prompts)
    assert torch.equal(again.states, plain.states) and torch.equal(again.ids, plain.ids)
    assert all(torch.equal(value, before[name]) for name, value in weights_of(backbone).items())


@torch.no_grad()
def test_clip_reads_prompts_without_learned_words(backbone: Hunyuan, tokens: LearnedTokens) -> None:
    written = {
        "a <tom> cat on the beach": "a cat on the beach",
        "An <otto> dog and a <tom> cat": "A dog and a cat",
        "<tom> and the <otto>": "cat and the dog",
        "<tim> and a cat": "<tim> and a cat",
    }
    expected = backbone.encode_prompt(list(written.values())).pooled
    prompts = [Prompt(text, tokens.words).encoded for text in written]
    assert prompts[1] == "An <otto> dog and a <tom> <tom>_1 cat"
    unknown = backbone.encode_prompt(prompts).pooled
    with tokens.attach(backbone.tables()[0]):
        found = backbone.encode_prompt(prompts).pooled
    assert expected is not None and found is not None and unknown is not None
    assert torch.equal(found, expected)
    # To nobody who has not learned them are they anything but letters.
    assert (unknown[:3] - expected[:3]).abs().amax(dim=1).min() > 1e-2


def test_a_negative_prompt_is_said_not_to_be_read(backbone: Hunyuan) -> None:
    options = QUICK.model_copy(update={"negative": "a car", "frames": 1})
    with pytest.warns(CustomVideoWarning, match="guides itself") as caught:
        video = generate(backbone, None, "a cat", options=options)
    assert caught[0].filename == __file__
    plain = generate(backbone, None, "a cat", options=QUICK.model_copy(update={"frames": 1}))
    assert (video.frames == plain.frames).all()


@pytest.mark.parametrize("checkpointed", [False, True])
def test_customvideo_trains_saves_and_generates(
    backbone: Hunyuan, tmp_path: Path, checkpointed: bool
) -> None:
    before, cast = weights_of(backbone), make_cast()
    method, seen = quick_method(attention_weight=0.2, rank=2), list[Any]()
    config = short_run(steps=2, least_cells=0, gradient_checkpointing=checkpointed)
    adapter = Trainer(
        config, tmp_path / "run", on_step=seen.append, console=Console(quiet=True)
    ).fit(backbone, method, cast)
    assert all(report.parts["attention"] > 0 for report in seen) and len(seen) == 2
    paths = {f"transformer_blocks.{i}.attn.add_{k}_proj" for i in range(3) for k in "kv"}
    assert set(adapter.deltas) == paths
    assert all(float(delta.merged().detach().abs().max()) > 0 for delta in adapter.deltas.values())
    adapter.save(tmp_path / "pair.safetensors")
    loaded = Adapter.load(tmp_path / "pair.safetensors")
    prompt = "a <tom> cat and a <rex> dog on the beach"
    video, maps = generate_with_attention(backbone, loaded, prompt, seed=3, options=QUICK)
    assert video.frames.shape == (5, 64, 96, 3)
    assert maps["<tom>"].shape == (2, 4, 6) and 0 < maps["<tom>"].min() < maps["<tom>"].max() < 1
    again = generate(backbone, adapter, prompt, seed=3, options=QUICK)
    assert (again.frames == video.frames).all()
    base = generate(backbone, None, "a cat and a dog on the beach", seed=3, options=QUICK)
    assert (base.frames != video.frames).any()
    assert all(torch.equal(value, before[name]) for name, value in weights_of(backbone).items())
    assert not any(module._forward_hooks for module in backbone.denoiser.modules())


def test_the_packaged_recipe_draws_as_the_pipeline_does(folder: Path) -> None:
    recipe = default_recipe(backbone="hunyuan")
    assert (recipe.method, recipe.sampling.solver) == ("customvideo", "native")
    assert (recipe.sampling.num_steps, recipe.sampling.guidance) == (50, 6.0)
    assert default_recipe(backbone=str(folder)).sampling == recipe.sampling
