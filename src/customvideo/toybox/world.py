"""What exists in the toybox and how one clip of it is drawn at random.

Holds plain data only: an `Individual` is one toy, a `World` is one clip to be rendered.
It is not the renderer (`render`), not the anatomy (`bodies`), not the language (`captions`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

CATEGORIES = (
    "cat",
    "dog",
    "pig",
    "horse",
    "bear",
    "rabbit",
    "elephant",
    "duck",
    "dinosaur",
    "robot",
    "car",
    "train",
    "teapot",
)
VEHICLES = frozenset({"car", "train"})
ARMED = frozenset({"bear", "rabbit", "duck", "dinosaur", "robot"})
PLACES = (
    "beach",
    "meadow",
    "snow",
    "desert",
    "street",
    "carpet",
    "ice",
    "floor",
    "moon",
    "forest",
)
ACTIONS = ("walk", "run", "jump", "spin", "wave", "roll")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 34, 38),
    "orange": (246, 132, 24),
    "yellow": (252, 212, 40),
    "lime": (158, 222, 44),
    "green": (24, 128, 56),
    "cyan": (52, 206, 214),
    "blue": (38, 84, 222),
    "purple": (126, 50, 182),
    "pink": (250, 138, 180),
    "brown": (122, 72, 34),
    "beige": (232, 202, 154),
    "gray": (140, 144, 150),
    "black": (34, 34, 40),
    "white": (246, 246, 244),
}
PATTERNS = ("plain", "stripes", "spots", "patches")
ACCESSORIES = ("none", "hat", "scarf", "glasses", "backpack")
RELATIONS = ("beside", "facing", "following")

PROPORTIONS = ("length", "girth", "head", "legs", "trim", "snout")
SLOTS = ("body", "head", "limbs", "trim")
COUNT_WEIGHTS = (0.35, 0.40, 0.15, 0.10)
SAME_CATEGORY_RATE = 0.28
SHARED_ACTION_RATE = 0.85


@dataclass(frozen=True)
class Individual:
    """One toy.

    `proportions` holds one factor in [-1, 1] per name of `PROPORTIONS`; `colours` one colour
    name per name of `SLOTS`, drawn from `main`, `second` and at most one other colour.
    """

    category: str
    proportions: tuple[float, ...]
    main: str
    second: str
    colours: tuple[str, ...]
    pattern: str = "plain"
    pattern_colour: str = "white"
    accessory: str = "none"
    accessory_colour: str = "red"

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """Category, both main colours, pattern and accessory: what makes two look alike."""
        return (self.category, self.main, self.second, self.pattern, self.accessory)


@dataclass(frozen=True)
class View:
    """Camera and light of one clip; angles in radians, factors relative to the fitted camera."""

    azimuth: float
    elevation: float
    drift: float
    dolly: float
    zoom: float
    shift: tuple[float, float]
    sun_azimuth: float
    sun_height: float
    brightness: float
    texture: float


@dataclass(frozen=True)
class World:
    """One clip: who, where, doing what, seen how.

    `actions`, `headings` (radians, 0 faces right in the picture, negative towards the camera)
    and `phases` are per individual; `order` lists the individuals' indices from left to right.
    """

    individuals: tuple[Individual, ...]
    place: str
    actions: tuple[str, ...]
    relation: str
    order: tuple[int, ...]
    headings: tuple[float, ...]
    phases: tuple[float, ...]
    depths: tuple[float, ...]
    view: View


def _colour_slots(rng: np.random.Generator, main: str, second: str) -> tuple[str, ...]:
    """Colour per part: the body is `main`, at least one other slot is `second`."""
    others = [c for c in COLOURS if c not in (main, second)]
    third = _one(rng, others) if rng.random() < 0.3 else second
    head = main if rng.random() < 0.7 else second
    limbs = main if rng.random() < 0.5 else (third if rng.random() < 0.5 else second)
    trim = third if limbs == second or head == second else second
    return (main, head, limbs, trim)


def _one(rng: np.random.Generator, names: Sequence[str]) -> str:
    return names[int(rng.integers(len(names)))]


def _draw_individual(rng: np.random.Generator, category: str | None) -> Individual:
    names = tuple(COLOURS)
    first, other, mark, extra = (names[int(i)] for i in rng.permutation(len(names))[:4])
    pattern = PATTERNS[int(rng.choice(4, p=(0.4, 0.2, 0.2, 0.2)))]
    if pattern != "plain" and rng.random() < 0.4:
        mark = other
    accessory = ACCESSORIES[int(rng.choice(5, p=(0.4, 0.15, 0.15, 0.15, 0.15)))]
    return Individual(
        category=category or _one(rng, CATEGORIES),
        proportions=tuple(round(float(p), 3) for p in rng.uniform(-1, 1, len(PROPORTIONS))),
        main=first,
        second=other,
        colours=_colour_slots(rng, first, other),
        pattern=pattern,
        pattern_colour=mark,
        accessory=accessory,
        accessory_colour=extra,
    )


def sample_individual(
    rng: np.random.Generator,
    category: str | None = None,
    allowed: Callable[[Individual], bool] | None = None,
) -> Individual:
    """Draw one toy, again and again until `allowed` (if given) accepts it."""
    while True:
        individual = _draw_individual(rng, category)
        if allowed is None or allowed(individual):
            return individual


def sample_group(
    rng: np.random.Generator,
    count: int | None = None,
    same_category: bool | None = None,
    allowed: Callable[[Individual], bool] | None = None,
) -> tuple[Individual, ...]:
    """Draw 1 to 4 toys, all of one category or of as many categories as toys."""
    count = count or int(rng.choice(4, p=COUNT_WEIGHTS)) + 1
    if same_category is None:
        same_category = bool(rng.random() < SAME_CATEGORY_RATE)
    if same_category:
        categories = [_one(rng, CATEGORIES)] * count
    else:
        categories = [CATEGORIES[int(i)] for i in rng.permutation(len(CATEGORIES))[:count]]
    return tuple(sample_individual(rng, category, allowed) for category in categories)


def _sample_actions(rng: np.random.Generator, count: int, action: str | None) -> tuple[str, ...]:
    if action is not None:
        return (action,) * count
    if rng.random() < SHARED_ACTION_RATE:
        return (_one(rng, ACTIONS),) * count
    return tuple(_one(rng, ACTIONS) for _ in range(count))


def _lone_heading(rng: np.random.Generator) -> float:
    """Mostly three-quarter views; some frontal, a few turned slightly away."""
    kind = rng.random()
    if kind < 0.12:
        turn = rng.uniform(-1.5, -1.2)
    elif kind < 0.16:
        turn = rng.uniform(0.1, 0.35)
    else:
        turn = rng.uniform(-1.05, -0.15)
    return float(turn if rng.random() < 0.5 else np.pi - turn)


def _sample_headings(
    rng: np.random.Generator, relation: str, order: tuple[int, ...]
) -> tuple[float, ...]:
    """Headings per individual that show the relation."""
    count = len(order)
    headings = [0.0] * count
    flip = bool(rng.random() < 0.5)
    shared = rng.uniform(-1.0, -0.2) if relation == "beside" else rng.uniform(-0.5, -0.05)
    for rank, index in enumerate(order):
        if relation == "facing":
            turn, to_left = rng.uniform(-0.7, -0.1), 2 * rank >= count
        else:
            turn, to_left = shared + rng.uniform(-0.15, 0.15), flip
        headings[index] = float(np.pi - turn if to_left else turn)
    return tuple(headings)


def _sample_view(rng: np.random.Generator, count: int) -> View:
    side = 1 if rng.random() < 0.5 else -1
    lowest = 0.09 if count < 3 else 0.22
    return View(
        azimuth=float(rng.uniform(-0.25, 0.25)),
        elevation=float(rng.uniform(lowest, 0.33)),
        drift=float(rng.uniform(-0.12, 0.12)),
        dolly=float(rng.uniform(-0.06, 0.06)),
        zoom=float(rng.uniform(1.0, 1.1)),
        shift=(float(rng.uniform(-1, 1)), float(rng.uniform(-1, 1))),
        sun_azimuth=float(side * rng.uniform(0.25, 1.2)),
        sun_height=float(rng.uniform(0.65, 1.1)),
        brightness=float(rng.uniform(0.92, 1.06)),
        texture=float(rng.uniform(0, 100)),
    )


def sample_world(
    rng: np.random.Generator,
    count: int | None = None,
    individuals: Sequence[Individual] | None = None,
    place: str | None = None,
    action: str | None = None,
    same_category: bool | None = None,
) -> World:
    """Draw one clip; whatever is given is kept, the rest is random.

    A given `action` is shared by all. With `individuals`, `count` and `same_category` are unused.
    """
    group = tuple(individuals) if individuals else sample_group(rng, count, same_category)
    relation = "beside"
    if len(group) > 1:
        relation = RELATIONS[int(rng.choice(3, p=(0.5, 0.3, 0.2)))]
    order = tuple(int(i) for i in rng.permutation(len(group)))
    headings = (_lone_heading(rng),) if len(group) == 1 else _sample_headings(rng, relation, order)
    phases = rng.uniform(0, 1, len(group))
    return World(
        individuals=group,
        place=place or _one(rng, PLACES),
        actions=_sample_actions(rng, len(group), action),
        relation=relation,
        order=order,
        headings=headings,
        phases=tuple(float(p) for p in phases),
        depths=tuple(float(d) for d in rng.uniform(-0.2, 0.2, len(group))),
        view=_sample_view(rng, len(group)),
    )
