"""The embedded segmenter on photos whose masks are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from customvideo.subjects.grabcut import GrabCut, _content_box
from customvideo.subjects.saliency import border_contrast, central_prior, region_contrast

SEGMENT = GrabCut()


def scene(
    height: int = 120, width: int = 160, colours: int = 1
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A noisy two-colour room (wall and floor) with a blob of one or two colours in it."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    wall = rows < 0.6 * height
    image = np.where(wall[..., None], (170, 175, 190), (120, 100, 80)).astype(np.float32)
    down, across = rows / height - 0.55, columns / width - 0.45
    inside = (down / 0.3) ** 2 + (across / 0.22) ** 2 < 1
    image[inside] = (200, 60, 40)
    if colours == 2:
        image[inside & (down > 0)] = (240, 220, 60)
    image += rng.normal(0, 6, image.shape)
    image = cv2.GaussianBlur(image, (0, 0), 0.8)
    return image.clip(0, 255).astype(np.uint8), inside


def overlap(mask: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    found = mask > 0.5
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize("colours", [1, 2])
def test_the_subject_is_found(colours: int) -> None:
    image, truth = scene(colours=colours)
    mask = SEGMENT(image, "vase")
    assert (mask.shape, mask.dtype) == (truth.shape, np.float32)
    assert mask.min() >= 0 and mask.max() <= 1
    assert overlap(mask, truth) > 0.9


def test_it_repeats_itself_and_leaves_the_photo_alone() -> None:
    image, _ = scene()
    before = image.copy()
    first = SEGMENT(image, "vase")
    cv2.setRNGSeed(99)
    np.testing.assert_array_equal(first, SEGMENT(image, "teapot"))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("size", [(32, 32), (40, 300), (700, 500)])
def test_any_size(size: tuple[int, int]) -> None:
    image, truth = scene(*size)
    assert overlap(SEGMENT(image, "vase"), truth) > 0.75


def test_a_subject_cut_off_by_the_lower_edge() -> None:
    image, truth = scene()
    mask = SEGMENT(image[:90], "vase")
    assert overlap(mask, truth[:90]) > 0.85


def test_letterbox_bars_are_neither_background_nor_subject() -> None:
    image, truth = scene()
    framed = np.pad(image, ((0, 0), (40, 40), (0, 0)))
    assert _content_box(framed)[:2] == (0, 120)
    assert _content_box(framed)[2] in range(40, 43)
    mask = SEGMENT(framed, "vase")
    assert overlap(mask, np.pad(truth, ((0, 0), (40, 40)))) > 0.85
    assert mask[:, :35].max() == 0


def test_a_plain_wall_is_no_letterbox() -> None:
    image, _ = scene()
    image[:20] = 200
    image[20:] = np.where(np.indices((100, 160))[1][..., None] > 150, 90, image[20:])
    assert _content_box(np.full((50, 60, 3), 255, np.uint8)) == (0, 50, 0, 60)


def test_a_picture_of_nothing_gives_an_empty_mask() -> None:
    assert SEGMENT(np.full((64, 64, 3), 128, np.uint8), "vase").max() == 0


@pytest.mark.parametrize("guess", [region_contrast, border_contrast])
def test_first_guesses_are_high_inside(guess: object) -> None:
    image, truth = scene()
    values = guess(image)  # type: ignore[operator]
    assert values.shape == truth.shape
    assert values.min() >= 0 and values.max() <= 1
    assert values[truth].mean() > 3 * values[~truth].mean()


def test_the_central_prior_peaks_in_the_middle() -> None:
    prior = central_prior((31, 41), spread=0.2)
    assert np.unravel_index(prior.argmax(), prior.shape) == (15, 20)
    assert prior[0, 0] < 0.01 < prior.max() == 1
