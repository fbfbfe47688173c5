"""Jobs as lines of text, for people without a page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from customvideo.errors import StorageError
from customvideo.workspace.records import Job, Progress
from customvideo.workspace.workspace import Workspace

__all__ = ["tell"]


def tell(
    root: Path, *, pause: str | None, resume: str | None, stop: str | None, log: str | None
) -> Iterator[str]:
    """What is asked of the jobs of the workspace `root` is done, then they are told, a line each.

    Raises:
        StorageError: there is no workspace, or no such job, or it cannot be asked for that.
    """
    if not (root / "workspace.json").is_file():
        raise StorageError(f"'{root}' is no studio's folder; give one that `customvideo web` made.")
    queue = Workspace(root).queue
    if log is not None:
        yield queue.log(log)
        return
    for id, ask in ((pause, queue.pause), (resume, queue.resume), (stop, queue.stop)):
        if id is not None:
            ask(id)
    queue.ensure_runner()
    listing = queue.list()
    for job in listing.entries:
        yield _line(job, queue.progress(job.id))
    yield from listing.broken
    if not (listing.entries or listing.broken):
        yield "There is no job."


def _line(job: Job, progress: Progress) -> str:
    far = f" {progress.step}/{progress.of}" if progress.of and job.state != "queued" else ""
    left = ""
    if job.state == "running" and progress.seconds_left is not None:
        seconds = round(progress.seconds_left)
        left = f", {seconds // 60}:{seconds % 60:02d} left"
    said = f": {job.message}" if job.message else ""
    return f"{job.id}  {job.state}{far}{left}  {job.title}{said}"
