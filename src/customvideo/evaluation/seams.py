"""Whether a video reproduces the borders of the panels its model was trained on.

A model that has seen its subjects side by side in panels can learn the stitch as well: a straight
edge from top to bottom where one photo ended and the next began. (MuDI, arXiv 2404.04243, reports
such artefacts of CutMix training; how to measure them is our choice.)

Axes: frames are uint8 (frame, height, width, 3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["SEAM", "seam_strength", "seams"]

SEAM = 0.6
"""Share of the rows that must jump at one column for it to be a seam. Chosen on the toybox's
development pairs: frames of panels have 0.8 or more, one in twenty true renders has 0.46."""

_JUMP = 8.0  # of 255, the least that can be seen
_STANDING_OUT = 2.0  # times what neighbouring columns jump by
_STRAY = 0.03  # of the width, how far a seam may lie from the border it was learned from
_STEP = 1 / 48  # of the width, over which a jump may be blurred


def seams(frames: NDArray[np.uint8], panels: int) -> float | None:
    """Share of `frames` with a seam at a border between `panels` equal panels side by side.

    None for a single panel, which has no border.
    """
    strength = seam_strength(frames, panels)
    return None if strength is None else float((strength >= SEAM).mean())


def seam_strength(frames: NDArray[np.uint8], panels: int) -> NDArray[np.float64] | None:
    """For each of `frames` the share of rows that jump at the strongest border: (frame,).

    A row jumps at a column if the colours on both sides of it differ by 8 of 255 or more and twice
    as much as at columns nearby: a slope of brightness is no jump, nor is one in a texture. The
    column must be the same for all rows, within 3 % of the width of where a border would be.
    Upright stripes over the whole picture would be taken for borders.
    """
    if panels < 2:
        return None
    width = frames.shape[2]
    jumps = _jumps(frames, max(1, round(width * _STEP)))
    stray = max(1, round(width * _STRAY))
    columns = {
        column
        for border in range(1, panels)
        for column in range(
            round(width * border / panels) - stray, round(width * border / panels) + stray + 1
        )
    }
    shares = [jumps[:, :, column].mean(1) for column in sorted(columns) if 0 <= column < width]
    return np.asarray(np.max(shares, axis=0), np.float64)


def _jumps(frames: NDArray[np.uint8], step: int) -> NDArray[np.bool_]:
    """Where rows jump, bool (frame, height, width); column x is the first one right of the jump."""
    contrast = _contrast(frames, step)
    apart = 2 * step + 1
    reach = 4 * step
    padded = np.pad(contrast, ((0, 0), (0, 0), (reach, reach)), mode="edge")
    width = contrast.shape[2]
    nearby = [
        padded[:, :, reach + side * offset : reach + side * offset + width]
        for offset in range(apart, reach + 1)
        for side in (-1, 1)
    ] or [contrast]
    usual = np.median(nearby, axis=0)
    return np.asarray((contrast >= _JUMP) & (contrast >= _STANDING_OUT * usual))


def _contrast(frames: NDArray[np.uint8], step: int) -> NDArray[np.float32]:
    """How the `step` columns before each column differ from those after: (frame, height, width).

    In the colour channel that differs most; 0 where a side would leave the picture.
    """
    sums = np.cumsum(np.pad(frames.astype(np.float32), ((0, 0), (0, 0), (1, 0), (0, 0))), axis=2)
    means = (sums[:, :, step:] - sums[:, :, :-step]) / step
    contrast = np.zeros(frames.shape[:3], np.float32)
    differences = np.abs(means[:, :, step:] - means[:, :, :-step]).max(-1)
    contrast[:, :, step : step + differences.shape[2]] = differences
    return contrast
