"""Reference pictures: which photos, and what is left of them on white."""

from __future__ import annotations

import numpy as np

from customvideo.subjects.references import clearest, reference_pictures
from customvideo.subjects.scene import on_white
from customvideo.subjects.subject import Subject

RED, GREEN = (200, 20, 20), (20, 200, 20)


def photo(top: int, left: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A red box on green, 64x80, and its mask."""
    mask = np.zeros((64, 80), np.float32)
    mask[top : top + height, left : left + width] = 1
    return np.where(mask[..., None] > 0, RED, GREEN).astype(np.uint8), mask


def test_a_cut_out_stands_in_the_middle_of_white() -> None:
    found = on_white(*photo(10, 20, 24, 40), side=64, step=16)
    # Nothing is enlarged: 24x40 pixels, on the next multiples of 16.
    assert found.shape == (32, 48, 3) and found.dtype == np.uint8
    assert np.abs(found[8:24, 8:40].astype(int) - RED).max() <= 1
    assert (found[:3] == 255).all() and (found[:, :3] == 255).all()
    assert (found[-3:] == 255).all() and (found[:, -3:] == 255).all()
    # Not a trace of what was behind: green only as far as white has it.
    assert (found[..., 1] <= found[..., 0]).all()


def test_a_large_one_is_shrunk_and_keeps_its_proportions() -> None:
    found = on_white(*photo(2, 8, 60, 30), side=32, step=16)
    assert found.shape == (32, 16, 3)
    red = (np.abs(found.astype(int) - RED).max(axis=-1) < 40).any(axis=1)
    assert red.sum() >= 28


def test_whole_and_large_subjects_are_clear() -> None:
    cut_off, small, large = photo(0, 0, 60, 70), photo(20, 20, 8, 8), photo(10, 10, 30, 30)
    images, masks = zip(cut_off, small, large, small, strict=True)
    subject = Subject("tom", "<tom>", "cat", images, masks, ("0", "1", "2", "3"))
    assert clearest(subject) == [2, 1, 3, 0]
    first, second = reference_pictures(subject, 2, 32, 16)
    assert (first.shape, second.shape) == ((32, 32, 3), (16, 16, 3))
    assert len(reference_pictures(subject, 9, 32)) == 4
