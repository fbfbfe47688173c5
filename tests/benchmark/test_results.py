"""From single jobs' scores to one table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from customvideo.benchmark.grid import Job
from customvideo.benchmark.results import collect
from customvideo.benchmark.rows import ResultRow, read_rows
from customvideo.benchmark.store import Scored, Store
from customvideo.evaluation.failures import ENOUGH
from tests.benchmark.small import a_job
from tests.benchmark.test_store import a_row, scored


def finished(store: Store, job: Job, found: Scored) -> None:
    store.folder(job).describe(job)
    store.folder(job).finish(found)


def only(rows: list[ResultRow], method: str) -> list[ResultRow]:
    return [row for row in rows if row.method == method]


def test_rows_say_whose_they_are_and_what_they_cost(tmp_path: Path) -> None:
    store, job = Store(tmp_path), a_job()
    rows = [a_row(video, name) for video in (0, 1) for name in ("tom", "rex")]
    finished(store, job, Scored("now", ((0, 0), (0, 1)), tuple(rows), frozenset({"rex"})))
    folder = store.folder(job)
    folder.adapter.write_bytes(bytes(321))
    folder.note_costs(train_seconds=60.0, trained_parameters=7, sample_seconds={"0-1": 2.0})
    found = read_rows(collect(store))
    assert [row.key for row in found] == [
        ("customvideo", "tom+rex", 0, seed, name) for seed in (0, 1) for name in ("rex", "tom")
    ]
    first, last = found[0], found[-1]
    assert (first.category, first.small, last.small) == ("dog", True, False)
    assert (first.subjects, first.same_category, first.adapter_bytes) == (2, False, 321)
    assert (first.sample_seconds, last.sample_seconds, last.train_seconds) == (None, 2.0, 60.0)
    assert first.clip_t == 0.3 and first.drop == 0 and first.co_occurrence is None


def test_only_what_is_asked_for_is_told(tmp_path: Path) -> None:
    store, job = Store(tmp_path), a_job(samples=((0, 1),))
    finished(store, job, scored(a_row(0), a_row(1), a_row(2)))
    finished(store, replace(job, method="", prompts=("nobody's",)), scored(a_row(1)))
    assert [row.seed for row in read_rows(collect(store))] == [1]


def test_the_base_models_motion_decides_what_stands_still(tmp_path: Path) -> None:
    """Still is what moves less than four fifths of the base's videos, in whatever order they came;
    without a base, the video's own dynamic degree has to do."""
    store, job = Store(tmp_path), a_job(samples=((0, 0),))
    still = a_row(0, motion=0.15, dynamic_degree=1.0, freeze=False)
    finished(store, job, scored(still))
    assert only(read_rows(collect(store)), "customvideo")[0].freeze == 0
    base = replace(job, kind="base", method="base", samples=tuple((0, i) for i in range(ENOUGH)))
    moving = [
        a_row(i, motion=0.2 + i / 10, dynamic_degree=1.0, freeze=False) for i in range(ENOUGH)
    ]
    finished(store, base, scored(*moving))
    assert only(read_rows(collect(store)), "customvideo")[0].freeze == 1
    # Of other subjects the base says nothing.
    elsewhere = replace(base, combination="mia+leo", prompts=("another",))
    finished(store, replace(base, method=""), scored(*moving))
    finished(store, elsewhere, scored(*moving))
    assert only(read_rows(collect(store)), "customvideo")[0].freeze == 0


def test_nothing_finished_is_an_empty_table(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.folder(a_job()).describe(a_job())
    assert read_rows(collect(store)) == []


def test_the_same_jobs_give_the_same_bytes(tmp_path: Path) -> None:
    tables = []
    for order in (1, -1):
        store = Store(tmp_path / str(order))
        for method in ["customvideo", "b", "c"][::order]:
            finished(store, a_job(method=method, prompts=(method,)), scored(a_row(0), a_row(1)))
        tables.append(collect(store).read_bytes())
    assert tables[0] == tables[1] and tables[0].count(b"\n") == pytest.approx(7)
