"""Who is shown what: a balanced, seeded design of incomplete blocks.

A cell is one item (prompt) with one pair of methods; a block is what one rater sees. The blocks are
cut from one endless sequence of cells, in which

* every cell comes equally often: at any time no two cells' counts differ by more than one;
* of two showings of a cell in a row, one has its sides exchanged;
* a block has every prompt, and every pair of methods, as evenly as its length allows, and each of
  its methods about equally often on either side.

It is a function of the items, the settings and the seed alone: rater n sees block n, whoever came
before. Attention checks are put between a block's cells by `Design.program`.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from customvideo.errors import StudyError
from customvideo.userstudy.items import SPOILED, Items
from customvideo.userstudy.plan import StudyPlan

__all__ = ["Cell", "Design", "Kind", "Shown", "round_robin"]

Kind = Literal["pair", "obvious", "repeat"]
"""A comparison that counts, and the two kinds of attention checks."""

Cell = tuple[int, int]
"""(item, pair of methods), both by their index."""

_TRIES = 40
_PAIR_COST, _ITEM_COST, _CELL_COST = 1, 10, 1000


@dataclass(frozen=True)
class Shown:
    """One comparison: which item, and what is on the left and on the right.

    A side is a method, or `SPOILED` in an obvious check.
    """

    kind: Kind
    item: str
    left: str
    right: str

    def turned(self) -> Shown:
        """The same again with the sides exchanged, as an attention check."""
        return replace(self, kind="repeat", left=self.right, right=self.left)


class Design:
    """All blocks there are, however many raters come.

    Raises:
        StudyError: a rater is to see more comparisons than there are.
    """

    def __init__(self, items: Items, plan: StudyPlan) -> None:
        if plan.per_rater > items.pairs:
            raise StudyError(
                f"There are {items.pairs} comparisons, fewer than per_rater = {plan.per_rater}; "
                "lower per_rater in study.toml, or make the study of more prompts or methods."
            )
        self._items, self._plan = items, plan
        self._pairs = round_robin(len(items.methods))
        self._sequence: list[Shown] = []
        self._tail: list[Cell] = []
        self._turned: dict[Cell, bool] = {}

    def block(self, number: int) -> list[Shown]:
        """What the rater counted from 0 compares, attention checks not among it."""
        size = self._plan.per_rater
        while len(self._sequence) < (number + 1) * size:
            self._extend()
        return self._sequence[number * size : (number + 1) * size]

    def program(self, number: int) -> list[Shown]:
        """All that the rater sees, in order: the block with the attention checks in between."""
        rng = np.random.default_rng([self._plan.seed, number, 1])
        shown = list(self.block(number))
        for index in range(self._repeats):
            # Taken from the first half and put into the second, so that something lies between.
            first = int(rng.integers(0, max(1, len(shown) // 2)))
            while shown[first].kind != "pair" or shown[first].turned() in shown:
                first = (first + 1) % len(shown)
            last = int(rng.integers(max(first + 2, len(shown) * 2 // 3), len(shown) + 2))
            shown.insert(min(last + index, len(shown)), shown[first].turned())
        for index in range(self._plan.checks.obvious if self._items.checks else 0):
            # Never the first one: what is asked should be known by then.
            place = int(rng.integers(min(1, len(shown)), len(shown) + 1))
            shown.insert(place, self._obvious(number, index, bool(rng.integers(2))))
        return shown

    @property
    def _repeats(self) -> int:
        return min(self._plan.checks.repeats, self._plan.per_rater)

    def _obvious(self, number: int, index: int, turned: bool) -> Shown:
        checks = self._items.checks
        item = checks[(number * self._plan.checks.obvious + index) % len(checks)]
        sides = (SPOILED, item.checks) if turned else (item.checks, SPOILED)
        return Shown("obvious", item.key, *sides)

    def _extend(self) -> None:
        """Add every cell once more, in a new order."""
        done, size = len(self._sequence), self._plan.per_rater
        # What the block that is cut in two has seen already.
        seen = self._tail[len(self._tail) - done % size :] if done % size else []
        rng = np.random.default_rng([self._plan.seed, done])
        orders = [self._order(rng) for _ in range(_TRIES if seen else 1)]
        order = min(orders, key=lambda cells: _conflicts(seen, cells[: size - len(seen)]))
        lefts: Counter[int] = Counter()
        for place, cell in enumerate(order, start=done):
            if place % size == 0:
                lefts = Counter()
            self._sequence.append(self._sided(cell, lefts, rng))
        self._tail = order

    def _order(self, rng: np.random.Generator) -> list[Cell]:
        """Every cell once, along diagonals: neighbours share neither item nor pair."""
        items, pairs = len(self._items.items), len(self._pairs)
        period = math.lcm(items, pairs)
        named = rng.permutation(items)
        methods = rng.permutation(len(self._items.methods))
        start = int(rng.integers(pairs))
        place = {frozenset(pair): index for index, pair in enumerate(self._pairs)}
        # Methods exchange their parts in the tournament; its rounds stay rounds.
        renamed = [
            place[frozenset((int(methods[one]), int(methods[two])))] for one, two in self._pairs
        ]
        return [
            (int(named[index % items]), renamed[(index + index // period + start) % pairs])
            for index in range(items * pairs)
        ]

    def _sided(self, cell: Cell, lefts: Counter[int], rng: np.random.Generator) -> Shown:
        """The cell with its sides: the other way round at every second time, else as it suits the
        block's balance; `lefts` is how much more often each method was left than right there."""
        one, two = self._pairs[cell[1]]
        if cell in self._turned:
            turned = not self._turned.pop(cell)
        else:
            lead = lefts[one] - lefts[two]
            turned = lead > 0 or (lead == 0 and bool(rng.integers(2)))
            self._turned[cell] = turned
        left, right = (two, one) if turned else (one, two)
        lefts[left] += 1
        lefts[right] -= 1
        methods, item = self._items.methods, self._items.items[cell[0]]
        return Shown("pair", item.key, methods[left], methods[right])


def round_robin(count: int) -> list[tuple[int, int]]:
    """All pairs of `count` players in the order of a tournament: in a round everybody plays once
    (the circle method; one rests if `count` is odd)."""
    players: list[int | None] = [*range(count), *([None] if count % 2 else [])]
    pairs = []
    for _ in range(len(players) - 1):
        half = len(players) // 2
        for one, two in zip(players[:half], reversed(players[half:]), strict=True):
            if one is not None and two is not None:
                pairs.append((one, two))
        players.insert(1, players.pop())
    return pairs


def _conflicts(seen: list[Cell], new: list[Cell]) -> int:
    """How badly `new` would go on with a block that has `seen`."""
    items = Counter(item for item, _ in seen)
    pairs = Counter(pair for _, pair in seen)
    return sum(
        _CELL_COST * (cell in seen) + _ITEM_COST * items[cell[0]] + _PAIR_COST * pairs[cell[1]]
        for cell in new
    )
