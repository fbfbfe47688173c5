"""The tiny model and its cast, shared by the trainer's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from customvideo.backbones.base import Backbone, load_backbone
from customvideo.subjects.subject import Subject
from tests.cast import make_cast


@pytest.fixture(scope="session")
def backbone(tiny_zeroscope: Path) -> Backbone:
    return load_backbone(tiny_zeroscope, device="cpu")


@pytest.fixture(scope="session")
def cast() -> list[Subject]:
    return make_cast()


@pytest.fixture
def quiet() -> Console:
    return Console(quiet=True)
