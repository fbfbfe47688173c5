"""Models that go by reference pictures: a folder loads and equals the stock pipeline, all else is
refused."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, UniPCMultistepScheduler, WanVACEPipeline
from PIL import Image

from customvideo.backbones.reference_models import (
    Ask,
    Filming,
    ReferenceModel,
    check_reference_model,
    load_vace,
)
from customvideo.errors import BackboneError, ConfigError
from tests.tiny_vace import build_tiny_vace

WANTED = Filming(frames=6, size=(32, 48), negative="a dog", steps=2, conditioning=0.8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_vace(tmp_path_factory.mktemp("reference-models") / "tiny-vace")


@pytest.fixture(scope="module")
def model(folder: Path) -> ReferenceModel:
    return load_vace(str(folder), "cpu")


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (32, side, 3), dtype=np.uint8) for side in (48, 32)]


def stock(folder: Path, pictures: list[np.ndarray], flow_shift: float | None = None) -> np.ndarray:
    """What diffusers itself makes of `WANTED`, in [0, 1]."""
    pipeline = WanVACEPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    if flow_shift is not None:
        config = pipeline.scheduler.config
        pipeline.scheduler = UniPCMultistepScheduler.from_config(config, flow_shift=flow_shift)
    made = pipeline(
        prompt="a cat on the beach",
        negative_prompt="a dog",
        reference_images=[Image.fromarray(picture) for picture in pictures],
        conditioning_scale=0.8,
        height=32,
        width=48,
        num_frames=9,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(4),
        output_type="np",
    )
    found: np.ndarray = made.frames[0]
    return found


def film(model: ReferenceModel, pictures: list[np.ndarray], wanted: Filming) -> np.ndarray:
    (clip,) = model.film([Ask("a cat on the beach", pictures, 4)], wanted)
    return clip


def test_a_folder_films_as_the_stock_pipeline_does(
    folder: Path, model: ReferenceModel, pictures: list[np.ndarray]
) -> None:
    clip = film(model, pictures, WANTED)
    # Six frames are the first six of nine, the next number that the model makes.
    assert clip.shape == (6, 32, 48, 3) and clip.dtype == np.uint8
    rounding = 0.5 / 255
    assert np.abs(clip / 255 - stock(folder, pictures)[:6]).max() < rounding + 1e-4
    assert clip.std() > 5, "a flat clip would equal anything"


def test_the_shift_is_a_setting_and_leaves_the_model_as_it_was(
    folder: Path, model: ReferenceModel, pictures: list[np.ndarray]
) -> None:
    before = film(model, pictures, WANTED)
    shifted = film(model, pictures, replace(WANTED, flow_shift=1.0))
    wanted = stock(folder, pictures, flow_shift=1.0)[:6]
    assert np.abs(shifted / 255 - wanted).max() < 0.5 / 255 + 1e-4
    assert np.abs(shifted.astype(int) - before).max() > 5
    assert np.array_equal(film(model, pictures, WANTED), before)


def test_a_clip_depends_on_its_own_text_pictures_and_seed(
    model: ReferenceModel, pictures: list[np.ndarray]
) -> None:
    first, second = pictures
    ask = Ask("a cat", [first], 4)
    asked = [
        ask,
        replace(ask, pictures=[second]),
        replace(ask, prompt="a dog"),
        Ask("a cat", [], 4),
    ]
    clips = model.film([*asked, replace(ask, seed=5)], WANTED)
    (alone,) = model.film([replace(ask, pictures=[second])], WANTED)
    assert np.array_equal(alone, clips[1])
    for other in clips[1:]:
        assert np.abs(other.astype(int) - clips[0]).max() > 5


def test_it_makes_any_length_and_rounds_sizes_up(
    model: ReferenceModel, pictures: list[np.ndarray]
) -> None:
    # Two pictures are more than the one latent frame of a single frame: the pipeline alone fails.
    single = film(model, pictures, replace(WANTED, frames=1, size=(20, 33)))
    assert single.shape == (1, 32, 48, 3)
    assert film(model, pictures[:1], replace(WANTED, frames=5)).shape == (5, 32, 48, 3)


def test_half_precision_films_nearly_the_same(
    folder: Path, model: ReferenceModel, pictures: list[np.ndarray]
) -> None:
    half = film(load_vace(str(folder), "cpu", "bf16"), pictures, WANTED)
    whole = film(model, pictures, WANTED)
    apart = np.abs(half.astype(int) - whole).mean()
    assert 0 < apart < 3 < np.abs(whole - whole.mean()).mean()


def test_types_licence_and_fingerprint(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "README.md").write_text("---\nlicense: mit\n---\n")
    with caplog.at_level(logging.INFO, logger="customvideo"):
        half = load_vace(str(copy), "cpu", "bf16")
    (record,) = [record for record in caplog.records if record.name.startswith("customvideo")]
    assert record.getMessage() == f"The licence of {copy}'s weights is mit."
    # As in the pipeline's own example.
    assert half.pipeline.vae.dtype == torch.float32
    assert half.pipeline.text_encoder.dtype == torch.bfloat16
    assert half.pipeline.transformer.patch_embedding.weight.dtype == torch.bfloat16
    assert not any(weight.requires_grad for weight in half.pipeline.transformer.parameters())
    assert half.fingerprint == load_vace(str(folder), "cpu").fingerprint
    other = build_tiny_vace(tmp_path / "other", seed=1)
    assert load_vace(str(other), "cpu").fingerprint != half.fingerprint
    # The scheduler has no weights, and moves every video all the same.
    schedule = copy / "scheduler" / "scheduler_config.json"
    config = json.loads(schedule.read_text())
    schedule.write_text(json.dumps(config | {"flow_shift": config["flow_shift"] + 1}))
    load_vace.cache_clear()
    shifted = load_vace(str(copy), "cpu", "bf16")
    assert shifted.fingerprint == half.fingerprint and shifted.schedule != half.schedule


def test_what_is_no_reference_model_is_refused(
    folder: Path, tiny_zeroscope: Path, tmp_path: Path
) -> None:
    for name in ("Wan-AI/Wan2.1-VACE-1.3B-diffusers", "someone/model", str(folder)):
        check_reference_model(name)
    with pytest.raises(ConfigError, match=r"no video model 'vace'.*Wan-AI/Wan2\.1-VACE-1\.3B"):
        check_reference_model("vace")
    with pytest.raises(ConfigError, match=r"no video model folder '\./nowhere'"):
        check_reference_model("./nowhere")
    with pytest.raises(ConfigError, match=r"holds TextToVideoSDPipeline: only a WanVACEPipeline"):
        load_vace(str(tiny_zeroscope))
    with pytest.raises(ConfigError, match=r"no readable model_index\.json"):
        load_vace(str(tmp_path))
    with pytest.raises(BackboneError, match=r"Unknown device 'gpu'"):
        load_vace(str(folder), "gpu")


def test_an_incomplete_folder_and_pickled_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    weights = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ConfigError, match=r"video model folder '.*' cannot be loaded"):
        load_vace(str(copy))
    shutil.rmtree(copy / "text_encoder")
    with pytest.raises(ConfigError, match=r"lacks text_encoder: fetch a complete copy"):
        load_vace(str(copy))


def test_one_that_cannot_be_fetched_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str, **_: object) -> str:
        raise ConnectionError(f"no way to {name}\nin several lines")

    monkeypatch.setattr(DiffusionPipeline, "download", unreachable)
    with pytest.raises(ConfigError, match=r"'someone/model' is no folder here") as caught:
        load_vace("someone/model", "cpu")
    assert "\n" not in str(caught.value)
