"""Jobs in Ray's workers: the same results as in this process."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from customvideo.benchmark import ray as on_ray
from customvideo.benchmark.commands import run
from customvideo.benchmark.ray import OnRay, require_ray
from customvideo.errors import BenchmarkError
from tests.benchmark.small import a_job, plan_of, untimed, write_edition
from tests.surroundings import contents

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of this machine with two workers."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
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
def test_a_worker_that_dies_fails_its_job_alone(cluster: Any, tmp_path: Path) -> None:
    """An edition that is not there when the workers look for it kills each at its beginning."""
    with OnRay("auto", tmp_path, str(tmp_path / "nowhere"), device="cpu") as executor:
        assert executor.workers == 2
        outcomes = list(executor.run([a_job()], lambda _: None))
    assert [outcome.ended for outcome in outcomes] == ["failed"]
    assert "worker died" in outcomes[0].message
    assert list(tmp_path.rglob("failed.json"))


def test_without_ray_nothing_is_begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(on_ray, "find_spec", lambda name: None)
    with pytest.raises(BenchmarkError, match=r"pip install 'customvideo\[ray\]'"):
        require_ray()
    edition = write_edition(tmp_path / "toys")
    with pytest.raises(BenchmarkError, match="not installed"):
        run(plan_of(edition, "customvideo"), tmp_path / "out", say=lambda _: None, ray="auto")
    assert not (tmp_path / "out").exists()
