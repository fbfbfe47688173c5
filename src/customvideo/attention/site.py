"""Attention sites: the places of a denoiser where video positions read text tokens.

A site is plain data, so that a recipe or a message can print it; which sites exist is the
backbone's knowledge. Choosing among them is here, recording at them is
`customvideo.attention.tape`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from customvideo.attention.losses import shrink_masks
from customvideo.errors import AttentionError

__all__ = ["FEWEST_CELLS", "AttentionSite", "describe", "intermediate", "level", "require_visible"]

_LOG = logging.getLogger(__name__)

FEWEST_CELLS = 3.0
"""Cells of a grid that a mask must cover for attention control to place it there."""


@dataclass(frozen=True)
class AttentionSite:
    """One place where video positions attend to text tokens.

    Attributes:
        path: the attention module, as `denoiser.get_submodule` takes it.
        kind: "cross" if the keys are text alone, "joint" if they are text and video together.
        grid: (frames, height, width) of the video positions there, counted in cells.
        heads: attention heads.
        key: path of the linear module that makes the text keys.
        value: path of the linear module that makes the text values.
        norm: path of the norm whose input is the residual stream that the attention's output is
            added to; "" if the model has no such module.
        text_first: whether, of a joint attention's positions, those of the text come first.
        leg: of networks that take turns along the noise, the number of the one it is in.
    """

    path: str
    kind: Literal["cross", "joint"]
    grid: tuple[int, int, int]
    heads: int
    key: str
    value: str
    norm: str = ""
    text_first: bool = True
    leg: int = 0

    @property
    def cells(self) -> int:
        """Positions per frame."""
        return self.grid[1] * self.grid[2]


def intermediate(
    sites: Sequence[AttentionSite], low: int = 90, high: int = 800
) -> list[AttentionSite]:
    """The sites of intermediate size, which CustomVideo's attention control uses.

    "Intermediate" is read as `low` to `high` positions per frame. The bounds are ours: they take
    ZeroScope's 10x18 and 20x36 and leave out 40x72 (too many positions to steer) and 5x9 (too few
    to tell subjects apart). If no site is in between, the finest level is taken and a warning
    logged.

    A transformer has no levels: all its sites share one grid, whatever its size. There the middle
    third of them, in the order of execution, stands for the middle of the network (ours, too); of
    networks that take turns, the middle third of each.

    Raises:
        AttentionError: there is no site at all.
    """
    if not sites:
        raise AttentionError(
            "The backbone names no attention site, so there is nothing to watch; choose another "
            "backbone or a method without attention control."
        )
    if len({site.grid for site in sites}) == 1:
        legs = sorted({site.leg for site in sites})
        return [site for leg in legs for site in _middle(sites, leg)]
    chosen = [site for site in sites if low <= site.cells <= high]
    if chosen:
        return chosen
    finest = max(site.cells for site in sites)
    chosen = [site for site in sites if site.cells == finest]
    _LOG.warning(
        "No attention site has %d to %d positions; using the finest level, %s.",
        low,
        high,
        _grid(chosen[0]),
    )
    return chosen


def level(sites: Sequence[AttentionSite], number: int) -> list[AttentionSite]:
    """The sites of one grid size alone; `number` counts sizes from the finest, which is 1.

    Raises:
        AttentionError: there are not so many sizes.
    """
    sizes = sorted({site.cells for site in sites}, reverse=True)
    if not 1 <= number <= len(sizes):
        raise AttentionError(
            f"There is no attention level {number}; the backbone has {len(sizes)}, counted from "
            "the finest."
        )
    return [site for site in sites if site.cells == sizes[number - 1]]


def describe(sites: Sequence[AttentionSite]) -> str:
    """A short text table of `sites`, one line per grid size, in the given order."""
    levels: dict[tuple[str, int], list[str]] = {}
    for site in sites:
        levels.setdefault((_grid(site), site.heads), []).append(site.path)
    suffix = _common_suffix([site.path for site in sites])
    lines = []
    for (grid, heads), paths in levels.items():
        names = ", ".join(path.removesuffix(suffix) for path in paths)
        lines.append(f"{grid:>8}  {heads:>2} heads  {len(paths):>2} sites  {names}")
    return "\n".join(lines)


def require_visible(
    sites: Sequence[AttentionSite],
    words: Sequence[str],
    masks: Tensor,
    fewest: float = FEWEST_CELLS,
) -> None:
    """Refuse subjects too small for attention control to place.

    Args:
        sites: the chosen sites.
        words: the subjects' words, for the message.
        masks: (word, height, width) in [0, 1], one per word, as they lie on the canvas.
        fewest: how many cells a mask must cover.

    Raises:
        AttentionError: a mask covers fewer cells of every site; names word and grid.
    """
    largest = max(sites, key=lambda site: site.cells)
    cells = shrink_masks(masks, largest.grid[1:]).sum(dim=(-2, -1)).tolist()
    for word, covered in zip(words, cells, strict=True):
        if covered < fewest:
            raise AttentionError(
                f"The mask of {word} covers {covered:.1f} cells of the {_grid(largest)} attention "
                f"grid and needs {fewest:g}; use photos that show it larger, correct its mask, "
                "train at a larger size, or ask for less with least_cells."
            )


def _middle(sites: Sequence[AttentionSite], leg: int) -> list[AttentionSite]:
    """Those on one leg without their first and last third; thirds are rounded down."""
    own = [site for site in sites if site.leg == leg]
    third = len(own) // 3
    return own[third : len(own) - third]


def _grid(site: AttentionSite) -> str:
    return f"{site.grid[1]}x{site.grid[2]}"


def _common_suffix(paths: Sequence[str]) -> str:
    """The dotted ending that all of several `paths` share; empty for a single path."""
    parts = [path.split(".") for path in paths]
    shared: list[str] = []
    for column in zip(*(reversed(part) for part in parts), strict=False):
        if len(paths) < 2 or len(set(column)) > 1:
            break
        shared.insert(0, column[0])
    return "." + ".".join(shared) if shared else ""
