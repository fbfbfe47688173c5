"""A run made again: from its folder alone, and what is said where something is not as it was."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from customvideo.runs.environment import _git, differences
from tests.surroundings import run_cli, train, write_pair, write_photos


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, tiny_zeroscope: Path) -> Path:
    """A finished run; its photos lie beside it."""
    folder = tmp_path_factory.mktemp("first")
    assert train(folder / "run", write_pair(folder), tiny_zeroscope).exit_code == 0
    return folder / "run"


def test_a_run_says_what_it_was_made_with(first: Path) -> None:
    told = json.loads((first / "environment.json").read_text())
    assert told["packages"]["torch"] and told["device"] == "cpu" and told["processes"] == 1
    assert told["photos"].keys() == {"tom", "rex"}
    assert str(first.parent) not in json.dumps(told)


def test_a_run_is_repeated_from_its_folder(first: Path, tmp_path: Path) -> None:
    again = run_cli("train", "--from", first, "--out", tmp_path / "again")
    assert again.exit_code == 0, again.output
    assert "Not as in" not in again.output
    one, other = (run / "adapter.safetensors" for run in (first, tmp_path / "again"))
    assert one.read_bytes() == other.read_bytes()


def test_what_differs_is_said(first: Path, tmp_path: Path) -> None:
    told = json.loads((first / "environment.json").read_text())
    told["packages"]["torch"] = "1.0"
    told["photos"]["tom"] = "0"
    told["backbone"] = "0"
    del told["packages"]["numpy"]
    (tmp_path / "environment.json").write_text(json.dumps(told))
    torch, backbone, photos, numpy = differences(tmp_path, first)
    assert numpy.startswith("numpy was missing and is ")
    assert torch.startswith("torch was 1.0 and is ")
    assert backbone == "the base model's weights are others"
    assert photos == "the photos or masks of 'tom' are others"
    assert differences(tmp_path / "nowhere", first) == []


def test_a_repository_that_merely_holds_the_program_is_not_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "mine.txt").write_text("")
    by = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for rest in (("add", "mine.txt"), (*by, "commit", "-q", "-m", "mine")):
        subprocess.run(["git", "-C", tmp_path, *rest], check=True)
    package = tmp_path / "venv" / "customvideo"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    assert _git(package) == ""
    subprocess.run(["git", "-C", tmp_path, "add", "venv"], check=True)
    assert _git(package).endswith("+")


def test_other_photos_in_the_same_place_are_noticed(first: Path, tmp_path: Path) -> None:
    """The recipe knows folders; what was in them is kept beside it."""
    moved = first.parent / "tom"
    kept = (moved / "0.png").read_bytes()
    try:
        other = write_photos(tmp_path / "other", 7)
        (moved / "0.png").write_bytes((other / "0.png").read_bytes())
        again = run_cli("train", "--from", first, "--out", tmp_path / "again")
    finally:
        (moved / "0.png").write_bytes(kept)
    assert again.exit_code == 0 and "the photos or masks of 'tom' are others" in again.output
