"""Projects: a name, subjects in order, and whatever settings a page keeps with them.

The subjects' photos are `customvideo.workspace.shelf`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from customvideo.errors import StorageError
from customvideo.files import atomic_folder, ensure_dir
from customvideo.workspace.places import (
    PROJECTS,
    SUBJECTS,
    check_id,
    clean_name,
    inside,
    new_id,
    now,
    read_json,
    write_json,
)
from customvideo.workspace.records import Discarded, Listing, Project
from customvideo.workspace.trash import Trash

__all__ = ["Projects"]

_FILE = "project.json"


class Projects:
    """The projects of the workspace `root`."""

    def __init__(self, root: Path, trash: Trash) -> None:
        self._root, self._trash = root, trash

    def create(self, name: str) -> Project:
        """Begin an empty project.

        Raises:
            StorageError: the name cannot be used, or nothing can be written.
        """
        name = clean_name(name, "project")
        id = new_id(name)
        values = {"name": name, "subjects": [], "settings": {}, "created": now()}
        with atomic_folder(inside(self._root, PROJECTS, id)) as folder:
            write_json(folder / _FILE, values)
        return self.get(id)

    def list(self) -> Listing[Project]:
        """All projects, newest first."""
        folder = self._root / PROJECTS
        found, broken = [], []
        for path in sorted(folder.glob("[!.]*")) if folder.is_dir() else ():
            try:
                found.append(self.get(path.name))
            except StorageError as error:
                broken.append(str(error))
        found.sort(key=lambda project: project.created, reverse=True)
        return Listing(tuple(found), tuple(broken))

    def get(self, id: str) -> Project:
        """The project called `id`.

        Raises:
            StorageError: there is none, or its file is damaged.
        """
        file = self.folder(id) / _FILE
        values = read_json(file)
        try:
            subjects = tuple((str(name), str(noun)) for name, noun in values["subjects"])
            if not isinstance(values["settings"], dict):
                raise TypeError("settings that are none")
            return Project(
                id, str(values["name"]), subjects, dict(values["settings"]), str(values["created"])
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(f"'{file}' is damaged; delete it or restore a copy.") from error

    def folder(self, id: str) -> Path:
        """The project's folder, which need not exist."""
        return inside(self._root, PROJECTS, check_id(id))

    def rename(self, id: str, name: str) -> Project:
        """Give a project another name; its id stays."""
        name = clean_name(name, "project")
        return self.change(id, lambda values: values.update(name=name))

    def update(self, id: str, settings: Mapping[str, Any]) -> Project:
        """Keep these settings (JSON) with the project, over those it has."""
        return self.change(id, lambda values: values["settings"].update(settings))

    def set_subjects(self, id: str, subjects: Mapping[str, str]) -> Project:
        """Say which subjects the project has, name -> category, in this order."""
        pairs = [[name, noun] for name, noun in subjects.items()]
        return self.change(id, lambda values: values.update(subjects=pairs))

    def delete(self, id: str) -> Discarded:
        """Move a project with its photos to the trash; its adapters and videos stay."""
        return self._trash.discard("project", self.get(id).name, [(PROJECTS, id)])

    def change(self, id: str, edit: Callable[[dict[str, Any]], object]) -> Project:
        """Let `edit` change the values of the project's file, one caller at a time."""
        self.get(id)
        folder = self.folder(id)
        ensure_dir(folder / SUBJECTS)
        with FileLock(folder / ".lock"):
            values = read_json(folder / _FILE)
            edit(values)
            write_json(folder / _FILE, values)
        return self.get(id)
