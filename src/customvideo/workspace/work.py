"""One job, done: `python -m customvideo.workspace.work ROOT JOB`, started by the runner alone.

What each kind of job does is `doing`; here is what all have in common: nobody else does the same
job, wishes are heard, progress is told, and the end is written down, however it comes.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from customvideo.errors import CustomVideoError, UserError
from customvideo.files import ensure_dir
from customvideo.notes import heard
from customvideo.workspace.jobs import JobFolder, Wish
from customvideo.workspace.processes import own_identity
from customvideo.workspace.workspace import Workspace

__all__ = ["Work", "main"]

_PATIENCE = 10.0
"""Seconds to wait for the job's lock: somebody may be looking whether it is held."""
_TELL_EVERY = 0.3
_LONGEST_NOTE = 300


class Work:
    """A job while it is done.

    Attributes:
        workspace: where it belongs.
        folder: the job's own files.
        spec: what its file says: kind, project, settings, and ids of what it makes.
        warnings: sentences for the user, in the order they came.
    """

    def __init__(self, root: Path, id: str) -> None:
        self.workspace = Workspace(root)
        self.folder = JobFolder(root, id)
        self.spec = self.folder.spec()
        self.warnings: list[str] = []
        self._note = ""
        self._told_at = 0.0
        self._progress: dict[str, Any] = {}
        self._began: tuple[float, int] | None = None

    @property
    def wish(self) -> Wish | None:
        return self.folder.wish()

    def heed(self) -> None:
        """Raise KeyboardInterrupt if somebody wants the job to pause or stop."""
        if self.wish is not None:
            raise KeyboardInterrupt

    def say(self, text: str) -> None:
        """A line of progress for people."""
        _log(text)
        self._note = text.strip()[:_LONGEST_NOTE]
        self.tell()

    def phase(self, name: str, *, listens: bool = False) -> None:
        """What is done now; `listens`: wishes are heard soon, without ending the process."""
        self._progress.update(phase=name, listens=listens, seconds_left=None)
        self._began = None
        self.tell(at_once=True)

    def step(self, step: int, of: int) -> None:
        """How far it is in this phase."""
        moment = time.monotonic()
        if self._began is None:
            self._began = (moment, step)
        began, first = self._began
        if step > first:
            left = (moment - began) / (step - first) * (of - step)
            self._progress["seconds_left"] = round(left, 1)
        self._progress.update(step=step, of=of)
        self.tell(at_once=step == of)

    def tell(self, *, at_once: bool = False) -> None:
        """Write progress to its file, not more often than anyone looks."""
        moment = time.monotonic()
        if at_once or moment - self._told_at >= _TELL_EVERY:
            self._told_at = moment
            self.folder.tell(**self._progress, note=self._note)

    def add_losses(self, step: int, loss: float, parts: dict[str, float]) -> None:
        """Note the losses of a step."""
        line = json.dumps({"step": step, "loss": loss, "parts": parts})
        with self.folder.steps.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")


def main() -> None:
    """Do the job named on the command line."""
    root, id = Path(sys.argv[1]), sys.argv[2]
    lock = FileLock(JobFolder(root, id).lock)
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        _log("Another process is doing this job.")
        raise SystemExit(3) from None
    own_identity(JobFolder(root, id).process)
    _do(Work(root, id))


def _do(work: Work) -> None:
    """Do it, and write down how it ended."""
    from customvideo.workspace.doing import do, keep

    ensure_dir(work.folder.out)
    work.phase("starting")
    outcome, message = "done", ""
    with heard(_noting(work)):
        try:
            wish = work.wish
            if wish is None:
                message = do(work)
            else:
                outcome, message = _heeded(wish, keep(work))
        except KeyboardInterrupt:
            outcome, message = _heeded(work.wish, keep(work))
        except UserError as error:
            outcome, message = _unless_interrupted(work, error)
        except (Exception, MemoryError) as error:
            traceback.print_exc()
            outcome, message = "failed", _unexpected(error)
    work.phase("")
    work.folder.finish(outcome, message, tuple(work.warnings))


def _heeded(wish: Wish | None, kept: str) -> tuple[str, str]:
    """Outcome and message of work that was asked to end."""
    if wish == "pause":
        return "paused", ""
    return ("stopped", kept) if wish == "stop" else ("interrupted", "")


def _unless_interrupted(work: Work, error: UserError) -> tuple[str, str]:
    from customvideo.training.interrupt import Interrupted
    from customvideo.workspace.doing import keep

    if isinstance(error, Interrupted):
        return _heeded(work.wish, keep(work))
    _log(str(error))
    return "failed", str(error)


def _unexpected(error: BaseException) -> str:
    kind = "a fault of its own" if isinstance(error, CustomVideoError) else type(error).__name__
    return f"Something unexpected went wrong ({kind}: {error}); the job's log says more."


def _log(text: str) -> None:
    """A line for the job's log, which is this process's output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _noting(work: Work) -> Callable[[str, int], None]:
    """Puts what the package notes into the log, and its warnings into the job."""

    def note(text: str, level: int) -> None:
        _log(f"Note: {text}")
        if level >= logging.WARNING and text not in work.warnings:
            work.warnings.append(text)

    return note


if __name__ == "__main__":
    main()
