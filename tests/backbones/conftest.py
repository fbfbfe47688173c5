"""The tiny model as a backbone and as the stock pipeline, side by side."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from customvideo.backbones.unet3d import UNet3D, load_folder


@pytest.fixture(scope="session")
def shared_backbone(tiny_zeroscope: Path) -> UNet3D:
    return load_folder(tiny_zeroscope, device="cpu")


@pytest.fixture
def backbone(shared_backbone: UNet3D) -> Iterator[UNet3D]:
    """The tiny model, its switches reset afterwards."""
    yield shared_backbone
    shared_backbone.single_frame = "run"
    shared_backbone.checkpointed = False


@pytest.fixture(scope="session")
def stock(tiny_zeroscope: Path) -> Any:
    """diffusers' own pipeline of the same folder."""
    from diffusers import TextToVideoSDPipeline

    logging.getLogger("diffusers").setLevel(logging.ERROR)
    pipeline = TextToVideoSDPipeline.from_pretrained(tiny_zeroscope)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
