"""Who does the jobs, in which order, and beside whom."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from customvideo.benchmark.commands import run
from customvideo.benchmark.grid import Job
from customvideo.benchmark.job import Outcome
from customvideo.fleet import executors
from customvideo.fleet.executors import Here, drive
from customvideo.fleet.view import View, span
from customvideo.fleet.work import Note
from tests.benchmark.small import a_job, plan_of, told, write_edition
from tests.surroundings import contents


class Scripted:
    """Ends each job as told, one way after the other."""

    workers = 2

    def __init__(self, ends: dict[str, list[str]]) -> None:
        self.ends, self.asked = ends, []

    def run(self, jobs: Sequence[Job], note: Note) -> Iterator[Outcome]:
        for job in reversed(jobs):
            self.asked.append(job.method)
            end = self.ends[job.method].pop(0)
            yield Outcome(job, end, 90.0, "broken" if end == "failed" else "")  # type: ignore[arg-type]


def view_of(jobs: Sequence[Job], lines: list[str], workers: int = 1) -> View:
    return View(jobs, workers, lines.append, Console(file=io.StringIO()))


def test_every_job_ends_and_what_others_do_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "_PATIENCE", 0.0)
    jobs = [a_job(method=name) for name in ("a", "b", "c")]
    executor = Scripted({"a": ["taken", "taken", "taken", "done"], "b": ["failed"], "c": ["done"]})
    lines: list[str] = []
    with view_of(jobs, lines, executor.workers) as view:
        ended = drive(executor, jobs, view)
    assert {one.job.method: one.ended for one in ended} == {"a": "done", "b": "failed", "c": "done"}
    assert executor.asked == ["c", "b", "a", "a", "a", "a"]
    assert [line for line in lines if "Waiting" in line] == [
        "Waiting for 1 that another runner is doing."
    ]


def test_lines_say_how_far_it_is_and_how_long_it_will_take() -> None:
    jobs = [a_job(method=name, kind=kind) for name, kind in (("a", "trained"), ("b", "base"))]
    jobs += [a_job(method=name) for name in ("c", "d", "e")]
    lines: list[str] = []
    with view_of(jobs, lines, workers=2) as view:
        view.ended(Outcome(jobs[0], "done", 120.0))
        view.ended(Outcome(jobs[1], "done", 10.0))
        view.ended(Outcome(jobs[2], "failed", 1.0, "no space"))
        view.ended(Outcome(jobs[3], "done", 60.0))
        view.ended(Outcome(jobs[4], "done", 60.0))
    assert lines == [
        # Nothing is known of the base's pace yet: four jobs like the first, two at a time.
        "[1/5] a on tom+rex: 2 min (about 4 min left)",
        "[2/5] b on tom+rex: 10 s (about 3 min left)",
        "[3/5] c on tom+rex: failed: no space (about 2 min left)",
        "[4/5] d on tom+rex: 1 min (about 45 s left)",
        "[5/5] e on tom+rex: 1 min",
    ]


def test_a_terminal_has_a_bar_with_lines_above_it() -> None:
    screen, lines = io.StringIO(), []
    console = Console(file=screen, force_terminal=True, width=100)
    with View([a_job(), a_job()], 1, lines.append, console) as view:
        view.note("learning 3/250")
        view.ended(Outcome(a_job(), "done", 3.0))
    assert "customvideo on tom+rex: 3 s" in screen.getvalue() and lines == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min"), (3599, "1 h 00 min"), (11100, "3 h 05 min")],
)
def test_spans_are_as_exact_as_one_wants_to_know(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_threads_are_given_back() -> None:
    before, seen = torch.get_num_threads(), []

    def work(job: Job, note: Note) -> Outcome:
        seen.append(torch.get_num_threads())
        return Outcome(job, "done")

    list(Here(work, before + 1).run([a_job()], lambda _: None))
    list(Here(work).run([a_job()], lambda _: None))
    assert seen == [before + 1, before] and torch.get_num_threads() == before


def test_two_runners_in_one_folder_share_the_work(tmp_path: Path) -> None:
    """Neither does what the other does; both end when all is done, with the same table."""
    edition = write_edition(tmp_path / "toys")
    plan = plan_of(edition, "customvideo", "other", pairs=2, base=False)
    script = """
import sys
from pathlib import Path
from customvideo.benchmark.commands import run
from customvideo.benchmark.plan import BenchPlan
run(BenchPlan.model_validate_json(sys.argv[1]), Path(sys.argv[2]), say=print)
"""
    out = tmp_path / "results"
    command = [sys.executable, "-c", script, plan.model_dump_json(), str(out)]
    runners = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [runner.communicate(timeout=300)[0] for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0], said
    jobs = sorted((out / "jobs").iterdir())
    assert len(jobs) == 4 and (out / "rows.csv").read_text().count("\n") == 1 + 4 * 2
    for folder in jobs:
        assert not list(folder.glob("claim-*")) and not (folder / "failed.json").exists()
        steps = (folder / "losses.jsonl").read_text().splitlines()
        assert len(steps) == 2 and told(folder / "costs.json")["sample_seconds"].keys() == {"0-0"}
    before = contents(out)
    lines: list[str] = []
    run(plan, out, say=lines.append)
    assert lines[0].endswith("4 are done, 0 to do.")
    assert contents(out) == before


def test_a_job_that_another_finished_meanwhile_is_not_done_again() -> None:
    done = []

    def work(job: Job, note: Note) -> Outcome:
        done.append(job.method)
        return Outcome(job, "done")

    jobs = [a_job(), replace(a_job(), method="b")]
    lines: list[str] = []
    with view_of(jobs, lines) as view:
        drive(Here(work), jobs, view)
    assert done == ["customvideo", "b"] and len(lines) == 2
