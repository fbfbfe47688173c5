"""CogVideoX against its stock pipeline, and what a customization may change in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import CogVideoXPipeline, CogVideoXTransformer3DModel
from rich.console import Console
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import AdapterConfig, DeltaSpec, new_adapter
from customvideo.adapters.deltas import FullDelta
from customvideo.backbones import transformer
from customvideo.backbones.base import JointText, TextStates, family_of, load_backbone
from customvideo.backbones.cogvideox import CogVideoX, load, load_large, load_small
from customvideo.backbones.sampling import denoise
from customvideo.errors import AdapterError, BackboneError
from customvideo.generation import SamplingConfig, generate
from customvideo.methods.base import PriorPlan
from customvideo.methods.customvideo import CustomVideo, CustomVideoConfig
from customvideo.training.prior import build_prior
from customvideo.training.trainer import Trainer
from tests.cast import make_cast, quick_method, short_run
from tests.tiny_cogvideox import build_tiny_cogvideox, build_tiny_cogvideox_turned

SIZE = (5, 64, 96)
TIMES = torch.tensor([300, 700])
BUILDERS = {"2b": build_tiny_cogvideox, "5b": build_tiny_cogvideox_turned}


@pytest.fixture(scope="module", params=BUILDERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return BUILDERS[request.param](tmp_path_factory.mktemp("models") / request.param)


@pytest.fixture(scope="module")
def shared(folder: Path) -> CogVideoX:
    found = load_backbone(folder, device="cpu")
    assert isinstance(found, CogVideoX)
    return found


@pytest.fixture
def backbone(shared: CogVideoX) -> Iterator[CogVideoX]:
    yield shared
    shared.checkpointed = False


@pytest.fixture(scope="module")
def stock(folder: Path) -> Any:
    pipeline = CogVideoXPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(backbone: CogVideoX, rows: int = 2, frames: int = 5, seed: int = 0) -> Tensor:
    shape = (rows, *backbone.latent_shape(frames, 64, 96))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def to_unit(pixels: Tensor) -> Tensor:
    return (pixels / 2 + 0.5).clamp(0, 1)


@pytest.fixture
def same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """What CogVideoX's DPM solver adds is the same in ours and in the pipeline's order of axes."""
    from diffusers.schedulers import scheduling_dpm_cogvideox

    def give(shape: Any, *_: object, device: Any = None, dtype: Any = None, **__: object) -> Tensor:
        rows, first, second, height, width = shape
        # There are four channels; no test here has four latent frames.
        ours = first == 4
        axes = (rows, first, second) if ours else (rows, second, first)
        drawn = torch.randn(*axes, height, width, generator=torch.Generator().manual_seed(5))
        return drawn.to(device, dtype) if ours else drawn.to(device, dtype).transpose(1, 2)

    monkeypatch.setattr(scheduling_dpm_cogvideox, "randn_tensor", give)


@pytest.mark.usefixtures("same_noise")
@pytest.mark.parametrize("frames", [1, 5, 9, 17])
def test_equals_the_stock_pipeline(backbone: CogVideoX, stock: Any, frames: int) -> None:
    prompts = ["a cat on the beach", "a dog"]
    expected = stock(
        prompts,
        negative_prompt="a car",
        height=64,
        width=96,
        num_frames=frames,
        num_inference_steps=5,
        guidance_scale=6.0,
        latents=draw(backbone, frames=frames).transpose(1, 2),
        output_type="pt",
    ).frames
    latents = denoise(
        backbone,
        draw(backbone, frames=frames),
        backbone.encode_prompt(prompts),
        backbone.encode_prompt(["a car"]),
        steps=5,
        guidance=6.0,
        solver="native",
    )
    ours = to_unit(backbone.decode_frames(latents))
    assert ours.shape == (2, frames, 3, 64, 96) and expected.std() > 0.05
    # The pipeline makes three frames more of an even number of latent frames: see below.
    assert (ours - expected[:, -frames:]).abs().max() <= 2e-5


@torch.no_grad()
def test_prompts_are_encoded_as_the_stock_pipeline_does(backbone: CogVideoX, stock: Any) -> None:
    prompts = ["a cat on the beach", "", "dog " * 300]
    expected, _ = stock.encode_prompt(prompts, do_classifier_free_guidance=False)
    encoded = backbone.encode_prompt(prompts)
    assert encoded.ids.shape == encoded.states.shape[:2] == (3, 226)
    # It reads its padding like text.
    assert encoded.real is None
    torch.testing.assert_close(encoded.states, expected, atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 5, 9, 13, 17])
def test_frames_are_coded_as_the_stock_pipeline_does(
    backbone: CogVideoX, stock: Any, frames: int
) -> None:
    pixels = torch.rand(2, frames, 3, 64, 96, generator=torch.Generator().manual_seed(2)) * 2 - 1
    latents = backbone.encode_frames(pixels)
    # Row by row, as convolutions over other batches round otherwise.
    coded = [stock.vae.encode(row[None].transpose(1, 2)).latent_dist.mode() for row in pixels]
    expected = torch.cat(coded) * stock.vae.config.scaling_factor
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=0)
    assert latents.shape == (2, *backbone.latent_shape(frames, 64, 96)) and latents.std() > 0.1

    decoded = backbone.decode_frames(latents)
    made = [stock.decode_latents(row[None].transpose(1, 2)) for row in latents]
    whole = torch.cat(made).transpose(1, 2).clamp(-1, 1)
    assert decoded.shape == pixels.shape
    torch.testing.assert_close(decoded, whole[:, -frames:], atol=1e-5, rtol=0)
    # What is left out are copies of the picture that the video begins with.
    more = whole.shape[1] - frames
    assert more == (3 if latents.shape[2] % 2 == 0 else 0)
    torch.testing.assert_close(
        whole[:, :more], decoded[:, :1].expand(-1, more, -1, -1, -1), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("frames", [0, 2, 4, 7, 48])
def test_impossible_clip_lengths_are_refused(backbone: CogVideoX, frames: int) -> None:
    with pytest.raises(BackboneError, match=r"makes 1, 5, 9, … frames, not \d+: choose \d+\."):
        backbone.latent_shape(frames, 64, 96)
    with pytest.raises(BackboneError, match=r"choose 5\."):
        backbone.encode_frames(torch.zeros(1, 4, 3, 64, 96))


@pytest.mark.parametrize("size", [(56, 96), (64, 90), (0, 96)])
def test_impossible_sizes_are_refused(backbone: CogVideoX, size: tuple[int, int]) -> None:
    with pytest.raises(BackboneError, match="multiples of 16"):
        backbone.latent_shape(5, *size)


def test_sites_are_joint_and_text_comes_first(backbone: CogVideoX) -> None:
    sites = backbone.sites(9, 64, 80)
    assert [site.path for site in sites] == [f"transformer_blocks.{i}.attn1" for i in range(3)]
    for site in sites:
        assert (site.kind, site.text_first, site.grid, site.heads) == ("joint", True, (3, 4, 5), 2)
        assert (site.key, site.value) == (f"{site.path}.to_k", f"{site.path}.to_v")


def test_the_small_model_has_221_million_keys_and_values() -> None:
    with torch.device("meta"):
        network: Any = CogVideoXTransformer3DModel()
    blocks = network.transformer_blocks
    layers = [layer for block in blocks for layer in (block.attn1.to_k, block.attn1.to_v)]
    count = sum(weight.numel() for layer in layers for weight in layer.parameters())
    assert len(blocks) == 30 and network.config.max_text_seq_length == 226
    assert count == 30 * 2 * (1920 * 1920 + 1920) and round(count / 1e6) == 221


@torch.no_grad()
@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("part", ["to_k", "to_v"])
def test_a_delta_changes_rows_of_text_alone(
    backbone: CogVideoX, strength: float, part: str
) -> None:
    path = f"transformer_blocks.0.attn1.{part}"
    assert isinstance(backbone, JointText) and backbone.text_rows(path) == slice(226)
    latents, text = draw(backbone), backbone.encode_prompt(["a cat", "a dog"])
    delta = FullDelta(32, 32)
    torch.nn.init.normal_(delta.weight)

    def outputs() -> tuple[Tensor, Tensor]:
        heard: list[Tensor] = []
        handle = backbone.layer(path).register_forward_hook(
            lambda _module, args, output: heard.extend([args[0], output])
        )
        backbone.predict(latents, TIMES, text)
        handle.remove()
        return heard[0], heard[1]

    _, before = outputs()
    undo = delta.attach(backbone, path, strength)
    inputs, after = outputs()
    changed = backbone.predict(latents, TIMES, text)
    undo()
    assert before.shape[1] == 226 + 2 * 4 * 6
    assert torch.equal(after[:, 226:], before[:, 226:])
    expected = before[:, :226] + strength * inputs[:, :226] @ delta.weight.T
    torch.testing.assert_close(after[:, :226], expected, atol=1e-4, rtol=1e-4)
    assert not torch.equal(changed, backbone.predict(latents, TIMES, text))
    assert torch.equal(outputs()[1], before)


def test_the_first_position_of_text_can_be_held(backbone: CogVideoX) -> None:
    path = "transformer_blocks.2.attn1.to_k"
    delta = FullDelta(32, 32, holds_first=True)
    torch.nn.init.normal_(delta.weight)
    states = torch.randn(2, 300, 32, requires_grad=True)
    undo = delta.attach(backbone, path, 1.0)
    backbone.layer(path)(states).square().sum().backward()
    undo()
    assert states.grad is not None
    reached = states.grad.any(dim=-1)
    assert not reached[:, 0].any() and reached[:, 1:].all()


def test_shared_layers_keep_what_the_first_group_gives_them(backbone: CogVideoX) -> None:
    method = CustomVideo(CustomVideoConfig(train="kvqo+self", self_rank=2))
    deltas = method.trainable(backbone, make_cast()).deltas
    assert len(deltas) == 3 * 4
    assert all(isinstance(delta, FullDelta) for delta in deltas.values())


def test_a_bottleneck_beside_a_joint_attention_is_refused(backbone: CogVideoX) -> None:
    path = backbone.sites(*SIZE)[0].path
    with pytest.raises(AdapterError, match=r"has no text attention 'transformer_blocks.0.attn1'"):
        new_adapter(backbone, make_cast(), method="x", paths={path: DeltaSpec(kind="bottleneck")})


def test_checkpointing_changes_neither_output_nor_gradient(backbone: CogVideoX) -> None:
    text = backbone.encode_prompt(["a cat", "a dog"])
    gradients, outputs = [], []
    for checkpointed in (False, True):
        backbone.checkpointed = checkpointed
        leaf = text.states.detach().clone().requires_grad_()
        output = backbone.predict(draw(backbone), TIMES, TextStates(leaf, text.ids))
        output.square().mean().backward()
        outputs.append(output.detach())
        gradients.append(leaf.grad)
    assert torch.equal(*outputs)
    torch.testing.assert_close(*gradients, atol=1e-9, rtol=1e-5)


@pytest.mark.parametrize("vectors", [1, 3])
def test_learned_words_are_one_id_a_vector_and_take_a_gradient(
    backbone: CogVideoX, vectors: int
) -> None:
    adapter = new_adapter(
        backbone, make_cast(), method="x", paths=[], config=AdapterConfig(vectors=vectors)
    )
    own = len(backbone.tables()[0].tokenizer)
    with adapter.attach(backbone):
        prompt = f"a {' '.join(adapter.tokens.tokens[:vectors])} cat on the beach"
        text = backbone.encode_prompt([prompt, "a dog"])
        plain = backbone.encode_prompt(["a dog"])
        assert text.ids[0, 1 : 1 + vectors].tolist() == list(range(own, own + vectors))
        assert int((text.ids >= own).sum()) == vectors
        backbone.predict(draw(backbone), TIMES, text).square().mean().backward()
    assert torch.equal(plain.states[0], text.states[1])
    gradient = adapter.tokens.value.grad
    assert gradient is not None
    assert all(row.any() for row in gradient[:vectors]) and not gradient[vectors:].any()


def test_trains_saves_loads_and_generates(backbone: CogVideoX, tmp_path: Path) -> None:
    quiet = Console(quiet=True)
    method = quick_method(attention_loss="mse_maxnorm", attention_weight=0.1)
    parts: list[dict[str, float]] = []
    config = short_run(gradient_checkpointing=True, held_out=2, least_cells=1.0)
    frozen = {name: value.clone() for name, value in backbone.denoiser.state_dict().items()}
    trainer = Trainer(
        config, tmp_path / "run", on_step=lambda report: parts.append(report.parts), console=quiet
    )
    adapter = trainer.fit(backbone, method, make_cast())
    assert [set(part) for part in parts] == [{"reconstruction", "attention"}] * 4
    assert set(adapter.deltas) == set(backbone.layers("text_kv"))
    assert all(delta.merged().any() for delta in adapter.deltas.values())  # type: ignore[operator]
    assert all(torch.equal(frozen[n], v) for n, v in backbone.denoiser.state_dict().items())

    adapter.save(tmp_path / "pets.safetensors")
    loaded = Adapter.load(tmp_path / "pets.safetensors")
    options = SamplingConfig(
        num_steps=2, guidance=6, frames=5, height=64, width=96, solver="native"
    )
    prompt = "a <tom> cat and a <rex> dog"
    first, again = (generate(backbone, one, prompt, options=options) for one in (adapter, loaded))
    base = generate(backbone, loaded, prompt, options=options.model_copy(update={"strength": 0.0}))
    assert first.frames.shape == (5, 64, 96, 3) and first.fps == 8
    assert (first.frames == again.frames).all() and (first.frames != base.frames).any()


def test_prior_pictures_can_be_drawn(backbone: CogVideoX, tmp_path: Path) -> None:
    plan = PriorPlan(("cat",), samples=1, rows=1, sampling_steps=2, clip_frames=5)
    pool = build_prior(backbone, plan, (64, 96), cache=tmp_path)
    _, latents = pool.draw(np.random.default_rng(0), clip=False)
    assert latents.shape == backbone.latent_shape(1, 64, 96) and latents.isfinite().all()


@torch.no_grad()
def test_half_precision_keeps_the_autoencoder_whole(folder: Path, backbone: CogVideoX) -> None:
    half = load(folder, device="cpu", dtype="bf16")
    assert half.dtype == torch.bfloat16 and half._pipeline.vae.dtype == torch.float32
    assert half.fingerprint == backbone.fingerprint
    found = half.predict(draw(half), TIMES, half.encode_prompt(["a cat", "a dog"]))
    expected = backbone.predict(draw(half), TIMES, backbone.encode_prompt(["a cat", "a dog"]))
    assert found.dtype == torch.float32
    assert (found - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_is_found_by_the_class_of_its_pipeline(folder: Path) -> None:
    assert family_of(str(folder)) == family_of("cogvideox-2b") == "cogvideox"


@pytest.mark.parametrize("factory", [load_small, load_large])
def test_models_of_the_hub_say_what_they_are(
    folder: Path, factory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformer, "fetch", lambda name: folder)
    found = factory(device="cpu")
    assert (found.fps, found.frames, found.size) == (8.0, 49, (480, 720))
    assert found.licence == ("apache-2.0" if factory is load_small else "other")
    assert found.latent_shape(49, 480, 720) == (4, 13, 60, 90)


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder", "vae", "transformer", "scheduler"])
def test_half_a_folder_is_refused(folder: Path, tmp_path: Path, part: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "half")
    shutil.rmtree(copy / part)
    with pytest.raises(BackboneError, match=f"lacks the part '{part}'"):
        load(copy, device="cpu")


def test_damaged_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "damaged")
    (copy / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(b"short")
    with pytest.raises(BackboneError, match="fetch a complete copy"):
        load(copy, device="cpu")


def test_a_tokenizer_that_nobody_here_can_read_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(folder, tmp_path / "published")
    (copy / "tokenizer" / "tokenizer.json").unlink()
    (copy / "tokenizer" / "spiece.model").write_bytes(b"pieces")
    monkeypatch.setattr(transformer, "find_spec", lambda name: None)
    with pytest.raises(BackboneError, match="pip install sentencepiece protobuf"):
        load(copy, device="cpu")


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ({"patch_size_t": 2}, "joins latent frames in pairs, as CogVideoX 1.5 does"),
        (
            {"use_rotary_positional_embeddings": True, "use_learned_positional_embeddings": True},
            "has learned positions for one size alone",
        ),
        ({"in_channels": 8}, "reads a picture beside the text"),
    ],
)
def test_relatives_that_work_otherwise_are_refused(
    tmp_path: Path, network: dict[str, Any], words: str
) -> None:
    with pytest.raises(BackboneError, match=f"{words}, which customvideo cannot use: choose"):
        load(build_tiny_cogvideox(tmp_path / "other", **network), device="cpu")
