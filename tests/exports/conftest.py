"""Tiny backbones of several families, and adapters of theirs whose every number is random."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import AdapterConfig, DeltaSpec, new_adapter
from customvideo.backbones.base import Backbone, load_backbone
from tests.adapters.conftest import subject
from tests.tiny_animatediff import build_tiny_animatediff
from tests.tiny_cogvideox import build_tiny_cogvideox
from tests.tiny_hunyuan import build_tiny_hunyuan
from tests.tiny_ltx import build_tiny_ltx
from tests.tiny_wan import build_tiny_wan, build_tiny_wan_experts

Learned = Callable[..., Adapter]


@pytest.fixture(scope="session")
def unet3d(tiny_zeroscope: Path) -> Backbone:
    return load_backbone(tiny_zeroscope, device="cpu", dtype="fp32")


@pytest.fixture(scope="session")
def animatediff(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(build_tiny_animatediff(tmp_path_factory.mktemp("m") / "anim"), "cpu")


@pytest.fixture(scope="session")
def wan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_wan(tmp_path_factory.mktemp("m") / "wan")


@pytest.fixture(scope="session")
def wan(wan_folder: Path) -> Backbone:
    return load_backbone(wan_folder, device="cpu")


@pytest.fixture(scope="session")
def wan_experts(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = build_tiny_wan_experts(tmp_path_factory.mktemp("m") / "experts")
    return load_backbone(folder, device="cpu")


@pytest.fixture(scope="session")
def ltx(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(build_tiny_ltx(tmp_path_factory.mktemp("m") / "ltx"), device="cpu")


@pytest.fixture(scope="session")
def hunyuan(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(build_tiny_hunyuan(tmp_path_factory.mktemp("m") / "hunyuan"), "cpu")


@pytest.fixture(scope="session")
def cogvideox(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(build_tiny_cogvideox(tmp_path_factory.mktemp("m") / "cog"), device="cpu")


def learned(
    backbone: Backbone,
    paths: Mapping[str, DeltaSpec] | None = None,
    method: str = "customvideo",
    size: float = 0.3,
    **config: object,
) -> Adapter:
    """An adapter of Tom the cat and Rex the dog whose every parameter has moved."""
    cast = [subject("tom", "cat"), subject("rex", "dog")]
    adapter = new_adapter(
        backbone,
        cast,
        method=method,
        paths=paths,
        config=AdapterConfig.model_validate(config),
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return adapter
