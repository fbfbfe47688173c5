"""Picture-to-video models: a folder loads and equals the stock pipeline, all else is refused."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableVideoDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from PIL import Image

from customvideo.backbones.animators import (
    Animation,
    animator_for,
    check_animator,
    load_animator,
)
from customvideo.backbones.pipelines import fitted
from customvideo.errors import BackboneError, ConfigError
from tests.tiny_svd import build_tiny_svd

WANTED = Animation(frames=3, size=(16, 24), steps=2)


@pytest.fixture(scope="module")
def tiny_svd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_svd(tmp_path_factory.mktemp("animators") / "tiny-svd")


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_folder_animates_as_the_stock_pipeline_does(tiny_svd: Path, pictures: np.ndarray) -> None:
    animator = load_animator(str(tiny_svd), "cpu")
    clips = animator.animate(pictures, [3, 4], WANTED)
    assert [clip.shape for clip in clips] == [(3, 16, 24, 3)] * 2
    stock = StableVideoDiffusionPipeline.from_pretrained(tiny_svd)
    stock.set_progress_bar_config(disable=True)
    # Everything else is the pipeline's own default.
    found = stock(
        Image.fromarray(pictures[1]),
        height=16,
        width=24,
        num_frames=3,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(4),
        output_type="np",
    ).frames[0]
    # It starts from noise of a deviation of 700, on which single precision leaves its mark, another
    # on every processor; another seed is tens of levels away.
    apart = np.abs(clips[1] / 255 - found)
    assert apart.mean() < 1 / 255 and apart.max() < 4 / 255


def test_a_row_depends_on_its_own_picture_and_seed(tiny_svd: Path, pictures: np.ndarray) -> None:
    animator = load_animator(str(tiny_svd), "cpu")
    both = animator.animate(pictures, [3, 4], WANTED)
    alone = animator.animate(pictures[1:], [4], WANTED)
    other = animator.animate(pictures[1:], [5], WANTED)
    assert np.array_equal(both[1], alone[0])
    assert not np.array_equal(alone[0], other[0])


def test_its_licence_and_fingerprint_are_told(
    tiny_svd: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = Path(shutil.copytree(tiny_svd, tmp_path / "copy"))
    (copy / "README.md").write_text("---\nlicense: mit\n---\n")
    with caplog.at_level(logging.INFO, logger="customvideo"):
        found = load_animator(str(copy), "cpu").fingerprint
    (record,) = [record for record in caplog.records if record.name.startswith("customvideo")]
    assert record.getMessage() == f"The licence of {copy}'s weights is mit."
    assert found == load_animator(str(copy), "cpu", "fp16").fingerprint
    other = build_tiny_svd(tmp_path / "other", seed=1)
    assert load_animator(str(other), "cpu").fingerprint != found


def test_unknown_devices_and_types_are_refused(tiny_svd: Path) -> None:
    with pytest.raises(BackboneError, match=r"Unknown device 'gpu'"):
        load_animator(str(tiny_svd), "gpu")
    with pytest.raises(BackboneError, match=r"Unknown dtype 'fp4'"):
        load_animator(str(tiny_svd), "cpu", "fp4")


def test_it_lies_in_main_memory_but_while_it_animates(
    tiny_svd: Path, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    animator, places = load_animator(str(tiny_svd), "cpu"), []
    monkeypatch.setattr(animator, "_device", torch.device("meta"))
    monkeypatch.setattr(animator, "_move", places.append)

    def fail(*_: object) -> None:
        assert places == [torch.device("meta")]
        raise RuntimeError("out of memory")

    monkeypatch.setattr(animator, "_clip", fail)
    with pytest.raises(RuntimeError):
        animator.animate(pictures, [3, 4], WANTED)
    assert places == [torch.device("meta"), torch.device("cpu")]


def test_bars_are_as_they_were_after_loading(tiny_svd: Path) -> None:
    diffusers_logging.disable_progress_bar()
    try:
        load_animator.cache_clear()
        load_animator(str(tiny_svd), "cpu")
        assert not diffusers_logging.is_progress_bar_enabled()
    finally:
        diffusers_logging.enable_progress_bar()


def test_sizes_that_are_no_multiples_of_8_are_refused(tiny_svd: Path, pictures: np.ndarray) -> None:
    animator = load_animator(str(tiny_svd), "cpu")
    with pytest.raises(ConfigError, match=r"cannot make 20x24 pixels.*multiples of 8"):
        animator.animate(pictures, [0, 1], Animation(frames=3, size=(20, 24)))


def test_a_picture_covers_the_size_and_is_cropped_to_its_middle() -> None:
    picture = np.zeros((10, 40, 3), np.uint8)
    picture[:, 10:30] = 200
    assert fitted(picture, (10, 40)) is picture
    assert (fitted(picture, (10, 20)) == 200).all()
    assert fitted(picture, (20, 20)).shape == (20, 20, 3)


def test_the_backbone_s_own_animator_is_the_automatic_one() -> None:
    assert animator_for("auto", "toybox") == "toybox"
    assert animator_for("auto", "cerspense/zeroscope_v2_576w") == "svd-xt"
    assert animator_for("svd", "toybox") == "svd"


def test_what_is_no_animator_is_refused(
    tiny_svd: Path, tiny_zeroscope: Path, tmp_path: Path
) -> None:
    for name in ("toybox", "svd", "svd-xt", "someone/model", str(tiny_svd)):
        check_animator(name)
    with pytest.raises(ConfigError, match=r"no animator 'svd-tx'.*svd-xt"):
        check_animator("svd-tx")
    with pytest.raises(ConfigError, match=r"no animator folder '/nowhere/here'"):
        check_animator("/nowhere/here")
    with pytest.raises(ConfigError, match=r"holds TextToVideoSDPipeline: only a"):
        load_animator(str(tiny_zeroscope))
    with pytest.raises(ConfigError, match=r"no readable model_index\.json"):
        load_animator(str(tmp_path))
    (tmp_path / "model_index.json").write_text(json.dumps([]))
    with pytest.raises(ConfigError, match=r"no readable model_index\.json"):
        load_animator(str(tmp_path))


def test_an_incomplete_folder_is_refused(tiny_svd: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_svd, copy)
    shutil.rmtree(copy / "vae")
    with pytest.raises(ConfigError, match=r"lacks vae: fetch a complete copy"):
        load_animator(str(copy))
    (copy / "vae").mkdir()
    with pytest.raises(ConfigError, match=r"cannot be loaded"):
        load_animator(str(copy))


def test_weights_that_would_be_unpickled_are_not_read(tiny_svd: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_svd, copy)
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ConfigError, match=r"cannot be loaded"):
        load_animator(str(copy))
