"""Photos from strangers: decoded apart, kept as training reads them, their masks mended."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customvideo.errors import PromptError, StorageError, SubjectError
from customvideo.subjects.folders import load_subjects
from customvideo.video import Video
from customvideo.workspace import Workspace
from customvideo.workspace import uploads as uploading
from customvideo.workspace.doubts import NO_MASK, photo_doubts
from customvideo.workspace.shelf import Shelf
from customvideo.workspace.uploads import Refused, decode_photos
from tests.subjects.photos import blob


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    memory = io.BytesIO()
    image.save(memory, kind, **options)
    return memory.getvalue()


def photo(**options: object) -> Image.Image:
    return Image.fromarray(blob(height=150, width=200, **options)[0])  # type: ignore[arg-type]


def turned_jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    exif[0x010E] = "where I live"
    return encoded(photo(), "JPEG", exif=exif)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    workspace = Workspace(tmp_path / "w")
    shelf = workspace.shelf(workspace.projects.create("photos").id)
    shelf.add("tom", "cat")
    return shelf


def test_uploads_good_and_evil(shelf: Shelf, tmp_path: Path) -> None:
    bomb = encoded(Image.new("1", (9000, 9000)))
    told: list[tuple[int, int]] = []
    added = shelf.add_photos(
        "tom",
        [
            ("mine.jpg", turned_jpeg()),
            ("bomb.png", bomb),
            ("../../<img onerror=x>.png", b"GIF89a nothing"),
            ("cut.png", encoded(photo())[:-400]),
            ("two.png", encoded(photo(centre=(0.5, 0.4)))),
            ("again.png", encoded(photo(centre=(0.5, 0.4)))),
        ],
        tell=lambda done, of: told.append((done, of)),
    )
    assert [one.name for one in added.photos] == ["001", "002"]
    assert added.photos[0].size == (200, 150), "upright"
    assert [one.file.suffix for one in added.photos] == [".jpg", ".png"]
    for name, reason in zip(
        ("bomb.png", "<img onerror=x>.png", "cut.png", "again.png"), added.refused, strict=True
    ):
        assert f"'{name}'" in reason and str(tmp_path) not in reason
    assert "too many pixels" in added.refused[0] and "already" in added.refused[3]
    assert told[-1] == (6, 6)
    with Image.open(added.photos[0].file) as kept:
        assert not kept.getexif(), "nobody learns where it was taken"
    assert all(one.mask is not None and one.overlay is not None for one in added.photos)

    (subject,) = load_subjects([f"tom:cat={shelf.get('tom').folder}"])
    expected = blob(height=150, width=200, centre=(0.5, 0.4))[1]
    assert np.abs(subject.masks[1] - expected).mean() < 0.02


def test_what_kills_the_decoder_is_refused_and_the_others_are_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, calls = uploading._run, []

    def dies_at_first(arguments: list[str], patience: float) -> list[dict[str, object]]:
        calls.append(arguments)
        return [{"begun": "0000"}] if len(calls) == 1 else real(arguments, patience)

    monkeypatch.setattr(uploading, "_run", dies_at_first)
    found = decode_photos([("evil.png", b"evil"), ("good.png", encoded(photo()))])
    assert isinstance(found[0], Refused) and "within the limits" in found[0].reason
    assert not isinstance(found[1], Refused) and found[1].name == "good.png"


@pytest.mark.parametrize(
    "line",
    [
        {"file": "0000", "rgb": {"name": "x", "shape": [2**20, 2**20, 3]}},
        {"file": "0000", "rgb": {"name": "../../../../etc/passwd", "shape": [1, 1, 3]}},
        {"file": "0000", "rgb": {"name": "x"}},
    ],
)
def test_the_decoder_is_not_believed(
    line: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploading, "_run", lambda _arguments, _patience: [{"begun": "0000"}, line])
    (found,) = decode_photos([("evil.png", b"evil")])
    assert isinstance(found, Refused)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is the system's")
def test_the_decoder_cannot_fill_the_memory() -> None:
    script = """
from customvideo.workspace import decoding
decoding._set_limits()
try:
    bytearray(decoding.MEMORY)
except MemoryError:
    print("refused")
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert ended.stdout == "refused\n"


def test_a_photo_that_was_deleted_may_come_again(shelf: Shelf) -> None:
    first, second = encoded(photo()), encoded(photo(centre=(0.5, 0.4)))
    shelf.add_photos("tom", [("one.png", first), ("two.png", second)])
    shelf.remove_photo("tom", "001")
    again = shelf.add_photos("tom", [("one.png", first)])
    assert [one.name for one in again.photos] == ["003"] and again.refused == ()
    assert shelf.add_photos("tom", [("two.png", second)]).photos == ()


def test_notes_made_anew_give_no_photo_anothers_place(shelf: Shelf) -> None:
    shelf.add_photos(
        "tom", [("one.png", encoded(photo())), ("two.png", encoded(photo(centre=(0.5, 0.4))))]
    )
    folder = shelf.get("tom").folder
    (folder / "002.png").rename(folder / "003.png")
    kept = (folder / "003.png").read_bytes()
    (folder / ".photos.json").unlink()
    added = shelf.add_photos("tom", [("three.png", encoded(photo(centre=(0.4, 0.5))))])
    assert [one.name for one in added.photos] == ["004"]
    assert (folder / "003.png").read_bytes() == kept


def test_too_many_and_too_large(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        uploading, "_run", lambda _arguments, _patience: pytest.fail("nothing to decode")
    )
    with pytest.raises(SubjectError, match="at most 40"):
        decode_photos([("a.png", b"")] * 41)
    with pytest.raises(SubjectError, match="64 photos"):
        shelf.add_photos("tom", [("a.png", b"")] * 65)
    monkeypatch.setattr(uploading, "_LARGEST_PHOTO", 10)
    (found,) = decode_photos([("a.png", b"x" * 11)])
    assert isinstance(found, Refused) and "save it smaller" in found.reason


def test_masks_are_mended_and_photos_come_back(shelf: Shelf) -> None:
    shelf.add_photos("tom", [("a.png", encoded(photo()))])
    painted = np.zeros((75, 100), np.uint8)
    painted[10:40, 20:60] = 1
    mended = shelf.replace_mask("tom", "001", painted).photos[0]
    assert mended.edited and mended.mask is not None
    with Image.open(mended.mask) as stored:
        kept = np.asarray(stored)
    assert kept.shape == (150, 200) and kept[50, 80] == 255 and kept[140, 190] == 0
    assert shelf.find_again("tom").photos[0].edited, "what somebody painted is not replaced"
    assert not shelf.find_again("tom", "001").photos[0].edited
    with pytest.raises(SubjectError, match="is empty"):
        shelf.replace_mask("tom", "001", np.zeros((75, 100)))
    with pytest.raises(SubjectError, match="not a JPEG"):
        shelf.replace_mask("tom", "001", b"no picture")
    with pytest.raises(SubjectError, match="no photo"):
        shelf.remove_photo("tom", "../001")

    thrown = shelf.remove_photo("tom", "001")
    assert shelf.get("tom").photos == ()
    shelf._trash.restore(thrown.id)
    assert shelf.get("tom").photos[0].mask is not None


def test_a_clip_gives_its_sharpest_frames(shelf: Shelf, tmp_path: Path) -> None:
    sharp, _ = blob(height=96, width=128)
    flat = np.full_like(sharp, 120)
    rolled = np.roll(sharp, 30, axis=1)
    frames = np.stack([flat, sharp, sharp, rolled, rolled, flat])
    data = Video(frames).save(tmp_path / "clip.mp4").read_bytes()
    added = shelf.add_clip("tom", ("clip.mp4", data), count=2)
    assert [one.size for one in added.photos] == [(96, 128)] * 2 and added.refused == ()
    for one, frame in zip(added.photos, (sharp, rolled), strict=True):
        with Image.open(one.file) as stored:
            assert np.abs(np.asarray(stored, int) - frame).mean() < 4
    refused = shelf.add_clip("tom", ("clip.mp4", data[:300]), count=2).refused
    assert len(refused) == 1 and "clip.mp4" in refused[0]


def test_subjects_in_order(shelf: Shelf) -> None:
    shelf.add("rex", "dog")
    assert [one.word for one in shelf.reorder(["rex"])] == ["<rex>", "<tom>"]
    assert shelf.set_category("rex", "wolf").category == "wolf"
    with pytest.raises(StorageError, match="already"):
        shelf.add("tom", "cat")
    for name in ("../tom", "Tom", "<img onerror>"):
        with pytest.raises(PromptError, match="cannot name"):
            shelf.add(name, "cat")
    with pytest.raises(StorageError, match="no <tim>"):
        shelf.add_photos("tim", [])
    assert "no photo yet" in shelf.get("tom").warnings[0]


def test_doubts_in_words() -> None:
    image, mask = blob(height=200, width=200, colour=(10, 10, 10))
    assert any("subject is dark" in text for text in photo_doubts(image, mask))
    image, mask = blob(200, 200, centre=(0.5, 0.1))
    assert any(text.startswith("Cut off at the left") for text in photo_doubts(image, mask))
    assert photo_doubts(image, None) == (NO_MASK,)
