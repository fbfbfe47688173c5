"""A finder for tests: it knows where everything is, because it is told."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from customvideo.evaluation.encoders import Pictures
from customvideo.evaluation.instances import Instance

Colour = tuple[int, int, int]


class ColourFinder:
    """Things by the exact colours of their outlines; each left-over pixel is ground.

    `categories` maps an outline's colour to a category. What is inside the outline is the thing's
    look, so that what a thing is called and what it looks like can be chosen apart.
    """

    def __init__(self, categories: Mapping[Colour, str], *, backwards: bool = False) -> None:
        self.categories, self.backwards = categories, backwards
        self.asked: list[int] = []

    def find(self, frames: Pictures) -> list[list[Instance]]:
        self.asked.append(len(frames))
        found = [self._find(frame) for frame in frames]
        return [instances[::-1] for instances in found] if self.backwards else found

    def _find(self, frame: Pictures) -> list[Instance]:
        things = []
        for colour, category in self.categories.items():
            rows, columns = np.nonzero((frame == colour).all(-1))
            if len(rows):
                mask = np.zeros(frame.shape[:2], np.bool_)
                mask[rows.min() + 1 : rows.max(), columns.min() + 1 : columns.max()] = True
                things.append(Instance(mask, category, 0.9))
        return things


def draw(frame: Pictures, outline: Colour, look: Colour, left: int, side: int = 10) -> None:
    """Put a square of one look, outlined in another colour, into `frame` in place."""
    frame[3 : 5 + side, left : left + side + 2] = outline
    frame[4 : 4 + side, left + 1 : left + 1 + side] = look


class HalvesFinder:
    """Calls the left half of every frame by one category, the right half by another."""

    def __init__(self, left: str, right: str) -> None:
        self.categories = left, right

    def find(self, frames: Pictures) -> list[list[Instance]]:
        left = np.zeros(frames.shape[1:3], np.bool_)
        left[:, : left.shape[1] // 2] = True
        one, other = self.categories
        return [[Instance(left, one, 0.9), Instance(~left, other, 0.8)] for _ in frames]
