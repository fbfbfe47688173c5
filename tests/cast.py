"""Two made-up subjects and a short run on them, for tests that need no real photo."""

from __future__ import annotations

from typing import Any

import numpy as np

from customvideo.methods.customvideo import CustomVideo, CustomVideoConfig
from customvideo.subjects.subject import Subject
from customvideo.training.trainer import TrainerConfig

CANVAS = (64, 96)


def make_subject(name: str, category: str, seed: int, photos: int = 2) -> Subject:
    """A coloured ellipse on noise, with its exact mask."""
    rng = np.random.default_rng(seed)
    images, masks = [], []
    colour = rng.integers(0, 256, 3)
    for _ in range(photos):
        rows, columns = np.mgrid[-1:1:48j, -1:1:56j]
        inside = (rows / 0.8) ** 2 + (columns / 0.7) ** 2 < 1
        image = rng.integers(90, 160, (48, 56, 3), dtype=np.uint8)
        image[inside] = colour
        images.append(image)
        masks.append(inside.astype(np.float32))
    files = tuple(f"{index}.png" for index in range(photos))
    return Subject(name, f"<{name}>", category, tuple(images), tuple(masks), files)


def make_cast() -> list[Subject]:
    """Tom the cat and Rex the dog."""
    return [make_subject("tom", "cat", 1), make_subject("rex", "dog", 2)]


def short_run(**changes: Any) -> TrainerConfig:
    """Settings for a few quick steps on the tiny model."""
    settings: dict[str, Any] = {
        "steps": 4,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "word_learning_rate": 1e-2,
        "canvas": CANVAS,
        "pool": 4,
        "held_out": 0,
        "checkpoint_every": 2,
    }
    return TrainerConfig(**(settings | changes))


def quick_method(**changes: Any) -> CustomVideo:
    """CustomVideo without class prior, which would have to be drawn first."""
    settings: dict[str, Any] = {"prior_weight": 0.0, "compose": "paste"}
    return CustomVideo(CustomVideoConfig(**(settings | changes)))
