"""Telling what a killed process left from what a running one is writing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from customvideo import processes
from customvideo.files import discard, hidden_beside, sweep, write_text
from customvideo.processes import is_left_behind, is_running
from tests.dead import hidden_of_the_dead
from tests.surroundings import run_cli


def test_only_what_the_dead_left_is_swept(tmp_path: Path) -> None:
    dead, deep = hidden_of_the_dead(tmp_path / "a.mp4"), hidden_of_the_dead(tmp_path / "b/c.png")
    folder, ours = hidden_of_the_dead(tmp_path / "out"), hidden_beside(tmp_path / "a.mp4")
    deep.parent.mkdir()
    (folder / "words").mkdir(parents=True)
    for file in (dead, deep, ours, folder / "words" / "x", tmp_path / ".mine", tmp_path / "a.mp4"):
        file.write_text("")
    assert set(sweep(tmp_path)) == {dead, deep, folder}
    assert {path.name for path in tmp_path.iterdir()} == {ours.name, "b", ".mine", "a.mp4"}
    assert sweep(tmp_path / "nowhere") == []


def test_the_next_writer_sweeps_its_folder(tmp_path: Path) -> None:
    hidden_of_the_dead(tmp_path / "x.txt").write_text("ha")
    write_text(tmp_path / "x.txt", "half")
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


def test_of_other_machines_only_time_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hidden_beside(tmp_path / "x.txt")
    path.write_text("")
    monkeypatch.setattr(processes, "here", lambda: "another machine")
    assert not is_left_behind(path)
    os.utime(path, (0, time.time() - 25 * 3600))
    assert is_left_behind(path)


def test_a_number_given_again_is_another_process(tmp_path: Path) -> None:
    assert is_running(os.getpid()) and is_running(os.getpid(), time.time())
    assert not is_running(os.getpid(), 1.0), "it began after that"
    path = hidden_beside(tmp_path / "x.txt")
    path.write_text("")
    os.utime(path, (0, 1))
    assert is_left_behind(path)


def test_a_folder_is_discarded_whole(tmp_path: Path) -> None:
    (tmp_path / "old" / "deep").mkdir(parents=True)
    discard(tmp_path / "old")
    discard(tmp_path / "old")
    assert not list(tmp_path.iterdir())


def test_sigterm_stops_a_verb_like_ctrl_c(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stopped(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr("customvideo.runs.exporting.export", stopped)
    before = signal.getsignal(signal.SIGTERM)
    ended = run_cli("export", tmp_path / "a.safetensors", "--to", "diffusers")
    assert ended.exit_code == 130 and "Stopped" in ended.stderr, ended.output
    assert signal.getsignal(signal.SIGTERM) is before
