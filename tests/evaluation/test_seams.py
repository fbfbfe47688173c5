"""Panel borders in synthetic frames."""

from __future__ import annotations

import numpy as np
import pytest

from customvideo.evaluation.seams import seam_strength, seams

HEIGHT, WIDTH = 60, 96


def panels(*greys: int, count: int = 1) -> np.ndarray:
    """Frames of equally wide panels of one grey each."""
    columns = np.repeat(greys, WIDTH // len(greys))
    return np.tile(columns[None, None, :, None], (count, HEIGHT, 1, 3)).astype(np.uint8)


def test_a_straight_edge_from_top_to_bottom_at_the_border_is_a_seam() -> None:
    assert seams(panels(80, 160), 2) == 1
    assert seams(panels(80, 160, 80), 3) == 1
    assert seams(panels(80, 160, 80, 160), 4) == 1
    flat = panels(100)
    assert seams(np.concatenate([panels(80, 160), flat, flat, flat]), 2) == 0.25


def test_a_single_subject_has_no_border() -> None:
    assert seams(panels(80, 160), 1) is seam_strength(panels(80, 160), 1) is None


def test_one_of_several_borders_is_enough() -> None:
    assert seams(panels(80, 80, 160), 3) == 1


def test_an_edge_elsewhere_is_no_seam() -> None:
    assert seams(panels(80, 160, 160), 2) == 0
    assert seams(panels(80, 160), 3) == 0


@pytest.mark.parametrize(("shift", "found"), [(-2, 1), (2, 1), (6, 0), (-6, 0)])
def test_it_may_have_drifted_a_little(shift: int, found: int) -> None:
    assert seams(np.roll(panels(80, 160)[:, :, 4:-4], shift, axis=2), 2) == found


def test_the_strength_is_the_share_of_rows_that_jump() -> None:
    frame = panels(80, 160)
    frame[:, :30] = 80
    assert seam_strength(frame, 2) == pytest.approx([0.5])
    assert seams(frame, 2) == 0
    frame = panels(80, 160)
    frame[:, :12] = 80
    assert seam_strength(frame, 2) == pytest.approx([0.8])
    assert seams(frame, 2) == 1


def test_a_faint_step_a_slope_and_a_texture_are_none() -> None:
    assert seams(panels(80, 86), 2) == 0
    slope = np.tile(np.linspace(0, 250, WIDTH)[None, None, :, None], (1, HEIGHT, 1, 3))
    assert seams(slope.astype(np.uint8), 2) == 0
    noise = np.random.default_rng(0).integers(0, 256, (4, HEIGHT, WIDTH, 3), dtype=np.uint8)
    assert seams(noise, 2) == 0


def test_a_slanted_edge_is_none() -> None:
    frame = np.full((1, HEIGHT, WIDTH, 3), 80, np.uint8)
    for row in range(HEIGHT):
        frame[0, row, WIDTH // 2 + row // 2 - 15 :] = 160
    assert seams(frame, 2) == 0


def test_a_blurred_seam_between_colours_of_one_brightness_is_one() -> None:
    frame = panels(100, 100)
    frame[:, :, : WIDTH // 2, 0], frame[:, :, WIDTH // 2 :, 2] = 160, 160
    frame[:, :, WIDTH // 2 - 1 : WIDTH // 2 + 1] = (130, 100, 130)
    assert seams(frame, 2) == 1


def test_size_makes_no_difference() -> None:
    large = panels(80, 160).repeat(5, axis=1).repeat(5, axis=2)
    assert seams(large, 2) == 1
    assert seams(np.roll(large, 30, axis=2), 2) == 0
