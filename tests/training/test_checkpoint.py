"""Checkpoints: whole or not there, best kept beside the last, and honest about what differs."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from customvideo.errors import ConfigError, StorageError
from customvideo.files import hidden_beside
from customvideo.training.checkpoint import (
    OPTIMIZER,
    RNG,
    Checkpoint,
    best_checkpoint,
    check_same_run,
    newest_valid,
    prune,
    recover,
    save_checkpoint,
)
from tests.dead import hidden_of_the_dead


def save(folder: Path, step: int, size: int = 4, **state: Any) -> Checkpoint:
    return save_checkpoint(
        folder,
        step,
        save_adapter=lambda path: path.write_bytes(b"adapter"),
        tensors={
            OPTIMIZER: {"words/exp_avg": torch.full((size,), float(step))},
            RNG: {"cpu": torch.arange(3, dtype=torch.uint8)},
        },
        state=state,
    )


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.is_dir())


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes, as on a disk that is about to be full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_what_is_saved_is_found(tmp_path: Path) -> None:
    save(tmp_path, 9)
    save(tmp_path, 10, score=0.5)
    search = newest_valid(tmp_path)
    assert search.broken == ()
    newest = search.newest
    assert newest is not None
    assert newest.step == 10
    assert newest.adapter.read_bytes() == b"adapter"
    assert torch.equal(newest.optimizer()["words/exp_avg"], torch.full((4,), 10.0))
    assert newest.rng()["cpu"].dtype == torch.uint8
    assert newest.state == {"format": 1, "step": 10, "score": 0.5}
    names = {"adapter.safetensors", OPTIMIZER, RNG, "state.json", "COMPLETE"}
    assert {file.name for file in newest.path.iterdir()} == names


def test_an_empty_or_missing_folder_has_none(tmp_path: Path) -> None:
    assert newest_valid(tmp_path / "none").newest is None
    assert newest_valid(tmp_path).newest is None
    assert best_checkpoint(tmp_path) is None


@pytest.mark.parametrize(
    ("name", "spoil", "fault"),
    [
        ("COMPLETE", Path.unlink, "it is incomplete"),
        ("COMPLETE", lambda file: file.write_text("{"), "marker of completeness is damaged"),
        ("COMPLETE", lambda file: file.write_text("{}"), "marker of completeness is damaged"),
        ("state.json", Path.unlink, "'state.json' is missing"),
        (OPTIMIZER, lambda file: file.write_bytes(file.read_bytes()[:-1]), "is damaged"),
        ("adapter.safetensors", lambda file: file.write_bytes(b"Adapter"), "is damaged"),
    ],
)
def test_a_spoilt_checkpoint_is_skipped_and_named(
    tmp_path: Path, name: str, spoil: Any, fault: str
) -> None:
    save(tmp_path, 1)
    spoil(save(tmp_path, 2).path / name)
    search = newest_valid(tmp_path)
    assert search.newest is not None
    assert search.newest.step == 1
    assert len(search.broken) == 1
    assert str(tmp_path / "2") in search.broken[0]
    assert fault in search.broken[0]


def test_leftovers_of_a_killed_save_are_ignored_and_cleaned_up(tmp_path: Path) -> None:
    old, dead = tmp_path / ".partial-123", hidden_of_the_dead(tmp_path / "9", ".saving")
    for leftover in (old, dead):
        leftover.mkdir()
        (leftover / "state.json").write_text("{}")
    # An earlier version stamped no process on its own: only time tells that it is gone.
    os.utime(old, (0, 0))
    assert newest_valid(tmp_path).newest is None
    save(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_what_a_running_process_is_saving_stays(tmp_path: Path) -> None:
    ours = hidden_beside(tmp_path / "9", ".saving")
    ours.mkdir()
    save(tmp_path, 1)
    assert ours.is_dir()


@pytest.mark.parametrize("renames", [0, 1])
def test_a_kill_while_a_checkpoint_is_replaced_loses_none(tmp_path: Path, renames: int) -> None:
    """Between the renames no checkpoint of the step is in sight; both are there, whole."""
    save(tmp_path / "new", 3, score=2.0)
    old = save(tmp_path, 3, score=1.0).path
    (tmp_path / "new/3").rename(hidden_of_the_dead(old, ".saving"))
    (tmp_path / "new").rmdir()
    if renames:
        old.rename(hidden_of_the_dead(old, ".replaced"))
        assert newest_valid(tmp_path).newest is None
    recover(tmp_path)
    newest = newest_valid(tmp_path).newest
    assert newest is not None
    assert newest.state["score"] == (2.0 if renames else 1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


def test_an_old_checkpoint_comes_back_where_the_new_one_is_broken(tmp_path: Path) -> None:
    old = save(tmp_path, 3).path
    old.rename(hidden_of_the_dead(old, ".replaced"))
    half = hidden_of_the_dead(old, ".saving")
    half.mkdir()
    (half / "adapter.safetensors").write_bytes(b"adap")
    recover(tmp_path)
    assert newest_valid(tmp_path).newest == Checkpoint(tmp_path / "3", 3)
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


def test_what_was_being_removed_never_comes_back(tmp_path: Path) -> None:
    doomed = save(tmp_path, 3).path
    doomed.rename(hidden_of_the_dead(doomed, ".removed"))
    recover(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_a_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    folder = save(tmp_path, 3, format=2).path
    with pytest.raises(ConfigError, match="made by a newer customvideo") as error:
        newest_valid(tmp_path)
    assert str(folder) in str(error.value)


def test_the_same_step_can_be_saved_again(tmp_path: Path) -> None:
    save(tmp_path, 1, score=1.0)
    save(tmp_path, 1, score=2.0)
    newest = newest_valid(tmp_path).newest
    assert newest is not None
    assert newest.state["score"] == 2.0


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    before = {file.name: file.read_bytes() for file in (tmp_path / "1").iterdir()}
    with (
        largest_file(4096),
        pytest.raises(
            StorageError, match=r"'.*/2' could not be saved, earlier ones are untouched"
        ) as error,
    ):
        save(tmp_path, 2, size=10_000)
    assert "partial" not in str(error.value), "a file that is gone again was named"
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert {file.name: file.read_bytes() for file in (tmp_path / "1").iterdir()} == before


def test_too_little_space_is_noticed_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("usage", (), {"free": 10})
    monkeypatch.setattr("customvideo.files.shutil.disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match="free some space"):
        save(tmp_path, 1)
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        save(tmp_path / "file", 1)


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    scores = {1: 0.5, 2: 0.2, 3: 0.9, 4: 0.3, 5: float("nan")}
    for step, score in scores.items():
        prune(tmp_path, 2, save(tmp_path, step), score)
    assert steps(tmp_path) == [2, 4, 5]
    best = best_checkpoint(tmp_path)
    assert best is not None
    assert (best[0].step, best[1]) == (2, 0.2)
    prune(tmp_path, 1, save(tmp_path, 6), 0.1)
    assert steps(tmp_path) == [6]


def test_without_scores_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        prune(tmp_path, 2, save(tmp_path, step), None)
    assert steps(tmp_path) == [2, 10]
    assert best_checkpoint(tmp_path) is None


def test_a_damaged_best_is_replaced(tmp_path: Path) -> None:
    prune(tmp_path, 2, save(tmp_path, 1), 0.1)
    (tmp_path / "1/COMPLETE").unlink()
    prune(tmp_path, 2, save(tmp_path, 2), 0.4)
    assert json.loads((tmp_path / "BEST").read_text()) == {"step": 2, "score": 0.4}


def test_differences_between_runs_are_named() -> None:
    one = {"training": {"seed": 0, "canvas": (64, 96)}, "photos": {"tom": "abc"}}
    check_same_run(json.loads(json.dumps(one)), one)
    with pytest.raises(ConfigError, match=r"seed was 0 and is 1\. Give what"):
        check_same_run(one, one | {"training": {"seed": 1, "canvas": [64, 96]}})
    with pytest.raises(ConfigError, match="the photos, masks or captions of 'tom' are others"):
        check_same_run(one, one | {"photos": {"tom": "abd"}})
    with pytest.raises(ConfigError, match="start a new run"):
        check_same_run(one, {})
    many = {"training": {str(index): index for index in range(9)}}
    with pytest.raises(ConfigError, match="6 more"):
        check_same_run(many, {"training": {str(index): -1 for index in range(9)}})
