"""The AnimateDiff backbone: against diffusers' own pipeline, on lone pictures, from its parts."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.attention.tape import watch
from customvideo.backbones import animatediff, unet3d
from customvideo.backbones import folder as folders
from customvideo.backbones.animatediff import AnimateDiff, load_animatediff
from customvideo.backbones.base import TextStates, family_of, load_backbone
from customvideo.backbones.sampling import SOLVERS, denoise
from customvideo.backbones.unet3d import text_sites
from customvideo.config import default_recipe
from customvideo.errors import BackboneError
from customvideo.generation import SamplingConfig, generate
from customvideo.training.trainer import Trainer
from tests.cast import make_cast, quick_method, short_run
from tests.tiny_animatediff import (
    LONGEST,
    STABLE_DIFFUSION_CONFIG,
    build_tiny_adapter,
    build_tiny_animatediff,
    build_tiny_pictures,
)

# The stock pipeline's own; that ours stays silent is seen in the tests of generation.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TIMES = torch.tensor([10, 900])
PROMPTS = ["a cat on the beach", "a dog"]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as AnimateDiffPipeline saves it; read-only by agreement."""
    return build_tiny_animatediff(tmp_path_factory.mktemp("models") / "tiny-animatediff")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model in two folders, "pictures" and "adapter", as it is published."""
    folder = tmp_path_factory.mktemp("parts")
    build_tiny_pictures(folder / "pictures")
    build_tiny_adapter(folder / "adapter")
    return folder


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A copy that may be broken."""
    return shutil.copytree(tiny, tmp_path / "broken")


@pytest.fixture(scope="module")
def shared(tiny: Path) -> AnimateDiff:
    loaded = load_backbone(tiny, device="cpu")
    assert isinstance(loaded, AnimateDiff)
    return loaded


@pytest.fixture
def backbone(shared: AnimateDiff) -> Iterator[AnimateDiff]:
    """The tiny model, its switches reset afterwards."""
    yield shared
    shared.single_frame = "skip"
    shared.checkpointed = False


@pytest.fixture
def published(parts: Path, monkeypatch: pytest.MonkeyPatch) -> AnimateDiff:
    """The row "animatediff", put together from its parts."""
    monkeypatch.setattr(folders, "fetch", lambda name: parts / "pictures")
    monkeypatch.setattr(animatediff, "_ADAPTER", str(parts / "adapter"))
    return load_animatediff(device="cpu")


@pytest.fixture
def stock(tiny: Path) -> Any:
    """diffusers' own pipeline of the same folder."""
    from diffusers import AnimateDiffPipeline

    logging.getLogger("diffusers").setLevel(logging.ERROR)
    pipeline = AnimateDiffPipeline.from_pretrained(tiny)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def text(backbone: AnimateDiff) -> TextStates:
    return backbone.encode_prompt(PROMPTS)


@pytest.fixture
def negative(backbone: AnimateDiff) -> TextStates:
    return backbone.encode_prompt([""])


def to_unit(pixels: Tensor) -> Tensor:
    return (pixels / 2 + 0.5).clamp(0, 1)


# Against the stock network and pipeline


# The last two sizes are odd at some level, where the way up must meet the skips' sizes.
@pytest.mark.parametrize("shape", [(2, 4, 3, 8, 12), (2, 4, 2, 9, 11), (2, 4, 5, 7, 6)])
@torch.no_grad()
def test_forward_equals_the_stock_forward(
    backbone: AnimateDiff,
    stock: Any,
    text: TextStates,
    negative: TextStates,
    shape: tuple[int, ...],
) -> None:
    latents = draw(*shape)
    # The stock network wants the text once for every frame.
    told = text.states.repeat_interleave(shape[2], dim=0)
    expected = stock.unet(latents, TIMES, told).sample
    assert expected.std() > 0.1
    assert (backbone.predict(latents, TIMES, text) - expected).abs().max() <= 1e-5
    nothing = negative.states.repeat_interleave(2 * shape[2], dim=0)
    without = stock.unet(latents, TIMES[1], nothing).sample
    within = stock.unet(latents, TIMES[1], told).sample
    guided = backbone.predict_guided(latents, TIMES[1], text, negative, 7.5)
    assert (guided - (without + 7.5 * (within - without))).abs().max() <= 5e-5
    with backbone.cached_text(text, negative):
        cached = backbone.predict_guided(latents, TIMES[1], text, negative, 7.5)
    assert torch.equal(cached, guided)


@pytest.mark.parametrize("solver", ["native", "ddim", "dpmsolver++"])
def test_videos_equal_the_stock_pipelines(backbone: AnimateDiff, stock: Any, solver: str) -> None:
    if solver != "native":
        stock.scheduler = SOLVERS[solver].from_config(stock.scheduler.config)
    start = draw(2, 4, 3, 8, 12, seed=1)
    expected = stock(
        PROMPTS,
        negative_prompt=["a car", "a car"],
        height=64,
        width=96,
        num_frames=3,
        num_inference_steps=5,
        guidance_scale=7.5,
        latents=start.clone(),
        output_type="pt",
    ).frames
    text, negative = backbone.encode_prompt(PROMPTS), backbone.encode_prompt(["a car"])
    latents = denoise(backbone, start, text, negative, steps=5, guidance=7.5, solver=solver)
    assert expected.std() > 0.05
    difference = (to_unit(backbone.decode_frames(latents)) - expected).abs().max()
    assert difference <= 1e-5


def test_prompts_are_encoded_as_the_stock_pipeline_does(backbone: AnimateDiff, stock: Any) -> None:
    expected = torch.cat(
        [
            stock.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)[0]
            for prompt in PROMPTS
        ]
    )
    torch.testing.assert_close(backbone.encode_prompt(PROMPTS).states, expected, atol=1e-6, rtol=0)


def test_its_noise_has_the_motion_adapters_betas(backbone: AnimateDiff, stock: Any) -> None:
    assert backbone.noise.config["beta_schedule"] == "linear"
    torch.testing.assert_close(backbone.noise.alphas_cumprod, stock.scheduler.alphas_cumprod)


# Where text is read


def full_size() -> Any:
    from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

    with torch.device("meta"):
        pictures = UNet2DConditionModel(**STABLE_DIFFUSION_CONFIG)
        return UNetMotionModel.from_unet2d(pictures, MotionAdapter(), load_weights=False)


def test_sixteen_of_37_attentions_read_text() -> None:
    unet = full_size()
    assert sum(path.endswith("attn2") for path, _ in unet.named_modules()) == 37
    found = text_sites(unet)
    assert len(found) == len(set(found)) == 16
    assert [path.split(".attentions")[0] for path in found] == [
        *("down_blocks.0", "down_blocks.0", "down_blocks.1", "down_blocks.1"),
        *("down_blocks.2", "down_blocks.2", "mid_block"),
        *(["up_blocks.1"] * 3 + ["up_blocks.2"] * 3 + ["up_blocks.3"] * 3),
    ]
    keys_and_values = [
        unet.get_submodule(f"{path}.{part}") for path in found for part in ("to_k", "to_v")
    ]
    assert {layer.in_features for layer in keys_and_values} == {768}
    # 19.2 million: what CustomVideo trains here.
    assert sum(layer.weight.numel() for layer in keys_and_values) == 19_169_280
    sites = unet3d.attention_sites(unet, 16, 64, 64)
    assert [site.grid[1] for site in sites[:7]] == [64, 64, 32, 32, 16, 16, 8]
    assert {site.heads for site in sites} == {8}


def test_groups_keep_clear_of_the_motion_modules(backbone: AnimateDiff) -> None:
    moving = [path for path in backbone.layers("denoiser") if "motion_modules" in path]
    assert moving
    for group in ("text_kv", "text_qo", "self", "spatial"):
        assert not set(moving) & set(backbone.layers(group))  # type: ignore[arg-type]
    assert set(moving) | set(backbone.layers("spatial")) == set(backbone.layers("denoiser"))


@torch.no_grad()
def test_text_is_projected_once_per_row_not_per_frame(
    backbone: AnimateDiff, text: TextStates
) -> None:
    calls: list[int] = []
    handle = backbone.denoiser.get_submodule(backbone.layers("text_kv")[0]).register_forward_hook(
        lambda _module, args, _output: calls.append(len(args[0]))
    )
    backbone.predict(draw(2, 4, 3, 8, 12), TIMES, text)
    handle.remove()
    assert calls == [2]


# Lone pictures


@pytest.fixture
def pictures(parts: Path) -> Any:
    """The picture model alone."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(parts / "pictures" / "unet").eval()


@torch.no_grad()
def test_a_picture_past_the_motion_modules_is_the_picture_models(
    backbone: AnimateDiff, pictures: Any, text: TextStates
) -> None:
    latents = draw(2, 4, 1, 8, 12)
    expected = pictures(latents[:, :, 0], TIMES, text.states).sample[:, :, None]
    skipped = backbone.predict(latents, TIMES, text)
    assert (skipped - expected).abs().max() <= 1e-5
    clip = latents.expand(-1, -1, 2, -1, -1)
    # Only lone frames are pictures.
    assert (backbone.predict(clip, TIMES, text)[:, :, :1] - expected).abs().max() > 1e-2


@torch.no_grad()
def test_a_picture_can_pass_the_motion_modules(
    backbone: AnimateDiff, stock: Any, text: TextStates
) -> None:
    latents = draw(2, 4, 1, 8, 12)
    backbone.single_frame = "run"
    expected = stock.unet(latents, TIMES, text.states).sample
    assert (backbone.predict(latents, TIMES, text) - expected).abs().max() <= 1e-5
    backbone.single_frame = "repeat"
    whole = latents.expand(-1, -1, backbone.frames, -1, -1)
    expected = backbone.predict(whole, TIMES, text).mean(dim=2, keepdim=True)
    assert torch.equal(backbone.predict(latents, TIMES, text), expected)


@torch.no_grad()
def test_an_error_leaves_the_motion_modules_where_they_were(
    backbone: AnimateDiff, text: TextStates
) -> None:
    before = list(backbone.denoiser.state_dict())
    with pytest.raises(RuntimeError):
        backbone.predict(draw(2, 3, 1, 8, 12), TIMES, text)
    assert list(backbone.denoiser.state_dict()) == before


@pytest.mark.parametrize(("mode", "frames"), [("skip", 1), ("run", 1), ("skip", 2)])
def test_checkpointing_changes_neither_maps_nor_gradient(
    backbone: AnimateDiff, mode: str, frames: int
) -> None:
    backbone.single_frame = mode
    states, sites = backbone.encode_prompt(PROMPTS), backbone.sites(frames, 64, 96)
    words = torch.zeros(2, 1, states.ids.shape[1])
    words[:, 0, 2] = 1
    found: list[tuple[Tensor, Tensor]] = []
    for backbone.checkpointed in (False, True):
        leaf = states.states.detach().clone().requires_grad_()
        with watch(backbone.denoiser, sites, words) as tape:
            output = backbone.predict(
                draw(2, 4, frames, 8, 12), TIMES, TextStates(leaf, states.ids)
            )
            maps = tape.maps(require_grad=True)
        total = torch.stack([one.square().mean() for one in maps.values()]).sum()
        (output.square().mean() + total).backward()
        assert leaf.grad is not None
        found.append((output.detach(), leaf.grad))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-8, rtol=1e-5)


# From its parts


@torch.no_grad()
def test_the_published_parts_make_the_whole(published: AnimateDiff, stock: Any) -> None:
    assert (published.name, published.family) == ("animatediff", "animatediff")
    assert (published.fps, published.frames) == (8.0, 16)
    assert published.licence == "creativeml-openrail-m"
    assert family_of("animatediff") == "animatediff"
    start = draw(1, 4, 3, 8, 12, seed=2)
    expected = stock(
        PROMPTS[0],
        height=64,
        width=96,
        num_frames=3,
        num_inference_steps=4,
        latents=start.clone(),
        output_type="pt",
    ).frames
    latents = denoise(published, start, published.encode_prompt(PROMPTS[:1]), steps=4, guidance=7.5)
    assert (to_unit(published.decode_frames(latents)) - expected).abs().max() <= 1e-5


@torch.no_grad()
def test_the_picture_model_is_told_its_own_time(published: AnimateDiff) -> None:
    """Of the betas it was taught with, those that leave as much noise."""
    from diffusers import PNDMScheduler

    told: list[Tensor] = []
    handle = published.denoiser.time_proj.register_forward_hook(  # type: ignore[operator, union-attr]
        lambda _module, args, _output: told.append(args[0])
    )
    text, times = published.encode_prompt(PROMPTS), torch.tensor([300, 700])
    published.predict(draw(2, 4, 1, 8, 12), times, text)
    published.predict(draw(2, 4, 2, 8, 12), times, text)
    published.single_frame = "run"
    published.predict(draw(2, 4, 1, 8, 12), times, text)
    handle.remove()
    taught = PNDMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
    ).alphas_cumprod
    wanted = published.noise.alphas_cumprod[times]
    assert (taught[times] - wanted).min() > 0.04
    assert (taught[told[0].round().long()] - wanted).abs().max() < 1e-3
    assert torch.equal(told[1], times) and torch.equal(told[2], times)


@torch.no_grad()
def test_a_folder_may_hold_the_parts_side_by_side(
    folder: Path, parts: Path, backbone: AnimateDiff, text: TextStates
) -> None:
    shutil.rmtree(folder / "unet")
    shutil.copytree(parts / "pictures" / "unet", folder / "unet")
    latents = draw(2, 4, 3, 8, 12)
    loaded = load_backbone(folder, device="cpu")
    assert torch.equal(loaded.predict(latents, TIMES, text), backbone.predict(latents, TIMES, text))


# What can be wrong


@pytest.mark.parametrize("size", [(0, 64, 96), (3, 60, 96), (3, 64, 4)])
def test_impossible_sizes_are_refused(backbone: AnimateDiff, size: tuple[int, int, int]) -> None:
    with pytest.raises(BackboneError, match="multiples of 8"):
        backbone.latent_shape(*size)


def test_clips_longer_than_the_motion_modules_know_are_refused(backbone: AnimateDiff) -> None:
    assert backbone.latent_shape(LONGEST, 64, 96)[1] == LONGEST
    with pytest.raises(BackboneError, match=f"choose at most {LONGEST} frames"):
        backbone.latent_shape(LONGEST + 1, 64, 96)
    with pytest.raises(BackboneError, match=f"choose at most {LONGEST} frames"):
        generate(backbone, None, "a cat", options=SamplingConfig(frames=LONGEST + 1))


@pytest.mark.parametrize(
    ("piece", "words"),
    [
        ("unet/config.json", "lacks the denoiser"),
        ("tokenizer/tokenizer_config.json", "lacks the tokenizer"),
        ("unet/diffusion_pytorch_model.safetensors", "cannot be loaded"),
        ("vae/diffusion_pytorch_model.safetensors", "cannot be loaded"),
    ],
)
def test_half_a_folder_is_one_sentence(folder: Path, piece: str, words: str) -> None:
    (folder / piece).unlink()
    with pytest.raises(BackboneError, match=words) as caught:
        load_backbone(folder, device="cpu")
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_a_picture_model_without_motion_is_refused(folder: Path, parts: Path) -> None:
    for piece in ("unet", "motion_adapter"):
        shutil.rmtree(folder / piece)
    shutil.copytree(parts / "pictures" / "unet", folder / "unet")
    with pytest.raises(BackboneError, match=r"without motion modules \(motion_adapter\)"):
        load_backbone(folder, device="cpu")


def test_another_network_is_refused(folder: Path) -> None:
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": "UNet2DModel"}))
    with pytest.raises(BackboneError, match=r"holds a UNet2DModel.*AnimateDiff"):
        load_backbone(folder, device="cpu")


def test_an_adapter_of_another_shape_is_refused(folder: Path, parts: Path) -> None:
    from diffusers import MotionAdapter

    shutil.rmtree(folder / "unet")
    shutil.copytree(parts / "pictures" / "unet", folder / "unet")
    shutil.rmtree(folder / "motion_adapter")
    MotionAdapter(
        block_out_channels=(8, 16), motion_num_attention_heads=2, motion_norm_num_groups=4
    ).save_pretrained(folder / "motion_adapter")
    with pytest.raises(BackboneError, match=r"cannot be loaded.*different number of blocks"):
        load_backbone(folder, device="cpu")


def test_the_hub_out_of_reach_is_one_sentence(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: object, **_: object) -> str:
        raise ConnectionError(f"no way to {name}")

    monkeypatch.setattr(folders.DiffusionPipeline, "download", refuse)
    monkeypatch.setattr(animatediff.MotionAdapter, "from_pretrained", refuse)
    with pytest.raises(BackboneError, match=r"stable-diffusion-v1-5.*check the name and the conn"):
        load_backbone("animatediff", device="cpu")
    monkeypatch.setattr(folders, "fetch", lambda name: parts / "pictures")
    with pytest.raises(BackboneError, match=r"guoyww/.*could not be fetched.*the connection"):
        load_backbone("animatediff", device="cpu")


# CustomVideo on it


def test_customvideo_learns_on_it(backbone: AnimateDiff, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in backbone.denoiser.state_dict().items()}
    recipe = default_recipe(backbone="animatediff")
    method = quick_method(single_frame=recipe.method_options["single_frame"])
    seen: list[set[str]] = []
    trainer = Trainer(
        short_run(gradient_checkpointing=True),
        tmp_path,
        on_step=lambda report: seen.append(set(report.parts)),
        console=Console(quiet=True),
    )
    learned = trainer.fit(backbone, method, make_cast())
    assert seen == [{"reconstruction", "attention"}] * 4
    after = backbone.denoiser.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())

    learned.save(tmp_path / "adapter.safetensors")
    adapter = Adapter.load(tmp_path / "adapter.safetensors")
    adapter.check_fits(backbone)
    options = SamplingConfig(num_steps=2, frames=2, height=64, width=96, guidance=7.5)
    prompt = "a <tom> cat and a <rex> dog"
    ours, again, weak = (
        generate(backbone, one, prompt, options=options.model_copy(update={"strength": scale}))
        for one, scale in ((learned, 1.0), (adapter, 1.0), (adapter, 0.0))
    )
    assert ours.frames.shape == (2, 64, 96, 3)
    assert (ours.frames == again.frames).all()
    assert (ours.frames != weak.frames).any()
    plain = generate(backbone, None, "a cat and a dog", options=options)
    assert (weak.frames != plain.frames).any()


def test_words_move(backbone: AnimateDiff) -> None:
    method, cast = quick_method(train="words"), make_cast()
    start = {
        key: value.clone() for key, value in method.trainable(backbone, cast).state_dict().items()
    }
    learned = Trainer(short_run(), console=Console(quiet=True)).fit(backbone, method, cast)
    ended = learned.state_dict()
    assert ended.keys() == start.keys() == {"tokens.value"}
    moved = (ended["tokens.value"] - start["tokens.value"]).abs().amax(dim=-1)
    assert moved.shape == (2,) and moved.min() > 1e-3


def test_its_recipe_trains_on_pictures_past_the_motion_modules() -> None:
    recipe = default_recipe(backbone="animatediff")
    assert (recipe.method, recipe.backbone) == ("customvideo", "animatediff")
    assert recipe.method_options["single_frame"] == "skip"
    assert recipe.sampling.guidance == 7.5
