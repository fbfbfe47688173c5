"""The sampling loop against the stock pipeline, from the same latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from customvideo.backbones.sampling import SOLVERS, denoise
from customvideo.backbones.unet3d import UNet3D, load_folder
from customvideo.errors import ConfigError
from tests.tiny import build_tiny_zeroscope

# The stock pipeline's own; that ours stays silent is seen in the tests of generation.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPTS = ["a cat on the beach", "a dog"]


def draw_latents(rows: int = 1, frames: int = 3) -> Tensor:
    return torch.randn(rows, 4, frames, 8, 12, generator=torch.Generator().manual_seed(1))


def run_stock(stock: Any, solver: str, **options: Any) -> Tensor:
    """The pipeline's frames (row, frame, 3, height, width) in [0, 1]."""
    if solver != "native":
        stock.scheduler = SOLVERS[solver].from_config(stock.scheduler.config)
    frames: Tensor = stock(height=64, width=96, num_frames=3, output_type="pt", **options).frames
    return frames


def to_unit(pixels: Tensor) -> Tensor:
    return (pixels / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize("solver", ["native", "ddim", "dpmsolver++", "unipc"])
def test_equals_the_stock_pipeline(backbone: UNet3D, stock: Any, solver: str) -> None:
    expected = run_stock(
        stock, solver, prompt=PROMPTS, latents=draw_latents(2), num_inference_steps=5
    )
    text = backbone.encode_prompt(PROMPTS)
    latents = denoise(backbone, draw_latents(2), text, steps=5, solver=solver)
    assert expected.std() > 0.05
    difference = (to_unit(backbone.decode_frames(latents)) - expected).abs().max()
    assert difference <= 1e-4


def test_equals_the_stock_pipeline_with_a_negative_prompt(backbone: UNet3D, stock: Any) -> None:
    settings = {"latents": draw_latents(), "num_inference_steps": 4, "guidance_scale": 5.0}
    expected = run_stock(stock, "ddim", prompt="a cat", negative_prompt="a dog", **settings)
    without = run_stock(stock, "ddim", prompt="a cat", **settings)
    text, negative = backbone.encode_prompt(["a cat"]), backbone.encode_prompt(["a dog"])
    latents = denoise(backbone, draw_latents(), text, negative, steps=4, guidance=5.0)
    ours = to_unit(backbone.decode_frames(latents))
    assert (ours - expected).abs().max() <= 1e-4
    assert (ours - without).abs().max() > 1e-3


def test_equals_the_stock_pipeline_without_guidance(backbone: UNet3D, stock: Any) -> None:
    expected = run_stock(
        stock,
        "ddim",
        prompt="a cat",
        latents=draw_latents(),
        num_inference_steps=4,
        guidance_scale=1.0,
    )
    latents = denoise(
        backbone, draw_latents(), backbone.encode_prompt(["a cat"]), steps=4, guidance=1.0
    )
    assert (to_unit(backbone.decode_frames(latents)) - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("solver", ["native", "ddim", "dpmsolver++", "unipc"])
def test_equals_the_stock_pipeline_predicting_velocity(tmp_path: Path, solver: str) -> None:
    from diffusers import TextToVideoSDPipeline

    folder = build_tiny_zeroscope(tmp_path / "velocity", prediction_type="v_prediction")
    stock = TextToVideoSDPipeline.from_pretrained(folder)
    stock.set_progress_bar_config(disable=True)
    expected = run_stock(
        stock, solver, prompt="a cat", latents=draw_latents(), num_inference_steps=4
    )
    backbone = load_folder(folder, device="cpu")
    latents = denoise(
        backbone, draw_latents(), backbone.encode_prompt(["a cat"]), steps=4, solver=solver
    )
    assert (to_unit(backbone.decode_frames(latents)) - expected).abs().max() <= 1e-4


def test_callback_sees_every_step(backbone: UNet3D) -> None:
    seen: list[tuple[int, int, float]] = []
    latents = denoise(
        backbone,
        draw_latents(),
        backbone.encode_prompt(["a cat"]),
        steps=3,
        callback=lambda step, time, z: seen.append((step, time, float(z.sum()))),
    )
    assert [step for step, _, _ in seen] == [0, 1, 2]
    times = [time for _, time, _ in seen]
    assert times == sorted(times, reverse=True) and times[0] > 600
    assert seen[-1][2] == float(latents.sum())


def test_latents_stay_float32_and_the_input_is_kept(backbone: UNet3D) -> None:
    start = draw_latents().to(torch.bfloat16)
    before = start.clone()
    result = denoise(backbone, start, backbone.encode_prompt(["a cat"]), steps=2)
    assert result.dtype == torch.float32 and not result.requires_grad
    assert torch.equal(start, before)


@pytest.mark.parametrize(
    ("options", "words"), [({"solver": "magic"}, "ddim, dpmsolver"), ({"steps": 0}, "at least 1")]
)
def test_impossible_settings_are_refused(
    backbone: UNet3D, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        denoise(backbone, draw_latents(), backbone.encode_prompt(["a cat"]), **options)
