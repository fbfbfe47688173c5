"""CustomStudio, toybox edition: the fixed subjects, groups and prompts of the benchmark.

63 named individuals in 13 categories, 68 pairs, 8 triples and 4 quadruples with prompts, all a pure
function of one seed; and their reference photos, written as any user would have them. The pictures
are made here, the scores are not: a benchmark runner reads this and everything else stays ordinary.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from customvideo.errors import UserError
from customvideo.files import ensure_dir, write_bytes, write_text
from customvideo.toybox.captions import PLACE_PHRASES, noun, verb
from customvideo.toybox.render import render
from customvideo.toybox.world import (
    ACTIONS,
    ARMED,
    CATEGORIES,
    PLACES,
    VEHICLES,
    Individual,
    World,
    sample_individual,
    sample_world,
)

Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.float32]
Look = tuple[str, frozenset[str], str, str]
"""Category, both main colours in either order, pattern, accessory: what makes two look alike."""

SEED = 63
SUBJECTS, PAIRS, TRIPLES, QUADRUPLES = 63, 68, 8, 4
SAME_CATEGORY_PAIRS = 14
PROMPTS = 8
# Actions a photo shows: a toy upside down or mid-turn is no reference.
_PHOTO_ACTIONS = ("walk", "wave", "run", "walk", "jump")
# Headings of successive photos: both sides, both three-quarter views, one from the front.
_PHOTO_HEADINGS = (-0.75, np.pi + 0.75, -0.2, -1.3, np.pi + 0.35)
_NAMES = """
    tom rex mia leo zoe max ben ivy sam kai ada gus ned pip amy bob tia lou fay hal
    ida jax kit lea moe nia oli pia ron sia ted uma vic wes yan zac abe bea cy dot
    eli flo gil hob ike jan ken liv mel noa oz pam quinn roy sol tess una val wim xena
    yuri zed milo
"""


@dataclass(frozen=True)
class StudioSubject:
    """One named toy."""

    name: str
    individual: Individual

    @property
    def category(self) -> str:
        return self.individual.category

    @property
    def phrase(self) -> str:
        """How prompts mention it: `<tom> cat`."""
        return f"<{self.name}> {noun(self.category)}"


@dataclass(frozen=True)
class StudioPrompt:
    """A prompt in canonical form, and what it asks for."""

    text: str
    place: str
    action: str


@dataclass(frozen=True)
class Group:
    """Subjects to be shown together, by name, and the prompts that ask for it."""

    names: tuple[str, ...]
    prompts: tuple[StudioPrompt, ...]


@dataclass(frozen=True)
class Studio:
    """The whole benchmark."""

    subjects: tuple[StudioSubject, ...]
    pairs: tuple[Group, ...]
    triples: tuple[Group, ...]
    quadruples: tuple[Group, ...]

    def subject(self, name: str) -> StudioSubject:
        """The subject called `name`.

        Raises:
            UserError: nobody has this name.
        """
        for subject in self.subjects:
            if subject.name == name:
                return subject
        known = ", ".join(sorted(subject.name for subject in self.subjects))
        raise UserError(f"The toybox has no subject called '{name}'; it has {known}.")


def look(individual: Individual) -> Look:
    """What somebody sees who does not measure."""
    colours = frozenset({individual.main, individual.second})
    return (individual.category, colours, individual.pattern, individual.accessory)


def _distinct(others: Sequence[Individual]) -> Callable[[Individual], bool]:
    """Accepts who differs from `others` of its category in colours and in pattern or accessory."""

    def accepts(one: Individual) -> bool:
        return all(
            not {one.main, one.second} & {other.main, other.second}
            and (one.pattern, one.accessory) != (other.pattern, other.accessory)
            for other in others
        )

    return accepts


def _draw_subjects(rng: np.random.Generator) -> tuple[StudioSubject, ...]:
    pool = _NAMES.split()
    names = [pool[int(i)] for i in rng.permutation(SUBJECTS)]
    taken: dict[str, list[Individual]] = {category: [] for category in CATEGORIES}
    found = []
    for index, name in enumerate(names):
        category = CATEGORIES[index % len(CATEGORIES)]
        individual = sample_individual(rng, category, _distinct(taken[category]))
        taken[category].append(individual)
        found.append(StudioSubject(name, individual))
    return tuple(found)


def group_verb(categories: Iterable[str], action: str) -> str:
    """One participle for several categories; an animal's word where a vehicle's would differ."""
    ordered = sorted(categories, key=lambda name: (name in VEHICLES, name not in ARMED))
    return verb(ordered[0], action)


def _prompts(
    rng: np.random.Generator, members: Sequence[StudioSubject]
) -> tuple[StudioPrompt, ...]:
    """Prompts over places and actions, no place twice, the subjects in changing order."""
    places = [PLACES[int(i)] for i in rng.permutation(len(PLACES))[:PROMPTS]]
    start = int(rng.integers(len(ACTIONS)))
    made = []
    for index, place in enumerate(places):
        action = ACTIONS[(start + index) % len(ACTIONS)]
        order = [members[int(i)] for i in rng.permutation(len(members))]
        phrases = [f"a {subject.phrase}" for subject in order]
        listed = ", ".join(phrases[:-1]) + " and " + phrases[-1]
        doing = group_verb((subject.category for subject in order), action)
        text = f"{listed} {doing} {PLACE_PHRASES[place][0]}"
        made.append(StudioPrompt(text, place, action))
    return tuple(made)


class _Dealer:
    """Forms groups so that every subject is used about equally often and no group twice."""

    def __init__(self, rng: np.random.Generator, subjects: Sequence[StudioSubject]) -> None:
        self.rng = rng
        self.subjects = subjects
        self.uses = dict.fromkeys((subject.name for subject in subjects), 0)
        self.seen: set[frozenset[str]] = set()

    def deal(self, size: int, category: str | None) -> Group:
        """One new group: all of `category`, or of `size` different categories."""
        while True:
            members = self._draw(size, category)
            key = frozenset(subject.name for subject in members)
            if key not in self.seen:
                break
        self.seen.add(key)
        for name in key:
            self.uses[name] += 1
        names = tuple(subject.name for subject in members)
        return Group(names, _prompts(self.rng, members))

    def _draw(self, size: int, category: str | None) -> list[StudioSubject]:
        """The least used first, ties and a few upsets by chance."""
        tickets = self.rng.uniform(0, 1.2, len(self.subjects))
        ranked = sorted(
            zip(tickets, self.subjects, strict=True), key=lambda t: t[0] + self.uses[t[1].name]
        )
        chosen: list[StudioSubject] = []
        for _, subject in ranked:
            used = {member.category for member in chosen}
            fits = subject.category == category if category else subject.category not in used
            if fits and len(chosen) < size:
                chosen.append(subject)
        return chosen


@lru_cache(maxsize=1)
def studio() -> Studio:
    """The benchmark, the same at every call and on every machine."""
    rng = np.random.default_rng(SEED)
    subjects = _draw_subjects(rng)
    dealer = _Dealer(rng, subjects)
    alike = [CATEGORIES[index % len(CATEGORIES)] for index in range(SAME_CATEGORY_PAIRS)]
    kinds = [*alike, *([None] * (PAIRS - SAME_CATEGORY_PAIRS))]
    pairs = tuple(dealer.deal(2, kind) for kind in kinds)
    triples = tuple(dealer.deal(3, "cat" if k == 0 else None) for k in range(TRIPLES))
    quadruples = tuple(dealer.deal(4, "dog" if k == 0 else None) for k in range(QUADRUPLES))
    return Studio(subjects, pairs, triples, quadruples)


@lru_cache(maxsize=1)
def _looks() -> frozenset[Look]:
    return frozenset(look(subject.individual) for subject in studio().subjects)


def held_out(individual: Individual) -> bool:
    """Whether a toy has the category, main colours, pattern and accessory of one of the 63."""
    return look(individual) in _looks()


def _photo_world(individual: Individual, rng: np.random.Generator, index: int, place: str) -> World:
    """One toy alone; the heading follows a list so that the photos show it from all sides."""
    action = _PHOTO_ACTIONS[index % len(_PHOTO_ACTIONS)]
    world = sample_world(rng, individuals=[individual], place=place, action=action)
    heading = _PHOTO_HEADINGS[index % len(_PHOTO_HEADINGS)] + rng.uniform(-0.15, 0.15)
    fields = {**vars(world), "headings": (float(heading),)}
    return World(**fields)


def reference_photos(
    individual: Individual, name: str, count: int = 5, height: int = 240, width: int = 384
) -> list[tuple[Picture, Mask]]:
    """Photos of one toy in different places, views and light; the name seeds them.

    Each is an image (height, width, 3) uint8 and its mask (height, width) float32 of 0 and 1.
    """
    rng = np.random.default_rng([SEED, *name.encode()])
    places = [PLACES[int(i)] for i in rng.permutation(len(PLACES))]
    photos = []
    for index in range(count):
        world = _photo_world(individual, rng, index, places[index % len(places)])
        clip = render(world, frames=1, height=height, width=width)
        photos.append((clip.frames[0].numpy(), clip.masks[0, 0].numpy().astype(np.float32)))
    return photos


def write_subject(
    folder: Path | str,
    individual: Individual,
    name: str,
    count: int = 5,
    masks: bool = False,
) -> Path:
    """Write photos `1.png` … and `subject.toml` as an ordinary user would keep them.

    With `masks`, also `masks/1.png` … (white = subject). Returns the folder.

    Raises:
        StorageError: the folder cannot be written.
    """
    folder = ensure_dir(folder)
    for index, (image, mask) in enumerate(reference_photos(individual, name, count), start=1):
        write_bytes(folder / f"{index}.png", _png(image))
        if masks:
            write_bytes(folder / "masks" / f"{index}.png", _png((255 * mask).astype(np.uint8)))
    settings = f'word = "{name}"\ncategory = "{noun(individual.category)}"\n'
    write_text(folder / "subject.toml", settings)
    return folder


def _png(picture: npt.NDArray[np.uint8]) -> bytes:
    """A PNG of RGB or grey pixels."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, format="PNG")
    return data.getvalue()
