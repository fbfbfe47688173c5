"""Jobs on a Ray cluster, or on all cores of this machine: the same work, the same results.

Each worker is a process with a kit of its own. All of them must see the folder of results under
the same path, and have this package installed. Ray is loaded when it is asked for, and not before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from customvideo.benchmark.editions import load_edition
from customvideo.benchmark.grid import Job, job_of
from customvideo.benchmark.job import Note, Outcome, Worker
from customvideo.benchmark.kit import Kit
from customvideo.benchmark.store import Failure, Store
from customvideo.errors import BenchmarkError, StorageError

__all__ = ["OnRay", "require_ray"]


def require_ray() -> None:
    """Check that Ray is installed.

    Raises:
        BenchmarkError: it is not.
    """
    if find_spec("ray") is None:
        raise BenchmarkError(
            "Ray is not installed; install it with: pip install 'customvideo[ray]', or leave out "
            "--ray to do all jobs in this process."
        )


class OnRay:
    """Does jobs in the workers of a Ray cluster, as a context: workers end with it.

    `address` is Ray's own, or "auto" for the cluster of this machine; where there is none, one of
    this machine alone is started for the while. `edition` is what `load_edition` takes.
    """

    def __init__(
        self, address: str, out: Path, edition: str, *, device: str = "auto", threads: int = 0
    ) -> None:
        require_ray()
        self._ray: Any = import_module("ray")
        self._address = address
        self._about = (str(out.absolute()), edition, device, threads or 1)
        self._gpus = device != "cpu"
        self._owned = False
        self._actors: list[Any] = []

    def __enter__(self) -> Self:
        self._connect()
        threads = self._about[-1]
        there = self._ray.cluster_resources()
        count = max(1, int(there.get("CPU", 1)) // int(threads))
        gpus = int(there.get("GPU", 0)) if self._gpus else 0
        options = {"num_cpus": threads, "num_gpus": 1 if gpus else 0, "max_restarts": -1}
        remote = self._ray.remote(**options)(_Remote)
        self._actors = [remote.remote(*self._about) for _ in range(min(count, gpus or count))]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
        if self._owned:
            self._ray.shutdown()

    @property
    def workers(self) -> int:
        """How many jobs are done at a time."""
        return len(self._actors)

    def run(self, jobs: Sequence[Job], note: Note) -> Iterator[Outcome]:
        """Do the jobs, each in the first worker that is free."""
        waiting, idle = list(jobs), list(self._actors)
        busy: dict[Any, tuple[Any, Job]] = {}
        while waiting or busy:
            while waiting and idle:
                actor, job = idle.pop(), waiting.pop(0)
                busy[actor.do.remote(job.to_dict())] = actor, job
            note(f"{len(busy)} at a time")
            ready, _ = self._ray.wait(list(busy), num_returns=1)
            actor, job = busy.pop(ready[0])
            idle.append(actor)
            yield self._outcome(ready[0], job)

    def _outcome(self, reference: Any, job: Job) -> Outcome:
        try:
            told: Mapping[str, Any] = self._ray.get(reference)
        except self._ray.exceptions.RayActorError as error:
            message = f"The worker died ({str(error).splitlines()[0]})"
            Store(Path(self._about[0])).folder(job).fail(Failure(message, type(error).__name__))
            return Outcome(job, "failed", 0.0, message)
        if told["ended"] == "unwritable":
            raise StorageError(told["message"])
        return Outcome(job, told["ended"], told["seconds"], told["message"])

    def _connect(self) -> None:
        if self._ray.is_initialized():
            return
        # A benchmark tells nobody that it runs.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        quiet = {"log_to_driver": False, "configure_logging": False}
        try:
            self._ray.init(address=self._address, **quiet)
        except ConnectionError as error:
            if self._address != "auto":
                raise BenchmarkError(
                    f"No Ray cluster answers at '{self._address}'; check the address, or let "
                    "--ray auto start one here."
                ) from error
            self._ray.init(include_dashboard=False, **quiet)
        self._owned = True


class _Remote:
    """A worker in a process of its own; what comes and goes is plain data."""

    def __init__(self, out: str, edition: str, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._worker = Worker(Store(Path(out)), Kit(load_edition(edition), device))

    def do(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Do the job told of, and tell how it ended."""
        try:
            outcome = self._worker.do(job_of(told))
        except StorageError as error:
            return {"ended": "unwritable", "message": str(error), "seconds": 0.0}
        return {"ended": outcome.ended, "message": outcome.message, "seconds": outcome.seconds}
