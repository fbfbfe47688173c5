"""The toybox's language: a caption for every world, from every part named down to bare nouns.

Only text is made here; what a word means is decided by `world`, `bodies` and `places`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from customvideo.toybox.world import (
    ACCESSORIES,
    ACTIONS,
    ARMED,
    CATEGORIES,
    COLOURS,
    VEHICLES,
    Individual,
    World,
)

DETAILS = ("full", "colours", "short", "bare")
MAX_WORDS = 40  # words and commas of one caption: a text encoder reads few more
_DETAIL_WEIGHTS = (0.35, 0.2, 0.15, 0.3)
_OMISSION_RATE = 0.05
_RELATION_RATE = 0.4

CATEGORY_NOUNS = {category: category for category in CATEGORIES}
PLURALS = {category: category + "s" for category in CATEGORIES}
_NUMBERS = ("no", "one", "two", "three", "four")
PATTERN_NOUNS = {"stripes": "stripes", "spots": "spots", "patches": "patches"}
PLACE_PHRASES: dict[str, tuple[str, ...]] = {
    "beach": ("on the beach",),
    "meadow": ("on the grass", "in the meadow"),
    "snow": ("in the snow",),
    "desert": ("in the desert",),
    "street": ("on a street at night", "in the city at night"),
    "carpet": ("on a red carpet",),
    "ice": ("on the ice", "on a frozen lake"),
    "floor": ("on a wooden floor", "in a room"),
    "moon": ("on the moon",),
    "forest": ("in the forest",),
}
_VERBS = {
    "walk": "walking",
    "run": "running",
    "jump": "jumping",
    "spin": "spinning",
    "wave": "waving",
    "roll": "rolling",
}
# Nouns of the slots head, limbs, trim (see `world.SLOTS`) of each category.
_SLOT_NOUNS: dict[str, tuple[str, str, str]] = {
    "cat": ("a head", "legs", "a tail"),
    "dog": ("a head", "legs", "ears"),
    "pig": ("a head", "legs", "a nose"),
    "horse": ("a head", "legs", "a mane"),
    "bear": ("a head", "legs", "a belly"),
    "rabbit": ("a head", "legs", "a tail"),
    "elephant": ("a head", "legs", "ears"),
    "duck": ("a head", "a neck", "wings"),
    "dinosaur": ("a head", "legs", "spikes"),
    "robot": ("a head", "legs", "an antenna"),
    "car": ("a roof", "wheels", "a spoiler"),
    "train": ("a cab", "wheels", "a chimney"),
    "teapot": ("a lid", "a spout", "a handle"),
}


# Characters no caption holds: where a phrase begins, whom it is about, where it ends.
_OPEN, _CLOSE = "\ue000", "\ue001"
_MARKED = re.compile(f"{_OPEN}(\\d+);|{_CLOSE}")


@dataclass(frozen=True)
class Mention:
    """Where a caption speaks of subjects: characters `start` to `stop`, the end not included."""

    subjects: tuple[int, ...]
    start: int
    stop: int


@dataclass
class _Phrase:
    """One subject being described: the words before the noun, the noun, the clauses after it."""

    noun: str
    colour: str = ""
    token: str = ""
    features: list[str] = field(default_factory=list)
    accessory: str = ""

    @property
    def text(self) -> str:
        head = " ".join(word for word in (self.colour, self.token, self.noun) if word)
        text = _article(head)
        if self.features:
            text += " with " + _join(self.features)
        return text + (" wearing " + self.accessory if self.accessory else "")

    def shorten(self) -> bool:
        """Drop the least telling clause; False when nothing is left to drop."""
        if len(self.features) > 1:
            self.features.pop()
        elif self.accessory:
            self.accessory = ""
        elif self.features:
            self.features.pop()
        else:
            return False
        return True


def noun(category: str) -> str:
    """The word captions use for a category."""
    return CATEGORY_NOUNS[category]


def _article(words: str) -> str:
    return ("an " if words.startswith(("a", "e", "i", "o", "u")) else "a ") + words


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _coloured(colour: str, slot: str) -> str:
    """'white' and 'a tail' give 'a white tail'; 'white' and 'legs' give 'white legs'."""
    article, _, rest = slot.partition(" ")
    return _article(f"{colour} {rest}") if rest else f"{colour} {article}"


def _features(individual: Individual) -> list[str]:
    """Everything that differs from a plain body, as noun phrases."""
    found = []
    if individual.pattern != "plain":
        found.append(f"{individual.pattern_colour} {PATTERN_NOUNS[individual.pattern]}")
    body, *others = individual.colours
    for colour, slot in zip(others, _SLOT_NOUNS[individual.category], strict=True):
        if colour != body:
            found.append(_coloured(colour, slot))
    return found


def _worn(individual: Individual, coloured: bool) -> str:
    kind = individual.accessory
    if kind == "none":
        return ""
    if kind == "glasses":
        return f"{individual.accessory_colour} glasses" if coloured else "glasses"
    return _article(f"{individual.accessory_colour} {kind}" if coloured else kind)


def _describe(individual: Individual, detail: str, rng: np.random.Generator, token: str) -> _Phrase:
    phrase = _Phrase(noun(individual.category), token=token)
    if detail == "bare":
        return phrase
    phrase.colour = individual.colours[0]
    features, worn = _features(individual), _worn(individual, rng.random() < 0.8)
    if detail == "full":
        phrase.features, phrase.accessory = features, worn
    elif detail == "colours":
        clauses = [*features, *([worn] if worn else [])]
        if clauses:
            chosen = clauses[int(rng.integers(len(clauses)))]
            phrase.accessory = chosen if chosen is worn else ""
            phrase.features = [] if chosen is worn else [chosen]
    return phrase


def verb(category: str, action: str) -> str:
    """The participle for what a category does: a car drives where a cat walks."""
    if category in VEHICLES and action in ("walk", "roll"):
        return "driving"
    if category in VEHICLES and action == "run":
        return "racing"
    return "nodding" if action == "wave" and category not in ARMED else _VERBS[action]


def _group_verb(world: World, rng: np.random.Generator) -> str:
    """One participle for all, or '' where they are better named one by one."""
    if len(set(world.actions)) > 1:
        return ""
    verbs = sorted({verb(i.category, world.actions[0]) for i in world.individuals})
    if len(verbs) > 1 and rng.random() < 0.5:
        return ""
    return verbs[int(rng.integers(len(verbs)))]


def _counted(world: World) -> str:
    """'two cats'."""
    return f"{_NUMBERS[len(world.individuals)]} {PLURALS[world.individuals[0].category]}"


def _ahead(world: World) -> int:
    """Index of the one in front when all head the same way."""
    return world.order[-1] if np.cos(world.headings[0]) > 0 else world.order[0]


def _row(world: World, rng: np.random.Generator, phrases: list[str], action: str) -> str:
    """'a cat running behind a dog', or 'in a row' for more than two."""
    if len(phrases) > 2:
        return f"{_join(phrases)} {action} in a row"
    first = _ahead(world)
    leader, follower = phrases[first], phrases[1 - first]
    if rng.random() < 0.5:
        return f"{follower} {action} behind {leader}"
    return f"{leader} {action} ahead of {follower}"


def _related(world: World, rng: np.random.Generator, phrases: list[str], action: str) -> str:
    """The subjects, what they do, and how they stand to each other."""
    if world.relation == "following":
        return _row(world, rng, phrases, action)
    shuffled = [phrases[int(i)] for i in rng.permutation(len(phrases))]
    if world.relation == "facing":
        return f"{_join(shuffled)} facing each other and {action}"
    if len(phrases) == 2 and rng.random() < 0.5:
        return f"{shuffled[0]} {action} next to {shuffled[1]}"
    return f"{_join(shuffled)} {action} side by side"


def _clause(world: World, rng: np.random.Generator, phrases: list[str], plural: str) -> str:
    """Subjects and actions, in random order of the subjects."""
    shared = _group_verb(world, rng)
    if shared and len(phrases) > 1 and not plural and rng.random() < _RELATION_RATE:
        return _related(world, rng, phrases, shared)
    order = [int(i) for i in rng.permutation(len(phrases))]
    if rng.random() < _OMISSION_RATE:
        return plural or _join([phrases[i] for i in order])
    if shared:
        return f"{plural or _join([phrases[i] for i in order])} {shared}"
    each = [verb(i.category, a) for i, a in zip(world.individuals, world.actions, strict=True)]
    return _join([f"{phrases[i]} {each[i]}" for i in order])


def _count(text: str) -> int:
    return len(text.replace(",", " ,").split())


def caption(
    world: World,
    rng: np.random.Generator,
    detail: str | None = None,
    names: Mapping[int, str] | None = None,
) -> str:
    """Describe a world in at most `MAX_WORDS` words and commas.

    `detail` is one of `DETAILS`, or None for a mix of them; the order of the subjects is random
    and says nothing about sides. `names` gives a token to write before an individual's noun.
    """
    return grounded_caption(world, rng, detail, names)[0]


def grounded_caption(
    world: World,
    rng: np.random.Generator,
    detail: str | None = None,
    names: Mapping[int, str] | None = None,
) -> tuple[str, list[Mention]]:
    """`caption`, and which of its words are about which subjects; "two cats" is about both."""
    level = detail or DETAILS[int(rng.choice(len(DETAILS), p=_DETAIL_WEIGHTS))]
    tokens = names or {}
    described = [
        _describe(individual, level, rng, tokens.get(index, ""))
        for index, individual in enumerate(world.individuals)
    ]
    categories = {individual.category for individual in world.individuals}
    countable = level == "bare" and not tokens and len(categories) == 1 and len(described) > 1
    plural = _counted(world) if countable and rng.random() < 0.6 else ""
    plural = plural and _mark(range(len(described)), plural)
    phrases = PLACE_PHRASES[world.place]
    main = len(phrases) == 1 or rng.random() < 0.7
    where = "" if rng.random() < _OMISSION_RATE else " " + phrases[0 if main else 1]
    budget = MAX_WORDS - 12
    while sum(_count(phrase.text) + 1 for phrase in described) > budget:
        longest = max(described, key=lambda phrase: _count(phrase.text))
        if not longest.shorten():
            break
    marked = [_mark([index], phrase.text) for index, phrase in enumerate(described)]
    return _unmark(_clause(world, rng, marked, plural) + where)


def _mark(subjects: Iterable[int], phrase: str) -> str:
    return f"{_OPEN}{''.join(map(str, subjects))};{phrase}{_CLOSE}"


def _unmark(text: str) -> tuple[str, list[Mention]]:
    """The text without its marks, and where they were."""
    plain, mentions, read, opened = "", [], 0, (0, "")
    for mark in _MARKED.finditer(text):
        plain += text[read : mark.start()]
        read = mark.end()
        if mark[1]:
            opened = len(plain), mark[1]
        else:
            mentions.append(Mention(tuple(map(int, opened[1])), opened[0], len(plain)))
    return plain + text[read:], mentions


def vocabulary() -> list[str]:
    """Every word a caption can hold (without tokens given by `names`), sorted."""
    sources = [*CATEGORY_NOUNS.values(), *PLURALS.values(), *_NUMBERS[2:], *COLOURS]
    sources += [*PATTERN_NOUNS.values(), *ACCESSORIES[1:]]
    sources += [phrase for phrases in PLACE_PHRASES.values() for phrase in phrases]
    sources += [verb(category, action) for category in CATEGORIES for action in ACTIONS]
    sources += [slot for slots in _SLOT_NOUNS.values() for slot in slots]
    sources += ["a an and with wearing facing each other next to side by behind ahead of in row"]
    return sorted({word for source in sources for word in source.split()})
