"""Work in Ray's workers: the same results as in this process, whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from customvideo.benchmark.commands import run
from customvideo.benchmark.job import open_worker
from customvideo.errors import FleetError
from customvideo.fleet import ray as on_ray
from customvideo.fleet.ray import TRIES, OnRay, require_ray
from tests.benchmark.small import a_job, plan_of, untimed, write_edition
from tests.fleet.pieces import Piece, opens
from tests.surroundings import contents

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
HOME = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def machines() -> Iterator[Any]:
    """A cluster of two machines, both in truth this one, with a worker each."""
    from ray.cluster_utils import Cluster

    paths = os.pathsep.join([str(HOME / "src"), str(HOME)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", paths)
        quiet = {"num_cpus": 1, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=quiet)
        cluster.add_node(num_cpus=1)
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def cluster(machines: Any) -> Iterator[Any]:
    """Ray, connected to the two machines."""
    import ray

    ray.init(address=machines.address, log_to_driver=False, configure_logging=False)
    yield ray
    ray.shutdown()


@needs_ray
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")
def test_two_workers_make_what_one_process_makes(cluster: Any, tmp_path: Path) -> None:
    edition = write_edition(tmp_path / "toys")
    plan = plan_of(edition, "customvideo", "other", pairs=2, threads=1)
    here = run(plan, tmp_path / "here", say=lambda _: None)
    lines: list[str] = []
    there = run(plan, tmp_path / "there", say=lines.append, ray="auto")
    assert (here.done, here.failed) == (there.done, there.failed) == (6, ())
    assert untimed(here.rows) == untimed(there.rows)
    assert sum("other on" in line for line in lines) == 2
    # Not the table alone: every adapter, video and score is the same, byte for byte.
    one, other = contents(tmp_path / "here"), contents(tmp_path / "there")
    assert one.keys() == other.keys()
    differing = {name for name in one if one[name] != other[name]}
    assert {Path(name).name for name in differing} <= {"costs.json", "losses.jsonl", "rows.csv"}
    # What goes wrong in a worker is told here.
    spoilt = next((tmp_path / "there").rglob("adapter.safetensors")).parent
    (spoilt / "rows.json").unlink()
    (spoilt / "videos" / "0-0.mp4").write_bytes(b"no video")
    (failed,) = run(plan, tmp_path / "there", say=lines.append, ray="auto").failed
    assert "cannot be read as a video" in failed.message and failed.job.digest == spoilt.name
    assert cluster.is_initialized(), "a cluster of somebody else's was shut down"


@needs_ray
def test_what_killed_its_worker_is_done_by_another(cluster: Any, tmp_path: Path) -> None:
    pieces = [Piece("a"), Piece("b", "frail"), Piece("c"), Piece("d", "deadly"), Piece("e")]
    with OnRay[Piece]("auto", opens(tmp_path), device="cpu") as executor:
        assert executor.workers == 2
        outcomes = list(executor.run(pieces, lambda _: None))
    ended = {outcome.job.title: outcome.ended for outcome in outcomes}
    assert ended == {"a": "done", "b": "done", "c": "done", "d": "failed", "e": "done"}
    (lost,) = [outcome.message for outcome in outcomes if outcome.ended == "failed"]
    assert f"{TRIES} workers died over it" in lost
    assert (tmp_path / "d.failed").read_text() == lost


@needs_ray
def test_workers_that_cannot_start_end_the_run_with_a_sentence(
    cluster: Any, tmp_path: Path
) -> None:
    """An edition that is not there when the workers look for it."""
    nowhere = partial(open_worker, str(tmp_path), str(tmp_path / "nowhere"), "cpu")
    with (
        OnRay[Any]("auto", nowhere, device="cpu") as executor,
        pytest.raises(FleetError, match="No worker can be started"),
    ):
        list(executor.run([a_job()], lambda _: None))
    assert list(tmp_path.iterdir()) == []


@needs_ray
def test_work_of_a_machine_that_goes_is_done_on_the_others(
    machines: Any, cluster: Any, tmp_path: Path
) -> None:
    extra = machines.add_node(num_cpus=1)
    machines.wait_for_nodes()
    pieces = [Piece(f"piece-{index}", "slow") for index in range(12)]
    ended = []
    with OnRay[Piece]("auto", opens(tmp_path), device="cpu") as executor:
        assert executor.workers == 3
        for outcome in executor.run(pieces, lambda _: None):
            ended.append(outcome.job.title)
            if len(ended) == 3:
                machines.remove_node(extra, allow_graceful=False)
    assert sorted(ended) == sorted(piece.title for piece in pieces)
    nodes = {(tmp_path / piece.title).read_text().split()[1] for piece in pieces}
    assert len(nodes) >= 2


@needs_ray
def test_a_driver_that_was_killed_goes_on(machines: Any, tmp_path: Path) -> None:
    """Killed while workers are busy; the same command then does what is left, and no more."""
    edition = write_edition(tmp_path / "toys")
    plan = plan_of(edition, "customvideo", "other", pairs=2, threads=1, base=False)
    script = """
import sys
from pathlib import Path
from customvideo.benchmark.commands import run
from customvideo.benchmark.plan import BenchPlan
run(BenchPlan.model_validate_json(sys.argv[1]), Path(sys.argv[2]), say=print, ray=sys.argv[3])
"""
    out = tmp_path / "results"
    command = [sys.executable, "-c", script, plan.model_dump_json(), str(out), machines.address]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 300
    while not list(out.glob("jobs/*/rows.json")):
        assert time.monotonic() < until and driver.poll() is None, "no job was ever done"
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    first = {path: path.stat().st_mtime_ns for path in out.glob("jobs/*/rows.json")}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    here = run(plan, tmp_path / "here", say=lambda _: None)
    assert untimed(here.rows) == untimed(out / "rows.csv")
    assert {path: path.stat().st_mtime_ns for path in first} == first, (
        "a finished job was done anew"
    )


def test_without_ray_nothing_is_begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(on_ray, "find_spec", lambda name: None)
    with pytest.raises(FleetError, match=r"pip install 'customvideo\[ray\]'"):
        require_ray()
    edition = write_edition(tmp_path / "toys")
    with pytest.raises(FleetError, match="not installed"):
        run(plan_of(edition, "customvideo"), tmp_path / "out", say=lambda _: None, ray="auto")
    assert not (tmp_path / "out").exists()
