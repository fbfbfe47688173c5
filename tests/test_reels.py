"""Clips from phones, animations, and files made to do harm."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from customvideo.errors import UserError
from customvideo.reels import Limits, read_clip
from customvideo.video import Video
from tests.subjects.films import write_uneven
from tests.test_video import moving_picture

EVERYTHING = Limits()


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_clip_is_read_as_it_was_saved(tmp_path: Path, suffix: str) -> None:
    video = moving_picture(12, 63, 95)
    reel = read_clip(video.save(tmp_path / f"clip{suffix}"), EVERYTHING)
    odd = suffix == ".mp4"
    assert reel.video.frames.shape == (12, 63 + odd, 95 + odd, 3)
    assert reel.video.fps == pytest.approx(8)
    assert reel.alpha is None
    assert np.abs(reel.video.frames[:, :63, :95].astype(int) - video.frames).mean() < 8


def test_at_uneven_times_each_moment_has_what_was_shown_then(tmp_path: Path) -> None:
    path = write_uneven(tmp_path / "uneven.mp4", [0, 100, 150, 600, 1000])
    reel = read_clip(path, Limits(fps=10))
    levels = reel.video.frames[:, 0, 0, 0].astype(int)
    shown = [0, 40, 80, 80, 80, 80, 120, 120, 120, 120, 160]
    np.testing.assert_allclose(levels[:11], shown, atol=4)
    assert reel.video.fps == 10


def test_a_phone_s_note_turns_the_picture_upright(tmp_path: Path) -> None:
    plain = moving_picture(4, 64, 96).save(tmp_path / "plain.mp4")
    data = bytearray(plain.read_bytes())
    start = data.index(b"tkhd") + 44  # the header's matrix, in fixed point: a quarter turn
    data[start : start + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(data)
    before = read_clip(plain, EVERYTHING).video.frames
    after = read_clip(tmp_path / "turned.mp4", EVERYTHING)
    np.testing.assert_array_equal(after.video.frames, np.rot90(before, -1, (1, 2)))
    assert after.size == (96, 64)


def test_only_the_beginning_is_read_and_large_frames_are_shrunk(tmp_path: Path) -> None:
    path = moving_picture(32, 64, 96).save(tmp_path / "long.mp4")
    reel = read_clip(path, Limits(seconds=1.5, fps=4, side=48))
    assert reel.video.frames.shape == (6, 32, 48, 3)
    assert reel.video.fps == 4
    assert reel.size == (64, 96)
    few = read_clip(path, Limits(decoded=64 * 96 * 5))
    assert 1 < len(few.video) < 8


def test_of_a_transparent_animation_the_alpha_comes_along(tmp_path: Path) -> None:
    pages = []
    for left in (0, 10, 20):
        page = Image.new("RGBA", (48, 40))
        page.paste((200, 30, 30, 255), (left, 10, left + 16, 30))
        pages.append(page)
    path = tmp_path / "clear.gif"
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=100, disposal=2)
    reel = read_clip(path, EVERYTHING)
    assert reel.video.fps == pytest.approx(10)
    assert reel.alpha is not None
    assert reel.alpha.shape == (3, 40, 48)
    assert reel.alpha[2, 20, 25] == 255
    assert reel.alpha[2, 20, 5] == 0


def test_an_animation_of_one_frame_is_one_frame(tmp_path: Path) -> None:
    path = moving_picture(1, 40, 40).save(tmp_path / "one.gif")
    assert len(read_clip(path, EVERYTHING).video) == 1


def test_a_page_that_is_held_for_hours_does_not_fill_the_memory(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (40, 40), (index * 60, 0, 0)) for index in range(3)]
    path = tmp_path / "held.gif"
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=[20, 20, 600_000])
    reel = read_clip(path, Limits(seconds=2, fps=20))
    assert len(reel.video) == 40


def test_no_more_pages_are_counted_than_may_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = [Image.new("RGB", (40, 40), (index * 20, 0, 0)) for index in range(12)]
    path = tmp_path / "many.gif"
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=100)
    seen: list[int] = []
    seek = GifImageFile.seek
    monkeypatch.setattr(
        GifImageFile, "seek", lambda self, page: (seen.append(page), seek(self, page))
    )
    read_clip(path, Limits(seconds=0.3, fps=10))
    assert max(seen) <= 3
    seen.clear()
    read_clip(path, Limits(decoded=3 * 1600))
    assert max(seen) <= 4


def _cut(path: Path) -> bytes:
    whole = moving_picture(8, 64, 96).save(path.with_name("whole.mp4")).read_bytes()
    return whole[: len(whole) // 3]


def _huge(path: Path) -> bytes:
    memory = io.BytesIO()
    Image.new("P", (8000, 6000)).save(memory, format="GIF")
    return memory.getvalue()


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("empty.mp4", lambda _: b""),
        ("text.mp4", lambda _: b"this is no film\n" * 100),
        ("list.mp4", lambda _: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"),
        ("list.webm", lambda _: b"ffconcat version 1.0\nfile '/etc/passwd'\n"),
        ("cut.mp4", _cut),
        ("cut.gif", lambda _: b"GIF89a\x10\x00\x10\x00"),
        ("huge.gif", _huge),
        ("picture.gif", lambda _: b"\x89PNG\r\n\x1a\n" + b"\0" * 64),
    ],
)
def test_what_is_no_clip_ends_in_one_sentence(tmp_path: Path, name: str, make: object) -> None:
    path = tmp_path / name
    path.write_bytes(make(path))  # type: ignore[operator]
    with pytest.raises(UserError, match=f"{name}' cannot be read as a clip; save it again"):
        read_clip(path, EVERYTHING)


def test_frames_that_are_too_large_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = Video(np.zeros((2, 128, 128, 3), np.uint8)).save(tmp_path / "large.mp4")
    with pytest.raises(UserError, match="cannot be read as a clip"):
        read_clip(path, Limits(pixels=128 * 127))
    with pytest.raises(UserError, match="There is no clip"):
        read_clip(tmp_path / "gone.mp4", EVERYTHING)
    with pytest.raises(UserError, match="There is no clip"):
        read_clip(tmp_path / "song.mp3", EVERYTHING)
