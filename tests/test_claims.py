"""One runner at a time, in this process, in others, and after one that died."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from customvideo import claims
from customvideo.claims import EXPIRY, claimed
from customvideo.errors import StorageError

RACER = """
import sys, time
from pathlib import Path
from customvideo.claims import claimed
folder, begin = Path(sys.argv[1]), float(sys.argv[2])
while time.time() < begin:
    pass
for _ in range(60):
    with claimed(folder) as claim:
        if claim is None:
            continue
        counter = folder / "counter"
        before = int(counter.read_text())
        time.sleep(0.002)
        counter.write_text(str(before + 1))
        print("held")
"""

HOLDER = """
import sys, time
from pathlib import Path
from customvideo.claims import claimed
with claimed(Path(sys.argv[1])) as claim:
    print("held" if claim else "taken", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_held_by_one_and_then_free(tmp_path: Path) -> None:
    with claimed(tmp_path / "job") as claim:
        assert claim is not None and not claim.lost
        with claimed(tmp_path / "job") as second:
            assert second is None
    assert list((tmp_path / "job").iterdir()) == []
    with claimed(tmp_path / "job") as claim:
        assert claim is not None


def test_processes_never_hold_it_together(tmp_path: Path) -> None:
    """Each that holds the folder counts in a way that loses counts if two do at a time."""
    (tmp_path / "counter").write_text("0")
    begin = str(time.time() + 3)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path), begin], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    held = sum(racer.communicate(timeout=60)[0].count("held") for racer in racers)
    assert all(racer.returncode == 0 for racer in racers)
    assert int((tmp_path / "counter").read_text()) == held > 0
    assert [path.name for path in tmp_path.iterdir()] == ["counter"]


def test_who_is_killed_holds_it_no_more(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with claimed(tmp_path) as claim:
        assert claim is None
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert len(list(tmp_path.iterdir())) == 1
    with claimed(tmp_path) as claim:
        assert claim is not None
    assert not list(tmp_path.iterdir())


def test_a_claim_from_another_machine_counts_until_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "claim-4"
    path.write_text('{"token": "a", "where": "another machine", "process": 1}')
    with claimed(tmp_path) as claim:
        assert claim is None
    long_ago = time.time() - EXPIRY - 1
    os.utime(path, (long_ago, long_ago))
    with claimed(tmp_path) as claim:
        assert claim is not None
        assert [path.name for path in tmp_path.iterdir()] == ["claim-5"]


def test_one_that_was_taken_over_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_BEAT", 0.02)
    with claimed(tmp_path) as claim:
        assert claim is not None
        (path,) = tmp_path.iterdir()
        beaten = path.stat().st_mtime_ns
        deadline = time.monotonic() + 10
        while path.stat().st_mtime_ns == beaten and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime_ns > beaten, "its heart does not beat"
        path.write_text('{"token": "of somebody else"}')
        while not claim.lost and time.monotonic() < deadline:
            time.sleep(0.01)
        assert claim.lost
    # What is another's is not removed.
    assert path.exists()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match="file"), claimed(tmp_path / "file" / "job"):
        pass
