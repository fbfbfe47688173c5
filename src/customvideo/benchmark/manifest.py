"""The manifest of an edition of CustomStudio: its subjects, where each photo is from, the prompts.

A manifest is a JSON file, `customstudio.json`; its JSON schema is published with the
documentation. This file knows the format and what can be wrong inside it. It opens no picture
and knows no edition: those are `customvideo.benchmark.check` and `customvideo.benchmark.editions`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import ErrorDetails

from customvideo.errors import BenchmarkError, PromptError
from customvideo.settings import Settings, suggest
from customvideo.subjects.prompt import LearnedWord, Prompt, check_category, check_name

__all__ = [
    "CHECKSUMS",
    "MANIFEST",
    "CombinationEntry",
    "FileEntry",
    "Manifest",
    "Source",
    "SubjectEntry",
    "from_values",
    "parse_manifest",
    "read_json_text",
    "read_manifest",
    "schema",
    "to_manifest",
]

MANIFEST = "customstudio.json"
"""What a manifest is called in an edition's folder."""
CHECKSUMS = "checksums.json"
"""What was fetched into the folder beside it: the SHA-256 of every file at its first fetch."""

_SMALLEST = 2
_LARGEST = 4


def _inside(text: str) -> str:
    path = PurePosixPath(text)
    if not text or "\\" in text or ":" in text or path.is_absolute() or ".." in path.parts:
        raise ValueError("a path below the subject's folder, such as '01.jpg'")
    return text


Digest = Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]
"""A SHA-256 in hexadecimal, or nothing while it is unknown."""
Below = Annotated[str, AfterValidator(_inside)]


class Source(Settings):
    """Where files come from, and on what terms."""

    addresses: tuple[str, ...] = Field(min_length=1)
    """Each stands before a file's `path`; they are tried in this order. Of an archive, its own."""
    archive: bool = False
    """Whether the addresses are those of one zip archive, and a file's `path` its member."""
    licence: str = Field(min_length=1)
    credit: str = ""
    homepage: str = ""


class FileEntry(Settings):
    """One photo or mask; what is empty here is as its source says."""

    file: Below
    """Its path below the subject's folder."""
    source: str = ""
    """A key of the manifest's `sources`; empty for a file that is only here."""
    path: str = ""
    """Its path in the source."""
    licence: str = ""
    credit: str = ""
    page: str = ""
    """The page of this photo, where it has one."""
    sha256: Digest = ""


class SubjectEntry(Settings):
    """One subject: its word, what it is, and its photos."""

    name: str
    category: str
    folder: str = ""
    """Where the photos lie, from the manifest's own folder; empty for a folder of that name."""
    images: tuple[FileEntry, ...] = ()
    """Empty for whatever pictures the folder holds."""
    masks: tuple[FileEntry, ...] = ()
    """Named `masks/` and the stem of their photo; photos without one have theirs made."""

    @property
    def place(self) -> str:
        """The path of the subject's folder from the manifest's own."""
        return self.folder or self.name

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Photos, then masks."""
        return (*self.images, *self.masks)

    @property
    def word(self) -> LearnedWord:
        """The word prompts mention it by."""
        return LearnedWord(self.name, self.category)


class CombinationEntry(Settings):
    """Two to four subjects to be shown together, and the prompts that ask for it."""

    subjects: tuple[str, ...]
    prompts: tuple[str, ...]
    """In canonical form: every word in brackets, followed by its category."""
    name: str = ""
    """Empty for the subjects' names, joined by `+`."""

    @property
    def label(self) -> str:
        """What the combination is called."""
        return self.name or "+".join(self.subjects)


class Manifest(Settings):
    """One edition of CustomStudio, format 1."""

    schema_address: str = Field(default="", alias="$schema")
    format: Literal[1] = 1
    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    """Changes with every change of subjects, photos or prompts."""
    description: str = ""
    sources: dict[str, Source] = Field(default_factory=dict)
    subjects: tuple[SubjectEntry, ...]
    combinations: tuple[CombinationEntry, ...]

    def subject(self, name: str) -> SubjectEntry:
        """The subject called `name`.

        Raises:
            BenchmarkError: nobody has this name.
        """
        for entry in self.subjects:
            if entry.name == name:
                return entry
        names = [entry.name for entry in self.subjects]
        raise BenchmarkError(
            f"The edition '{self.name}' has no subject '{name}'{_near(name, names)}"
        )

    def problems(self) -> list[str]:
        """Everything that is wrong in the manifest itself, one sentence each."""
        return [*_subject_problems(self), *_combination_problems(self)]

    def digest(self, contents: Mapping[str, str]) -> str:
        """SHA-256 of all that decides results: words, categories, photos, combinations, prompts.

        A file counts with its checksum if the manifest has it, else with its address, else with
        its entry in `contents` (`<folder>/<file>` to SHA-256).
        """
        subjects = []
        for entry in self.subjects:
            own = [key for key in contents if key.startswith(f"{entry.place}/")]
            files = [[file.file, self._identity(file)] for file in entry.files]
            kept = [[key, contents[key]] for key in sorted(own)]
            subjects.append([entry.name, entry.category, files, kept])
        groups = [[one.label, one.subjects, one.prompts] for one in self.combinations]
        return hashlib.sha256(json.dumps([subjects, groups]).encode()).hexdigest()

    def _identity(self, file: FileEntry) -> str:
        if file.sha256 or not file.source:
            return file.sha256
        return f"{self.sources[file.source].addresses[0]} {file.path}"

    def dump(self) -> str:
        """The manifest as its file has it, without what is empty."""
        values = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return json.dumps({"format": self.format} | values, indent=1, ensure_ascii=False) + "\n"


def read_manifest(path: Path) -> Manifest:
    """Read a manifest; what it says is not checked, see `Manifest.problems`.

    Raises:
        BenchmarkError: the file cannot be read, or has another form.
    """
    return to_manifest(read_json_text(path), str(path))


def to_manifest(text: str, label: str) -> Manifest:
    """A manifest from its JSON; `label` is what messages call it.

    Raises:
        BenchmarkError: the text has another form; of several faults the first is told.
    """
    found = parse_manifest(text, label)
    if isinstance(found, Manifest):
        return found
    raise BenchmarkError(found[0])


def parse_manifest(text: str, label: str) -> Manifest | list[str]:
    """A manifest from its JSON, or one sentence for each place where it has another form."""
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        return [_explain(problem, label) for problem in error.errors()]


def read_json_text(path: Path) -> str:
    """The text of a JSON file.

    Raises:
        BenchmarkError: it is missing or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise BenchmarkError(f"'{path}' cannot be read: {reason}; check the path.") from error


def schema() -> str:
    """The JSON schema of the format, as it is published."""
    values = Manifest.model_json_schema(by_alias=True)
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def _explain(problem: ErrorDetails, label: str) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if problem["type"] == "json_invalid":
        return f"'{label}' is not JSON ({message}); correct it."
    if problem["type"] == "extra_forbidden":
        key = str(problem["loc"][-1])
        return f"'{label}' has an unknown key '{where}'{suggest(key, _siblings(problem['loc']))}"
    if problem["type"] == "missing":
        return f"'{label}' lacks '{where}'; add it."
    return f"'{where}' in '{label}' should be {message[0].lower()}{message[1:]}; correct it."


def _siblings(place: tuple[int | str, ...]) -> list[str]:
    """The keys known where an unknown one was found."""
    tables: dict[str, type[Settings]] = {
        "sources": Source,
        "subjects": SubjectEntry,
        "combinations": CombinationEntry,
        "images": FileEntry,
        "masks": FileEntry,
    }
    inner = [part for part in place[:-1] if part in tables]
    table = tables[str(inner[-1])] if inner else Manifest
    return [field.alias or name for name, field in table.model_fields.items()]


def _subject_problems(manifest: Manifest) -> Iterator[str]:
    uses = Counter(entry.name for entry in manifest.subjects)
    for name, count in uses.items():
        if count > 1:
            yield f"{count} subjects are called '{name}'; give each its own name."
    if not manifest.subjects:
        yield f"The edition '{manifest.name}' has no subject; add at least two."
    for entry in manifest.subjects:
        yield from _wrong_names(entry)
        names = Counter(PurePosixPath(file.file) for file in entry.files)
        for path, count in names.items():
            if count > 1:
                yield f"Subject '{entry.name}' lists the file '{path}' twice; remove one."
        for file in entry.files:
            if file.source and file.source not in manifest.sources:
                yield (
                    f"'{file.file}' of subject '{entry.name}' comes from '{file.source}', which is "
                    "no source of the manifest; add the source or correct its name."
                )
            if file.source and not file.path:
                yield (
                    f"'{file.file}' of subject '{entry.name}' does not say its path in the source "
                    f"'{file.source}'; add 'path'."
                )


def _wrong_names(entry: SubjectEntry) -> list[str]:
    """What is wrong with a subject's name and category, one sentence each."""
    problems = []
    if not entry.category:
        problems.append(
            f"Subject '{entry.name}' has no category; say in the manifest, or in the "
            "'subject.toml' of its folder, what it is: category = \"cat\"."
        )
    for check, value in ((check_name, entry.name), (check_category, entry.category or "any")):
        try:
            check(value)
        except PromptError as error:
            problems.append(f"{str(error).rstrip('.')} (subject '{entry.name}').")
    return problems


def _combination_problems(manifest: Manifest) -> Iterator[str]:
    labels = Counter(group.label for group in manifest.combinations)
    members = Counter(frozenset(group.subjects) for group in manifest.combinations)
    if not manifest.combinations:
        yield f"The edition '{manifest.name}' has no combination; add at least one pair."
    for label, count in labels.items():
        if count > 1:
            yield f"{count} combinations are called '{label}'; give each its own name."
    entries = {entry.name: entry for entry in manifest.subjects}
    for group in manifest.combinations:
        if members[frozenset(group.subjects)] > 1 and labels[group.label] == 1:
            yield (
                f"The combination '{group.label}' shows the same subjects as another; remove one."
            )
        yield from _member_problems(group, list(entries))
        yield from _prompt_problems(group, entries)


def _member_problems(group: CombinationEntry, known: list[str]) -> Iterator[str]:
    if len(set(group.subjects)) != len(group.subjects):
        yield f"The combination '{group.label}' has a subject twice; name each once."
    elif not _SMALLEST <= len(group.subjects) <= _LARGEST:
        yield (
            f"The combination '{group.label}' has {_count(len(group.subjects), 'subject')}; "
            f"give it {_SMALLEST} to {_LARGEST}."
        )
    for name in group.subjects:
        if name not in known:
            yield (
                f"The combination '{group.label}' has an unknown subject '{name}'"
                f"{_near(name, known)}"
            )


def _prompt_problems(group: CombinationEntry, entries: Mapping[str, SubjectEntry]) -> Iterator[str]:
    if not group.prompts:
        yield f"The combination '{group.label}' has no prompt; add at least one."
    members = [entries[name] for name in dict.fromkeys(group.subjects) if name in entries]
    if len(members) == len(set(group.subjects)) and not any(map(_wrong_names, members)):
        words = tuple(entry.word for entry in members)
        for text in group.prompts:
            yield from _text_problems(Prompt(text, words), group.label)


def _text_problems(prompt: Prompt, label: str) -> Iterator[str]:
    told = f"The prompt '{prompt.text}' of '{label}'"
    for word in prompt.words:
        if word not in prompt.mentioned:
            yield f"{told} does not mention {word.word}; write it as '{word.word} {word.category}'."
    for unknown in prompt.unknown:
        yield f"{told} mentions {unknown}, which is no subject of it; remove it."
    if not prompt.unknown and prompt.canonical != prompt.text:
        yield f"{told} is not in canonical form; write '{prompt.canonical}'."


def _near(name: str, names: list[str]) -> str:
    return suggest(name, names) if names else "."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def from_values(values: Mapping[str, Any], label: str) -> Manifest:
    """A manifest from plain values, as an edition written in code has them."""
    return to_manifest(json.dumps(values), label)
