"""The second pass by a larger model, against diffusers' VideoToVideoSDPipeline."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from customvideo.adapters.build import new_adapter
from customvideo.backbones import upscaling
from customvideo.backbones.pipelines import fitted_clip
from customvideo.backbones.sampling import SOLVERS, denoise
from customvideo.backbones.unet3d import UNet3D, load_folder
from customvideo.backbones.upscaling import Upscaling, upscale
from customvideo.errors import BackboneError, ConfigError
from customvideo.runs import GeneratePlan, generate
from customvideo.video import Video
from tests.cast import make_cast
from tests.surroundings import run_cli

# The stock pipeline's own; that ours stays silent is seen in the tests of generation.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

LARGE = (96, 144)


@pytest.fixture(scope="module")
def folder(tiny_zeroscope: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model again, as one that makes larger videos."""
    place = shutil.copytree(tiny_zeroscope, tmp_path_factory.mktemp("models") / "larger")
    (place / "customvideo.json").write_text(json.dumps({"name": "larger", "size": LARGE}))
    return place


@pytest.fixture(scope="module")
def larger(folder: Path) -> UNet3D:
    return load_folder(folder, device="cpu")


@pytest.fixture
def stock(folder: Path) -> Any:
    """diffusers' own pipeline for the second pass."""
    from diffusers import TextToVideoSDPipeline, VideoToVideoSDPipeline

    logging.getLogger("diffusers").setLevel(logging.ERROR)
    pipeline = VideoToVideoSDPipeline(**TextToVideoSDPipeline.from_pretrained(folder).components)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_video(frames: int = 3, size: tuple[int, int] = (64, 96)) -> Video:
    pixels = np.random.default_rng(0).integers(0, 256, (frames, *size, 3), dtype=np.uint8)
    return Video(pixels, fps=5.0)


def stock_pass(stock: Any, monkeypatch: pytest.MonkeyPatch, noise: Tensor) -> None:
    """Let the stock pipeline draw `noise` (1, channel, frame, height, width)."""
    module = __import__(type(stock).__module__, fromlist=["randn_tensor"])
    frames = noise[0].transpose(0, 1)
    monkeypatch.setattr(module, "randn_tensor", lambda shape, **_: frames.reshape(shape))


@pytest.mark.parametrize("solver", ["native", "ddim", "dpmsolver++"])
@pytest.mark.parametrize("share", [0.7, 1.0])
def test_denoising_from_a_clip_equals_the_stock_pipeline(
    larger: UNet3D, stock: Any, monkeypatch: pytest.MonkeyPatch, solver: str, share: float
) -> None:
    if solver != "native":
        stock.scheduler = SOLVERS[solver].from_config(stock.scheduler.config)
    clean, noise = draw(1, 4, 3, 8, 12), draw(1, 4, 3, 8, 12, seed=1)
    stock_pass(stock, monkeypatch, noise)
    expected = stock(
        "a cat",
        video=clean.transpose(1, 2),
        strength=share,
        num_inference_steps=6,
        guidance_scale=5.0,
        output_type="latent",
    ).frames
    seen: list[int] = []
    found = denoise(
        larger,
        noise,
        larger.encode_prompt(["a cat"]),
        callback=lambda _step, time, _latents: seen.append(time),
        steps=6,
        guidance=5.0,
        solver=solver,
        clean=clean,
        share=share,
    )
    assert len(seen) == int(6 * share)
    assert expected.std() > 0.5
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("share", [0.66, 0.85])
def test_a_video_is_redrawn_as_the_stock_pipeline_does(
    larger: UNet3D, stock: Any, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    video = make_video()
    pixels = torch.tensor(fitted_clip(video.frames, LARGE)).movedim(-1, 1)[None] / 127.5 - 1
    clean = larger.encode_frames(pixels)
    stock_pass(stock, monkeypatch, draw(*clean.shape, seed=4))
    expected = stock(
        "a cat",
        negative_prompt="a dog",
        video=clean.transpose(1, 2),
        strength=share,
        num_inference_steps=5,
        guidance_scale=9.0,
        output_type="np",
    ).frames[0]
    found = upscale(larger, video, "a cat", "a dog", seed=4, steps=5, guidance=9.0, share=share)
    assert found.size == LARGE and len(found) == 3 and found.fps == 5.0
    assert np.abs(found.frames - expected * 255).max() <= 0.51
    again = upscale(larger, video, "a cat", "a dog", seed=4, steps=5, guidance=9.0, share=share)
    assert np.array_equal(found.frames, again.frames)
    other = upscale(larger, video, "a cat", "a dog", seed=5, steps=5, guidance=9.0, share=share)
    assert not np.array_equal(found.frames, other.frames)


def test_the_clip_is_kept_in_part(larger: UNet3D) -> None:
    """The less is drawn anew, the more of the enlarged clip is left."""
    video = make_video()
    pixels = torch.tensor(fitted_clip(video.frames, LARGE)).movedim(-1, 1)[None] / 127.5 - 1
    clean, text = larger.encode_frames(pixels), larger.encode_prompt(["a cat"])
    noise = draw(*clean.shape)
    far = [
        float(
            (denoise(larger, noise, text, steps=10, guidance=1.0, clean=clean, share=share) - clean)
            .square()
            .mean()
        )
        for share in (0.1, 0.5, 1.0)
    ]
    assert far == sorted(far) and far[0] < far[-1] / 4


@pytest.mark.parametrize(
    ("text", "model", "strength"),
    [
        ("cerspense/zeroscope_v2_XL", "cerspense/zeroscope_v2_XL", 0.7),
        ("cerspense/zeroscope_v2_XL=0.85", "cerspense/zeroscope_v2_XL", 0.85),
        ("models/a=b", "models/a=b", 0.7),
    ],
)
def test_a_model_and_a_strength_are_read(text: str, model: str, strength: float) -> None:
    assert Upscaling.parse(text) == Upscaling(model, strength)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a/b=0", "strength 0: choose above 0"),
        ("a/b=1.5", "strength 1.5"),
        ("a/b=nan", "strength nan"),
        ("", "which model '' means"),
        ("=0.7", "which model '=0.7' means"),
    ],
)
def test_impossible_wishes_are_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Upscaling.parse(text)


def test_too_few_steps_are_refused(larger: UNet3D) -> None:
    with pytest.raises(ConfigError, match=r"1 steps with a strength of 0\.7 leave 0"):
        upscale(larger, make_video(), "a cat", steps=1, share=0.7)


def test_a_model_that_is_no_larger_is_refused(tiny_zeroscope: Path, larger: UNet3D) -> None:
    with pytest.raises(ConfigError, match=r"64x96 pixels and cannot enlarge.*customvideo\.json"):
        Upscaling(str(tiny_zeroscope)).load((2, 64, 96), "cpu")
    with pytest.raises(ConfigError, match="96x144 pixels and cannot enlarge a video of 96x144"):
        upscale(larger, make_video(size=LARGE), "a cat")
    with pytest.raises(BackboneError, match="There is no backbone 'zeroscope-xl'"):
        Upscaling("zeroscope-xl").load((2, 64, 96), "cpu")


# As `customvideo generate` does it

QUICK = {"num_steps": 4, "frames": 2}


def test_generate_redraws_with_the_plain_prompt(
    tiny_zeroscope: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_folder(tiny_zeroscope, device="cpu")
    new_adapter(backbone, make_cast(), method="test").save(tmp_path / "adapter.safetensors")
    told: list[Any] = []
    real = upscaling.upscale

    def listening(*given: Any, **options: Any) -> Video:
        told.append((given[2:], options))
        return real(*given, **options)

    monkeypatch.setattr("customvideo.runs.making.upscale", listening)
    plan = GeneratePlan(
        ["a <tom> cat and a <rex> dog"],
        tmp_path / "video.png",
        tmp_path / "adapter.safetensors",
        seeds=(3,),
        sampling={**QUICK, "negative": "a <tom> cat", "solver": "ddim", "guidance": 4.0},
        size="64x96",
        backbone=str(tiny_zeroscope),
        device="cpu",
        upscale=f"{folder}=0.8",
    )
    (written,) = generate(plan, lambda _text: None)
    assert written.is_file()
    assert told == [
        (
            ("a cat and a dog", "a cat"),
            {"seed": 3, "steps": 4, "guidance": 4.0, "solver": "ddim", "share": 0.8},
        )
    ]


def test_the_command_writes_the_larger_video(
    tiny_zeroscope: Path, folder: Path, tmp_path: Path
) -> None:
    asked = ("a cat", "--backbone", tiny_zeroscope, "--steps", "4", "--frames", "2")
    for name, more in (("small.mp4", ()), ("large.mp4", ("--upscale", folder))):
        out = tmp_path / name
        result = run_cli("generate", *asked, "--size", "64x96", "--out", out, *more)
        assert result.exit_code == 0, result.output
    assert Video.load(tmp_path / "small.mp4").size == (64, 96)
    assert Video.load(tmp_path / "large.mp4").size == LARGE
    result = run_cli(
        *("generate", *asked, "--size", "64x96", "--out", tmp_path / "none.mp4"),
        *("--upscale", f"{folder}=2"),
    )
    assert result.exit_code == 2 and "strength 2" in result.output
    assert not (tmp_path / "none.mp4").exists()
