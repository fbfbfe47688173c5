"""Doing one run of a batch: learn, then make the videos, each part only if it is not there yet.

DIR/<name>/
    run/            the folder of an ordinary run, see `customvideo.runs.folder`
    videos/<prompt>-<seed>.mp4
    done.json       what was done, in how long: with it the run is done
    failed.json     why it came to nothing
    claim-<n>       while some worker works on it
"""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.batch.plan import SUBJECTS, Run, run_of
from customvideo.claims import Claim
from customvideo.config import Recipe
from customvideo.errors import FleetError
from customvideo.fleet import work
from customvideo.fleet.work import Note, Work, do_alone
from customvideo.generation import generate
from customvideo.records import read_record, write_record
from customvideo.runs.folder import ADAPTER, CHECKPOINTS
from customvideo.runs.learning import Job, fit, load_job
from customvideo.runs.making import watchable_scale
from customvideo.subjects.prompt import list_subjects
from customvideo.training.checkpoint import newest_valid, recover

__all__ = ["Outcome", "RunFolder", "Worker", "open_worker"]

Outcome = work.Outcome[Run]


class _Mistaken(FleetError):
    """The folder holds another plan's run."""


class RunFolder:
    """What is there of one run of the batch in `out`."""

    def __init__(self, out: Path, name: str) -> None:
        self.path = out / name
        self.run = self.path / "run"
        self.adapter = self.run / ADAPTER

    def video(self, prompt: int, seed: int) -> Path:
        """Where the video of a prompt, counted from 0, and a seed is kept."""
        return self.path / "videos" / f"{prompt}-{seed}.mp4"

    @property
    def done(self) -> dict[str, Any]:
        """What is known of the finished run: `digest`, `seconds`; nothing of another."""
        return read_record(self.path / "done.json")

    @property
    def failure(self) -> str:
        """Why the run came to nothing, if it did."""
        return str(read_record(self.path / "failed.json").get("message", ""))

    def ask(self, run: Run) -> None:
        """Keep what the run is; prompts may be added to it, and any seeds.

        Raises:
            FleetError: the folder holds another run.
        """
        earlier = read_record(self.path / "asked.json")
        prompts, known = list(run.prompts), list(earlier.get("prompts", ()))
        other = earlier and (earlier["learned"] != run.learned or prompts[: len(known)] != known)
        # Before anything is learned, nothing is there that could be taken for this run's.
        if other and (self.adapter.is_file() or any((self.run / CHECKPOINTS).glob("*"))):
            raise _Mistaken(
                f"'{self.path}' holds a run of this name that was asked for differently; choose "
                "another name or --out."
            )
        write_record(self.path / "asked.json", {"learned": run.learned, "prompts": prompts})

    def finish(self, run: Run, seconds: float) -> None:
        """Keep that all is done."""
        write_record(self.path / "done.json", {"digest": run.digest, "seconds": seconds})

    def fail(self, message: str, trace: str = "") -> None:
        """Keep why the run came to nothing."""
        write_record(self.path / "failed.json", {"message": message, "trace": trace})

    def forget_failure(self) -> None:
        """Let the run be tried anew, from its last checkpoint if it has one."""
        (self.path / "failed.json").unlink(missing_ok=True)


class Worker:
    """Does runs one after the other, in this process; one base model is kept at a time."""

    def __init__(self, out: Path, device: str) -> None:
        self._out, self._device = out, device
        self._backbone: tuple[tuple[str, str], Backbone] | None = None

    def do(self, run: Run, note: Note = lambda _: None) -> Outcome:
        """Do what is left of `run`; an error of its own is recorded in its folder.

        Raises:
            StorageError: the results cannot be written.
            Interrupted: stopped from outside, after saving.
        """
        folder = RunFolder(self._out, run.title)

        def fail(error: Exception) -> None:
            # Another plan's folder is left as it is.
            if not isinstance(error, _Mistaken):
                message = str(error) or type(error).__name__
                folder.fail(message, "".join(traceback.format_exception(error)))

        return do_alone(run, folder.path, lambda claim: self._do(run, folder, claim, note), fail)

    def _do(self, run: Run, folder: RunFolder, claim: Claim, note: Note) -> None:
        if folder.done.get("digest") == run.digest:
            # Another worker did it since it was found open.
            return
        began = time.monotonic()
        folder.ask(run)
        folder.forget_failure()
        note(f"{run.title}: learning")
        job = load_job(run.recipe, self._device, backbone=self._model(run.recipe))
        if not folder.adapter.is_file():
            self._learn(job, folder, claim)
        adapter = Adapter.load(folder.adapter)
        for number, prompt in enumerate(run.prompts):
            for seed in run.seeds:
                target = folder.video(number, seed)
                if not target.is_file():
                    claim.require()
                    note(f"{run.title}: video {number}-{seed}")
                    self._film(job, adapter, prompt, seed, target)
        folder.finish(run, time.monotonic() - began)

    def _learn(self, job: Job, folder: RunFolder, claim: Claim) -> None:
        recover(folder.run / CHECKPOINTS)
        resume = newest_valid(folder.run / CHECKPOINTS).newest is not None
        fit(
            job,
            folder.run,
            resume=resume,
            say=lambda _: None,
            on_step=lambda _: claim.require(),
        )
        # Of thousands of runs the adapters are wanted, not what they could be gone on from.
        shutil.rmtree(folder.run / CHECKPOINTS, ignore_errors=True)

    def _film(self, job: Job, adapter: Adapter, prompt: str, seed: int, target: Path) -> None:
        text = prompt.replace(SUBJECTS, list_subjects(adapter.words))
        video = generate(job.backbone, adapter, text, seed=seed, options=job.recipe.sampling)
        video.save(target, scale=watchable_scale(video))

    def _model(self, recipe: Recipe) -> Backbone | None:
        """The recipe's base model, the last one if it is the same; None leaves it to whoever loads
        the rest, where only then is known in which type."""
        if recipe.fit is not None:
            self._backbone = None
            return None
        wanted = recipe.backbone, recipe.base_type
        if self._backbone is None or self._backbone[0] != wanted:
            self._backbone = None
            self._backbone = wanted, load_backbone(recipe.backbone, self._device, recipe.base_type)
        return self._backbone[1]


class _Told:
    """A worker that is told its runs as plain data."""

    def __init__(self, out: Path, device: str) -> None:
        self._out, self._worker = out, Worker(out, device)

    def do(self, told: Mapping[str, Any]) -> Outcome:
        """Do the run; raises as `Worker.do`."""
        return self._worker.do(run_of(told))

    def give_up(self, told: Mapping[str, Any], message: str) -> None:
        """Keep that whoever did the run died."""
        RunFolder(self._out, run_of(told).title).fail(message)


def open_worker(out: str, device: str) -> Work:
    """A worker for the batch in `out`, wherever it runs."""
    return _Told(Path(out), device)
