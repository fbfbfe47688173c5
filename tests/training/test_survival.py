"""What a run survives: full disks, failing previews and trackers, and another process."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from customvideo import files
from customvideo.backbones.base import Backbone
from customvideo.errors import StorageError
from customvideo.files import locked
from customvideo.subjects.subject import Subject
from customvideo.training.checkpoint import newest_valid
from customvideo.training.trainer import Trainer
from tests.cast import quick_method, short_run

HOLDER = """
import sys, time
from pathlib import Path
from customvideo.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
QUICK: dict[str, Any] = {"steps": 4, "batch_size": 1, "pool": 2, "checkpoint_every": 2}


def test_a_disk_that_fills_stops_cleanly_and_is_gone_on_from(
    backbone: Backbone,
    cast: list[Subject],
    tmp_path: Path,
    quiet: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = short_run(**QUICK)
    whole = Trainer(config, console=quiet).fit(backbone, quick_method(), cast)
    full = Trainer(config, tmp_path, console=quiet)

    def fill(report: Any) -> None:
        if report.step == 3:
            monkeypatch.setattr(files, "open", refuse, raising=False)

    def refuse(path: Path, _mode: str) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    full.on_step = fill
    with pytest.raises(StorageError, match=r"after step 4 of 4.*--resume.*the disk is full"):
        full.fit(backbone, quick_method(), cast)
    found = newest_valid(tmp_path / "checkpoints")
    assert found.newest is not None and found.newest.step == 2 and not found.broken
    assert not list(tmp_path.rglob(".*")), "something half-written is left"
    monkeypatch.undo()
    again = Trainer(config, tmp_path, console=quiet).fit(
        backbone, quick_method(), cast, resume=True
    )
    for (name, one), (_, other) in zip(
        whole.named_parameters(), again.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), RuntimeError("out of memory")])
def test_failing_previews_and_trackers_end_no_run(
    error: Exception,
    backbone: Backbone,
    cast: list[Subject],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("accelerate.Accelerator.log", fail)
    config = short_run(**QUICK | {"steps": 2}, preview_every=1, tracker="tensorboard")
    Trainer(config, tmp_path, preview=fail, console=Console(quiet=True)).fit(
        backbone, quick_method(), cast
    )
    newest = newest_valid(tmp_path / "checkpoints").newest
    assert newest is not None and newest.step == 2
    assert caplog.text.count("The preview after step") == 2
    assert caplog.text.count("The tracker 'tensorboard' failed") == 1


def test_a_tracker_that_cannot_even_begin_ends_no_run(
    backbone: Backbone,
    cast: list[Subject],
    tmp_path: Path,
    quiet: Console,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("accelerate.Accelerator.init_trackers", fail)
    config = short_run(**QUICK | {"steps": 1}, tracker="tensorboard")
    Trainer(config, tmp_path, console=quiet).fit(backbone, quick_method(), cast)
    assert "training goes on without it" in caplog.text


def test_a_folder_belongs_to_one_process_and_to_nobody_once_that_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match="Another process is at work"), locked(tmp_path):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with locked(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert not list(tmp_path.iterdir())
