"""Pieces of work on a Ray cluster, or on all cores of this machine: the same results as here.

Each worker is a process of its own. All of them must see the folder of results under the same path,
and have this package installed. A worker that dies is replaced, wherever there is room, and what it
was doing is done by another. Ray is loaded when it is asked for, and not before.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Generic, Self

import torch

from customvideo.errors import FleetError, StorageError
from customvideo.fleet.work import Note, Outcome, P, Work

__all__ = ["TRIES", "OnRay", "require_ray"]

TRIES = 3
"""Workers that may die over one piece before it counts as failed: what kills every worker is at
fault itself."""


def require_ray() -> None:
    """Check that Ray is installed.

    Raises:
        FleetError: it is not.
    """
    if find_spec("ray") is None:
        raise FleetError(
            "Ray is not installed; install it with: pip install 'customvideo[ray]', or leave out "
            "--ray to do all jobs in this process."
        )


class OnRay(Generic[P]):
    """Does pieces of work in the workers of a Ray cluster, as a context: workers end with it.

    `address` is Ray's own, or "auto" for the cluster of this machine; where there is none, one of
    this machine alone is started for the while. `opens` makes a worker's side of the work, in its
    process: a function of a module, or a `functools.partial` of one.
    """

    def __init__(
        self, address: str, opens: Callable[[], Work], *, device: str = "auto", threads: int = 0
    ) -> None:
        require_ray()
        self._ray: Any = import_module("ray")
        self._address, self._opens, self._threads = address, opens, threads or 1
        self._gpus = device != "cpu"
        self._owned = False
        self._remote: Any = None
        self._coming: dict[Any, Any] = {}
        """Answer to be -> worker that is being started."""
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, P]] = {}
        self._never = 0
        """Starts that failed while nobody could work."""
        self.workers = 0
        """How many jobs are done at a time."""

    def __enter__(self) -> Self:
        self._connect()
        there = self._ray.cluster_resources()
        count = max(1, int(there.get("CPU", 1)) // self._threads)
        gpus = int(there.get("GPU", 0)) if self._gpus else 0
        options = {"num_cpus": self._threads, "num_gpus": 1 if gpus else 0}
        self._remote = self._ray.remote(**options)(_Remote)
        self.workers = min(count, gpus or count)
        for _ in range(self.workers):
            self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        busy = [worker for worker, _ in self._busy.values()]
        for worker in [*self._coming.values(), *self._idle, *busy]:
            self._ray.kill(worker)
        self._coming, self._idle, self._busy = {}, [], {}
        if self._owned:
            self._ray.shutdown()

    def run(self, jobs: Sequence[P], note: Note) -> Iterator[Outcome[P]]:
        """Do the jobs, each in the first worker that is free."""
        waiting, deaths = list(jobs), Counter[str]()
        while waiting or self._busy:
            while waiting and self._idle:
                worker, job = self._idle.pop(), waiting.pop(0)
                self._busy[worker.do.remote(job.to_dict())] = worker, job
            note(f"{len(self._busy)} at a time")
            ready, _ = self._ray.wait([*self._busy, *self._coming], num_returns=1)
            if ready[0] in self._coming:
                self._arrived(ready[0])
                continue
            worker, job = self._busy.pop(ready[0])
            try:
                outcome = _outcome(self._ray.get(ready[0]), job)
            except self._ray.exceptions.RayActorError as error:
                self._replace(worker)
                deaths[job.digest] += 1
                if deaths[job.digest] < TRIES:
                    waiting.append(job)
                    continue
                outcome = self._given_up(job, error)
            else:
                self._idle.append(worker)
            yield outcome

    def _start(self) -> None:
        worker = self._remote.remote(self._opens, self._threads)
        self._coming[worker.ready.remote()] = worker

    def _replace(self, worker: Any) -> None:
        with suppress(Exception):
            self._ray.kill(worker)
        self._start()

    def _arrived(self, answer: Any) -> None:
        """Take in a worker that has started, or start another in its place.

        Raises:
            FleetError: none ever starts.
        """
        worker = self._coming.pop(answer)
        try:
            self._ray.get(answer)
        except self._ray.exceptions.RayError as error:
            self._never = 0 if self._idle or self._busy else self._never + 1
            if self._never >= TRIES:
                raise FleetError(
                    "No worker can be started on the Ray cluster "
                    f"({str(error).strip().splitlines()[-1]}); check that this package and the "
                    "results' folder are there on every machine."
                ) from error
            self._replace(worker)
            return
        self._never = 0
        self._idle.append(worker)

    def _given_up(self, job: P, error: Exception) -> Outcome[P]:
        message = f"{TRIES} workers died over it ({str(error).splitlines()[0]})"
        self._opens().give_up(job.to_dict(), message)
        return Outcome(job, "failed", 0.0, message)

    def _connect(self) -> None:
        if self._ray.is_initialized():
            return
        # A run tells nobody that it runs.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        quiet = {"log_to_driver": False, "configure_logging": False}
        try:
            self._ray.init(address=self._address, **quiet)
        except ConnectionError as error:
            if self._address != "auto":
                raise FleetError(
                    f"No Ray cluster answers at '{self._address}'; check the address, or let "
                    "--ray auto start one here."
                ) from error
            self._ray.init(include_dashboard=False, **quiet)
        self._owned = True


def _outcome(told: Mapping[str, Any], job: P) -> Outcome[P]:
    if told["ended"] == "unwritable":
        raise StorageError(told["message"])
    return Outcome(job, told["ended"], told["seconds"], told["message"])


class _Remote:
    """A worker in a process of its own; what comes and goes is plain data."""

    def __init__(self, opens: Callable[[], Work], threads: int) -> None:
        torch.set_num_threads(threads)
        self._work = opens()

    def ready(self) -> bool:
        """Answers once the worker can work."""
        return True

    def do(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Do the piece told of, and tell how it ended."""
        try:
            outcome = self._work.do(told)
        except StorageError as error:
            return {"ended": "unwritable", "message": str(error), "seconds": 0.0}
        return {"ended": outcome.ended, "message": outcome.message, "seconds": outcome.seconds}
