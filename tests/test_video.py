"""Videos through files and back, and what may not change on the way."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customvideo.errors import StorageError, UserError
from customvideo.video import Video, data_uri, side_by_side


def moving_picture(count: int = 8, height: int = 96, width: int = 160) -> Video:
    """Smooth colours that move, with a red square: compressible, as real videos are."""
    y, x = np.mgrid[:height, :width]
    frames = [
        np.stack(
            [120 + 80 * np.sin((x + 3 * t) / 25), 120 + 60 * np.cos(y / 19), 100 + 0 * x + 5 * t],
            -1,
        )
        for t in range(count)
    ]
    pixels = np.stack(frames).astype(np.uint8)
    pixels[:, height // 3 : height // 2, width // 4 : width // 2] = (220, 40, 40)
    return Video(pixels)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of uint8 arrays of one shape."""
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return float(10 * np.log10(255**2 / error))


@pytest.mark.parametrize(("suffix", "least"), [(".mp4", 38), (".gif", 30)])
def test_a_saved_video_comes_back_nearly_the_same(
    tmp_path: Path, suffix: str, least: float
) -> None:
    video = moving_picture()
    back = Video.load(video.save(tmp_path / f"clip{suffix}"))
    assert back.fps == pytest.approx(8)
    assert back.frames.shape == video.frames.shape
    assert psnr(back.frames, video.frames) > least


@pytest.mark.parametrize(
    "colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128), (200, 150, 60)]
)
def test_colours_keep_their_place(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    video = Video(np.full((2, 32, 32, 3), colour, np.uint8))
    back = Video.load(video.save(tmp_path / "plain.mp4"))
    assert np.abs(back.frames.astype(int) - colour).max() <= 4


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    for suffix in (".mp4", ".gif", ".png"):
        one = moving_picture().save(tmp_path / f"one{suffix}").read_bytes()
        other = moving_picture().save(tmp_path / f"other{suffix}").read_bytes()
        assert one == other


def test_the_bytes_do_not_depend_on_memory_nobody_wrote() -> None:
    """x264 can read uninitialised memory; the C library fills it with a given value here."""
    script = (
        "import hashlib; from tests.test_video import moving_picture, data_uri;"
        "print(hashlib.sha256(data_uri(moving_picture()).encode()).hexdigest())"
    )
    root = str(Path(__file__).parents[1])
    hashes = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"MALLOC_PERTURB_": value, "PATH": "", "PYTHONPATH": root},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for value in ("1", "77")
    }
    assert len(hashes) == 1


def test_mp4_is_h264_that_a_browser_can_start_at_once(tmp_path: Path) -> None:
    import av

    path = moving_picture().save(tmp_path / "clip.mp4")
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_odd_sizes_gain_a_repeated_edge(tmp_path: Path) -> None:
    video = moving_picture(3, 41, 67)
    back = Video.load(video.save(tmp_path / "odd.mp4"))
    assert back.size == (42, 68)
    assert psnr(back.frames[:, :41, :67], video.frames) > 30


def test_small_frames_can_be_enlarged(tmp_path: Path) -> None:
    video = moving_picture(2, 48, 80)
    back = Video.load(video.save(tmp_path / "large.mp4", scale=3))
    assert back.size == (144, 240)
    assert psnr(back.frames[:, 1::3, 1::3], video.frames) > 28
    with pytest.raises(UserError, match="not 0"):
        video.save(tmp_path / "none.mp4", scale=0)


@pytest.mark.parametrize("fps", [6.0, 8.0, 12.5, 24.0])
def test_speed_survives(tmp_path: Path, fps: float) -> None:
    video = Video(moving_picture(12, 32, 48).frames, fps)
    assert Video.load(video.save(tmp_path / "clip.mp4")).fps == pytest.approx(fps, rel=1e-3)
    assert Video.load(video.save(tmp_path / "clip.gif")).fps == pytest.approx(fps, rel=0.02)


def test_a_gif_that_pauses_keeps_its_length(tmp_path: Path) -> None:
    frames = moving_picture(4, 32, 48).frames[[0, 1, 1, 2]]
    back = Video.load(Video(frames).save(tmp_path / "pause.gif"))
    assert len(back) == 4
    assert np.array_equal(back.frames[1], back.frames[2])


def test_the_sheet_shows_every_frame_in_order(tmp_path: Path) -> None:
    video = moving_picture(6, 20, 30)
    sheet = video.sheet(columns=4, gap=2)
    assert sheet.shape == (42, 126, 3)
    assert np.array_equal(sheet[22:42, 32:62], video.frames[5])
    assert (sheet[22:, 64:] == 255).all()
    written = np.asarray(Image.open(video.save(tmp_path / "sheet.png")))
    assert np.array_equal(written, video.sheet())


def test_a_picture_is_a_video_of_one_frame(tmp_path: Path) -> None:
    frame = moving_picture(1).frames[0]
    Image.fromarray(frame).save(tmp_path / "picture.png")
    video = Video.load(tmp_path / "picture.png")
    assert len(video) == 1
    assert np.array_equal(video.frames[0], frame)


def test_side_by_side_centres_the_low_and_holds_the_short() -> None:
    tall, low = moving_picture(4, 40, 30), moving_picture(2, 20, 50)
    pair = side_by_side([tall, low], gap=6)
    assert pair.frames.shape == (4, 40, 86, 3)
    assert np.array_equal(pair.frames[:, :, :30], tall.frames)
    assert (pair.frames[:, :, 30:36] == 255).all()
    assert np.array_equal(pair.frames[3, 10:30, 36:], low.frames[1])
    assert (pair.frames[:, :10, 36:] == 255).all()


def test_side_by_side_refuses_unequal_speeds() -> None:
    slow = Video(moving_picture().frames, 4.0)
    with pytest.raises(UserError, match="one speed"):
        side_by_side([moving_picture(), slow])
    with pytest.raises(UserError, match="no videos"):
        side_by_side([])


def test_a_data_uri_holds_the_whole_video(tmp_path: Path) -> None:
    video = moving_picture()
    head, _, body = data_uri(video).partition(",")
    assert head == "data:video/mp4;base64"
    assert base64.b64decode(body) == video.save(tmp_path / "clip.mp4").read_bytes()


@pytest.mark.parametrize(
    ("frames", "fps"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), 8.0),
        (np.zeros((4, 4, 3), np.uint8), 8.0),
        (np.zeros((0, 4, 4, 3), np.uint8), 8.0),
        (np.zeros((2, 4, 4, 4), np.uint8), 8.0),
        (np.zeros((2, 4, 4, 3), np.uint8), 0.0),
        (np.zeros((2, 4, 4, 3), np.uint8), float("nan")),
    ],
)
def test_what_is_no_video_is_refused(frames: np.ndarray, fps: float) -> None:
    with pytest.raises(UserError, match="A video needs"):
        Video(frames, fps)


def test_an_unknown_suffix_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"clip\.avi.*\.mp4, \.gif, \.png"):
        moving_picture().save(tmp_path / "clip.avi")
    assert not list(tmp_path.iterdir())


def test_an_unwritable_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="a folder is needed"):
        moving_picture().save(tmp_path / "file" / "clip.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["broken.mp4", "broken.gif", "broken.png", "broken.txt"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n not much of a video")
    with pytest.raises(UserError, match=f"{name}' cannot be read as a video"):
        Video.load(tmp_path / name)


def test_a_truncated_video_is_one_sentence(tmp_path: Path) -> None:
    path = moving_picture().save(tmp_path / "clip.mp4")
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(UserError, match="cannot be read"):
        Video.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no video '.*gone\.mp4'"):
        Video.load(tmp_path / "gone.mp4")
