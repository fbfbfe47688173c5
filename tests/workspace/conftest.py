"""A workspace with Tom the cat and Rex the dog, and the tiny model allowed in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from customvideo.workspace import Job, Project, Workspace
from customvideo.workspace.doing import do
from customvideo.workspace.jobs import JobFolder
from customvideo.workspace.queue import Queue
from customvideo.workspace.work import Work
from tests.surroundings import write_photos

QUICK: dict[str, Any] = {
    "batch_size": 1,
    "pool": 2,
    "held_out": 0,
    "canvas": [64, 96],
    "checkpoint_every": 2,
    "sampling": {"num_steps": 2, "frames": 2, "height": 64, "width": 96},
    "method_options": {"prior_weight": 0.0},
}
"""Keys of a recipe that make a step on the tiny model a matter of a tenth of a second."""


@dataclass(frozen=True)
class Studio:
    """A workspace, its one project, and how to ask for a quick training."""

    workspace: Workspace
    project: Project
    model: Path

    def training(self, steps: int = 2, **more: Any) -> dict[str, Any]:
        options = {**QUICK, **more.pop("options", {})}
        return {"backbone": str(self.model), "steps": steps, "preview_every": 0, **more} | {
            "options": options
        }

    def submit(self, kind: Any, **settings: Any) -> Job:
        return self.workspace.queue.submit(kind, self.project.id, settings)

    def submit_here(self, kind: Any, **settings: Any) -> Job:
        """Submit a job and do it in this very process, as its own would."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Queue, "ensure_runner", lambda _self: False)
            job = self.submit(kind, **settings)
        do(Work(self.workspace.root, job.id))
        JobFolder(self.workspace.root, job.id).change(state="done")
        return self.workspace.queue.get(job.id)


@pytest.fixture
def without_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs stay queued: what is tested is not who does them."""
    monkeypatch.setattr(Queue, "ensure_runner", lambda _self: False)


@pytest.fixture(scope="session")
def make_studio(tiny_zeroscope: Path) -> Callable[[Path], Studio]:
    def make(root: Path) -> Studio:
        workspace = Workspace(root)
        workspace.allow_model(tiny_zeroscope)
        project = workspace.projects.create("Tom and Rex")
        shelf = workspace.shelf(project.id)
        for seed, (name, category) in enumerate({"tom": "cat", "rex": "dog"}.items(), start=1):
            folder = shelf.add(name, category).folder
            photos = write_photos(root.parent / f"{root.name}-{name}", seed)
            for path in [*photos.glob("*.png"), photos / "masks"]:
                path.rename(folder / path.name)
        return Studio(workspace, project, tiny_zeroscope)

    return make


@pytest.fixture
def studio(make_studio: Callable[[Path], Studio], tmp_path: Path) -> Studio:
    return make_studio(tmp_path / "studio")
