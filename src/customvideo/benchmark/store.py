"""The folder of a benchmark's results, and what is in it of each job.

    bench.json                    of which version and edition these results are
    rows.csv                      every finished job's scores, made anew from the jobs' own
    jobs/<digest>/
        job.json                  what the job is, complete: it can be done again from this alone
        claim-<n>                 while some runner works on it
        training/                 until the adapter is there: checkpoints to go on from
        losses.jsonl              of the training, a line a step
        adapter.safetensors
        videos/<prompt>-<seed>.mp4
        costs.json                seconds, memory, bytes
        probes/                   videos of words exchanged, and of bare categories
        probes.json               what these say
        rows.json                 the scores of all its videos: with it the job is done
        failed.json               why it came to nothing

Every file is whole or not there. Nothing is ever removed but a training's checkpoints: a job of
another recipe lies beside this one's. Who does a job is `customvideo.benchmark.job`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from customvideo.benchmark.editions import Edition
from customvideo.benchmark.grid import RESULTS_VERSION, Job, Sample, job_of
from customvideo.claims import forget_expired
from customvideo.errors import BenchmarkError, StorageError
from customvideo.evaluation.scores import Row
from customvideo.files import discard, ensure_dir, sweep, write_bytes
from customvideo.records import read_record, write_record
from customvideo.runs.folder import ADAPTER

__all__ = ["BENCH", "ROWS", "Failure", "JobFolder", "Scored", "Store"]

BENCH, ROWS = "bench.json", "rows.csv"
_JOBS, _JOB, _COSTS, _SCORED = "jobs", "job.json", "costs.json", "rows.json"
_FAILED, _PROBES = "failed.json", "probes"


@dataclass(frozen=True)
class Failure:
    """Why a job came to nothing: the error's sentence, its class, and where it came from."""

    message: str
    error: str = ""
    trace: str = ""


@dataclass(frozen=True)
class Scored:
    """A job's finished scores.

    Attributes:
        scoring: digest of what they were made with; see `customvideo.benchmark.kit.Kit.scoring`.
        samples: the videos; a row's `video` counts from 0 in this order.
        rows: as `customvideo.evaluation` made them.
        small: which of the subjects are small ones of their edition.
    """

    scoring: str
    samples: tuple[Sample, ...]
    rows: tuple[Row, ...]
    small: frozenset[str]


class JobFolder:
    """What is there of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.training = path / "training"
        self.adapter = path / ADAPTER
        self.losses = path / "losses.jsonl"

    def video(self, sample: Sample) -> Path:
        """Where the video of a prompt and seed is kept."""
        return self.path / "videos" / f"{sample[0]}-{sample[1]}.mp4"

    def extra_video(self, kind: str, sample: Sample) -> Path:
        """Where a video is kept that was made to probe the job, not to compare it."""
        return self.path / _PROBES / f"{kind}-{sample[0]}-{sample[1]}.mp4"

    @property
    def probed(self) -> dict[str, dict[str, Any]]:
        """ "<prompt>-<seed>" -> what probing the job with that sample says, by name; "scoring" is
        the digest of what it was scored with."""
        return read_record(self.path / f"{_PROBES}.json")

    def note_probed(self, found: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep what probing says, in place of what was kept."""
        write_record(self.path / f"{_PROBES}.json", found)

    def job(self) -> Job | None:
        """The job, or None if its description is missing or damaged."""
        told = read_record(self.path / _JOB)
        try:
            return job_of(told) if told.get("results") == RESULTS_VERSION else None
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    def take_over(self, other: JobFolder) -> None:
        """Copy what another job made: all but its description and its claims."""
        names = [_COSTS, _SCORED, self.adapter.name, self.losses.name]
        for path in [other.path / name for name in names] + sorted(other.path.glob("videos/*.mp4")):
            if path.is_file():
                write_bytes(self.path / path.relative_to(other.path), path.read_bytes())

    def describe(self, job: Job) -> None:
        """Write down what the job is."""
        if self.job() != job:
            write_record(self.path / _JOB, job.to_dict())

    def relabel(self, method: str) -> None:
        """Give the job another label, "" for none: then no table shows it."""
        told = read_record(self.path / _JOB)
        if told.get("method") != method:
            write_record(self.path / _JOB, {**told, "method": method})

    def costs(self) -> dict[str, Any]:
        """What the job has cost so far."""
        return read_record(self.path / _COSTS)

    def note_costs(self, **costs: Any) -> None:
        """Add to what the job has cost."""
        write_record(self.path / _COSTS, {**self.costs(), **costs})

    @property
    def scored(self) -> Scored | None:
        """The scores of the job's videos, if there are some that this version understands."""
        told = read_record(self.path / _SCORED)
        try:
            rows = tuple(Row(**row) for row in told["rows"])
            samples = tuple((int(prompt), int(seed)) for prompt, seed in told["samples"])
            return Scored(told["scoring"], samples, rows, frozenset(told["small"]))
        except (KeyError, TypeError, ValueError):
            return None

    def finish(self, scored: Scored) -> None:
        """Keep the scores of all the job's videos: it is done."""
        told = {
            "scoring": scored.scoring,
            "samples": [list(sample) for sample in scored.samples],
            "small": sorted(scored.small),
            "rows": [asdict(row) for row in scored.rows],
        }
        write_record(self.path / _SCORED, told)

    def is_done(self, job: Job, scoring: str) -> bool:
        """Whether every video asked for has its scores, made as `scoring` says."""
        scored = self.scored
        if scored is None or scored.scoring != scoring:
            return False
        return set(job.samples) <= set(scored.samples)

    def fail(self, failure: Failure) -> None:
        """Keep why the job came to nothing."""
        write_record(self.path / _FAILED, asdict(failure))

    def forget_failure(self) -> None:
        """Let the job be tried anew, from its beginning unless it came as far as an adapter."""
        if self.failure is not None:
            discard(self.training)
            (self.path / _FAILED).unlink(missing_ok=True)

    @property
    def failure(self) -> Failure | None:
        """Why the job came to nothing, if it did."""
        told = read_record(self.path / _FAILED)
        if not told:
            return None
        return Failure(*(str(told.get(field.name, "")) for field in fields(Failure)))


class Store:
    """A folder of results."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def check(self, edition: Edition | None = None) -> None:
        """Check that the folder is new, empty, or holds results (of `edition`) to go on with.

        Raises:
            BenchmarkError: it holds something else, or results of another version or edition.
            StorageError: it is a file.
        """
        if self.out.exists() and not self.out.is_dir():
            raise StorageError(f"'{self.out}' is a file, not a folder for results; choose another.")
        told = read_record(self.out / BENCH)
        if not told:
            if self.out.exists() and any(self.out.glob("[!.]*")):
                raise BenchmarkError(
                    f"'{self.out}' holds something that is no benchmark; choose another --out."
                )
            return
        self._require_version(told)
        if edition is not None and told.get("edition_digest") != edition.digest:
            raise BenchmarkError(
                f"'{self.out}' holds results of another edition, '{told.get('edition')}', or of an "
                f"earlier state of '{edition.name}'; choose another --out."
            )

    def require(self) -> None:
        """Check that there are results of this version.

        Raises:
            BenchmarkError: there are none.
        """
        told = read_record(self.out / BENCH)
        if not told:
            raise BenchmarkError(
                f"There is no benchmark in '{self.out}'; make one with 'customvideo bench run'."
            )
        self._require_version(told)

    def create(self, edition: Edition, name: str) -> None:
        """Say what the folder is for, if it does not yet; `name` is what finds the edition."""
        # First of all: without it the folder would be taken for somebody else's.
        if not (self.out / BENCH).is_file():
            told = {
                "version": RESULTS_VERSION,
                "edition": edition.name,
                "edition_from": name,
                "edition_digest": edition.digest,
            }
            write_record(self.out / BENCH, told)
        ensure_dir(self.out / _JOBS)

    def tidy(self) -> None:
        """Remove what killed runners left half-written, and their claims."""
        sweep(self.out)
        for folder in (self.out / _JOBS).glob("[!.]*"):
            forget_expired(folder)

    @property
    def edition(self) -> str:
        """What `load_edition` takes to find the edition of these results."""
        return str(read_record(self.out / BENCH).get("edition_from", ""))

    def folder(self, job: Job) -> JobFolder:
        """The job's folder, whether it exists or not."""
        path = self.out / _JOBS / job.digest
        return JobFolder(path if path.exists() else self._renamed.get(job.digest, path))

    def twin(self, job: Job) -> JobFolder | None:
        """Another job's folder, done, with the very results that `job` will have."""
        for digest, folder in self._essences.get(job.essence, ()):
            if digest != job.digest and folder.scored:
                return folder
        return None

    @cached_property
    def _essences(self) -> dict[str, list[tuple[str, JobFolder]]]:
        """Essence -> digests and folders of the jobs with it; read once, since a run describes all
        its jobs before it does the first."""
        found: dict[str, list[tuple[str, JobFolder]]] = {}
        for job, folder in self._described():
            found.setdefault(job.essence, []).append((job.digest, folder))
        return found

    @cached_property
    def _renamed(self) -> dict[str, Path]:
        """Digest -> folder, of jobs that were described before some setting was known: with its
        default they are the same jobs, but their folders have other names."""
        found = {folder.path: job for job, folder in self._described()}
        return {job.digest: path for path, job in found.items() if path.name != job.digest}

    def found(self) -> list[tuple[Job, JobFolder]]:
        """Every described job that has a label, and its folder."""
        return [(job, folder) for job, folder in self._described() if job.method]

    def _described(self) -> list[tuple[Job, JobFolder]]:
        folders = [JobFolder(path) for path in sorted((self.out / _JOBS).glob("[!.]*"))]
        return [(job, folder) for folder in folders if (job := folder.job())]

    def adopt(self, jobs: Sequence[Job]) -> int:
        """Describe the jobs, and make their labels mean them alone; how many others lost theirs.

        A label stands for one recipe, and for one set of videos of each combination: what it stood
        for earlier stays in the folder, without label, and is found again when it is asked for.
        """
        series = {job.method: job.series for job in jobs}
        wanted = {job.digest for job in jobs}
        asked = {(job.method, job.combination) for job in jobs}
        lost = 0
        for job, folder in self.found():
            taken = (job.method, job.combination) in asked
            if job.digest not in wanted and (
                taken or series.get(job.method, job.series) != job.series
            ):
                folder.relabel("")
                lost += 1
        for job in jobs:
            self.folder(job).describe(job)
        return lost

    def _require_version(self, told: Mapping[str, Any]) -> None:
        version = told.get("version")
        if isinstance(version, int) and version > RESULTS_VERSION:
            raise BenchmarkError(
                f"'{self.out}' holds results of version {version}, made by a newer customvideo "
                f"than this one, which knows version {RESULTS_VERSION}; update customvideo."
            )
        if version != RESULTS_VERSION:
            raise BenchmarkError(
                f"'{self.out}' holds results of version {version}, and this program makes version "
                f"{RESULTS_VERSION}; choose another --out."
            )
