"""A tiny backbone, two subjects, and an adapter that has moved away from where it started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import AdapterConfig, new_adapter
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.subjects.subject import Subject

Trained = Callable[..., Adapter]


@pytest.fixture(scope="package")
def backbone(tiny_zeroscope: Path) -> Backbone:
    return load_backbone(tiny_zeroscope, device="cpu", dtype="fp32")


def subject(name: str, category: str) -> Subject:
    image = np.full((40, 40, 3), len(name) * 20, np.uint8)
    mask = np.zeros((40, 40), np.float32)
    mask[10:30, 10:30] = 1
    return Subject(name, f"<{name}>", category, (image,), (mask,), ("1.png",))


@pytest.fixture
def subjects() -> list[Subject]:
    return [subject("tom", "cat"), subject("rex", "dog")]


@pytest.fixture
def trained(backbone: Backbone, subjects: list[Subject]) -> Trained:
    """Make an adapter whose every parameter is random; keywords go to AdapterConfig."""

    def make(**config: object) -> Adapter:
        adapter = new_adapter(
            backbone,
            subjects,
            method="customvideo",
            config=AdapterConfig.model_validate(config),
            settings={"steps": 3, "cache": "/home/ada/cache", "subjects": {"tom": "photos/tom"}},
        )
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        return adapter

    return make
