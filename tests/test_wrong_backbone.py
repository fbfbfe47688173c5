"""Models that are broken or do not fit what is asked of them, through the command line.

As in `tests.test_wrong_input`: one sentence with the way out, exit code 2, nothing half-written.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import new_adapter
from customvideo.backbones.base import load_backbone
from tests.cast import make_cast
from tests.surroundings import run_cli, train, write_pair
from tests.test_wrong_input import complaint, mentions
from tests.tiny import build_tiny_zeroscope
from tests.tiny_hunyuan import build_tiny_hunyuan
from tests.tiny_wan import build_tiny_wan

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "hunyuan": build_tiny_hunyuan,
    "wan": build_tiny_wan,
    "zeroscope": build_tiny_zeroscope,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: build(folder / name) for name, build in BUILDERS.items()}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_pair(tmp_path_factory.mktemp("photos"))


def refused(model: Path, out: Path, *flags: str | Path) -> str:
    """What `generate` says, having written nothing."""
    size = [] if "--size" in flags else ["--size", "64x96"]
    frames = [] if "--frames" in flags else ["--frames", "1"]
    file = out / "video.mp4"
    result = run_cli(
        *("generate", "a cat", "--out", file, "--backbone", model, "--steps", "1"),
        *(*size, *frames, *flags),
    )
    said = complaint(result)
    assert not file.exists()
    return said


@pytest.mark.parametrize("name", BUILDERS)
def test_each_file_that_lacks_is_named(name: str, models: dict[str, Path], tmp_path: Path) -> None:
    """Weights aside; libraries would make up configs of billions of numbers, and empty words."""
    model = shutil.copytree(models[name], tmp_path / "model")
    needed = sorted(
        path
        for pattern in ("model_index.json", "*/*config.json", "*/tokenizer.json")
        for path in model.glob(pattern)
        if not path.name.startswith("generation_")
    )
    assert len(needed) >= 7
    for path in needed:
        path.rename(tmp_path / "away")
        mentions(refused(model, tmp_path), path.relative_to(model), "complete diffusers folder")
        (tmp_path / "away").rename(path)


@pytest.mark.parametrize("name", BUILDERS)
def test_half_of_a_file_of_weights(name: str, models: dict[str, Path], tmp_path: Path) -> None:
    model = shutil.copytree(models[name], tmp_path / "model")
    for weights in model.glob("*/*.safetensors"):
        whole = weights.read_bytes()
        weights.write_bytes(whole[: len(whole) // 2])
        mentions(refused(model, tmp_path), model, "cannot be loaded", "fetch a complete copy")
        weights.write_bytes(whole)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--frames", "6"), ("1, 5, 9, … frames, not 6", "choose 5")),
        (("--size", "72x96"), ("72x96", "a multiple of 16")),
    ],
)
def test_videos_that_the_model_does_not_make(
    flags: tuple[str, ...], named: tuple[str, ...], models: dict[str, Path], tmp_path: Path
) -> None:
    mentions(refused(models["wan"], tmp_path, *flags), *named)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("sampling.frames=6", ("1, 5, 9, … frames, not 6", "choose 5")),
        ("sampling.height=72", ("72x96", "a multiple of 16")),
        ("canvas=[72, 96]", ("72x96", "a multiple of 16")),
    ],
)
def test_a_recipe_for_videos_that_the_model_does_not_make(
    setting: str,
    named: tuple[str, ...],
    models: dict[str, Path],
    pair: list[str],
    tmp_path: Path,
) -> None:
    """Before the training and not after it."""
    out = tmp_path / "run"
    sets = ("--set", "sampling.frames=5", "--set", "least_cells=0", "--set", setting)
    mentions(complaint(train(out, pair, models["wan"], *sets)), *named)
    assert not out.exists()


def test_an_adapter_of_another_architecture(
    models: dict[str, Path], pair: list[str], tmp_path: Path
) -> None:
    wan, adapter = load_backbone(models["wan"], device="cpu"), tmp_path / "wan.safetensors"
    new_adapter(wan, make_cast(), method="customvideo", paths=wan.layers("text_kv")).save(adapter)
    assert Adapter.load(adapter).words
    for name in ("zeroscope", "hunyuan"):
        said = refused(models[name], tmp_path, "--adapter", adapter)
        mentions(said, "made for the backbone 'wan'", f"'{name}'", "train an adapter for this one")
    out = tmp_path / "run"
    more = ("--set", f"start_from={adapter}", "--set", "least_cells=0")
    said = complaint(train(out, pair, models["zeroscope"], *more))
    mentions(said, "another backbone", "train with the backbone")
    assert not out.exists()
