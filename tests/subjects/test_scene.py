"""Composed scenes: everyone is in them, their masks are theirs, and nothing ties word to side."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from customvideo.errors import ConfigError, SubjectError
from customvideo.subjects.scene import Background, Scene, Style, compose
from customvideo.subjects.subject import Subject
from tests.subjects.photos import BLUE, GREEN, GREY, RED, make_subject

YELLOW = (240, 220, 20)
COLOURS = (RED, BLUE, GREEN, YELLOW)
CAST = [
    make_subject(name, "cat", colour)
    for name, colour in zip(("a", "b", "c", "d"), COLOURS, strict=True)
]

styles = pytest.mark.parametrize("style", ["panel", "paste"])
backgrounds = pytest.mark.parametrize("background", ["keep", "plain", "random"])


def draw(count: int, seed: int, canvas: tuple[int, int] = (64, 96), **options: str) -> Scene:
    return compose(CAST[:count], np.random.default_rng(seed), canvas, **options)  # type: ignore[arg-type]


def nearest(image: NDArray[np.uint8], mask: NDArray[np.float32]) -> int:
    """Which of the four colours fills the mask's inside."""
    mean = image[mask > 0.95].mean(axis=0)
    return int(np.abs(np.array(COLOURS) - mean).sum(axis=1).argmin())


@styles
@backgrounds
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_everyone_is_in_and_under_their_own_mask(
    style: Style, background: Background, count: int
) -> None:
    for seed in range(4):
        scene = draw(count, seed, (80, 120), style=style, background=background)
        assert scene.image.shape == (80, 120, 3) and scene.image.dtype == np.uint8
        assert scene.masks.shape == (count, 80, 120) and scene.masks.dtype == np.float32
        assert scene.masks.min() >= 0
        assert scene.masks.sum(axis=0).max() <= 1 + 1e-5
        for index, mask in enumerate(scene.masks):
            assert (mask > 0.5).mean() > 0.02
            assert nearest(scene.image, mask) == index


@styles
@pytest.mark.parametrize(
    "canvas", [(320, 576), (96, 160), (160, 64), (64, 64), (33, 47), (24, 200)]
)
@pytest.mark.parametrize("count", [1, 3, 4])
def test_any_canvas(style: Style, canvas: tuple[int, int], count: int) -> None:
    scene = draw(count, 0, canvas, style=style)
    assert scene.masks.shape[1:] == canvas
    assert ((scene.masks > 0.5).mean(axis=(1, 2)) > 0.005).all()


@styles
def test_the_same_seed_draws_the_same_scene(style: Style) -> None:
    one, same, other = (draw(3, seed, style=style) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.image, same.image)
    np.testing.assert_array_equal(one.masks, same.masks)
    assert (one.image != other.image).any()


@styles
def test_sides_are_drawn_apart_from_the_order(style: Style) -> None:
    first_is_left = []
    for seed in range(60):
        masks = draw(2, seed, style=style).masks
        columns = np.arange(masks.shape[2])
        centres = (masks.sum(axis=1) * columns).sum(axis=1) / masks.sum(axis=(1, 2))
        first_is_left.append(centres[0] < centres[1])
    assert 18 <= sum(first_is_left) <= 42


def lopsided() -> Subject:
    """A subject that is red on its left and blue on its right, masked on the red half more."""
    image = np.full((64, 64, 3), GREY, np.uint8)
    mask = np.zeros((64, 64), np.float32)
    image[16:48, 16:32], image[16:48, 32:48] = RED, BLUE
    mask[16:48, 16:32], mask[16:48, 32:48] = 1, 0.6
    return Subject("tom", "<tom>", "cat", (image,), (mask,), ("0.png",))


@styles
def test_mirroring_takes_the_mask_along(style: Style) -> None:
    red_is_left = []
    for seed in range(30):
        scene = compose([lopsided()], np.random.default_rng(seed), (64, 64), style=style)
        red, blue = (
            np.abs(scene.image.astype(int) - colour).sum(axis=-1) < 40 for colour in (RED, BLUE)
        )
        assert scene.masks[0][red].mean() > 0.85
        red_is_left.append(np.nonzero(red)[1].mean() < scene.masks[0].sum(axis=0).argmax() + 8)
        if blue.any():
            red_is_left[-1] = np.nonzero(red)[1].mean() < np.nonzero(blue)[1].mean()
    assert 6 <= sum(red_is_left) <= 24


def test_every_photo_of_a_subject_is_drawn() -> None:
    shades = [(20 * step + 60, 10, 10) for step in range(3)]
    parts = [make_subject("tom", "cat", shade, photos=1) for shade in shades]
    tom = Subject(
        "tom",
        "<tom>",
        "cat",
        tuple(part.images[0] for part in parts),
        tuple(part.masks[0] for part in parts),
        ("0.png", "1.png", "2.png"),
    )
    rng = np.random.default_rng(0)
    seen = {
        round(float(scene.image[scene.masks[0] > 0.99].mean()))
        for scene in (compose([tom], rng, (64, 64)) for _ in range(20))
    }
    assert len(seen) == 3


def test_panels_keep_their_photos_and_proportions() -> None:
    scene = draw(2, 0, (64, 128))
    for mask in scene.masks:
        rows, columns = np.nonzero(mask > 0.5)
        # The blob is 28x32 pixels in its photo; cropped and scaled, never stretched.
        proportion = (np.ptp(columns) + 1) / (np.ptp(rows) + 1)
        assert proportion == pytest.approx(32 / 28, rel=0.12)
        inside = columns.max() < 64 or columns.min() >= 64
        assert inside
    outside = scene.masks.sum(axis=0) == 0
    assert np.abs(scene.image[outside].astype(int) - GREY).max() < 8


def test_cut_outs_leave_their_photos_behind() -> None:
    scene = draw(2, 3, (96, 160), style="paste", background="plain")
    outside = scene.image[scene.masks.sum(axis=0) < 0.01].astype(int)
    assert outside.min() > 195  # light grey, not the photos' mid grey
    edge = scene.masks[(scene.masks > 0.05) & (scene.masks < 0.95)]
    assert edge.size > 20  # feathered


def test_a_kept_background_has_its_subject_taken_out() -> None:
    for seed in range(6):
        scene = draw(1, seed, (96, 160), style="paste", background="keep")
        outside = scene.image[scene.masks[0] < 0.01].astype(int)
        assert np.abs(outside - GREY).max() < 30


def test_overlaps_stay_small() -> None:
    for seed in range(30):
        masks = draw(3, seed, (64, 96), style="paste").masks > 0.5
        boxes = []
        for mask in masks:
            rows, columns = np.nonzero(mask)
            ellipse = np.pi / 4 * (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
            boxes.append(mask.sum() / ellipse)
        # What is visible still fills its own ellipse: nobody hides behind another.
        assert min(boxes) > 0.75


def test_a_subject_cut_off_below_stands_on_the_lower_edge() -> None:
    tom = make_subject("tom", "cat", RED, photos=1)
    cut = Subject("tom", "<tom>", "cat", (tom.images[0][:34],), (tom.masks[0][:34],), ("0.png",))
    for seed in range(5):
        scene = compose([cut], np.random.default_rng(seed), (64, 96), style="paste")
        assert (scene.masks[0][-1] > 0.3).any()


def test_what_compose_refuses() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(SubjectError, match="at least one subject"):
        compose([], rng, (64, 64))
    with pytest.raises(ConfigError, match=r"Unknown style 'collage' .* panel, paste"):
        compose(CAST, rng, (64, 64), style="collage")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"Unknown background 'sea' .* keep, plain, random"):
        compose(CAST, rng, (64, 64), background="sea")  # type: ignore[arg-type]
