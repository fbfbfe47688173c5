"""A project to try everything with: photos of the demo's two toys, on no one's conscience."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from customvideo.workspace.records import Project
from customvideo.workspace.shelf import Tell

if TYPE_CHECKING:
    from customvideo.workspace.workspace import Workspace

__all__ = ["example_project"]


def example_project(workspace: Workspace, tell: Tell = lambda _done, _of: None) -> Project:
    """Make a project with photos of two toys, which the toybox can learn in a minute.

    The photos go the way that everybody's go; `tell` hears how many are done.
    """
    from customvideo.demo.acts import ACTS
    from customvideo.demo.stage import photograph

    act = ACTS[0]
    with tempfile.TemporaryDirectory(prefix="customvideo-") as folder:
        photograph(act, Path(folder))
        uploads = {
            name: [
                (file.name, file.read_bytes())
                for file in sorted((Path(folder) / "subjects" / name).glob("*.png"))
            ]
            for name in act.names
        }
    project = workspace.projects.create(f"{act.title}: {act.cast}")
    shelf, done = workspace.shelf(project.id), 0
    total = sum(map(len, uploads.values()))
    for name, category in zip(act.names, act.categories, strict=True):
        shelf.add(name, category)
        shelf.add_photos(name, uploads[name])
        done += len(uploads[name])
        tell(done, total)
    return workspace.projects.get(project.id)
