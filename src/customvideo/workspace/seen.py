"""Records that are read again only once their files have changed: pages ask every second."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Generic, TypeVar

__all__ = ["Seen", "stamp"]

Record = TypeVar("Record")
Stamp = tuple[tuple[int, int, int], ...]


class Seen(Generic[Record]):
    """What was read of folders, for as long as the folder itself and its `files` stay as they are.

    Whatever is put in place by a rename changes a folder, whoever does it; what is written deeper
    inside does not. Records are shared and must not be changed.
    """

    def __init__(self, *files: str) -> None:
        self._files = files
        self._kept: dict[str, tuple[Stamp, Record]] = {}

    def get(self, folder: Path, read: Callable[[], Record]) -> Record:
        """The record of `folder`, from `read` if it is new or has changed; its errors come up."""
        # Looked at before it is read: what changes meanwhile is read once more.
        now = stamp([folder, *(folder / name for name in self._files)])
        known = self._kept.get(folder.name)
        if known is None or known[0] != now:
            known = self._kept[folder.name] = (now, read())
        return known[1]

    def keep(self, names: Collection[str]) -> None:
        """Forget all folders but these."""
        for name in self._kept.keys() - set(names):
            self._kept.pop(name, None)


def stamp(paths: Sequence[Path]) -> Stamp:
    """What tells one state of files from another: inode, time in ns and bytes of each.

    Zeros stand for one that is missing; links are not followed.
    """
    return tuple(map(_stamp, paths))


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = os.lstat(path)
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)
