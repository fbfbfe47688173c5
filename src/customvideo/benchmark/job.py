"""Doing one job: learn, make the videos, score them, each part only if it is not there yet.

Every part leaves a whole file behind, so a job that was stopped, however rudely, goes on where it
was. Who calls, and for which jobs, is `customvideo.fleet`.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from customvideo.adapters.adapter import Adapter
from customvideo.benchmark.editions import load_edition
from customvideo.benchmark.grid import Job, Sample, job_of
from customvideo.benchmark.judging import score, words_of
from customvideo.benchmark.kit import Kit
from customvideo.benchmark.memory import PeakMemory
from customvideo.benchmark.probe import Base, probe
from customvideo.benchmark.store import Failure, JobFolder, Store
from customvideo.claims import Claim
from customvideo.files import discard
from customvideo.fleet import work
from customvideo.fleet.work import Note, Work, do_alone
from customvideo.generation import generate
from customvideo.methods.base import learned_numbers, load_method
from customvideo.methods.rendering import Mixes
from customvideo.subjects.prompt import Prompt
from customvideo.training.checkpoint import newest_valid, recover
from customvideo.training.progress import StepReport, read_losses
from customvideo.training.trainer import Trainer
from customvideo.video import Video

__all__ = ["Outcome", "Worker", "open_worker"]

_LOSSES, _CHECKPOINTS = "losses.jsonl", "checkpoints"

Outcome = work.Outcome[Job]


class Worker:
    """Does jobs one after the other, in this process, with one kit."""

    def __init__(self, store: Store, kit: Kit) -> None:
        self.store, self.kit = store, kit

    def do(self, job: Job, note: Note = lambda _: None) -> Outcome:
        """Do what is left of `job`; an error of its own is recorded in its folder.

        Raises:
            StorageError: the results cannot be written.
            Interrupted: stopped from outside, after saving.
        """
        return self._held(job, lambda folder, claim: self._do(job, folder, claim, note))

    def score_again(self, job: Job, note: Note = lambda _: None) -> Outcome:
        """Score those of the job's videos that are there anew; raises as `do`."""
        return self._held(job, lambda folder, _: self._score_again(job, folder, note))

    def probe(
        self, job: Job, base: Base | None, count: int, note: Note = lambda _: None
    ) -> Outcome:
        """Probe the first `count` of a finished job's videos beside `base`'s; raises as `do`."""

        def probed(folder: JobFolder, _: Claim) -> None:
            note("probing")
            folder.forget_failure()
            probe(job, folder, self.kit, base, count)

        return self._held(job, probed)

    def _held(self, job: Job, do: Callable[[JobFolder, Claim], None]) -> Outcome:
        folder = self.store.folder(job)

        def fail(error: Exception) -> None:
            kind = type(error).__name__
            trace = "".join(traceback.format_exception(error))
            folder.fail(Failure(str(error) or kind, kind, trace))

        return do_alone(job, folder.path, lambda claim: do(folder, claim), fail)

    def _do(self, job: Job, folder: JobFolder, claim: Claim, note: Note) -> None:
        if folder.is_done(job, self.kit.scoring(job.recipe.backbone)):
            # Another runner did it since it was found open.
            return
        folder.describe(job)
        folder.forget_failure()
        if job.kind == "trained" and (twin := self.store.twin(job)) is not None:
            folder.take_over(twin)
        if job.kind == "trained":
            if not folder.adapter.is_file():
                self._learn(job, folder, claim, note)
            _tidy(folder)
        missing = [sample for sample in job.samples if not folder.video(sample).is_file()]
        if missing:
            self._film(job, folder, missing, claim, note)
        note("scoring")
        folder.finish(score(job, folder, self.kit))

    def _score_again(self, job: Job, folder: JobFolder, note: Note) -> None:
        note("scoring")
        there = tuple(sample for sample in job.samples if folder.video(sample).is_file())
        if there:
            folder.finish(score(replace(job, samples=there), folder, self.kit))

    def _learn(self, job: Job, folder: JobFolder, claim: Claim, note: Note) -> None:
        backbone = self.kit.backbone(job.recipe.backbone)
        subjects = self.kit.subjects(job.subjects, backbone)
        method = load_method(job.recipe.method, job.recipe.method_options)
        recover(folder.training / _CHECKPOINTS)
        done = newest_valid(folder.training / _CHECKPOINTS).newest
        earlier = _seconds(folder) if done is not None else 0.0

        def on_step(report: StepReport) -> None:
            claim.require()
            note(f"learning {report.step}/{report.steps}")

        quiet = Console(quiet=True, force_terminal=False)
        trainer = Trainer(job.recipe, folder.training, on_step=on_step, console=quiet)
        peak, began = PeakMemory(backbone.device), time.monotonic()
        adapter = trainer.fit(backbone, method, subjects, resume=done is not None)
        folder.note_costs(
            train_seconds=earlier + time.monotonic() - began,
            peak_memory_mb=peak.megabytes,
            trained_parameters=learned_numbers(method, adapter),
        )
        adapter.save(folder.adapter)

    def _film(
        self, job: Job, folder: JobFolder, missing: list[Sample], claim: Claim, note: Note
    ) -> None:
        adapter = Adapter.load(folder.adapter) if job.kind == "trained" else None
        self._load_models(job)
        for number, sample in enumerate(missing, start=1):
            claim.require()
            note(f"video {number}/{len(missing)}")
            began = time.monotonic()
            video = self._video(job, sample, adapter)
            seconds = time.monotonic() - began
            video.save(folder.video(sample))
            if job.kind != "true":
                known = folder.costs().get("sample_seconds", {})
                known[f"{sample[0]}-{sample[1]}"] = seconds
                folder.note_costs(sample_seconds=known)

    def _load_models(self, job: Job) -> None:
        """Load what draws, so that no video's time has it."""
        backbone = self.kit.backbone(job.recipe.backbone)
        if job.kind == "trained":
            method = load_method(job.recipe.method, job.recipe.method_options)
            if isinstance(method, Mixes):
                method.ingredients(backbone)

    def _video(self, job: Job, sample: Sample, adapter: Adapter | None) -> Video:
        index, seed = sample
        options = job.recipe.sampling
        backbone = self.kit.backbone(job.recipe.backbone)
        if job.kind == "true":
            footage = self.kit.footage(job.combination, sample, job.recipe)
            assert footage is not None, "a job of true footage in an edition without"
            return footage
        text = job.prompts[index]
        if adapter is None:
            text = Prompt(text, words_of(job)).plain
        return generate(backbone, adapter, text, seed=seed, options=options)


class _Told:
    """A worker that is told its jobs as plain data."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def do(self, told: Mapping[str, Any]) -> Outcome:
        """Do the job; raises as `Worker.do`."""
        return self._worker.do(job_of(told))

    def give_up(self, told: Mapping[str, Any], message: str) -> None:
        """Keep that whoever did the job died."""
        self._worker.store.folder(job_of(told)).fail(Failure(message, "WorkerDied"))


def open_worker(out: str, edition: str, device: str) -> Work:
    """A worker for the results in `out`, wherever it runs; `edition` is what `load_edition` takes.

    Raises:
        BenchmarkError: the edition is not found there.
    """
    return _Told(Worker(Store(Path(out)), Kit(load_edition(edition), device)))


def _tidy(folder: JobFolder) -> None:
    """Keep of a finished training its losses alone."""
    if folder.training.is_dir():
        with suppress(FileNotFoundError):
            (folder.training / _LOSSES).replace(folder.losses)
        discard(folder.training)


def _seconds(folder: JobFolder) -> float:
    """Seconds of the steps that a stopped training has on record."""
    return sum(float(line.get("seconds", 0.0)) for line in read_losses(folder.training / _LOSSES))
