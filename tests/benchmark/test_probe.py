"""Words are exchanged and nothing else, and what that shows reaches the rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from customvideo.adapters.adapter import Adapter
from customvideo.benchmark import probe as probing
from customvideo.benchmark.commands import run
from customvideo.benchmark.probe import exchanged, swapped
from customvideo.benchmark.rows import read_rows
from customvideo.benchmark.store import JobFolder
from customvideo.evaluation.comparison import slot_equivariance
from tests.benchmark.small import plan_of, write_edition
from tests.surroundings import contents, run_cli


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probe")
    toys = write_edition(folder / "toys")
    plan = plan_of(toys, "customvideo", seeds=2)
    run(plan, folder / "results", say=lambda _: None)
    return folder / "results"


@pytest.fixture
def copied(results: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(results, tmp_path / "results"))


def trained(results: Path) -> JobFolder:
    (path,) = results.glob("jobs/*/adapter.safetensors")
    return JobFolder(path.parent)


def test_only_the_words_change_places(results: Path) -> None:
    adapter = Adapter.load(trained(results).adapter)
    before = adapter.tokens.value.detach().clone()
    other = swapped(adapter)
    assert other.words == adapter.words
    assert torch.equal(other.tokens.value, before.flip(0))
    assert torch.equal(adapter.tokens.value, before) and not torch.equal(before[0], before[1])
    for path, delta in adapter.deltas.items():
        pairs = zip(delta.parameters(), other.deltas[path].parameters(), strict=True)
        assert all(one is two for one, two in pairs)
    assert torch.equal(swapped(other).tokens.value, before)


@pytest.mark.parametrize("places", [(0, 1, 2), (2, 0, 1), (1, 0, 2), (3, 1, 0, 2)])
def test_where_somebody_stands_does_not_count(places: tuple[int, ...]) -> None:
    """A perfect exchange is one, whatever the order from left to right."""
    count = len(places)
    # How like the subjects are to each other: no two pairs are equally so.
    lines = np.random.default_rng(0).uniform(0, 0.6, (count, count))
    alike = np.triu(lines, 1) + np.triu(lines, 1).T + np.eye(count)
    before = alike[list(places)]
    after = alike[[(place + 1) % count for place in places]]
    order = exchanged(before)
    assert slot_equivariance(before, after, order) == pytest.approx(1)
    assert slot_equivariance(before, before, order) == 0
    back = slot_equivariance(before, alike[[place - 1 for place in places]], order)
    assert back is not None and back < 0.8


def test_probing_adds_to_the_rows_and_keeps_what_is_there(copied: Path) -> None:
    before = {row.key: row for row in read_rows(copied / "rows.csv")}
    result = run_cli("bench", "probe", copied, "--device", "cpu")
    assert result.exit_code == 0, result.output
    folder = trained(copied)
    assert sorted(path.name for path in folder.path.glob("probes/*")) == [
        *("plain-0-0.mp4", "swap-0-0.mp4"),
    ]
    # They show something else than the job's own.
    own = folder.video((0, 0)).read_bytes()
    assert own not in [path.read_bytes() for path in folder.path.glob("probes/*")]
    assert set(folder.probed) == {"0-0"} and folder.probed["0-0"].keys() == {
        *("scoring", "swap", "retention")
    }
    for row in read_rows(copied / "rows.csv"):
        probed = row.method == "customvideo" and row.seed == 0
        assert (row.retention is not None) == probed
        assert row.clip_t == before[row.key].clip_t
    # Again it makes nothing anew, and with more videos only these.
    kept = contents(copied)
    again = ("bench", "probe", copied, "--device", "cpu", "--entry")
    assert run_cli(*again, "customvideo").exit_code == 0
    wrong = run_cli(*again, "nobody")
    assert wrong.exit_code == 2 and "no results of 'nobody'" in wrong.output
    assert contents(copied) == kept
    more = run_cli("bench", "probe", copied, "--videos", "2", "--device", "cpu")
    assert more.exit_code == 0 and set(folder.probed) == {"0-0", "0-1"}
    assert len(list(folder.path.glob("probes/*"))) == 4
    # What other judges said of a video is asked for again, the video is not.
    videos = {path: path.stat().st_mtime_ns for path in folder.path.glob("probes/*")}
    found = folder.probed
    folder.note_probed({**found, "0-0": {"scoring": "other", "swap": 5.0, "retention": 5.0}})
    assert run_cli("bench", "probe", copied, "--device", "cpu").exit_code == 0
    assert folder.probed == found
    assert {path: path.stat().st_mtime_ns for path in folder.path.glob("probes/*")} == videos


def test_a_probe_that_fails_is_told(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("out of memory")

    (copied / "rows.csv").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(probing._Probed, "swap", refuse)
        result = run_cli("bench", "probe", copied, "--device", "cpu")
    assert result.exit_code == 1 and "Failed: customvideo on" in result.output
    assert "out of memory" in result.output and (copied / "rows.csv").is_file()
    failure = trained(copied).failure
    assert failure is not None and failure.error == "RuntimeError" and failure.trace
    assert run_cli("bench", "probe", copied, "--device", "cpu").exit_code == 0
    assert trained(copied).failure is None


def test_there_has_to_be_something_to_probe(tmp_path: Path) -> None:
    result = run_cli("bench", "probe", tmp_path)
    assert result.exit_code == 2 and "There is no benchmark in" in result.stderr
