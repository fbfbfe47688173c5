"""The queue: jobs are submitted, watched, paused, resumed and stopped here.

Nothing is done in the caller's process: a runner (`customvideo.workspace.runner`), one per
workspace, is started when there is something to do, and outlives whoever started it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from customvideo.errors import StorageError
from customvideo.files import ensure_dir
from customvideo.workspace.jobs import JobFolder, job_folders
from customvideo.workspace.places import ADAPTERS, JOBS, inside, new_id, now
from customvideo.workspace.processes import held, start_detached
from customvideo.workspace.records import Discarded, Job, Kind, Listing, Progress, State
from customvideo.workspace.requests import plan_job
from customvideo.workspace.seen import Seen

if TYPE_CHECKING:
    from customvideo.workspace.workspace import Workspace

__all__ = ["Queue", "queue_lock", "runner_lock", "waiting"]

_RUNNER = "customvideo.workspace.runner"
_ORDER: dict[State, int] = {"running": 0, "queued": 1}


class Queue:
    """The jobs of `workspace`. Every method may be called from several processes at once."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace, self._root = workspace, workspace.root
        self._jobs: Seen[Job] = Seen("job.json", "state.json", "wish.json")

    def submit(self, kind: Kind, project: str, settings: Mapping[str, Any]) -> Job:
        """Put a job at the end of the queue and see to it that a runner is there.

        `settings` are those of the kind's class in `records.REQUESTS`; `project` may be empty where
        a job belongs to none.

        Raises:
            UserError: the settings cannot work, as far as can be told without loading a model.
        """
        spec = plan_job(self._workspace, kind, project, settings)
        folder = JobFolder(self._root, new_id(kind))
        ensure_dir(folder.path)
        with queue_lock(self._root):
            places = [state["place"] for _, state in _states(job_folders(self._root))]
            place = max(places, default=0) + 1
            folder.create({**spec, "created": now()}, {"state": "queued", "place": place})
        self.ensure_runner()
        return self.get(folder.id)

    def list(self, project: str | None = None) -> Listing[Job]:
        """All jobs, of one project if given: running, then queued in order, then newest first."""
        found, broken = [], []
        folders = job_folders(self._root)
        for folder in folders:
            try:
                found.append(self._jobs.get(self._root / JOBS / folder.id, folder.job))
            except StorageError as error:
                broken.append(str(error))
        self._jobs.keep([folder.id for folder in folders])
        queued = [JobFolder(self._root, job.id) for job in found if job.state == "queued"]
        places = _places(_in_order(queued))
        found = [
            replace(job, position=places.get(job.id, 0))
            for job in found
            if project is None or job.project == project
        ]
        found.sort(key=lambda job: job.created, reverse=True)
        found.sort(key=lambda job: (_ORDER.get(job.state, 2), job.position))
        return Listing(tuple(found), tuple(broken))

    def get(self, id: str) -> Job:
        """The job called `id`. Raises StorageError if there is none."""
        job = JobFolder(self._root, id).job()
        places = _places(waiting(self._root)) if job.state == "queued" else {}
        return replace(job, position=places.get(id, 0))

    def progress(self, id: str) -> Progress:
        """How far a job is; cheap enough to ask every second."""
        folder = JobFolder(self._root, id)
        job = folder.job()
        trains = job.kind == "train"
        return folder.progress(inside(self._root, ADAPTERS, job.adapter) if trains else None)

    def log(self, id: str, lines: int = 200) -> str:
        """The last lines of what a job said."""
        self.get(id)
        return JobFolder(self._root, id).tail(lines)

    def pause(self, id: str) -> Job:
        """Let a job wait: a training saves a checkpoint first, and the next job begins.

        The state changes once that has happened; until then `message` says that it will. A paused
        job goes on exactly where it was when it is resumed.

        Raises:
            StorageError: the job is neither queued nor running.
        """

        def change(folder: JobFolder, state: dict[str, Any]) -> None:
            if state["state"] == "queued":
                folder.want(None)
                folder.change(state="paused", message="")
            elif state["state"] == "running":
                folder.want("pause")
            else:
                raise StorageError(f"A job that is {state['state']} cannot be paused.")

        return self._changed(id, change)

    def stop(self, id: str) -> Job:
        """End a job and keep what there is: the adapter as last saved, videos already drawn.

        A second call ends a running one at once, whatever it is doing. One that has not begun is
        just taken out.

        Raises:
            StorageError: the job has ended already.
        """

        def change(folder: JobFolder, state: dict[str, Any]) -> None:
            if state["state"] == "running":
                folder.change(force=folder.wish() == "stop")
                folder.want("stop")
            elif state["state"] not in ("queued", "paused"):
                raise StorageError(f"The job is {state['state']} already.")
            elif state.get("started"):
                # What it has saved is brought into the library by the runner.
                folder.want("stop")
                folder.change(state="queued", message="")
            else:
                folder.change(state="stopped", message="Stopped before it began.", finished=now())

        job = self._changed(id, change)
        self.ensure_runner()
        return job

    def resume(self, id: str) -> Job:
        """Queue a paused, stopped or failed job again; it goes on from what it has.

        Raises:
            StorageError: it is not one of these, or its adapter was deleted.
        """

        def change(folder: JobFolder, state: dict[str, Any]) -> None:
            if state["state"] not in ("paused", "stopped", "failed"):
                raise StorageError(f"A job that is {state['state']} cannot be resumed.")
            folder.want(None)
            place = (
                max((one["place"] for _, one in _states(job_folders(self._root))), default=0) + 1
            )
            folder.change(state="queued", message="", place=place, tries=0, force=False)

        job = self._changed(id, change)
        self.ensure_runner()
        return job

    def reorder(self, ids: Sequence[str]) -> Listing[Job]:
        """Bring the queued jobs into this order; those not named follow."""
        with queue_lock(self._root):
            queued = {folder.id: folder for folder in waiting(self._root)}
            places = sorted(folder.state()["place"] for folder in queued.values())
            wanted = [id for id in dict.fromkeys(ids) if id in queued]
            rest = [id for id in queued if id not in wanted]
            for place, id in zip(places, [*wanted, *rest], strict=True):
                queued[id].change(place=place)
        return self.list()

    def delete(self, id: str) -> Discarded:
        """Move a job that is not active to the trash; its adapter and videos stay.

        Raises:
            StorageError: it is queued or running.
        """
        with queue_lock(self._root):
            job = self.get(id)
            if job.active:
                raise StorageError(f"The job is {job.state}; stop it before deleting it.")
            return self._workspace.trash.discard("job", job.title, [(JOBS, id)])

    def results(self, id: str) -> tuple[Path, ...]:
        """Files that a finished job left to download: an export's zip, an evaluation's scores."""
        self.get(id)
        folder = JobFolder(self._root, id).out
        return tuple(sorted(path for path in folder.glob("[!.]*") if path.is_file()))

    def ensure_runner(self) -> bool:
        """Start a runner if there is work and none is there; whether one was started.

        A page calls it when it is opened and now and then, so that jobs go on after the machine
        was restarted or the runner was ended.
        """
        with queue_lock(self._root):
            states = [state["state"] for _, state in _states(job_folders(self._root))]
            if not {"queued", "running"} & set(states) or held(runner_lock(self._root)):
                return False
            log = self._root / JOBS / "runner.log"
            process = start_detached(_RUNNER, [str(self._root)], log)
        # It outlives us, or else leaves no dead entry in the system's table.
        threading.Thread(target=process.wait, daemon=True).start()
        return True

    def _changed(self, id: str, change: Callable[[JobFolder, dict[str, Any]], None]) -> Job:
        with queue_lock(self._root):
            folder = JobFolder(self._root, id)
            change(folder, folder.state())
        return self.get(id)


def queue_lock(root: Path) -> FileLock:
    """Held, shortly, by whoever changes jobs' states."""
    return FileLock(ensure_dir(root / JOBS) / ".queue.lock")


def runner_lock(root: Path) -> Path:
    """Held by the runner of the workspace `root`, as long as it lives."""
    return root / JOBS / ".runner.lock"


def waiting(root: Path) -> list[JobFolder]:
    """The queued jobs, the next first: what is to be stopped is done at once."""
    return _in_order(job_folders(root))


def _in_order(folders: Sequence[JobFolder]) -> list[JobFolder]:
    """Those of the jobs that are queued, the next first."""
    queued = [(folder, state) for folder, state in _states(folders) if state["state"] == "queued"]
    queued.sort(key=lambda pair: (pair[0].wish() != "stop", pair[1]["place"], pair[0].id))
    return [folder for folder, _ in queued]


def _places(queued: Sequence[JobFolder]) -> dict[str, int]:
    """The places of queued jobs by id, from 1."""
    return {folder.id: place for place, folder in enumerate(queued, start=1)}


def _states(folders: Sequence[JobFolder]) -> list[tuple[JobFolder, dict[str, Any]]]:
    found = []
    for folder in folders:
        try:
            state = folder.state()
        except StorageError:
            continue
        found.append((folder, {**state, "place": int(state.get("place", 0))}))
    return found
