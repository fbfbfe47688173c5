"""Made-up photos: a coloured blob on a background, with its exact mask."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from customvideo.subjects.subject import Subject

RED, GREEN, BLUE = (220, 30, 30), (30, 200, 40), (40, 60, 220)
GREY = (150, 150, 150)


def blob(
    height: int = 48,
    width: int = 64,
    colour: tuple[int, int, int] = RED,
    centre: tuple[float, float] = (0.5, 0.5),
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(image, mask): an ellipse half as wide and high as the photo."""
    rows, columns = np.mgrid[:height, :width]
    down = (rows + 0.5) / height - centre[0]
    across = (columns + 0.5) / width - centre[1]
    inside = down**2 + across**2 < 0.25**2
    image = np.where(inside[..., None], np.array(colour), np.array(GREY)).astype(np.uint8)
    return image, inside.astype(np.float32)


def textured(seed: int, height: int = 200, width: int = 300) -> NDArray[np.uint8]:
    """A photo of nothing, with detail of all sizes; each seed another."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for cells, depth in ((3, 60), (8, 40), (20, 25), (200, 60)):
        grid = rng.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * depth
    return np.clip(image + 128, 0, 255).astype(np.uint8)


def save(path: Path, pixels: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)
    return path


def save_photo(path: Path, **options: object) -> Path:
    return save(path, blob(**options)[0])  # type: ignore[arg-type]


def mask_bytes(mask: NDArray[np.float32]) -> NDArray[np.uint8]:
    return (mask * 255).round().astype(np.uint8)


def make_subject(
    name: str, category: str, colour: tuple[int, int, int], photos: int = 2, side: int = 64
) -> Subject:
    """A subject whose every pixel has `colour` and whose background is grey."""
    centres = [(0.5, 0.4), (0.5, 0.6), (0.45, 0.5)]
    pairs = [blob(side - 8, side, colour, centre) for centre in centres[:photos]]
    images, masks = zip(*pairs, strict=True)
    files = tuple(f"{index}.png" for index in range(photos))
    return Subject(name, f"<{name}>", category, images, masks, files)
