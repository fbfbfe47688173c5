"""The toybox's verb, through the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customvideo.subjects.folders import load_subjects
from customvideo.video import Video
from tests.surroundings import contents, run_cli


def test_studio_writes_folders_a_user_could_have(tmp_path: Path) -> None:
    result = run_cli("toybox", "studio", "ida", "rex", "--out", tmp_path / "photos")
    assert result.exit_code == 0, result.output
    assert "<ida> cat" in result.stdout and "<rex> rabbit" in result.stdout
    subjects = load_subjects(tmp_path / "photos")
    assert [(one.name, one.category) for one in subjects] == [("ida", "cat"), ("rex", "rabbit")]
    assert all(len(one.images) == 5 and one.images[0].shape == (240, 384, 3) for one in subjects)


def test_studio_knows_its_subjects(tmp_path: Path) -> None:
    result = run_cli("toybox", "studio", "nobody", "--out", tmp_path)
    assert result.exit_code == 2
    assert "'nobody'" in result.stderr and "ida" in result.stderr
    assert not list(tmp_path.iterdir())


def test_studio_does_not_overwrite(tmp_path: Path) -> None:
    (tmp_path / "rex").mkdir()
    (tmp_path / "rex" / "1.png").write_text("mine")
    result = run_cli("toybox", "studio", "ida", "rex", "--out", tmp_path)
    assert result.exit_code == 2 and str(tmp_path / "rex") in result.stderr
    assert contents(tmp_path) == {"rex/1.png": b"mine"}


def test_a_sheet_shows_as_many_worlds_as_asked_for(tmp_path: Path) -> None:
    for name in ("one.png", "same.png"):
        result = run_cli("toybox", "sheet", "--count", "5", "--out", tmp_path / name, "--seed", "3")
        assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "one.png") as picture:
        page = np.asarray(picture)
    assert page.shape == (2 * 128 + 2, 4 * 192 + 3 * 2, 3)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "same.png").read_bytes()
    # The fifth world begins the second row; what would be the sixth stays white.
    assert page[140:, :192].std() > 5 and (page[140:, 200:] == 255).all()


def test_a_moving_sheet_moves(tmp_path: Path) -> None:
    result = run_cli("toybox", "sheet", "--count", "1", "--out", tmp_path / "one.gif")
    assert result.exit_code == 0, result.output
    video = Video.load(tmp_path / "one.gif")
    assert len(video) == 8 and np.ptp(video.frames.astype(int), axis=0).max() > 40


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("clip=3", ("'clip'", "did you mean 'clips'?")),
        ("clips=many", ("'clips'", "whole number", "'many'")),
        ("clips=0", ("'clips'", "0")),
    ],
)
def test_pretraining_refuses_sizes_that_cannot_be(
    setting: str, named: tuple[str, ...], tmp_path: Path
) -> None:
    result = run_cli("toybox", "pretrain", "--work", tmp_path / "work", "--set", setting)
    assert result.exit_code == 2, result.output
    assert all(part in result.stderr for part in named)
    assert not (tmp_path / "work").exists()


def test_pretraining_does_not_export_over_other_things(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = run_cli("toybox", "pretrain", "--work", tmp_path / "work", "--export", tmp_path)
    assert result.exit_code == 2 and str(tmp_path) in result.stderr
    assert list(contents(tmp_path)) == ["thesis.txt"]
