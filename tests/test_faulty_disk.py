"""Every kind of file on a failing disk: what was there stays, nothing half-written does, and the
user reads one sentence. Each operation of each writing fails once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch

from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.benchmark.rows import ResultRow, write_rows
from customvideo.benchmark.store import JobFolder, Scored
from customvideo.claims import claimed
from customvideo.errors import StorageError
from customvideo.exports.base import export
from customvideo.exports.order import Order
from customvideo.report import ReportData, render_report
from customvideo.training.checkpoint import OPTIMIZER, RNG, save_checkpoint
from customvideo.training.progress import LossLog, StepReport
from customvideo.video import Video
from tests.exports.conftest import learned
from tests.faulty_disk import FAULTS, Disk
from tests.surroundings import contents

Make = Callable[[Path, int], object]
"""Writes something into a folder; another number, other content."""


@pytest.fixture(scope="module")
def backbone(tiny_zeroscope: Path) -> Backbone:
    return load_backbone(tiny_zeroscope, device="cpu")


@pytest.fixture(scope="module")
def adapter(backbone: Backbone) -> Adapter:
    return learned(backbone)


def checkpoint(folder: Path, step: int, score: float = 0.0) -> None:
    save_checkpoint(
        folder,
        step,
        save_adapter=lambda path: (
            Video(np.zeros((1, 2, 2, 3), np.uint8)).save(path.with_suffix(".png"))
            and path.with_suffix(".png").rename(path)
        ),
        tensors={OPTIMIZER: {"m": torch.full((4,), score)}, RNG: {"cpu": torch.arange(3)}},
        state={"score": score},
    )


def report(folder: Path, number: int) -> None:
    data = ReportData(
        title=f"Run {number}",
        intro="",
        subjects=[],
        scenes=[],
        losses={},
        comparisons=[],
        made={},
        commands=[],
    )
    render_report(folder / "report.html", data)


def losses(folder: Path, number: int) -> None:
    log = LossLog(folder / "losses.jsonl", 0)
    log.add(StepReport(1, 1, float(number), {}, 0.0, 0.0))
    log.write()


MAKERS: dict[str, Make] = {
    "a checkpoint": lambda folder, number: checkpoint(folder, number),
    "a checkpoint of a step that has one": lambda folder, number: checkpoint(folder, 1, number),
    "a video": lambda folder, number: Video(np.full((1, 8, 8, 3), number, np.uint8)).save(
        folder / "a.png"
    ),
    "a report": report,
    "losses": losses,
    "a table of rows": lambda folder, number: write_rows(
        folder / "rows.csv", [ResultRow("m", "c", 2, False, number, 0, "tom", "cat", False)]
    ),
    "a job's scores": lambda folder, number: JobFolder(folder).finish(
        Scored(str(number), (), (), frozenset())
    ),
}


def fail_everywhere(
    folder: Path, fault: str, make: Make, patch: Callable[[], Any], twin: Path
) -> None:
    """Let each of the fault's operations fail once, until none is left that could.

    `twin` is a folder like `folder`, where nothing fails.
    """
    before = contents(folder)
    make(twin, 2)
    whole = contents(twin)
    for at in count():
        disk = Disk(fault, at)
        with patch() as patched:
            disk.install(patched)
            try:
                make(folder, 2)
            except StorageError as error:
                said = str(error)
            else:
                break
        assert disk.failed and "Cannot write" in said and "\n" not in said, said
        assert str(folder) in said and ".partial" not in said and ".saving" not in said, said
        now = contents(folder)
        # The last flush is the folder's: then the whole new file is in its place already.
        assert now == before or (fault == "flush" and now == whole)
        assert not list(folder.rglob(".*")), "something half-written is left"
        shutil.rmtree(folder)
        for name, data in before.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    assert at > 0, f"nothing failed by '{fault}'"
    assert contents(folder) == whole != before


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", MAKERS)
def test_a_failing_disk_costs_nothing_that_was_there(
    kind: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path / "here", tmp_path / "twin"):
        folder.mkdir()
        MAKERS[kind](folder, 1)
    here, twin = tmp_path / "here", tmp_path / "twin"
    fail_everywhere(here, fault, MAKERS[kind], monkeypatch.context, twin)


@pytest.mark.parametrize("fault", FAULTS)
def test_an_adapter_on_a_failing_disk(
    fault: str, adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(b"an earlier one")
    disk = Disk(fault)
    with monkeypatch.context() as patched, pytest.raises(StorageError, match="Cannot write"):
        disk.install(patched)
        adapter.save(path)
    assert contents(tmp_path) == {path.name: b"an earlier one"}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_export_on_a_failing_disk(
    fault: str,
    backbone: Backbone,
    adapter: Adapter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def make(folder: Path, _: int) -> None:
        export(Order(adapter, backbone, "textual-inversion", words_only=True), folder / "out")

    for folder in (tmp_path / "here", tmp_path / "twin"):
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")
    fail_everywhere(tmp_path / "here", fault, make, monkeypatch.context, tmp_path / "twin")


def test_a_full_disk_that_another_library_meets_is_told_as_well(
    backbone: Backbone, adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rust's libraries raise errors of their own, which are no OSError."""

    def full(*_: Any, **__: Any) -> None:
        raise safetensors.SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )

    monkeypatch.setattr("safetensors.torch.save_file", full)
    monkeypatch.setattr("diffusers.models.modeling_utils.safetensors.torch.save_file", full)
    order = Order(adapter, backbone, "merged-folder")
    with pytest.raises(StorageError, match="the disk is full"):
        export(order, tmp_path / "deep" / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_claim_on_a_full_disk_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, *_: Any, **__: Any) -> Any:
        os.close(handle)
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("customvideo.claims.os.fdopen", full)
    with pytest.raises(StorageError, match="the disk is full"), claimed(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_content_is_flushed_before_the_rename_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut must not reorder."""
    told: list[str] = []
    flush, replace = os.fsync, os.replace

    def flushed(handle: int) -> None:
        target = os.readlink(f"/proc/self/fd/{handle}") if os.path.isdir("/proc/self/fd") else ""
        told.append("folder" if target == str(tmp_path) else "content")
        flush(handle)

    def replaced(one: Path, other: Path) -> None:
        told.append("rename")
        replace(one, other)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", replaced)
    losses(tmp_path, 1)
    if os.path.isdir("/proc/self/fd"):
        assert told == ["content", "rename", "folder"]
