"""Who does the jobs: this process, or whatever else answers the same protocol.

An executor only hands jobs to workers and their outcomes back; which order they come in can change
no result. `customvideo.fleet.ray` is the one for several processes and machines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, Protocol

import torch

from customvideo.fleet.view import Say, View
from customvideo.fleet.work import Note, Outcome, P

__all__ = ["Executor", "Here", "drive", "follow"]

_PATIENCE = 2.0
"""Seconds between looks at jobs that another runner is doing."""


class Executor(Protocol[P]):
    """Does jobs."""

    @property
    def workers(self) -> int:
        """How many jobs are done at a time."""

    def run(self, jobs: Sequence[P], note: Note) -> Iterator[Outcome[P]]:
        """Do the jobs and yield how each ended, in any order.

        Raises:
            StorageError: the results cannot be written.
            Interrupted: stopped from outside.
        """


class Here(Generic[P]):
    """Does jobs in this process, one after the other; `threads` 0 leaves their number to torch."""

    workers = 1

    def __init__(self, work: Callable[[P, Note], Outcome[P]], threads: int = 0) -> None:
        self._work, self._threads = work, threads

    def run(self, jobs: Sequence[P], note: Note) -> Iterator[Outcome[P]]:
        with _threads(self._threads):
            for job in jobs:
                yield self._work(job, note)


def drive(executor: Executor[P], jobs: Sequence[P], view: View) -> list[Outcome[P]]:
    """Have all jobs done, waiting for those that another runner is doing, and say how each ended.

    One that another runner has finished, or left behind, is taken up: either way it ends here, too.
    """
    ended: list[Outcome[P]] = []
    left, waited = list(jobs), False
    while left:
        taken: list[P] = []
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


def follow(executor: Executor[P], jobs: Sequence[P], say: Say) -> list[Outcome[P]]:
    """Have the jobs done and shown; how each ended."""
    with View(jobs, executor.workers, say) as view:
        return drive(executor, jobs, view)


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
