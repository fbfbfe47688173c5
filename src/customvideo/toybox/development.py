"""Pairs to tune on: apart from CustomStudio's, so that its figures stay unseen until the end.

Twelve individuals in six pairs, two of them of one category. Nobody of them looks like one of the
63, like a named individual, or like each other, and no training scene shows a look-alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from functools import lru_cache

import numpy as np

from customvideo.toybox.customstudio import Look, StudioSubject, held_out, look
from customvideo.toybox.names import named_individuals
from customvideo.toybox.world import Individual, sample_individual

__all__ = ["development_pairs", "for_development"]

_SEED = 612
_NAMES = (
    "ash",
    "blu",
    "cleo",
    "dax",
    "enzo",
    "fern",
    "gigi",
    "hugo",
    "indy",
    "jojo",
    "kiki",
    "lux",
)
_CATEGORIES = (
    ("cat", "dog"),
    ("rabbit", "robot"),
    ("horse", "car"),
    ("elephant", "duck"),
    ("bear", "bear"),
    ("dog", "dog"),
)


@lru_cache(maxsize=1)
def development_pairs() -> tuple[tuple[StudioSubject, StudioSubject], ...]:
    """The six pairs, the same at every call; the last two are of one category."""
    rng = np.random.default_rng(_SEED)
    taken = {look(one) for one in named_individuals().values()}
    names, pairs = iter(_NAMES), []
    for categories in _CATEGORIES:
        found: list[Individual] = []
        for category in categories:
            one = sample_individual(rng, category, _accepts(taken, found))
            taken.add(look(one))
            found.append(one)
        first, second = (StudioSubject(next(names), one) for one in found)
        pairs.append((first, second))
    return tuple(pairs)


def _accepts(taken: Set[Look], partners: Sequence[Individual]) -> Callable[[Individual], bool]:
    """Accepts who is nobody's look-alike and shares no main colour with `partners`."""
    colours = {colour for one in partners for colour in (one.main, one.second)}

    def accepts(one: Individual) -> bool:
        known = held_out(one) or look(one) in taken
        return not known and not {one.main, one.second} & colours

    return accepts


@lru_cache(maxsize=1)
def _looks() -> frozenset[Look]:
    return frozenset(look(one.individual) for pair in development_pairs() for one in pair)


def for_development(individual: Individual) -> bool:
    """Whether a toy is the look-alike of one of these twelve."""
    return look(individual) in _looks()
