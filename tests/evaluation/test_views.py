"""Windows around a subject, and how near a video comes to a photo."""

from __future__ import annotations

import numpy as np
import pytest

from customvideo.evaluation.views import closest_pair, nearest_photo, view
from tests.evaluation.angles import at, cos


def masked(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros((60, 90), bool)
    mask[top:bottom, left:right] = True
    return mask


def plan() -> np.ndarray:
    """A picture (60, 90, 3) whose pixels say where they are: row, column, 0."""
    rows, columns = np.mgrid[:60, :90]
    return np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)


def corners(mask: np.ndarray, aspect: float) -> tuple[float, float, float, float]:
    """Top, bottom, left and right of the window, read off the picture."""
    seen = view(plan(), mask, aspect)
    assert seen.shape == (224, 224, 3)
    return tuple(float(v) for v in (seen[0, 0, 0], seen[-1, 0, 0], seen[0, 0, 1], seen[0, -1, 1]))


def test_the_window_is_centred_and_larger_than_the_subject() -> None:
    # 10 high and 10 wide: 16 x 16 around (30, 45).
    assert corners(masked(25, 35, 40, 50), 1.0) == pytest.approx((22, 37, 37, 52), abs=1)
    # Half as wide as high.
    assert corners(masked(25, 35, 43, 47), 0.5) == pytest.approx((22, 37, 41, 48), abs=1)
    # A wide subject makes a narrow window tall.
    assert corners(masked(25, 35, 40, 50), 0.5) == pytest.approx((14, 45, 37, 52), abs=1)


def test_at_the_side_it_is_moved_inwards_and_made_smaller_to_fit() -> None:
    assert corners(masked(0, 10, 80, 90), 1.0) == pytest.approx((0, 15, 74, 89), abs=1)
    assert corners(masked(5, 55, 20, 70), 1.0) == pytest.approx((0, 59, 15, 74), abs=1)
    assert corners(masked(5, 55, 0, 90), 3.0) == pytest.approx((15, 44, 0, 89), abs=1)


def test_the_size_of_picture_and_subject_makes_no_difference() -> None:
    small, large = plan(), plan().repeat(4, axis=0).repeat(4, axis=1)
    mask = masked(20, 40, 30, 50)
    one = view(small, mask, 0.75)
    other = view(large, mask.repeat(4, axis=0).repeat(4, axis=1), 0.75)
    assert np.abs(one.astype(int) - other).max() <= 2


def test_a_video_is_as_near_as_its_nearest_photo_over_all_frames() -> None:
    assert nearest_photo(at(0, 20), at(0, 90)) == pytest.approx((1 + cos(20)) / 2)
    # Each frame near another photo is less than all near one.
    assert nearest_photo(at(0, 90), at(0, 90)) == pytest.approx(0.5)


def test_the_closest_pair_knows_mirrors_and_not_itself() -> None:
    assert closest_pair(at(0, 60, 150), at(0, 60, 150)) == pytest.approx(0.5)
    # Mirrored, the first is the third.
    assert closest_pair(at(0, 60, 150), at(150, 240, 180)) == pytest.approx(1)
    assert closest_pair(at(0), at(0)) is None
