"""The folder of results: what is found in it again, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from customvideo.benchmark.editions import Edition, load_edition
from customvideo.benchmark.grid import RESULTS_VERSION
from customvideo.benchmark.store import Failure, Scored, Store
from customvideo.config import apply_keys
from customvideo.errors import BenchmarkError, StorageError
from customvideo.evaluation.scores import Row
from customvideo.files import write_bytes
from tests.benchmark.small import a_job, told, write_edition
from tests.surroundings import contents


@pytest.fixture(scope="module")
def edition(tmp_path_factory: pytest.TempPathFactory) -> Edition:
    return load_edition(write_edition(tmp_path_factory.mktemp("toys")))


def a_row(video: int = 0, subject: str = "tom", **scores: Any) -> Row:
    shown = {"clip_t": 0.3, "clip_t_scaled": 0.75, "clip_i": 0.6, "dino_i": 0.4, "t_cons": 0.9}
    plain = {"t_cons_all_pairs": 0.8, "frame_change": 0.1, "seen_as": {"tom": 2}, "drop": False}
    return Row(video=video, prompt="a cat", subject=subject, **{**shown, **plain, **scores})


def scored(*rows: Row, scoring: str = "now") -> Scored:
    samples = tuple((0, row.video) for row in rows)
    return Scored(scoring, samples, rows, frozenset({"tom"}))


def test_what_is_kept_of_a_job_comes_back(tmp_path: Path) -> None:
    job, folder = a_job(), Store(tmp_path).folder(a_job())
    assert folder.job() is None and folder.scored is None and folder.failure is None
    folder.describe(job)
    folder.note_costs(train_seconds=3.0)
    folder.note_costs(sample_seconds={"0-0": 1.5})
    folder.fail(Failure("out of memory", "RuntimeError", "Traceback"))
    found = scored(a_row(0), a_row(1, dino_i_crop=0.5))
    folder.finish(found)
    again = Store(tmp_path).folder(job)
    assert again.job() == job
    assert again.costs() == {"train_seconds": 3.0, "sample_seconds": {"0-0": 1.5}}
    assert again.failure == Failure("out of memory", "RuntimeError", "Traceback")
    assert again.scored == found


def test_a_setting_unknown_when_a_job_was_done_had_its_default(tmp_path: Path) -> None:
    plain = apply_keys(
        a_job().recipe, [("sampling.regions", "off"), ("sampling.regions_begin", 0.2)]
    )
    job = replace(a_job(), recipe=plain)
    folder = Store(tmp_path).folder(job)
    folder.describe(job)
    folder.finish(scored(a_row(0)))
    described = json.loads((folder.path / "job.json").read_text())
    for key in ("regions", "regions_begin"):
        del described["recipe"]["sampling"][key]
    (folder.path / "job.json").write_text(json.dumps(described))
    folder.path.rename(folder.path.with_name("0" * 20))
    again = Store(tmp_path).folder(job)
    assert again.path.name == "0" * 20 and again.job() == job and again.scored is not None
    # Another setting is another job, whatever the packaged recipe says by now.
    other = replace(job, recipe=apply_keys(plain, [("sampling.regions", "alike")]))
    assert Store(tmp_path).folder(other).path.name == other.digest


def test_a_job_takes_over_what_must_come_out_the_same(tmp_path: Path) -> None:
    store = Store(tmp_path)
    plain, alike = (
        replace(a_job(), recipe=apply_keys(a_job().recipe, [("sampling.regions", regions)]))
        for regions in ("off", "alike")
    )
    done, folder = store.folder(plain), store.folder(alike)
    done.describe(plain)
    assert store.twin(alike) is None, "nothing is there to take over yet"
    done.adapter.write_bytes(b"learned")
    write_bytes(done.video((0, 0)), b"seen")
    done.finish(scored(a_row(0)))
    twin = store.twin(alike)
    assert twin is not None and twin.path == done.path and store.twin(plain) is None
    folder.describe(alike)
    folder.take_over(twin)
    assert folder.adapter.read_bytes() == b"learned" and folder.scored == done.scored
    assert folder.video((0, 0)).read_bytes() == b"seen" and folder.job() == alike


def test_a_job_is_done_when_all_it_is_asked_for_is_scored_as_now(tmp_path: Path) -> None:
    job, folder = a_job(), Store(tmp_path).folder(a_job())
    folder.finish(scored(a_row(0)))
    assert not folder.is_done(job, "now")
    assert folder.is_done(replace(job, samples=((0, 0),)), "now")
    folder.finish(scored(a_row(0), a_row(1), a_row(2)))
    assert folder.is_done(job, "now") and not folder.is_done(job, "otherwise")


def test_damaged_files_count_as_missing(tmp_path: Path) -> None:
    job, folder = a_job(), Store(tmp_path).folder(a_job())
    folder.describe(job)
    folder.finish(scored(a_row(0), a_row(1)))
    for name in ("job.json", "rows.json"):
        (folder.path / name).write_text("{half")
    assert folder.job() is None and folder.scored is None and not folder.is_done(job, "now")
    # As are scores that had other parts.
    rows = {"scoring": "now", "samples": [[0, 0]], "small": [], "rows": [{"video": 0, "beauty": 1}]}
    (folder.path / "rows.json").write_text(json.dumps(rows))
    assert folder.scored is None


def test_a_failure_is_forgotten_with_its_training_and_nothing_else(tmp_path: Path) -> None:
    folder = Store(tmp_path).folder(a_job())
    (folder.training / "checkpoints").mkdir(parents=True)
    folder.forget_failure()
    assert folder.training.is_dir(), "a training that did not fail is gone"
    folder.adapter.write_text("learned")
    folder.fail(Failure("no space"))
    folder.forget_failure()
    assert folder.failure is None and not folder.training.exists() and folder.adapter.exists()


def test_a_label_means_one_recipe(tmp_path: Path) -> None:
    """Results of an earlier recipe stay, without label, and are found when it comes back."""
    store, job = Store(tmp_path), a_job()
    elsewhere = replace(job, combination="mia+leo", prompts=("a <mia> bear",))
    later = replace(job, recipe=apply_keys(job.recipe, [("steps", 9)]))
    other = replace(job, method="another", recipe=apply_keys(job.recipe, [("steps", 8)]))
    assert store.adopt([job, elsewhere, other]) == 0
    assert store.adopt([later]) == 2
    steps = {one.method: one.recipe.steps for one, _ in store.found()}
    assert steps == {"customvideo": 9, "another": 8}
    assert len(contents(tmp_path)) == 4
    assert store.adopt([job]) == 1
    assert {one.digest for one, _ in store.found()} == {job.digest, other.digest}


def test_the_same_job_under_another_label_is_not_done_twice(tmp_path: Path) -> None:
    store, job = Store(tmp_path), a_job()
    store.adopt([job])
    store.adopt([replace(job, method="renamed")])
    assert [one.method for one, _ in store.found()] == ["renamed"]


def test_a_label_means_one_set_of_videos_of_a_combination(tmp_path: Path) -> None:
    """With more trainings a seed belongs to another; no two may say something of the same."""
    store, job = Store(tmp_path), a_job(samples=((0, 0), (0, 1)))
    second = replace(job, recipe=apply_keys(job.recipe, [("seed", 1)]), samples=((0, 2), (0, 3)))
    store.adopt([job, second])
    assert len(store.found()) == 2
    longer = replace(job, samples=tuple((0, seed) for seed in range(4)))
    assert store.adopt([longer]) == 1
    assert [one.samples for one, _ in store.found()] == [longer.samples]


def test_a_folder_is_made_once_and_knows_its_edition(tmp_path: Path, edition: Edition) -> None:
    store = Store(tmp_path / "new")
    store.check(edition)
    assert not (tmp_path / "new").exists()
    store.create(edition, "where it is")
    before = contents(store.out)
    store.create(edition, "somewhere else")
    assert contents(store.out) == before
    assert told(store.out / "bench.json")["edition_digest"] == edition.digest
    assert store.edition == "where it is"
    store.check(edition)
    store.require()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"version": RESULTS_VERSION + 1}, ("version 2", "made by a newer", "version 1")),
        ({"version": 0}, ("results of version 0", "makes version 1")),
        ({"edition_digest": "another"}, ("another edition", "earlier state", "--out")),
    ],
)
def test_other_results_are_left_alone(
    changes: dict[str, Any], parts: tuple[str, ...], tmp_path: Path, edition: Edition
) -> None:
    store = Store(tmp_path)
    store.create(edition, "toys")
    path = tmp_path / "bench.json"
    path.write_text(json.dumps({**told(path), **changes}))
    before = contents(tmp_path)
    with pytest.raises(BenchmarkError) as caught:
        store.check(edition)
    assert all(part in str(caught.value) for part in parts), caught.value
    assert contents(tmp_path) == before


def test_other_things_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BenchmarkError, match="no benchmark"):
        Store(tmp_path).check()
    with pytest.raises(BenchmarkError, match="bench run"):
        Store(tmp_path).require()
    with pytest.raises(StorageError, match="is a file"):
        Store(tmp_path / "thesis.txt").check()
