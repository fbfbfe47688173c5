"""Files are written whole or not at all, and failures say what to do."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from customvideo.errors import StorageError
from customvideo.files import atomic_path, ensure_dir, require_free, write_bytes, write_text


def test_text_and_bytes_arrive_as_they_are(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "note.txt", "één\n")
    write_bytes(tmp_path / "raw.bin", b"\r\n\x00")
    assert (tmp_path / "new" / "note.txt").read_bytes() == "één\n".encode()
    assert (tmp_path / "raw.bin").read_bytes() == b"\r\n\x00"


def test_the_partial_file_keeps_the_suffix_and_is_a_neighbour(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "clip.mp4") as partial:
        assert (partial.suffix, partial.parent) == (".mp4", tmp_path)
        assert partial.name.startswith(".")
        partial.write_bytes(b"new")
        assert not (tmp_path / "clip.mp4").exists()
    assert os.listdir(tmp_path) == ["clip.mp4"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_earlier_file(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "result.txt"
    write_text(path, "old")
    with pytest.raises(error), atomic_path(path) as partial:
        partial.write_text("half")
        raise error
    assert os.listdir(tmp_path) == ["result.txt"]
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EACCES, "permission is denied"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "choose another place"),
    ],
)
def test_a_failing_disk_is_a_storage_error(tmp_path: Path, number: int, words: str) -> None:
    path = tmp_path / "result.txt"
    write_text(path, "old")
    with pytest.raises(StorageError, match=words) as caught, atomic_path(path) as partial:
        partial.write_text("half")
        raise OSError(number, os.strerror(number))
    assert str(path) in str(caught.value)
    assert os.listdir(tmp_path) == ["result.txt"]
    assert path.read_text() == "old"


def test_a_missing_input_is_not_mistaken_for_a_storage_problem(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "out" / "x.txt"):
        (tmp_path / "input.txt").read_text()


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(StorageError, match="a part of the path is a file"):
        write_text(tmp_path / "run" / "deep" / "x.txt", "x")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        ensure_dir(tmp_path / "run")


def test_a_folder_in_the_way_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.txt").mkdir()
    with pytest.raises(StorageError, match="a folder of that name exists"):
        write_text(tmp_path / "x.txt", "x")


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="the name is too long"):
        write_text(tmp_path / ("x" * 300) / "x.txt", "x")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a system with devices")
def test_a_device_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="is a device"):
        write_text(tmp_path / "pipe", "x")
    assert not (tmp_path / "pipe").is_file()


def test_a_link_keeps_pointing_where_it_did(tmp_path: Path) -> None:
    write_text(tmp_path / "real.txt", "old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_free_space_is_asked_of_the_nearest_existing_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def disk_usage(path: Path) -> object:
        asked.append(path)
        return namedtuple("usage", "free")(1_000_000)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    require_free(tmp_path / "run" / "deep", 1_000_000)
    with pytest.raises(StorageError, match=r"needs 2\.0 MB .* only 1\.0 MB free"):
        require_free(tmp_path / "run" / "deep", 2_000_000)
    assert asked == [tmp_path, tmp_path]
