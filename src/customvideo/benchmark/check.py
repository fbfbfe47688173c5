"""Looking an edition over: everything that is wrong with its manifest, files and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from customvideo.benchmark import folder as folders
from customvideo.benchmark.editions import OwnFolder, open_source
from customvideo.benchmark.manifest import Manifest, parse_manifest
from customvideo.errors import BenchmarkError
from customvideo.subjects.pictures import list_pictures

__all__ = ["Report", "check"]


@dataclass(frozen=True)
class Report:
    """What was looked at and everything that is wrong with it, one sentence each."""

    name: str
    subjects: int
    combinations: int
    pictures: int
    problems: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __str__(self) -> str:
        size = (
            f"'{self.name}': {self.subjects} subjects, {self.combinations} combinations, "
            f"{self.pictures} pictures"
        )
        if self.sound:
            return f"{size}; nothing is wrong."
        return "\n".join([f"{size}; {len(self.problems)} to mend:", *self.problems])


def check(name_or_folder: str | Path, root: Path | None = None) -> Report:
    """Look over an edition by name, folder or file, pictures included; nothing is downloaded.

    `root` is as for `load_edition`. Of an edition whose photos are drawn, only the manifest is
    looked at.

    Raises:
        BenchmarkError: there is no such edition or folder.
    """
    source = open_source(name_or_folder)
    label = str(name_or_folder)
    try:
        found = parse_manifest(source.manifest(), label)
    except BenchmarkError as error:
        return Report(label, 0, 0, 0, (str(error),))
    if not isinstance(found, Manifest):
        return Report(label, 0, 0, 0, tuple(found))
    home = root or source.home
    problems = found.problems()
    fetched = any(file.source for entry in found.subjects for file in entry.files)
    if isinstance(source, OwnFolder) or fetched:
        problems += _in_folder(home, found)
    pictures = sum(_pictures(home / entry.place) for entry in found.subjects)
    return Report(
        found.name, len(found.subjects), len(found.combinations), pictures, tuple(problems)
    )


def _in_folder(root: Path, manifest: Manifest) -> Iterator[str]:
    if not any((root / entry.place).is_dir() for entry in manifest.subjects):
        yield (
            f"No photo of '{manifest.name}' is in '{root}'; fetch them with "
            f"'customvideo bench fetch {manifest.name}' or check the path."
        )
        return
    try:
        sums = folders.read_checksums(root)
    except BenchmarkError as error:
        yield str(error)
        sums = {}
    for entry in manifest.subjects:
        yield from folders.file_problems(root, entry, sums)
        yield from folders.picture_problems(root, entry)


def _pictures(folder: Path) -> int:
    return len(list_pictures(folder)) if folder.is_dir() else 0
