"""What is told of a photo by itself."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from customvideo.subjects.inspection import BLURRED, alike, look, remarks, see
from tests.subjects.photos import textured


def test_copies_are_alike_and_others_are_not() -> None:
    image = textured(0)
    small = cv2.resize(image, (150, 100), interpolation=cv2.INTER_AREA)
    coded = cv2.imdecode(cv2.imencode(".jpg", small, [1, 30])[1], cv2.IMREAD_COLOR)
    assert coded is not None
    brighter = np.clip(image.astype(int) + 25, 0, 255).astype(np.uint8)
    for copy in (small, coded, brighter, image[2:-2, 3:-3]):
        assert alike(look(image), look(np.ascontiguousarray(copy, np.uint8)))
    assert not any(alike(look(image), look(textured(seed))) for seed in range(1, 12))
    # The same in another colour is something else.
    tinted = np.clip(image + np.array([90.0, 0.0, 0.0]), 0, 255).astype(np.uint8)
    assert not alike(look(image), look(tinted))


def test_blur_is_seen_whatever_the_size() -> None:
    image = textured(0, 400, 600)
    blurred = cv2.GaussianBlur(image, (0, 0), 6)
    assert look(image).sharpness > 2 * BLURRED
    assert look(np.asarray(blurred)).sharpness < BLURRED
    half = cv2.resize(image, (300, 200), interpolation=cv2.INTER_AREA)
    assert look(np.asarray(half)).sharpness > BLURRED


def found(image: NDArray[np.uint8], mask: NDArray[np.float32]) -> str:
    return "; ".join(remarks(image, look(image), see(image, mask)))


def test_remarks_name_what_is_wrong() -> None:
    image = textured(0)
    mask = np.zeros(image.shape[:2], np.float32)
    mask[50:150, 100:200] = 1
    assert found(image, mask) == ""
    assert "dark: 4% of white" in found((image * 0.08).astype(np.uint8), mask)
    assert "blurred: sharpness" in found(np.asarray(cv2.GaussianBlur(image, (0, 0), 6)), mask)
    tiny = np.zeros_like(mask)
    tiny[10:30, 10:40] = 1
    assert "the subject is small: 30x20" in found(image, tiny)
    assert "a small picture, 60x60" in found(image[:60, :60], mask[60:120, 60:120])


@pytest.mark.parametrize(
    ("rows", "columns", "edges"),
    [((0, 100), (50, 150), "top"), ((50, 200), (0, 150), "bottom and left")],
)
def test_a_subject_that_is_cut_off(
    rows: tuple[int, int], columns: tuple[int, int], edges: str
) -> None:
    mask = np.zeros((200, 300), np.float32)
    mask[slice(*rows), slice(*columns)] = 1
    assert found(textured(0), mask) == f"cut off at the {edges}"
