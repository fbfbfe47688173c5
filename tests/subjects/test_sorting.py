"""A folder as somebody has it: one line for each file that cannot be used, and never a crash."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customvideo.errors import SubjectError
from customvideo.subjects.sorting import sort_folder
from tests.subjects.photos import blob, mask_bytes, save, textured

SIZE = 48, 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(4):
        save(tmp_path / "tom" / f"{index}.png", textured(index, *SIZE))
    return tmp_path / "tom"


def bomb() -> bytes:
    """A PNG of 60000 x 60000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def reasons(folder: Path) -> dict[str, str]:
    return {left.file: left.why for left in sort_folder(folder).left_out}


def test_good_photos_stay_in_order(folder: Path) -> None:
    found = sort_folder(folder)
    assert [one.picture.path.name for one in found.kept] == ["0.png", "1.png", "2.png", "3.png"]
    assert not found.left_out and all(one.mask is None for one in found.kept)


def test_each_hostile_file_gets_one_line(folder: Path) -> None:
    whole = save(folder.parent / "whole.jpg", textured(9)).read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "bomb.png").write_bytes(bomb())
    (folder / "text.jpg").write_text("no picture")
    (folder / "empty.png").write_bytes(b"")
    save(folder / "one.png", np.zeros((1, 1, 3), np.uint8))
    save(folder / "thin.png", np.zeros((40, 4000, 3), np.uint8))
    frames = [Image.fromarray(textured(seed)) for seed in (10, 11)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    (folder / "notes.docx").write_text("x")
    (folder / "a folder.jpg").mkdir()
    found = reasons(folder)
    assert found == {
        "bomb.png": "has too many pixels to be safe; save it smaller",
        "cut.jpg": "is damaged or cut short; replace it by an intact copy or remove it",
        "empty.png": "is not a JPEG, PNG or WebP picture; remove it or save it again as one",
        "notes.docx": "is no picture and no clip",
        "one.png": "is only 1x1 pixels; use a picture of at least 32x32",
        "text.jpg": "is not a JPEG, PNG or WebP picture; remove it or save it again as one",
        "thin.png": "is 4000x40 pixels, too narrow to use; crop it around the subject",
    }
    assert len(sort_folder(folder).kept) == 4


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_out_of_the_folder_are_not_followed(folder: Path) -> None:
    outside = save(folder.parent / "outside.png", textured(12))
    os.symlink(outside, folder / "link.png")
    os.symlink("loop.png", folder / "loop.png")
    os.symlink(folder / "0.png", folder / "within.png")
    found = reasons(folder)
    assert found["link.png"] == "is a link out of the folder; copy the file itself"
    assert found["loop.png"] == "is no ordinary file"
    assert found["within.png"] == "looks the same as '0.png'"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes there")
def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jpg")
    assert reasons(folder) == {"pipe.jpg": "is no ordinary file"}


def test_odd_pictures_are_pictures(folder: Path) -> None:
    Image.fromarray(textured(13)).convert("CMYK").save(folder / "cmyk.jpg")
    deep = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    frames = [Image.fromarray(textured(seed)) for seed in (14, 15)]
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:])
    found = sort_folder(folder)
    kept = {one.picture.path.name: one for one in found.kept}
    assert {"cmyk.jpg", "deep.png", "moving.webp"} < set(kept) and not found.left_out
    assert kept["moving.webp"].note == "holds 2 frames, of which the first is used"
    assert kept["deep.png"].picture.image[-1, -1, 0] == 255


def test_of_two_that_look_the_same_the_larger_stays(folder: Path) -> None:
    image = textured(16, 400, 600)
    save(folder / "small.jpg", np.asarray(Image.fromarray(image).resize((90, 60))))
    save(folder / "large.jpg", image)
    assert reasons(folder) == {"small.jpg": "looks the same as 'large.jpg'"}
    # … unless the smaller one is the one with a mask.
    save(folder / "masks" / "small.png", mask_bytes(blob(60, 90)[1]))
    assert reasons(folder) == {"large.jpg": "looks the same as 'small.jpg'"}


def test_masks_are_read_and_bad_ones_left_out(folder: Path) -> None:
    save(folder / "masks" / "0.png", mask_bytes(blob()[1]))
    save(folder / "masks" / "1.png", np.zeros((48, 64), np.uint8))
    save(folder / "masks" / "2.png", np.zeros((20, 20), np.uint8))
    save(folder / "masks" / "stray.png", mask_bytes(blob()[1]))
    (folder / "masks" / "note.bmp").write_bytes(b"x")
    found = sort_folder(folder)
    assert [one.mask is not None for one in found.kept] == [True, False, False, False]
    why = {left.file: left.why for left in found.left_out}
    assert why["masks/1.png"].startswith("is empty") and "20x20" in why["masks/2.png"]
    assert why["masks/stray.png"] == "is the mask of no picture that can be used"
    assert "masks/note.bmp" in why


def test_masks_that_fit_nothing_are_refused(folder: Path) -> None:
    save(folder / "masks" / "x.png", mask_bytes(blob()[1]))
    save(folder / "masks" / "y.png", mask_bytes(blob()[1]))
    with pytest.raises(SubjectError, match=r"None of the 2 masks in .*; name them like '0.png'"):
        sort_folder(folder)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SubjectError, match="There is no folder"):
        sort_folder(tmp_path / "gone")
