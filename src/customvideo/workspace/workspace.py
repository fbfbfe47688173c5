"""A workspace: one folder with projects, adapters, videos and jobs, and the doors to them.

It is what a page in the browser works on, but knows no page: everything here is plain Python over
files, so it can be used from a script just as well. Opening one reads nothing and starts nothing.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from customvideo.errors import StorageError
from customvideo.files import ensure_dir, expanded
from customvideo.workspace.library import Library
from customvideo.workspace.places import (
    ADAPTERS,
    JOBS,
    PROJECTS,
    TRASH,
    VIDEOS,
    inside,
    read_json,
    write_json,
)
from customvideo.workspace.projects import Projects
from customvideo.workspace.queue import Queue
from customvideo.workspace.shelf import Shelf
from customvideo.workspace.trash import Trash

__all__ = ["Workspace"]

_FILE = "workspace.json"


class Workspace:
    """The workspace in the folder `root`, which is made if it is missing.

    Raises:
        StorageError: it holds something else, is of a later version, or cannot be written.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = expanded(root).absolute()
        if self.root.exists() and not self.root.is_dir():
            raise StorageError(f"'{self.root}' is a file; choose a folder for the workspace.")
        file = self.root / _FILE
        if file.exists():
            read_json(file)
        elif self.root.is_dir() and any(self.root.glob("[!.]*")):
            raise StorageError(
                f"'{self.root}' holds something that is no workspace; choose a new or empty folder."
            )
        else:
            for name in (PROJECTS, ADAPTERS, VIDEOS, JOBS, TRASH):
                ensure_dir(self.root / name)
            write_json(file, {})

    @cached_property
    def trash(self) -> Trash:
        """What was deleted and can come back."""
        return Trash(self.root)

    @cached_property
    def projects(self) -> Projects:
        """The projects."""
        return Projects(self.root, self.trash)

    @cached_property
    def library(self) -> Library:
        """Adapters and videos."""
        return Library(self.root, self.trash)

    @cached_property
    def queue(self) -> Queue:
        """Jobs, and the runner that does them."""
        return Queue(self)

    def shelf(self, project: str) -> Shelf:
        """The subjects of the project with this id.

        Raises:
            StorageError: there is none.
        """
        self.projects.get(project)
        return Shelf(self.root, project, self.projects, self.trash)

    @property
    def models(self) -> tuple[str, ...]:
        """Folders of models that jobs may use besides known names and hub ids."""
        told = read_json(self.root / _FILE).get("models", ())
        return tuple(map(str, told)) if isinstance(told, list) else ()

    def allow_model(self, folder: Path | str) -> None:
        """Let jobs use the model in a folder of this machine: for its owner, never for a page.

        Raises:
            StorageError: there is no such folder.
        """
        found = expanded(folder).absolute()
        if not found.is_dir():
            raise StorageError(f"There is no model folder '{folder}'; check the path.")
        write_json(self.root / _FILE, {"models": sorted({*self.models, str(found)})})

    def file(self, relative: str) -> Path:
        """An existing file at `relative` (parts joined by `/`) below the workspace, for a server.

        Raises:
            StorageError: it leads elsewhere, or there is no such file.
        """
        path = inside(self.root, *relative.split("/"))
        if not path.is_file():
            raise StorageError("There is no such file in the workspace; choose one from its lists.")
        return path
