"""Shapes of a plot, and how values become places: what a template needs to write SVG.

y points down, all in units of the drawing. What is plotted is decided in
`customvideo.benchmark.plots`; colours and fonts belong to the page's style.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from customvideo.benchmark.statistics import Estimate
from customvideo.evaluation.measures import Measure

__all__ = ["Axis", "Drawing", "Shape", "keep_apart", "outline"]

_NEAR = 1e-9
_MARGIN = 0.07
_MARK = 5.5

_SIDES = {
    **{"ours": (24, 0), "reference": (24, 0), "s0": (4, 45), "s1": (4, 0), "s2": (3, 0)},
    **{"s3": (3, 180), "s4": (5, 0), "s5": (3, 90), "s6": (6, 30), "s7": (3, 270)},
}
"""Style -> how many sides its mark has, and by how many degrees it is turned."""


@dataclass(frozen=True)
class Shape:
    """A line, path or text: `element` is its SVG element, `style` its classes."""

    element: str
    style: str
    places: tuple[tuple[str, str], ...]
    text: str = ""


@dataclass
class Drawing:
    """A plot of `width` x `height` units; `summary` says in words what it shows."""

    title: str
    summary: str
    width: float
    height: float
    shapes: list[Shape] = field(default_factory=list)

    def line(self, style: str, start: tuple[float, float], end: tuple[float, float]) -> None:
        """A straight line between two places (x, y)."""
        values = zip(("x1", "y1", "x2", "y2"), (*start, *end), strict=True)
        self.shapes.append(Shape("line", style, tuple((k, f"{v:.1f}") for k, v in values)))

    def path(
        self, style: str, points: Iterable[tuple[float, float]], *, closed: bool = True
    ) -> None:
        """Straight lines from place to place, and back if `closed`."""
        d = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points) + ("Z" if closed else "")
        self.shapes.append(Shape("path", style, (("d", d),)))

    def write(
        self, text: str, place: tuple[float, float], anchor: str = "start", *, style: str = ""
    ) -> None:
        """`text` with its baseline at `place`; `anchor` is SVG's."""
        x, y = place
        at = (("x", f"{x:.1f}"), ("y", f"{y:.1f}"), ("text-anchor", anchor))
        self.shapes.append(Shape("text", style, at, text))


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` laid out from `start` to `end`, which may be the smaller one."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(cls, found: Iterable[Estimate], shown: Measure, start: float, end: float) -> Axis:
        """An axis on which all means and intervals lie, a margin around them."""
        values = [v for one in found for v in (one.mean, one.low, one.high) if v is not None]
        low, high = min(values), max(values)
        margin = _MARGIN * (high - low) or 0.1 * abs(high) or 0.5
        low, high = low - margin, high + margin
        # A share is never drawn beyond nothing and all.
        limits = (0.0, 1.0) if shown.kind == "share" and low < high else (-math.inf, math.inf)
        low, high = max(low, limits[0]), min(high, limits[1])
        return cls(low, high, start, end)

    def at(self, value: float) -> float:
        """The place of `value`."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def marks(self) -> list[float]:
        """Three to six round numbers: those with the widest round step."""
        unit = 10.0 ** math.floor(math.log10(self.high - self.low))
        # Each is at most two and a half times the next: the first to give three gives few.
        for factor in (5, 2.5, 2, 1, 0.5, 0.25, 0.2):
            step = factor * unit
            first = math.ceil(self.low / step - _NEAR)
            last = math.floor(self.high / step + _NEAR)
            if last - first >= 2:
                break
        return [round(index * step, 12) + 0.0 for index in range(first, last + 1)]


def outline(style: str, x: float, y: float) -> list[tuple[float, float]]:
    """The corners of the mark of `style` around (x, y): what colour says, shape says too."""
    sides, turned = _SIDES[style]
    radius = _MARK * (1.25 if sides == 3 else 1.0)
    angles = [math.tau * index / sides + math.radians(turned) for index in range(sides)]
    return [(x + radius * math.sin(angle), y - radius * math.cos(angle)) for angle in angles]


def keep_apart(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """`places` moved as little as one sweep allows, to be `gap` apart within [low, high].

    If there is no room for all, they are spread evenly.
    """
    if not places:
        return []
    gap = min(gap, (high - low) / max(1, len(places) - 1))
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = [0.0] * len(places)
    floor = low
    for index in order:
        moved[index] = max(places[index], floor)
        floor = moved[index] + gap
    ceiling = high
    for index in reversed(order):
        moved[index] = min(moved[index], ceiling)
        ceiling = moved[index] - gap
    return moved
