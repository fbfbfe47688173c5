"""Where the videos of a study come from: folders of the same file names, or a benchmark's run.

What is found here is copied under names that tell nothing by `customvideo.userstudy.making`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from customvideo.benchmark.gallery import edition_photos, kept_jobs
from customvideo.benchmark.plan import BASE, CEILING
from customvideo.benchmark.store import Store
from customvideo.errors import StudyError
from customvideo.files import expanded
from customvideo.records import parse_toml
from customvideo.settings import suggest
from customvideo.subjects.folders import SubjectSpec
from customvideo.subjects.pictures import list_pictures, read_picture

__all__ = ["Candidate", "Found", "Person", "from_benchmark", "from_folders"]

_SUFFIXES = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".gif")
_PHOTOS = 3


@dataclass(frozen=True, eq=False)
class Person:
    """A subject and a few of its photos, each uint8 (height, width, 3)."""

    word: str
    category: str
    photos: tuple[NDArray[np.uint8], ...]


@dataclass(frozen=True, eq=False)
class Candidate:
    """One prompt, everybody's video of it, and who should be in it."""

    key: str
    prompt: str
    videos: dict[str, Path]
    people: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Found:
    """What can be compared: the methods, the prompts all of them have, the subjects by name.

    `left_out` are prompts that somebody has no video of.
    """

    methods: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    people: dict[str, Person] = field(default_factory=dict)
    left_out: int = 0


def from_folders(
    videos: Sequence[str], prompts: Path | None = None, subjects: Sequence[str] = ()
) -> Found:
    """Videos of `METHOD=FOLDER` texts: files of the same name belong together.

    `prompts` is a TOML file, name without suffix = "prompt"; `subjects` are as for training, and a
    subject is shown with the prompts that hold its word, or with all if none does.

    Raises:
        StudyError: a text, a folder or the file of prompts cannot be used.
        SubjectError: a subject or its photos cannot.
    """
    folders = _folders(videos)
    files = {method: _videos(folder) for method, folder in folders.items()}
    names = list(dict.fromkeys(name for found in files.values() for name in found))
    whole = [name for name in names if all(name in found for found in files.values())]
    if not whole:
        raise StudyError(
            "No video has the same file name in all folders; name what belongs together alike."
        )
    said = _prompts(prompts, whole)
    specs = [SubjectSpec.parse(text) for text in subjects]
    people = {spec.name: _person(spec) for spec in specs}
    candidates = [
        Candidate(
            name,
            said.get(name, ""),
            {method: found[name] for method, found in files.items()},
            _meant(said.get(name, ""), people),
        )
        for name in whole
    ]
    return Found(tuple(files), tuple(candidates), people, len(names) - len(whole))


def from_benchmark(results: Path, methods: Sequence[str] = ()) -> Found:
    """Videos that `customvideo bench run` made, of the methods named, or of all that were trained.

    Raises:
        StudyError: a method has no videos there, or nothing can be compared.
        BenchmarkError: there is no benchmark.
    """
    store = Store(results)
    store.require()
    jobs = kept_jobs(results)
    known = list(dict.fromkeys(job.method for job in jobs))
    for name in methods:
        if name not in known:
            raise StudyError(f"'{results}' has no videos of '{name}'{suggest(name, known)}")
    wanted = list(methods) or [name for name in known if name not in (BASE, CEILING)]
    videos: dict[str, dict[str, Path]] = {}
    told: dict[str, tuple[str, tuple[str, ...]]] = {}
    categories: dict[str, str] = {}
    for job in jobs:
        if job.method not in wanted:
            continue
        categories |= dict(job.subjects)
        for prompt, seed in job.samples:
            path = job.folder.video((prompt, seed))
            if path.is_file():
                key = f"{job.combination}/{prompt}/{seed}"
                videos.setdefault(key, {})[job.method] = path
                told[key] = (job.prompts[prompt], tuple(name for name, _ in job.subjects))
    whole = [key for key in sorted(videos) if len(videos[key]) == len(wanted)]
    if not whole:
        raise StudyError(f"No video in '{results}' was made by all of: {', '.join(wanted)}.")
    candidates = [
        Candidate(key, told[key][0], {m: videos[key][m] for m in wanted}, told[key][1])
        for key in whole
    ]
    shown = dict.fromkeys(name for one in candidates for name in one.people)
    photos = edition_photos(store.edition)
    people = {
        name: Person(f"<{name}>", categories[name], tuple(photos(name)[:_PHOTOS])) for name in shown
    }
    return Found(tuple(wanted), tuple(candidates), people, len(videos) - len(whole))


def _folders(texts: Sequence[str]) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for text in texts:
        name, equals, place = text.partition("=")
        name, folder = name.strip(), expanded(place)
        if not (name and equals and place):
            raise StudyError(f"'{text}' should be METHOD=FOLDER, such as ours=videos/ours.")
        if name in folders:
            raise StudyError(f"There are two methods '{name}'; give each a name of its own.")
        if not folder.is_dir():
            raise StudyError(f"There is no folder '{place}' with the videos of '{name}'.")
        folders[name] = folder
    if len(folders) < 2:
        raise StudyError("Name at least two methods to compare: --videos A=DIR --videos B=DIR.")
    return folders


def _videos(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise StudyError(
                    f"'{folder}' holds two videos called '{path.stem}'; keep one of them."
                )
            found[path.stem] = path
    if not found:
        raise StudyError(f"'{folder}' holds no video; known are {', '.join(_SUFFIXES)}.")
    return found


def _prompts(path: Path | None, names: Iterable[str]) -> dict[str, str]:
    if path is None:
        return {}
    try:
        told = parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(f"'{path}' cannot be read as TOML: {error}; correct it.") from error
    for name in names:
        if not isinstance(told.get(name), str):
            raise StudyError(
                f"'{path}' has no prompt for the video '{name}'; add a line \"{name}\" = \"…\"."
            )
    return {name: " ".join(told[name].split()) for name in names}


def _person(spec: SubjectSpec) -> Person:
    if not spec.folder.is_dir():
        raise StudyError(f"There is no folder '{spec.folder}' with photos of '{spec.name}'.")
    files = list_pictures(spec.folder)
    if not files:
        raise StudyError(f"'{spec.folder}' holds no photo of '{spec.name}'; add one.")
    photos = tuple(read_picture(file).image for file in files[:_PHOTOS])
    return Person(f"<{spec.name}>", spec.category or "", photos)


def _meant(prompt: str, people: dict[str, Person]) -> tuple[str, ...]:
    """Who is in the prompt."""
    named = [name for name, one in people.items() if one.word in prompt]
    return tuple(named or people)
