"""Exports in nothing but diffusers' own code, as their README says, beside our own video."""

from __future__ import annotations

import logging
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.backbones.sampling import denoise
from customvideo.exports.base import export
from customvideo.exports.order import Order
from customvideo.subjects.prompt import Prompt
from tests.exports.conftest import learned
from tests.tiny_wan import build_tiny_wan

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`torch_dtype` is deprecated:FutureWarning"),
]

SIZE = (5, 32, 48)
TEXT = "a <tom> cat on the beach"


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("diffusers").setLevel(logging.ERROR)


def noise(backbone: Backbone) -> Tensor:
    shape = (1, *backbone.latent_shape(*SIZE))
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def ours(backbone: Backbone, adapter: Adapter) -> Tensor:
    prompt = Prompt(TEXT, adapter.words)
    with adapter.attach(backbone), torch.no_grad():
        text = backbone.encode_prompt([prompt.encoded])
        latents = denoise(backbone, noise(backbone), text, steps=3, solver="native")
        return (backbone.decode_frames(latents) / 2 + 0.5).clamp(0, 1)


def stock(pipeline: Any, backbone: Backbone, prompt: str) -> Tensor:
    pipeline.set_progress_bar_config(disable=True)
    frames, height, width = SIZE
    drawn: Tensor = pipeline(
        prompt=prompt,
        negative_prompt="",
        latents=noise(backbone),
        num_inference_steps=3,
        guidance_scale=9.0,
        num_frames=frames,
        height=height,
        width=width,
        output_type="pt",
    ).frames
    return drawn


def test_custom_diffusion_and_words_in_the_text_to_video_pipeline(
    tiny_zeroscope: Path, unet3d: Backbone, tmp_path: Path
) -> None:
    from diffusers import TextToVideoSDPipeline

    adapter = learned(unet3d, vectors=2)
    export(Order(adapter, unet3d, "diffusers"), tmp_path / "out")
    pipeline = TextToVideoSDPipeline.from_pretrained(tiny_zeroscope)
    weights = "pytorch_custom_diffusion_weights.safetensors"
    before = dict(pipeline.unet.attn_processors)
    pipeline.unet.load_attn_procs(tmp_path / "out", weight_name=weights)
    assert pipeline.unet.attn_processors == before, "diffusers now takes it: load.py can be shorter"
    pipeline.unet.load_attn_procs(tmp_path / "out", weight_name=weights, _pipeline=pipeline)
    for word in ("tom", "rex"):
        pipeline.load_textual_inversion(
            tmp_path / "out" / "words", weight_name=f"{word}.safetensors"
        )
    difference = (stock(pipeline, unet3d, TEXT) - ours(unet3d, adapter)).abs().max()
    assert difference <= 1e-4
    base = stock(TextToVideoSDPipeline.from_pretrained(tiny_zeroscope), unet3d, TEXT)
    assert (base - ours(unet3d, adapter)).abs().max() > 0.05


@pytest.mark.parametrize("target", ["comfyui", "diffusers"])
def test_a_lora_in_the_wan_pipeline(
    wan_folder: Path, wan: Backbone, target: str, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    from diffusers import WanPipeline

    adapter = learned(wan)
    export(Order(adapter, wan, "diffusers"), tmp_path / "words")
    export(Order(adapter, wan, target), tmp_path / "out")
    pipeline = WanPipeline.from_pretrained(wan_folder)
    (lora,) = (tmp_path / "out").glob("loras/*" if target == "comfyui" else "pytorch_lora*")
    snippet = (tmp_path / "words" / "load.py").read_text().splitlines()
    alone = tmp_path / "words" / "alone.py"
    alone.write_text("\n".join(line for line in snippet if "load_lora" not in line))
    runpy.run_path(str(alone))["load"](pipeline)
    without = stock(pipeline, wan, "a <tom> cat on the beach")
    pipeline.load_lora_weights(lora)
    drawn = stock(pipeline, wan, "a <tom> cat on the beach")
    assert (drawn - ours(wan, adapter)).abs().max() <= 1e-4
    assert (drawn - without).abs().max() > 1e-3, "the LoRA does nothing"


def test_the_snippet_is_short_and_never_shrinks_a_table(wan_folder: Path, tmp_path: Path) -> None:
    from diffusers import WanPipeline

    folder = with_spare_rows(tmp_path / "spare")
    backbone = load_backbone(folder, device="cpu")
    adapter = learned(backbone, paths={}, vectors=2)
    export(Order(adapter, backbone, "diffusers"), tmp_path / "out")
    text = (tmp_path / "out" / "load.py").read_text()
    body = [line for line in text.partition("def load")[2].splitlines() if line.strip()]
    assert len(body) <= 12
    pipeline = WanPipeline.from_pretrained(folder)
    runpy.run_path(str(tmp_path / "out" / "load.py"))["load"](pipeline)
    assert pipeline.text_encoder.get_input_embeddings().num_embeddings == SPARE
    drawn = stock(pipeline, backbone, "a <tom> <tom>_1 cat on the beach")
    assert (drawn - ours(backbone, adapter)).abs().max() <= 1e-4


SPARE = 60


def with_spare_rows(folder: Path) -> Path:
    """A tiny Wan whose table has more rows than its tokenizer has tokens, as the real one has."""
    from transformers import UMT5EncoderModel

    build_tiny_wan(folder)
    encoder = UMT5EncoderModel.from_pretrained(folder / "text_encoder")
    encoder.resize_token_embeddings(SPARE, mean_resizing=False)
    encoder.save_pretrained(folder / "text_encoder")
    return folder


def test_a_merged_folder_needs_nothing_of_ours(tmp_path: Path) -> None:
    from diffusers import WanPipeline

    folder = with_spare_rows(tmp_path / "spare")
    backbone = load_backbone(folder, device="cpu")
    adapter = learned(backbone)
    export(Order(adapter, backbone, "merged-folder"), tmp_path / "out")
    pipeline = WanPipeline.from_pretrained(tmp_path / "out")
    assert pipeline.text_encoder.get_input_embeddings().num_embeddings == SPARE
    assert (stock(pipeline, backbone, TEXT) - ours(backbone, adapter)).abs().max() <= 1e-4
    again = load_backbone(tmp_path / "out", device="cpu")
    assert again.fingerprint != backbone.fingerprint and again.fps == backbone.fps


def test_kohyas_names_in_the_animatediff_pipeline(animatediff: Backbone, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from customvideo.backbones.stock import HasStock

    assert isinstance(animatediff, HasStock)
    adapter = learned(animatediff, rank=4)
    export(Order(adapter, animatediff, "kohya"), tmp_path / "out")
    export(Order(adapter, animatediff, "textual-inversion", words_only=True), tmp_path / "words")
    pipeline = animatediff.stock()
    for word in ("tom", "rex"):
        pipeline.load_textual_inversion(tmp_path / "words" / word)
    (lora,) = (tmp_path / "out" / "loras").iterdir()
    pipeline.load_lora_weights(lora)
    assert (stock(pipeline, animatediff, TEXT) - ours(animatediff, adapter)).abs().max() <= 1e-4
