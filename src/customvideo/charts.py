"""A loss over the steps, as places on a drawing: what `templates/chart.html.j2` puts into SVG.

Which losses are drawn, and where, is decided by the report and the studio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["LossChart", "loss_chart"]

# The chart: values become places on a drawing of WIDTH x HEIGHT units, y pointing down.

_WIDTH, _HEIGHT = 420, 220
_LEFT, _TOP, _BOTTOM = 56, 10, 24
_MOST_POINTS = 240
_SMOOTHING = 0.05
_NEAR = 1e-12


@dataclass(frozen=True)
class _Mark:
    at: float
    label: str


@dataclass(frozen=True)
class LossChart:
    """A drawn loss; `raw` and `smooth` are SVG point lists."""

    name: str
    summary: str
    raw: str
    smooth: str
    rows: list[_Mark]
    columns: list[_Mark]
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT


def loss_chart(name: str, values: Sequence[tuple[int, float]]) -> LossChart | None:
    """Draw one loss; None if fewer than two of its values are finite."""
    steps = np.array([step for step, value in values if math.isfinite(value)], dtype=np.float64)
    losses = np.array([value for _, value in values if math.isfinite(value)], dtype=np.float64)
    if len(losses) < 2:
        return None
    smooth = _running_mean(losses)
    steps, losses, smooth = _thinned(steps), _thinned(losses), _thinned(smooth)
    low, high = _span(losses)
    marks = _marks(low, high)
    x = _LEFT + (steps - steps[0]) / max(float(np.ptp(steps)), _NEAR) * (_WIDTH - _LEFT)
    return LossChart(
        name=name,
        summary=f"from {smooth[0]:.3g} to {smooth[-1]:.3g} over {steps[-1]:g} steps",
        raw=_points(x, _height(losses, low, high)),
        smooth=_points(x, _height(smooth, low, high)),
        rows=[_Mark(float(_height(np.array(m), low, high)), f"{m:.4g}") for m in marks],
        columns=[
            _Mark(_LEFT, f"step {steps[0]:g}"),
            _Mark(_WIDTH, f"{steps[-1]:g}"),
        ],
    )


def _running_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exponential mean that starts at the plain mean of what it has seen (Adam's correction)."""
    total, weight, means = 0.0, 0.0, []
    for value in values:
        total += _SMOOTHING * (float(value) - total)
        weight += _SMOOTHING * (1 - weight)
        means.append(total / weight)
    return np.array(means)


def _thinned(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(values) <= _MOST_POINTS:
        return values
    edges = np.linspace(0, len(values), _MOST_POINTS + 1).astype(int)
    means = np.array([values[start:end].mean() for start, end in pairwise(edges)])
    means[0], means[-1] = values[0], values[-1]
    return means


def _span(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    # A loss that is nearly always small keeps 0 in sight; a flat one still needs a height.
    low = 0.0 if 0 < low < 0.5 * high else low
    return (low, high) if high - low > _NEAR else (low - 0.5, high + 0.5)


def _marks(low: float, high: float) -> list[float]:
    """Three to six round numbers within [low, high]: those with the widest round step."""
    unit = 10.0 ** math.floor(math.log10(high - low))
    # Each is at most twice the next, so the first to give three numbers gives no more than six.
    for factor in (5, 2.5, 2, 1, 0.5, 0.25):
        step = factor * unit
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first >= 2:
            break
    return [round(index * step, 12) + 0.0 for index in range(first, last + 1)]


def _height(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    scaled = (values - low) / (high - low)
    return np.round(_HEIGHT - _BOTTOM - scaled * (_HEIGHT - _BOTTOM - _TOP), 1)


def _points(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
