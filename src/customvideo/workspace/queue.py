"""The queue: jobs are submitted, watched, paused, resumed and stopped here.

Nothing is done in the caller's process: a runner (`customvideo.workspace.runner`), one per
workspace, is started when there is something to do, and outlives whoever started it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customvideo.workspace.records import Discarded, Job, Kind, Listing, Progress

if TYPE_CHECKING:
    from customvideo.workspace.workspace import Workspace

__all__ = ["Queue"]


class Queue:
    """The jobs of `workspace`. Every method may be called from several processes at once."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def submit(self, kind: Kind, project: str, settings: Mapping[str, Any]) -> Job:
        """Put a job at the end of the queue and see to it that a runner is there.

        `settings` are those of the kind's class in `records.REQUESTS`; `project` may be empty where
        a job belongs to none.

        Raises:
            UserError: the settings cannot work, as far as can be told without loading a model.
        """
        raise NotImplementedError

    def list(self, project: str | None = None) -> Listing[Job]:
        """All jobs, of one project if given: running, then queued in order, then newest first."""
        raise NotImplementedError

    def get(self, id: str) -> Job:
        """The job called `id`. Raises StorageError if there is none."""
        raise NotImplementedError

    def progress(self, id: str) -> Progress:
        """How far a job is; cheap enough to ask every second."""
        raise NotImplementedError

    def log(self, id: str, lines: int = 200) -> str:
        """The last lines of what a job said."""
        raise NotImplementedError

    def pause(self, id: str) -> Job:
        """Let a job wait: a training saves a checkpoint first, and the next job begins.

        The state changes once that has happened; until then `message` says that it will. A paused
        job goes on exactly where it was when it is resumed.

        Raises:
            StorageError: the job is neither queued nor running.
        """
        raise NotImplementedError

    def stop(self, id: str) -> Job:
        """End a job and keep what there is: the adapter as last saved, videos already drawn.

        A second call ends it at once, whatever it is doing. A queued job is just taken out.
        """
        raise NotImplementedError

    def resume(self, id: str) -> Job:
        """Queue a paused, stopped or failed job again; it goes on from what it has."""
        raise NotImplementedError

    def reorder(self, ids: Sequence[str]) -> Listing[Job]:
        """Bring the queued jobs into this order; those not named follow."""
        raise NotImplementedError

    def delete(self, id: str) -> Discarded:
        """Move a job that is not active to the trash; its adapter and videos stay."""
        raise NotImplementedError

    def results(self, id: str) -> tuple[Path, ...]:
        """Files that a finished job left to download: an export's zip, an evaluation's scores."""
        raise NotImplementedError

    def ensure_runner(self) -> bool:
        """Start a runner if there is work and none is there; whether one was started.

        A page calls it when it is opened, so that jobs go on after the machine was restarted.
        """
        raise NotImplementedError
