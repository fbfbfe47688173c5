"""The runner: `python -m customvideo.workspace.runner ROOT` does a workspace's jobs, one by one.

One per workspace, by a lock that ends with it. Each job is done by a process of its own (`work`),
so whatever breaks there breaks one job; and the work outlives the runner, whose successor waits
for it. The runner ends when there is nothing left to do; the queue starts another.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from customvideo.errors import StorageError
from customvideo.workspace.jobs import JobFolder, job_folders
from customvideo.workspace.places import ADAPTERS, inside, now
from customvideo.workspace.processes import end, held, own_identity, start_detached
from customvideo.workspace.queue import queue_lock, runner_lock, waiting
from customvideo.workspace.records import State

__all__ = ["main", "run"]

_WORK = "customvideo.workspace.work"
_POLL = 0.2
_LOOK = 1.0
_MOST_TRIES = 2
"""Times that a job may be ended from outside at the same place before it is called failed."""
_AFTER: dict[str, State] = {"done": "done", "paused": "paused", "stopped": "stopped"}


def main() -> None:
    """Do the jobs of the workspace named on the command line."""
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "workspace.json").is_file():
        raise SystemExit("Say which workspace: python -m customvideo.workspace.runner ROOT")
    raise SystemExit(run(Path(sys.argv[1]).absolute()))


def run(root: Path) -> int:
    """Do the jobs of the workspace `root`; the program's exit status."""
    lock = FileLock(runner_lock(root))
    try:
        # Somebody may just be looking whether there is a runner, and hold it for that.
        lock.acquire(timeout=_LOOK)
    except Timeout:
        sys.stderr.write(f"A runner is working on '{root}' already; it does every job.\n")
        return 2
    own_identity(root / "jobs" / ".runner.json")
    try:
        for begun in _begun(root):
            # Its process may be alive still, if only the runner was ended.
            _see_through(begun, None)
        while (folder := _next(root, lock)) is not None:
            _do(folder)
    finally:
        lock.release()
    return 0


def _begun(root: Path) -> list[JobFolder]:
    """Jobs that an earlier runner has left running."""
    found = []
    for folder in job_folders(root):
        with suppress(StorageError):
            if folder.state()["state"] == "running" or held(folder.lock):
                found.append(folder)
    return found


def _next(root: Path, lock: FileLock) -> JobFolder | None:
    """The next job; without any the runner's lock is given up, before a job can be submitted."""
    with queue_lock(root):
        for folder in waiting(root):
            try:
                folder.spec()
            except StorageError as error:
                folder.change(state="failed", message=str(error), finished=now())
                continue
            return folder
        lock.release()
        return None


def _do(folder: JobFolder) -> None:
    """Start a job's process and see it through."""
    with queue_lock(folder.root):
        state = folder.state()
        if state["state"] != "queued":
            return
        folder.forget_result()
        began = state.get("started") or now()
        folder.change(state="running", message="", started=began, finished="", force=False)
        process = start_detached(_WORK, [str(folder.root), folder.id], folder.log)
    _see_through(folder, process)


def _see_through(folder: JobFolder, process: subprocess.Popen[bytes] | None) -> None:
    """Wait until a job's process has ended, end it where somebody wants that, note how it was."""
    ended_here = False
    while _alive(folder, process):
        wish = folder.wish()
        # A training that is at it saves first; what else is going on can be done again.
        at_once = bool(folder.state().get("force")) or not folder.told().get("listens", False)
        if wish is not None and at_once and folder.process.exists():
            end(folder.process)
            ended_here = True
        time.sleep(_POLL)
    with queue_lock(folder.root):
        _settle(folder, None if process is None else process.returncode, ended_here)


def _alive(folder: JobFolder, process: subprocess.Popen[bytes] | None) -> bool:
    return held(folder.lock) if process is None else process.poll() is None


def _settle(folder: JobFolder, code: int | None, ended_here: bool) -> None:
    """Note how a job's process has ended, from what it said, or what can be seen."""
    result, wish = folder.result(), folder.wish()
    folder.process.unlink(missing_ok=True)
    if result is not None and result.get("outcome") in (*_AFTER, "failed"):
        outcome = _AFTER.get(str(result["outcome"]), "failed")
        _close(folder, outcome, str(result.get("message", "")), result.get("warnings", []))
    elif result is not None:
        # It was asked by the system, not by us, and has saved what it had.
        folder.change(state="queued", message="It was interrupted and goes on.")
    elif wish == "stop" and not _has_saved(folder):
        _close(folder, "stopped", "Stopped before anything was finished.")
    elif wish == "pause" and ended_here:
        _close(folder, "paused", "")
    elif wish == "stop" and ended_here:
        # What was saved before is brought into the library by the work itself.
        folder.change(state="queued", message="", force=False)
    else:
        _try_again(folder, code)


def _close(folder: JobFolder, state: State, message: str, warnings: Any = ()) -> None:
    folder.want(None)
    folder.change(
        state=state, message=message, warnings=list(warnings), finished=now(), force=False
    )


def _try_again(folder: JobFolder, code: int | None) -> None:
    """Queue a job whose process was ended from outside, unless that happens again and again."""
    state, saved = folder.state(), _last_saved(folder)
    tries = 1 if saved > int(state.get("saved", -1)) else int(state.get("tries", 0)) + 1
    how = f" by signal {-code}" if code is not None and code < 0 else ""
    if tries > _MOST_TRIES:
        _close(
            folder,
            "failed",
            f"Its process was ended{how} {tries} times at the same place, perhaps for want of "
            "memory; close other programs or choose smaller settings, then resume it.",
        )
        return
    place = f"on from step {saved}" if saved > 0 else "again from its beginning"
    message = f"Its process was ended{how}; it goes {place}."
    folder.change(state="queued", message=message, tries=tries, saved=saved)


def _has_saved(folder: JobFolder) -> bool:
    return _last_saved(folder) > 0


def _last_saved(folder: JobFolder) -> int:
    """The step of the newest checkpoint of a training, or how many videos there are; else 0."""
    spec = folder.spec()
    if spec["kind"] == "train":
        home = inside(folder.root, ADAPTERS, str(spec["adapter"])) / "checkpoints"
        steps = [path.name for path in home.glob("*/COMPLETE") for path in [path.parent]]
        return max((int(step) for step in steps if step.isdecimal()), default=0)
    videos = [inside(folder.root, "videos", str(id)) for id in spec.get("videos", ())]
    return sum((video / "settings.json").is_file() for video in videos)


if __name__ == "__main__":
    main()
