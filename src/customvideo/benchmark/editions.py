"""Editions of CustomStudio: whom a benchmark shows, together with whom, asked for by which prompts.

An edition is a manifest and a place its photos come from. The built-in ones are rows of
`EDITIONS`; any folder of subject folders is one, too, and so is a `concepts_list` file. It is NOT
a runner: who is trained on what, and how results are scored, is decided elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Protocol, cast

from customvideo.benchmark import folder as folders
from customvideo.benchmark.concepts import read_concepts
from customvideo.benchmark.manifest import (
    MANIFEST,
    CombinationEntry,
    Manifest,
    SubjectEntry,
    parse_manifest,
    read_json_text,
)
from customvideo.errors import BenchmarkError, PromptError
from customvideo.files import expanded, is_dir, is_file
from customvideo.records import parse_toml
from customvideo.settings import suggest
from customvideo.subjects.folders import SubjectSpec, load_subjects
from customvideo.subjects.masks import Segmenter
from customvideo.subjects.prompt import list_subjects
from customvideo.subjects.subject import Subject
from customvideo.tables import all_rows, import_target
from customvideo.video import Video

__all__ = [
    "EDITIONS",
    "STANDARD_PROMPTS",
    "Combination",
    "Edition",
    "EditionSource",
    "OwnFolder",
    "load_edition",
    "open_source",
]

EDITIONS = {
    "photos": "customvideo.benchmark.photos:load",
    "toybox": "customvideo.toybox.edition:load",
    "toybox-development": "customvideo.toybox.edition:load_development",
}
"""Built-in editions; each row makes an `EditionSource`."""

STANDARD_PROMPTS = (
    "{subjects} walking on the beach",
    "{subjects} running in the forest",
    "{subjects} jumping in the snow",
    "{subjects} spinning on a wooden floor",
    "{subjects} walking in the city at night",
)
"""What is asked of a folder's subjects when its owner asks nothing; the toybox knows all words."""

_ENTRY_POINTS = "customvideo.editions"
_MOST = 200
"""Subjects that all pairs are made of, which are 19,900 then."""


class EditionSource(Protocol):
    """Where an edition comes from: its manifest, its photos and, perhaps, the truth."""

    @property
    def default_backbone(self) -> str | None:
        """The backbone the edition is made for, if it is made for one."""

    @property
    def seal(self) -> str:
        """Changes with everything that decides results and that the manifest does not show."""

    @property
    def home(self) -> Path:
        """The folder of subject folders where the photos are kept unless somebody says where."""

    def manifest(self) -> str:
        """The manifest, as JSON."""

    def prepare(self, names: Sequence[str], root: Path) -> None:
        """See to it that `root` holds these subjects' folders, if that needs no network."""

    def footage(
        self, combination: str, prompt_index: int, seed: int, frames: int, size: tuple[int, int]
    ) -> Video | None:
        """A true video of the combination as the prompt asks; None where there is none."""


@dataclass(frozen=True)
class Combination:
    """Subjects to be shown together, and the prompts, in canonical form, that ask for it."""

    name: str
    subjects: tuple[str, ...]
    prompts: tuple[str, ...]

    @property
    def size(self) -> int:
        """How many subjects it has."""
        return len(self.subjects)


@dataclass(frozen=True, eq=False)
class Edition:
    """One edition of CustomStudio; no photo is touched before `load`.

    Attributes:
        name: what it is called.
        digest: SHA-256 of words, categories, photos (by checksum or address), combinations and
            prompts: the same digest, the same benchmark.
        combinations: pairs, triples and quadruples, in the manifest's order.
        manifest: everything else about it.
        source: where photos and truth come from.
        root: the folder of subject folders.
    """

    name: str
    digest: str
    combinations: tuple[Combination, ...]
    manifest: Manifest
    source: EditionSource
    root: Path

    @property
    def subjects(self) -> tuple[str, ...]:
        """All subjects' names, in the manifest's order."""
        return tuple(entry.name for entry in self.manifest.subjects)

    @property
    def default_backbone(self) -> str | None:
        """The backbone the edition is made for, if it is made for one."""
        return self.source.default_backbone

    def combination(self, name: str) -> Combination:
        """The combination called `name`; `rex+ida` finds `ida+rex`, too.

        Raises:
            BenchmarkError: there is none.
        """
        members = frozenset(name.split("+"))
        for one in self.combinations:
            if name == one.name or members == frozenset(one.subjects):
                return one
        known = [one.name for one in self.combinations]
        raise BenchmarkError(
            f"The edition '{self.name}' has no combination '{name}'{suggest(name, known)}"
        )

    def category(self, subject: str) -> str:
        """What the subject is; BenchmarkError if the edition has no such subject."""
        return self.manifest.subject(subject).category

    def same_category(self, combination: Combination) -> bool:
        """Whether all subjects of the combination are of one category, and so easily mixed up."""
        return len({self.category(name) for name in combination.subjects}) == 1

    def load(
        self,
        names: Sequence[str],
        known_nouns: Collection[str] = (),
        segmenter: str | Segmenter = "grabcut",
    ) -> list[Subject]:
        """Load these subjects, in this order, making the masks that are missing.

        Raises:
            BenchmarkError: no such subject, or its photos are missing or not those of the manifest.
            SubjectError, StorageError: a photo cannot be used, or drawn photos cannot be written.
        """
        entries = [self.manifest.subject(name) for name in names]
        self.source.prepare(names, self.root)
        sums = folders.read_checksums(self.root)
        for entry in entries:
            for problem in folders.file_problems(self.root, entry, sums):
                raise BenchmarkError(problem)
        specs = [SubjectSpec(one.name, self.root / one.place, one.category) for one in entries]
        return load_subjects(specs, segmenter, known_nouns)

    def footage(
        self,
        combination: Combination,
        prompt_index: int,
        seed: int,
        frames: int,
        size: tuple[int, int],
    ) -> Video | None:
        """A true video of the subjects as the prompt asks, the ceiling of every score.

        Frames (frame, height, width, 3) of `size` (height, width). None where the edition has no
        truth, as editions of photos have not.
        """
        return self.source.footage(combination.name, prompt_index, seed, frames, size)


def load_edition(name_or_folder: str | Path, root: Path | None = None) -> Edition:
    """Find an edition by its name in `EDITIONS`, or as a folder or a JSON file of one's own.

    `root` is the folder a built-in edition's photos are in, None for the user's cache folder.
    Anything with a `/` in it is a folder, so `./toybox` is not the built-in edition.

    Raises:
        BenchmarkError: there is none, or its manifest is wrong.
    """
    source = open_source(name_or_folder)
    found = parse_manifest(source.manifest(), str(name_or_folder))
    problems = found.problems() if isinstance(found, Manifest) else found
    if problems or not isinstance(found, Manifest):
        more = len(problems) - 1
        rest = f" (and {more} more: 'customvideo bench check {name_or_folder}')" if more else ""
        raise BenchmarkError(problems[0].rstrip(".") + rest + ".")
    home = root or source.home
    own = folders.contents(home, found) if isinstance(source, OwnFolder) else {}
    digest = hashlib.sha256(f"{found.digest(own)} {source.seal}".encode()).hexdigest()
    together = tuple(
        Combination(one.label, one.subjects, one.prompts) for one in found.combinations
    )
    return Edition(found.name, digest, together, found, source, home)


def open_source(name_or_folder: str | Path) -> EditionSource:
    """Where the edition called or lying so comes from; its manifest is not read yet.

    Raises:
        BenchmarkError: there is no such edition or folder.
    """
    rows = all_rows(EDITIONS, _ENTRY_POINTS)
    if isinstance(name_or_folder, str) and name_or_folder in rows:
        return cast(EditionSource, import_target(rows[name_or_folder])())
    path = expanded(name_or_folder)
    if not (is_file(path) or is_dir(path)):
        raise BenchmarkError(
            f"There is no edition or folder '{name_or_folder}'"
            f"{suggest(str(name_or_folder), sorted(rows))}"
        )
    return OwnFolder(path)


@dataclass(frozen=True)
class OwnFolder:
    """The user's own edition: a folder of subject folders, or a JSON file beside them.

    A folder may hold a manifest; without one its edition is all pairs of its subjects, asked for
    by `STANDARD_PROMPTS`. A JSON file is a manifest or a `concepts_list`.
    """

    path: Path
    default_backbone: str | None = None
    seal: str = ""

    @property
    def home(self) -> Path:
        return self.path if self.path.is_dir() else self.path.parent

    def manifest(self) -> str:
        file = self.path / MANIFEST if self.path.is_dir() else self.path
        if not file.is_file():
            return _all_pairs(self.path.absolute().name, _found_in(self.path)).dump()
        text = read_json_text(file)
        if text.lstrip().startswith("["):
            return _all_pairs(file.stem, read_concepts(file)).dump()
        return text

    def prepare(self, names: Sequence[str], root: Path) -> None:
        """The photos are the user's: they are there, or they are not."""

    def footage(
        self, combination: str, prompt_index: int, seed: int, frames: int, size: tuple[int, int]
    ) -> Video | None:
        return None


def _all_pairs(name: str, subjects: Sequence[SubjectEntry]) -> Manifest:
    """The edition of all pairs of these subjects."""
    if len(subjects) > _MOST:
        raise BenchmarkError(
            f"'{name}' has {len(subjects)} subjects, too many to try all pairs of them; write a "
            f"'{MANIFEST}' with the combinations that you want."
        )
    pairs = []
    for pair in combinations(subjects, 2):
        try:
            listed = list_subjects([entry.word for entry in pair])
        except PromptError:
            # Told once, as a bad name, when the manifest is looked over.
            listed = ""
        prompts = tuple(text.format(subjects=listed) for text in STANDARD_PROMPTS)
        pairs.append(CombinationEntry(subjects=(pair[0].name, pair[1].name), prompts=prompts))
    return Manifest(name=name, version="1", subjects=tuple(subjects), combinations=tuple(pairs))


def _found_in(folder: Path) -> list[SubjectEntry]:
    """The subjects of a folder of subject folders."""
    inside = sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    if not inside:
        raise BenchmarkError(
            f"'{folder}' holds no subject; put each subject's photos into a folder of its own "
            f"there, or add a '{MANIFEST}'."
        )
    return [_told(path) for path in inside]


def _told(folder: Path) -> SubjectEntry:
    """What the folder's `subject.toml` says, and its own name."""
    path = folder / "subject.toml"
    try:
        told = parse_toml(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"'{path}' cannot be read as TOML: {error}; correct it.") from error
    name = str(told.get("word", folder.name)).removeprefix("<").removesuffix(">")
    place = "" if name == folder.name else folder.name
    return SubjectEntry(name=name, category=str(told.get("category", "")), folder=place)
