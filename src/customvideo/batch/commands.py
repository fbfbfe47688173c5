"""What `customvideo batch` does, from runs to a folder of results and lines of text."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from customvideo.batch.plan import Run
from customvideo.batch.work import Outcome, RunFolder, Worker, open_worker
from customvideo.files import write_text
from customvideo.fleet.executors import Here, follow
from customvideo.fleet.ray import OnRay, require_ray
from customvideo.fleet.work import failed
from customvideo.runs.folder import Say, require_writable

__all__ = ["Summary", "run_batch"]

TABLE = "batch.csv"


@dataclass(frozen=True)
class Summary:
    """How a batch ended: how many runs are done, which failed, and where the table of all is."""

    done: int
    failed: tuple[Outcome, ...]
    table: Path


def run_batch(
    runs: Sequence[Run],
    out: Path,
    *,
    say: Say,
    ray: str | None = None,
    retry_failed: bool = False,
    device: str = "auto",
) -> Summary:
    """Do what is left of `runs`, as `load_plan` reads them, in the folder `out`, and write the
    table `out/batch.csv`.

    `ray` is the address of a Ray cluster or "auto"; None does all in this process. A run that
    failed is told at the end, and tried again only with `retry_failed`.

    Raises:
        UserError: the folder or the cluster cannot be used.
        Interrupted: stopped from outside; the same call goes on.
    """
    if ray is not None:
        require_ray()
    require_writable(out)
    todo, lost = _left(out, runs, retry_failed=retry_failed)
    say(f"{len(runs)} runs: {len(runs) - len(todo) - len(lost)} are done, {len(todo)} to do.")
    try:
        if ray is None or not todo:
            lost += failed(follow(Here(Worker(out, device).do), todo, say))
        else:
            opens = partial(open_worker, str(out.absolute()), device)
            with OnRay[Run](ray, opens, device=device) as workers:
                lost += failed(follow(workers, todo, say))
    finally:
        table = _tabulate(out, runs)
    for outcome in lost:
        say(f"Failed: {outcome.job.title}: {outcome.message}")
    if lost:
        say(f"{len(lost)} of {len(runs)} runs failed; --retry-failed tries them again.")
    say(f"Wrote '{table}'; adapters and videos are in a folder for each run beside it.")
    return Summary(len(runs) - len(lost), tuple(lost), table)


def _left(out: Path, runs: Sequence[Run], *, retry_failed: bool) -> tuple[list[Run], list[Outcome]]:
    """The runs to do, those with one base model together, and those that failed earlier."""
    todo: list[Run] = []
    lost: list[Outcome] = []
    for run in runs:
        folder = RunFolder(out, run.title)
        if folder.done.get("digest") == run.digest:
            continue
        if folder.failure and not retry_failed:
            lost.append(Outcome(run, "failed", 0.0, folder.failure))
        else:
            todo.append(run)
    return sorted(todo, key=lambda run: run.recipe.backbone), lost


def _tabulate(out: Path, runs: Sequence[Run]) -> Path:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "state", "seconds", "adapter", "bytes", "message"])
    for run in runs:
        writer.writerow(_line(RunFolder(out, run.title), run, out))
    write_text(out / TABLE, text.getvalue())
    return out / TABLE


def _line(folder: RunFolder, run: Run, out: Path) -> list[object]:
    done = folder.done.get("digest") == run.digest
    state = "done" if done else "failed" if folder.failure else "open"
    there = folder.adapter.is_file()
    return [
        run.title,
        state,
        f"{folder.done['seconds']:.1f}" if done else "",
        folder.adapter.relative_to(out).as_posix() if there else "",
        folder.adapter.stat().st_size if there else "",
        "" if done else folder.failure,
    ]
