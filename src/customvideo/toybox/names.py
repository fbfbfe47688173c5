"""Named individuals: toys the base model knows by name.

A large model knows many named things, so a new word is one more point in a space it already has.
The toybox gets the same from these: 40 fixed individuals a category, each with a token of its own,
in three scenes of ten. They are NOT the benchmark's subjects, which no training scene shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import numpy as np

from customvideo.toybox.captions import vocabulary
from customvideo.toybox.customstudio import held_out, studio
from customvideo.toybox.world import CATEGORIES, Individual, sample_group, sample_individual

__all__ = ["PER_CATEGORY", "RATE", "name_of", "named_individuals", "names", "sample_cast"]

PER_CATEGORY = 40
RATE = 0.3
"""Share of scenes with a named individual."""
_SEED = 520
_CONSONANTS, _VOWELS = "bdfgjklmnprstvz", "aeiou"


@lru_cache(maxsize=1)
def named_individuals() -> dict[str, Individual]:
    """Name -> individual, 40 of each category; the same for ever."""
    rng = np.random.default_rng(_SEED)
    syllables = ["".join(pair) for pair in product(_CONSONANTS, _VOWELS)]
    taken = {*vocabulary(), *(subject.name for subject in studio().subjects)}
    spelled = ["".join(pair) for pair in product(syllables, syllables)]
    free = [name for name in spelled if name not in taken]
    order = [free[int(i)] for i in rng.permutation(len(free))]
    cast = [
        sample_individual(rng, category, allowed=lambda one: not held_out(one))
        for category in CATEGORIES
        for _ in range(PER_CATEGORY)
    ]
    return dict(zip(order, cast, strict=False))


@lru_cache(maxsize=1)
def _names() -> dict[Individual, str]:
    return {individual: name for name, individual in named_individuals().items()}


def names() -> list[str]:
    """All names, sorted: tokens the model's vocabulary holds."""
    return sorted(named_individuals())


def name_of(individual: Individual) -> str | None:
    """What `individual` is called, if it is one of them."""
    return _names().get(individual)


def sample_cast(rng: np.random.Generator) -> Sequence[Individual]:
    """1 to 4 individuals of one scene; with probability `RATE` some of them named ones.

    A named one stands in for a drawn individual of its category, so that neither the number of
    subjects nor their categories tell whether there is one.
    """
    group = list(sample_group(rng))
    if rng.random() >= RATE:
        return group
    certain = int(rng.integers(len(group)))
    by_category: dict[str, list[Individual]] = {}
    for one in named_individuals().values():
        by_category.setdefault(one.category, []).append(one)
    for index, individual in enumerate(group):
        if index == certain or rng.random() < 0.5:
            known = by_category[individual.category]
            group[index] = known[int(rng.integers(len(known)))]
    return group
