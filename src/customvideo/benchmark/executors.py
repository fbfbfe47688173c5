"""Who does the jobs: this process, or whatever else answers the same protocol.

An executor only hands jobs to workers and their outcomes back; which order they come in can change
no result. `customvideo.benchmark.ray` is the one for several processes and machines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch

from customvideo.benchmark.grid import Job
from customvideo.benchmark.job import Note, Outcome
from customvideo.benchmark.view import View

__all__ = ["Executor", "Here", "drive"]

_PATIENCE = 2.0
"""Seconds between looks at jobs that another runner is doing."""


class Executor(Protocol):
    """Does jobs."""

    @property
    def workers(self) -> int:
        """How many jobs are done at a time."""

    def run(self, jobs: Sequence[Job], note: Note) -> Iterator[Outcome]:
        """Do the jobs and yield how each ended, in any order.

        Raises:
            StorageError: the results cannot be written.
            Interrupted: stopped from outside.
        """


class Here:
    """Does jobs in this process, one after the other; `threads` 0 leaves their number to torch."""

    workers = 1

    def __init__(self, work: Callable[[Job, Note], Outcome], threads: int = 0) -> None:
        self._work, self._threads = work, threads

    def run(self, jobs: Sequence[Job], note: Note) -> Iterator[Outcome]:
        with _threads(self._threads):
            for job in jobs:
                yield self._work(job, note)


def drive(executor: Executor, jobs: Sequence[Job], view: View) -> list[Outcome]:
    """Have all jobs done, waiting for those that another runner is doing, and say how each ended.

    One that another runner has finished, or left behind, is taken up: either way it ends here, too.
    """
    ended: list[Outcome] = []
    left, waited = list(jobs), False
    while left:
        taken: list[Job] = []
        for outcome in executor.run(left, view.note):
            if outcome.ended == "taken":
                taken.append(outcome.job)
                continue
            ended.append(outcome)
            view.ended(outcome)
        if len(taken) == len(left):
            if not waited:
                view.say(f"Waiting for {len(taken)} that another runner is doing.")
                waited = True
            time.sleep(_PATIENCE)
        left = taken
    return ended


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use so many threads for the block."""
    if not count:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
