"""What was deleted, kept until somebody empties the trash.

Deleting is a rename into the trash, so it is quick, whole, and can be undone. What may be deleted
is decided by whoever owns it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from customvideo.errors import StorageError
from customvideo.files import ensure_dir, storage_error
from customvideo.workspace.places import TRASH, check_id, inside, new_id, now, read_json, write_json
from customvideo.workspace.records import Discarded, Listing

__all__ = ["Trash", "folder_bytes"]

_ENTRY, _CONTENT = "entry.json", "content"


class Trash:
    """The trash of the workspace `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def discard(self, kind: str, name: str, places: Sequence[Sequence[str]]) -> Discarded:
        """Move what lies at `places`, parts below the workspace each, into the trash together.

        `name` is for people. The first place must be there, the others may be missing.

        Raises:
            StorageError: there is no such thing, or it cannot be moved.
        """
        sources = [inside(self._root, *parts) for parts in places]
        if not sources[0].exists():
            raise StorageError(f"There is no '{name}' to delete; it is gone already.")
        there = [source for source in sources if source.exists()]
        id = new_id(kind)
        folder = ensure_dir(inside(self._root, TRASH, id))
        origin = [list(source.relative_to(self._root).parts) for source in there]
        write_json(folder / _ENTRY, {"kind": kind, "name": name, "deleted": now(), "from": origin})
        try:
            _move([(source, folder / f"{_CONTENT}{i}") for i, source in enumerate(there)])
        except StorageError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return self._entry(folder)

    def list(self) -> Listing[Discarded]:
        """What can be restored, newest first."""
        folder = self._root / TRASH
        found, broken = [], []
        for path in folder.iterdir() if folder.is_dir() else ():
            try:
                found.append(self._entry(inside(self._root, TRASH, path.name)))
            except StorageError as error:
                broken.append(str(error))
        found.sort(key=lambda entry: entry.deleted, reverse=True)
        return Listing(tuple(found), tuple(broken))

    def restore(self, id: str) -> Discarded:
        """Put something back where it was.

        Raises:
            StorageError: it is not in the trash, or something has taken its place.
        """
        folder = inside(self._root, TRASH, check_id(id))
        entry, values = self._entry(folder), read_json(folder / _ENTRY)
        targets = [inside(self._root, *parts) for parts in values["from"]]
        if any(target.exists() for target in targets):
            raise StorageError(
                f"'{entry.name}' cannot come back: another one has taken its place; rename or "
                "delete that one first."
            )
        for target in targets:
            ensure_dir(target.parent)
        _move([(folder / f"{_CONTENT}{i}", target) for i, target in enumerate(targets)])
        shutil.rmtree(folder, ignore_errors=True)
        return entry

    def empty(self, id: str | None = None) -> int:
        """Remove one thing for good, or all, and return how many bytes that freed."""
        folder = self._root / TRASH
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        freed = 0
        for name in names if id is None else [check_id(id)]:
            with suppress(StorageError):
                doomed = inside(self._root, TRASH, name)
                freed += folder_bytes(doomed)
                shutil.rmtree(doomed, ignore_errors=True)
        return freed

    def _entry(self, folder: Path) -> Discarded:
        values = read_json(folder / _ENTRY)
        kind: Any = values.get("kind", "")
        places = values.get("from")
        if not (isinstance(places, list) and all(isinstance(one, list) for one in places)):
            raise StorageError(f"'{folder / _ENTRY}' is damaged; empty the trash.")
        return Discarded(
            folder.name,
            cast("Any", kind),
            str(values.get("name", "")),
            str(values.get("deleted", "")),
            folder_bytes(folder),
        )


def _move(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Rename each first path to its second, all or none."""
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in pairs:
            os.rename(source, target)
            done.append((source, target))
    except OSError as error:
        for source, target in reversed(done):
            with suppress(OSError):
                os.rename(target, source)
        raise storage_error(error, target) from error


def folder_bytes(path: Path) -> int:
    """Bytes of a file or of all files below a folder; links are not followed."""
    total = 0
    for place, _, files in os.walk(path):
        for name in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    with suppress(OSError):
        total += 0 if os.path.isdir(path) else os.lstat(path).st_size
    return total
