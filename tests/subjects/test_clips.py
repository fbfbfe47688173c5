"""Folders with clips in them: what becomes of each, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customvideo.errors import SubjectError
from customvideo.subjects.clips import Clip
from customvideo.subjects.folders import load_subjects, read_photos
from customvideo.subjects.masks import save_overlays
from customvideo.video import Video
from tests.subjects.films import by_colour, crossing, make_clip
from tests.subjects.photos import make_subject, mask_bytes, save, save_photo


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    one, other = mask >= 0.5, truth >= 0.5
    return float((one & other).sum() / (one | other).sum())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tom").mkdir()
    Video(crossing()[0]).save(tmp_path / "tom" / "run.mp4")
    return tmp_path / "tom"


def test_a_folder_of_clips_alone_is_a_subject(folder: Path) -> None:
    (tom,) = load_subjects(f"tom:cat={folder}", by_colour, per_clip=3)
    (clip,) = tom.clips
    assert (clip.file, clip.fps, clip.frames.shape) == ("run.mp4", 8.0, (10, 64, 96, 3))
    truth = crossing()[1]
    assert min(overlap(*pair) for pair in zip(clip.masks / 255, truth, strict=True)) > 0.85
    assert len(tom.images) == 3
    for image, mask, file in zip(tom.images, tom.masks, tom.files, strict=True):
        frame = int(file.removeprefix("run-").removesuffix(".mp4"))
        np.testing.assert_array_equal(image, clip.frames[frame])
        np.testing.assert_allclose(mask, clip.masks[frame] / 255, atol=1e-6)


def test_clips_stand_beside_photos_and_have_captions(folder: Path) -> None:
    save_photo(folder / "01.png")
    (folder / "run.txt").write_text("a cat runs along a wall")
    (tom,) = load_subjects(f"tom:cat={folder}", by_colour, per_clip=1)
    assert tom.files[0] == "01.png"
    assert len(tom.images) == 2
    assert tom.captions == ("", "a <tom> cat runs along a wall")
    assert tom.clips[0].caption == "a <tom> cat runs along a wall"


def test_an_animation_of_one_frame_is_a_photo_and_its_clear_parts_a_mask(folder: Path) -> None:
    page = Image.new("RGBA", (48, 40))
    page.paste((200, 30, 30, 255), (10, 10, 30, 30))
    page.save(folder / "one.gif")
    (photos,) = read_photos(f"tom:cat={folder}")
    assert [picture.path.name for picture in photos.pictures] == ["one.gif"]
    assert photos.masks[0] is not None
    assert photos.masks[0].mean() == pytest.approx(20 * 20 / (48 * 40))
    assert [film.path.name for film in photos.films] == ["run.mp4"]


def test_the_mask_of_the_first_frame_is_believed(folder: Path) -> None:
    def blind(image: np.ndarray, category: str) -> np.ndarray:
        raise AssertionError("asked for what is known")

    save(folder / "masks" / "run.png", mask_bytes(crossing()[1][0]))
    (tom,) = load_subjects(f"tom:cat={folder}", blind)
    truth = crossing()[1]
    assert min(overlap(*p) for p in zip(tom.clips[0].masks / 255, truth, strict=True)) > 0.8


def test_masks_are_drawn_over_the_clip(folder: Path, tmp_path: Path) -> None:
    (tom,) = load_subjects(f"tom:cat={folder}", by_colour)
    save_overlays([tom], tmp_path / "masks")
    assert len(Video.load(tmp_path / "masks/tom/run.mp4")) == 10
    assert len(list((tmp_path / "masks/tom").glob("run-*.png"))) == len(tom.images)


def test_a_subject_is_another_one_with_other_clips() -> None:
    tom = make_subject("tom", "cat", (200, 30, 30))
    digests = {
        tom.digest,
        *(
            replace(tom, clips=(clip,)).digest
            for clip in (make_clip(), make_clip(9), make_clip(fps=12.0), make_clip(caption="so"))
        ),
    }
    assert len(digests) == 5


def test_what_is_wrong_with_a_clip_is_one_sentence(folder: Path) -> None:
    def nothing(image: np.ndarray, category: str) -> np.ndarray:
        return np.zeros(image.shape[:2], np.float32)

    with pytest.raises(SubjectError, match=r"found in only 0% of '.*run.mp4'; draw the mask"):
        load_subjects(f"tom:cat={folder}", nothing)
    save(folder / "masks" / "run.png", np.zeros((10, 10), np.uint8))
    with pytest.raises(SubjectError, match=r"10x10 pixels but its picture 'run.mp4' is 96x64"):
        load_subjects(f"tom:cat={folder}", by_colour)
    (folder / "masks" / "run.png").unlink()
    save_photo(folder / "run.png")
    with pytest.raises(SubjectError, match="same name but for their suffix"):
        load_subjects(f"tom:cat={folder}", by_colour)
    (folder / "run.png").unlink()
    (folder / "bad.webm").write_bytes(b"nothing")
    with pytest.raises(SubjectError, match=r"bad.webm' cannot be read as a clip"):
        load_subjects(f"tom:cat={folder}", by_colour)
    Video(np.zeros((3, 16, 40, 3), np.uint8)).save(folder / "bad.gif")
    (folder / "bad.webm").unlink()
    with pytest.raises(SubjectError, match="is only 40x16 pixels"):
        load_subjects(f"tom:cat={folder}", by_colour)


def test_a_clip_made_by_hand_is_checked() -> None:
    clip = make_clip()
    with pytest.raises(SubjectError, match="are empty"):
        Clip(clip.frames, np.zeros_like(clip.masks), 8.0, "a.mp4")
    with pytest.raises(SubjectError, match="give uint8 masks, one a frame"):
        Clip(clip.frames, clip.masks[:3], 8.0, "a.mp4")
    with pytest.raises(SubjectError, match="has 1 frames"):
        Clip(clip.frames[:1], clip.masks[:1], 8.0, "a.mp4")
