"""Everybody's videos side by side, found in a benchmark's folder and made ready for a page.

Of each subject set one prompt and one starting noise are shown, the first ones: nobody's scores
decide what is seen. Whatever is missing is left out. Nothing is generated here.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from customvideo.benchmark.board import Board
from customvideo.benchmark.editions import load_edition
from customvideo.benchmark.grid import Sample
from customvideo.benchmark.statistics import Unit
from customvideo.benchmark.store import JobFolder
from customvideo.errors import UserError
from customvideo.evaluation.measures import measure
from customvideo.records import parse_json
from customvideo.subjects.pictures import list_pictures, read_picture

__all__ = ["Card", "Film", "Gallery", "KeptJob", "Person", "Photos", "edition_photos", "kept_jobs"]

Photos = Callable[[str], Sequence[NDArray[np.uint8]]]
"""A subject's name -> photos, each (height, width, 3); none if there are none to be had."""

_JOBS, _JOB = "jobs", "job.json"
_MEGABYTE = 1_000_000
_MARKUP = 300
"""Characters that a page needs around a picture or a video, beyond those of a link, at most."""
_PHOTOS, _PHOTO_SIDE, _JPEG_QUALITY = 2, 200, 85
_KINDS = {".mp4": "video/mp4", ".gif": "image/gif", ".png": "image/png"}
_TOLD = {"dino_i_crop": "identity", "co_occurrence": "all there", "bleed": "mixed up"}
"""The scores to be read under a video, and what they are called there."""


@dataclass(frozen=True)
class Film:
    """A video on the page: `source` holds it, or `link` leads to it; `notes` are its scores."""

    label: str
    source: str = ""
    link: str = ""
    notes: tuple[str, ...] = ()

    @property
    def moves(self) -> bool:
        """Whether it is a film to a browser; a GIF is a picture there."""
        return self.source.startswith("data:video")


@dataclass(frozen=True)
class Person:
    """A subject and a few of its photos, ready to be shown; `left_out` more did not fit."""

    word: str
    category: str
    photos: tuple[str, ...]
    left_out: int = 0


@dataclass(frozen=True)
class Card:
    """One subject set: its photos, everybody's video of one prompt, links to all others.

    `more` is (prompt and seed in words, videos) for each other prompt and seed.
    """

    name: str
    group: str
    people: tuple[Person, ...]
    prompt: str
    seed: int
    films: tuple[Film, ...]
    attention: tuple[Film, ...]
    more: tuple[tuple[str, tuple[Film, ...]], ...]

    @property
    def left_out(self) -> tuple[int, int]:
        """How many of its videos (all but `more`) and photos did not fit into the page."""
        films = sum(bool(film.link) for film in (*self.films, *self.attention))
        return films, sum(one.left_out for one in self.people)


@dataclass(frozen=True)
class KeptJob:
    """What a page has to know of a job in a folder of results.

    `subjects` are (name, category), `samples` prompt and seed of each video asked for.
    """

    folder: JobFolder
    method: str
    combination: str
    subjects: tuple[tuple[str, str], ...]
    prompts: tuple[str, ...]
    samples: tuple[Sample, ...]


def kept_jobs(results: Path) -> list[KeptJob]:
    """All jobs that have a label, by their folders' names; what cannot be read is left out.

    Their recipes are not looked at: those of a later version are no hindrance to seeing videos.
    """
    jobs = []
    for path in sorted(results.glob(f"{_JOBS}/[!.]*/{_JOB}")):
        with suppress(OSError, ValueError, KeyError, TypeError, OverflowError):
            told = parse_json(path.read_text(encoding="utf-8"))
            job = KeptJob(
                JobFolder(path.parent),
                str(told["method"]),
                str(told["combination"]),
                tuple((str(one["name"]), str(one["category"])) for one in told["subjects"]),
                tuple(map(str, told["prompts"])),
                tuple((int(prompt), int(seed)) for prompt, seed in told["samples"]),
            )
            if job.method:
                jobs.append(job)
    return jobs


class Gallery:
    """The videos of a folder of results, for a page of at most `max_mb` megabytes."""

    def __init__(self, results: Path, photos: Photos, max_mb: float) -> None:
        self.max_mb = max_mb
        self._photos = photos
        self._jobs: dict[str, list[KeptJob]] = {}
        for job in kept_jobs(results):
            self._jobs.setdefault(job.combination, []).append(job)

    def cards(self, board: Board, start: Path, spent: float = 0) -> list[Card]:
        """A card for each subject set of `board` that has videos; links lead from `start`.

        They come by size, those of one category first, then by name. What the `spent` bytes of the
        rest of the page leave is spent in that order: on photos, on the methods, then on
        ablations, then on attention.
        """
        sets = [
            found
            for name, kind in _ordered(board)
            if (found := _Set(name, _group(*kind), self._jobs.get(name, ()), board)).samples
        ]
        budget = _Budget(self.max_mb * _MEGABYTE - spent)
        people = [[self._person(*who, budget) for who in one.subjects] for one in sets]
        for one in sets:
            budget.take(one.films[label].get(one.first) for label in board.methods)
            budget.take(one.films[label].get(one.first) for label in board.references)
        for one in sets:
            budget.take(one.films[label].get(one.first) for label in board.ablations)
        for one in sets:
            budget.take(one.attention)
        return [one.card(found, budget, start) for one, found in zip(sets, people, strict=True)]

    def _person(self, name: str, category: str, budget: _Budget) -> Person:
        pictures = [_thumbnail(image) for image in self._photos(name)[:_PHOTOS]]
        shown = tuple(picture for picture in pictures if budget.fits(len(picture)))
        return Person(f"<{name}>", category, shown, len(pictures) - len(shown))


def edition_photos(name: str) -> Photos:
    """The photos of the edition called or lying so; none where they are not at hand."""
    try:
        edition = load_edition(name)
    except UserError:
        return lambda _: ()

    @cache
    def photos(subject: str) -> Sequence[NDArray[np.uint8]]:
        try:
            edition.source.prepare([subject], edition.root)
            files = list_pictures(edition.root / edition.manifest.subject(subject).place)
            return [read_picture(file).image for file in files[:_PHOTOS]]
        except (UserError, OSError):
            return ()

    return photos


class _Budget:
    """What may still be put into the page, and what has been."""

    def __init__(self, left: float) -> None:
        self._left = left
        self._taken: set[Path] = set()

    def fits(self, size: int) -> bool:
        """Whether `size` characters and their markup may be put in; then they are counted."""
        if size + _MARKUP > self._left:
            return False
        self._left -= size + _MARKUP
        return True

    def take(self, paths: Iterable[Path | None]) -> None:
        """Reserve the place of these videos, as far as they fit."""
        for path in paths:
            if path is not None and self.fits(4 * path.stat().st_size // 3):
                self._taken.add(path)

    def film(self, label: str, path: Path, notes: tuple[str, ...], start: Path) -> Film:
        """The video, itself if it was reserved, else as a link from the folder `start`."""
        if path not in self._taken:
            return Film(label, "", _link(path, start), notes)
        body = base64.b64encode(path.read_bytes()).decode()
        return Film(label, f"data:{_KINDS[path.suffix.lower()]};base64,{body}", "", notes)


class _Set:
    """One subject set: who is in it, and where everybody's videos of it lie."""

    def __init__(self, name: str, group: str, jobs: Sequence[KeptJob], board: Board) -> None:
        self.name, self._group, self._board = name, group, board
        self.subjects = jobs[0].subjects if jobs else ()
        self._prompts = jobs[0].prompts if jobs else ()
        labels = [*board.methods, *board.references, *board.ablations]
        self.films: dict[str, dict[Sample, Path]] = {label: {} for label in labels}
        self._folders: dict[str, list[JobFolder]] = {label: [] for label in labels}
        for job in jobs:
            if job.method in self.films:
                self.films[job.method] |= _videos(job)
                self._folders[job.method].append(job.folder)

    @property
    def samples(self) -> list[Sample]:
        """Every prompt and seed that somebody's video shows."""
        return sorted({sample for films in self.films.values() for sample in films})

    @property
    def first(self) -> Sample:
        """The prompt and seed to show: the first of those that most have."""
        counts = {one: sum(one in films for films in self.films.values()) for one in self.samples}
        return max(counts, key=lambda one: counts[one])

    @property
    def attention(self) -> list[Path]:
        """Videos with attention drawn over them, of the method under test, if it keeps any."""
        prompt, seed = self.first
        folders = self._folders.get(self._board.ours, [])
        found = (folder.path.glob(f"attention/{prompt}-{seed}*") for folder in folders)
        return sorted(path for paths in found for path in paths if path.suffix.lower() in _KINDS)

    def card(self, people: Sequence[Person], budget: _Budget, start: Path) -> Card:
        """All of it, ready to be shown on a page in the folder `start`."""
        prompt, seed = self.first
        return Card(
            name=self.name,
            group=self._group,
            people=tuple(people),
            prompt=self._prompts[prompt],
            seed=seed,
            films=self._row((prompt, seed), budget, start),
            attention=tuple(
                budget.film(path.stem.removeprefix(f"{prompt}-{seed}").strip("-"), path, (), start)
                for path in self.attention
            ),
            more=tuple(
                (f"{self._prompts[sample[0]]}, seed {sample[1]}", self._row(sample, budget, start))
                for sample in self.samples
                if sample != (prompt, seed)
            ),
        )

    def _row(self, sample: Sample, budget: _Budget, start: Path) -> tuple[Film, ...]:
        return tuple(
            budget.film(label, films[sample], self._notes(label, sample), start)
            for label, films in self.films.items()
            if sample in films
        )

    def _notes(self, label: str, sample: Sample) -> tuple[str, ...]:
        """The video's scores, the telling ones."""
        unit = Unit(self.name, *sample)
        values = ((measure(name), self._board.scores(label, name).get(unit)) for name in _TOLD)
        return tuple(f"{_TOLD[m.name]} {m.format(v)}" for m, v in values if v is not None)


def _ordered(board: Board) -> list[tuple[str, tuple[int, bool]]]:
    """The subject sets' names, each with its size and whether it is of one category."""
    kinds = {row.combination: (row.subjects, row.same_category) for row in board.rows}
    return sorted(kinds.items(), key=lambda item: (item[1][0], not item[1][1], item[0]))


def _group(size: int, same: bool) -> str:
    noun = {1: "Single subjects", 2: "Pairs", 3: "Triples", 4: "Quadruples"}.get(
        size, f"Sets of {size}"
    )
    return f"{noun} of one category" if same and size > 1 else noun


def _videos(job: KeptJob) -> dict[Sample, Path]:
    """The job's videos that are there, in whatever format they were kept."""
    found = {}
    for sample in job.samples:
        paths = (job.folder.video(sample).with_suffix(suffix) for suffix in _KINDS)
        path = next((path for path in paths if path.is_file()), None)
        if path is not None and sample[0] < len(job.prompts):
            found[sample] = path
    return found


def _thumbnail(image: NDArray[np.uint8]) -> str:
    picture = Image.fromarray(image)
    picture.thumbnail((_PHOTO_SIDE, _PHOTO_SIDE), Image.Resampling.LANCZOS)
    memory = io.BytesIO()
    picture.save(memory, format="JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(memory.getvalue()).decode()}"


def _link(path: Path, start: Path) -> str:
    """The way from the folder `start` to the file, as a page writes it."""
    try:
        way = Path(os.path.relpath(path.absolute(), start.absolute())).as_posix()
    except ValueError:
        # On Windows there is no way from one drive to another.
        return path.absolute().as_uri()
    return quote(way)
