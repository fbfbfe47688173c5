"""Doing one job, and going on with one that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from customvideo.adapters.adapter import Adapter
from customvideo.benchmark import job as jobs
from customvideo.benchmark.commands import _jobs
from customvideo.benchmark.editions import Edition, load_edition
from customvideo.benchmark.grid import Job, choose
from customvideo.benchmark.job import Worker
from customvideo.benchmark.kit import Kit
from customvideo.benchmark.memory import PeakMemory
from customvideo.benchmark.plan import BenchPlan, resolve
from customvideo.benchmark.store import JobFolder, Store
from customvideo.claims import Claim, TakenOver, claimed
from customvideo.errors import StorageError
from customvideo.training.interrupt import Interrupted
from customvideo.video import Video
from tests.benchmark.small import QUICK, Filmed, plan_of, write_edition
from tests.surroundings import contents


@pytest.fixture(scope="module")
def edition(tmp_path_factory: pytest.TempPathFactory) -> Edition:
    return load_edition(write_edition(tmp_path_factory.mktemp("toys")))


@pytest.fixture(scope="module")
def kit(edition: Edition) -> Kit:
    filmed = replace(edition, source=Filmed(edition.root))
    return Kit(filmed, "cpu")


def jobs_of(plan: BenchPlan, kit: Kit) -> dict[str, Job]:
    """The plan's jobs by label."""
    base, entries = resolve(plan, None)
    found = _jobs(plan, kit, choose(plan, kit.edition), [base, *entries])
    return {job.method: job for job in found}


def parts(folder: JobFolder) -> set[str]:
    return {name for name in contents(folder.path) if not name.startswith("claim-")}


def test_a_job_learns_films_and_scores_and_says_what_it_cost(kit: Kit, tmp_path: Path) -> None:
    plan = plan_of(kit.edition.root, "customvideo", prompts=2)
    job, worker, notes = jobs_of(plan, kit)["customvideo"], Worker(Store(tmp_path), kit), []
    outcome = worker.do(job, notes.append)
    folder = worker.store.folder(job)
    assert (outcome.ended, outcome.message) == ("done", "") and outcome.seconds > 0
    videos = {"videos/0-0.mp4", "videos/1-0.mp4"}
    files = {"adapter.safetensors", "costs.json", "job.json", "losses.jsonl", "rows.json"}
    assert parts(folder) == {*files, *videos}
    assert notes == ["learning 1/2", "learning 2/2", "video 1/2", "video 2/2", "scoring"]
    costs = folder.costs()
    adapter = Adapter.load(folder.adapter)
    assert costs["trained_parameters"] == sum(one.numel() for one in adapter.parameters())
    assert costs["train_seconds"] > 0 and set(costs["sample_seconds"]) == {"0-0", "1-0"}
    assert costs["peak_memory_mb"] is None or costs["peak_memory_mb"] > 100
    assert len(Video.load(folder.video((0, 0)))) == 2
    scored = folder.scored
    assert scored is not None and len(scored.rows) == 2 * len(job.subjects)
    assert all(row.co_occurrence is not None for row in scored.rows)
    # Done again, nothing is.
    before = contents(tmp_path)
    assert worker.do(job, notes.append).ended == "done" and len(notes) == 5
    assert contents(tmp_path) == before


def test_more_videos_are_no_second_training(kit: Kit, tmp_path: Path) -> None:
    worker = Worker(Store(tmp_path), kit)
    job = jobs_of(plan_of(kit.edition.root, "customvideo"), kit)["customvideo"]
    worker.do(job)
    folder = worker.store.folder(job)
    kept = [folder.adapter.stat().st_mtime_ns, folder.video((0, 0)).stat().st_mtime_ns]
    notes: list[str] = []
    more = replace(job, samples=((0, 0), (0, 1)))
    worker.do(more, notes.append)
    assert notes == ["video 1/1", "scoring"]
    assert kept == [folder.adapter.stat().st_mtime_ns, folder.video((0, 0)).stat().st_mtime_ns]
    assert folder.scored is not None and folder.scored.samples == more.samples


def test_the_base_model_and_true_footage_need_no_adapter(kit: Kit, tmp_path: Path) -> None:
    found = jobs_of(plan_of(kit.edition.root, "customvideo"), kit)
    worker = Worker(Store(tmp_path), kit)
    for label in ("base", "ceiling"):
        assert worker.do(found[label]).ended == "done"
        folder = worker.store.folder(found[label])
        assert not folder.adapter.exists() and folder.scored is not None
        # Base and truth are scored against the very subjects, though no word is learned.
        assert {row.subject for row in folder.scored.rows} == set(found[label].subjects)
    true = Video.load(worker.store.folder(found["ceiling"]).video((0, 0)))
    asked = kit.footage(found["ceiling"].combination, (0, 0), found["ceiling"].recipe)
    assert asked is not None and true.frames.shape == asked.frames.shape
    assert worker.store.folder(found["base"]).costs()["sample_seconds"].keys() == {"0-0"}
    assert worker.store.folder(found["ceiling"]).costs() == {}


def test_scores_can_be_made_again_from_the_videos_alone(kit: Kit, tmp_path: Path) -> None:
    worker = Worker(Store(tmp_path), kit)
    job = jobs_of(plan_of(kit.edition.root, "customvideo"), kit)["customvideo"]
    worker.do(job)
    folder = worker.store.folder(job)
    before = (folder.path / "rows.json").read_bytes()
    (folder.path / "rows.json").unlink()
    folder.adapter.unlink()
    notes: list[str] = []
    assert worker.score_again(job, notes.append).ended == "done" and notes == ["scoring"]
    assert (folder.path / "rows.json").read_bytes() == before


def test_an_error_is_recorded_and_does_not_stop_others(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def burst(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("nothing to divide by")

    worker = Worker(Store(tmp_path), kit)
    job = jobs_of(plan_of(kit.edition.root, "customvideo"), kit)["customvideo"]
    with monkeypatch.context() as patched:
        patched.setattr(jobs, "generate", burst)
        outcome = worker.do(job)
    assert (outcome.ended, outcome.message) == ("failed", "nothing to divide by")
    failure = worker.store.folder(job).failure
    assert failure is not None and failure.error == "ZeroDivisionError"
    assert "in burst" in failure.trace
    # What was finished before is kept for the next attempt.
    notes: list[str] = []
    assert worker.do(job, notes.append).ended == "done"
    assert not any(note.startswith("learning") for note in notes)
    assert worker.store.folder(job).failure is None


def test_a_full_disk_and_a_stop_are_nobodys_failure(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(Store(tmp_path), kit)
    job = jobs_of(plan_of(kit.edition.root, "customvideo"), kit)["customvideo"]
    folder = worker.store.folder(job)
    for error, said in (
        (StorageError("The disk is full."), "disk is full"),
        (Interrupted("Stopped after step 1; --resume."), "run the same command again to go on"),
    ):

        def fail(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(jobs.Trainer, "fit", fail)
            with pytest.raises(type(error), match=said):
                worker.do(job)
        assert folder.failure is None
        assert not list(folder.path.glob("claim-*"))


def test_a_job_in_other_hands_is_left_to_them(kit: Kit, tmp_path: Path) -> None:
    worker = Worker(Store(tmp_path), kit)
    job = jobs_of(plan_of(kit.edition.root, "customvideo"), kit)["customvideo"]
    with claimed(worker.store.folder(job).path):
        assert worker.do(job).ended == "taken"
    assert not parts(worker.store.folder(job))


def test_one_that_was_taken_over_ends_at_the_next_step(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, notes = Worker(Store(tmp_path), kit), []
    job = jobs_of(plan_of(kit.edition.root, "customvideo"), kit)["customvideo"]
    monkeypatch.setattr(Claim, "require", _lose)
    assert worker.do(job, notes.append).ended == "taken" and notes == []
    assert worker.store.folder(job).failure is None


def _lose(_: object) -> None:
    raise TakenOver


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_killed_anywhere_it_goes_on_as_if_nothing_had_been(
    kit: Kit, edition: Edition, tmp_path: Path
) -> None:
    """Killed while it learns, then while it films; the rest is done here. Every byte that does not
    tell the time is that of a job done in one go."""
    changes = {**QUICK, "steps": 24, "checkpoint_every": 1}
    plan = plan_of(edition.root, "customvideo", changes=changes, prompts=5, seeds=2)
    job = jobs_of(plan, kit)["customvideo"]
    whole = Worker(Store(tmp_path / "whole"), kit)
    assert whole.do(job).ended == "done"

    folder = Store(tmp_path / "torn").folder(job)
    checkpoints, videos = folder.training / "checkpoints", folder.path / "videos"
    _kill_when(lambda: len(list(checkpoints.glob("[0-9]*"))) >= 2, plan, tmp_path)
    assert not folder.adapter.exists() and checkpoints.is_dir(), "killed too late"
    _kill_when(lambda: len(list(videos.glob("[0-9]*"))) >= 2, plan, tmp_path)
    assert folder.adapter.exists() and folder.scored is None, "killed too late"
    films = {path.name: path.stat().st_mtime_ns for path in videos.glob("[0-9]*")}
    assert 2 <= len(films) < len(job.samples)

    assert Worker(Store(tmp_path / "torn"), kit).do(job).ended == "done"
    assert (
        films.items() <= {path.name: path.stat().st_mtime_ns for path in videos.iterdir()}.items()
    )
    one, other = contents(whole.store.folder(job).path), contents(folder.path)
    assert one.keys() == {name for name in other if ".partial" not in name}
    for name in one.keys() - {"costs.json", "losses.jsonl"}:
        assert one[name] == other[name], name
    assert len(folder.losses.read_text().splitlines()) == 24
    assert folder.costs()["train_seconds"] > 0


def _kill_when(seen: Callable[[], bool], plan: BenchPlan, tmp_path: Path) -> None:
    """Do the plan in a process of its own, and kill it as soon as `seen`."""
    script = """
import sys
from pathlib import Path
from customvideo.benchmark.commands import run
from customvideo.benchmark.plan import BenchPlan
run(BenchPlan.model_validate_json(sys.argv[1]), Path(sys.argv[2]), say=print)
"""
    alone = plan.model_copy(update={"base": False, "ceiling": False})
    arguments = [alone.model_dump_json(), str(tmp_path / "torn")]
    running = subprocess.Popen([sys.executable, "-c", script, *arguments])
    deadline = time.monotonic() + 240
    while not seen() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL


def test_peak_memory_is_the_works_own() -> None:
    first = PeakMemory(torch.device("cpu"))
    if first.megabytes is None:
        pytest.skip("this system does not tell")
    little = first.megabytes
    held = np.ones(200_000_000 // 8)
    much = first.megabytes
    assert much > little + 150
    del held
    again = PeakMemory(torch.device("cpu")).megabytes
    assert again is not None and again < much - 150
