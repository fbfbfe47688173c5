"""Group photos: who is where in a picture of several subjects."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from customvideo.errors import PromptError, SubjectError
from customvideo.subjects.folders import load_subjects
from customvideo.subjects.grabcut import GrabCut
from customvideo.subjects.groups import GroupSpec, read_groups, share_groups
from customvideo.subjects.masks import segment_inside
from customvideo.subjects.scene import natural
from customvideo.subjects.subject import Subject
from tests.subjects.photos import BLUE, GREEN, RED, blob, make_subject, mask_bytes, save

TOM_BOX, REX_BOX = [0.0, 0.1, 0.5, 0.9], [0.5, 0.1, 1.0, 0.9]
SPECS = ["tom:cat={0}/tom", "rex:dog={0}/rex", "tom+rex={0}/both"]


def pair() -> tuple[NDArray[np.uint8], dict[str, NDArray[np.float32]]]:
    """A red blob on the left, a green one on the right, and their masks."""
    (left, tom), (right, rex) = blob(64, 48, RED), blob(64, 48, GREEN)
    nothing = np.zeros_like(tom)
    masks = {"tom": np.hstack([tom, nothing]), "rex": np.hstack([nothing, rex])}
    return np.hstack([left, right]), masks


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    save(tmp_path / "tom" / "a.png", blob(colour=RED)[0])
    save(tmp_path / "rex" / "a.png", blob(colour=GREEN)[0])
    save(tmp_path / "both" / "01.png", pair()[0])
    return tmp_path


def write_boxes(photos: Path, entries: object, stem: str = "01") -> None:
    (photos / "both" / f"{stem}.bbox").write_text(json.dumps(entries), encoding="utf-8")


def box(name: str, values: list[float]) -> dict[str, object]:
    return {"label": name, "bbox": values}


def load(photos: Path, **options: object) -> list[Subject]:
    specs = [spec.format(photos) for spec in SPECS]
    return load_subjects(specs, **options)  # type: ignore[arg-type]


def agrees(mask: NDArray[np.float32], truth: NDArray[np.float32]) -> bool:
    found, true = mask >= 0.5, truth >= 0.5
    return bool((found & true).sum() / (found | true).sum() > 0.85)


def test_boxes_say_who_is_where(photos: Path) -> None:
    write_boxes(photos, [box("tom", TOM_BOX), box("rex", REX_BOX)])
    tom, rex = load(photos)
    (photo,) = tom.together
    assert rex.together == (photo,)
    for name, truth in pair()[1].items():
        assert agrees(photo.masks[name], truth)


def test_mask_files_say_it_better(photos: Path) -> None:
    write_boxes(photos, [box("rex", REX_BOX)])
    truth = pair()[1]["tom"]
    save(photos / "both" / "masks" / "01.tom.png", mask_bytes(truth))
    (photo,) = load(photos)[0].together
    np.testing.assert_array_equal(photo.masks["tom"], truth)
    assert agrees(photo.masks["rex"], pair()[1]["rex"])


def test_a_segmenter_that_reads_words_needs_neither(photos: Path) -> None:
    class Reader:
        reads_words = True

        def __call__(self, image: NDArray[np.uint8], category: str) -> NDArray[np.float32]:
            channel = {"cat": 0, "dog": 1}[category]
            others = np.delete(image.astype(int), channel, axis=-1).max(axis=-1)
            return (image[..., channel] > others + 50).astype(np.float32)

    tom, _ = load(photos, segmenter=Reader())
    for name, truth in pair()[1].items():
        np.testing.assert_array_equal(tom.together[0].masks[name], truth)
    specs = [SPECS[0], SPECS[1].replace("dog", "cat"), SPECS[2]]
    save(photos / "rex" / "a.png", blob(colour=RED)[0])
    with pytest.raises(SubjectError, match="Nobody says where <tom> is"):
        load_subjects([spec.format(photos) for spec in specs], Reader())


def test_a_picture_may_show_fewer_than_its_folder(photos: Path) -> None:
    write_boxes(photos, [box("tom", TOM_BOX)])
    tom, rex = load(photos)
    assert list(tom.together[0].masks) == ["tom"] and rex.together == ()


def test_captions_name_everybody_shown(photos: Path) -> None:
    write_boxes(photos, [box("tom", TOM_BOX), box("rex", REX_BOX)])
    (photos / "both" / "01.txt").write_text("a cat and a dog on a rug", encoding="utf-8")
    (photo,) = load(photos)[0].together
    assert photo.caption == "a <tom> cat and a <rex> dog on a rug"


def test_a_folder_of_folders_may_hold_groups(photos: Path) -> None:
    (photos / "both").rename(photos / "tom+rex")
    (photos / "tom" / "subject.toml").write_text('category = "cat"')
    (photos / "rex" / "subject.toml").write_text('category = "dog"')
    save(photos / "tom+rex" / "masks" / "01.tom.png", mask_bytes(pair()[1]["tom"]))
    rex, tom = load_subjects(photos)
    assert [one.name for one in (rex, tom)] == ["rex", "tom"] and len(tom.together) == 1


def _half(value: int) -> NDArray[np.uint8]:
    pixels = np.zeros((64, 96), np.uint8)
    pixels[:32] = value
    return pixels


def test_masks_that_meet_share_the_place(photos: Path) -> None:
    for name in ("tom", "rex"):
        save(photos / "both" / "masks" / f"01.{name}.png", _half(160))
    (photo,) = load(photos)[0].together
    assert np.sum(list(photo.masks.values()), axis=0).max() == pytest.approx(1)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("nonsense", "cannot be read; write"),
        ([{"label": "tom"}], "cannot be read"),
        ([box("tom", [0.5, 0.1, 0.2, 0.9])], "cannot be read"),
        ([box("tom", [0.0, 0.0, 40.0, 50.0])], "as shares of width and height"),
        ([box("tom", [0.0, 0.0, float("nan"), 1.0])], "cannot be read"),
        ([box("tim", TOM_BOX)], "of 'tim', who is not in tom"),
    ],
)
def test_boxes_that_are_none(photos: Path, entries: object, message: str) -> None:
    write_boxes(photos, entries)
    with pytest.raises(SubjectError, match=message):
        load(photos)


def test_boxes_nested_without_end(photos: Path) -> None:
    (photos / "both" / "01.bbox").write_text("[" * 50_000)
    with pytest.raises(SubjectError, match="cannot be read"):
        load(photos)


def test_a_mask_of_nobody(photos: Path) -> None:
    save(photos / "both" / "masks" / "01.png", mask_bytes(pair()[1]["tom"]))
    with pytest.raises(SubjectError, match="belongs to no picture or subject of tom"):
        load(photos)


@pytest.mark.parametrize("text", ["tom+=x", "tom+tom=x", "tom+rex", "tom+rex:dog=x", "tom+rex="])
def test_descriptions_that_are_none(text: str) -> None:
    assert GroupSpec.describes(text)
    with pytest.raises((SubjectError, PromptError)):
        GroupSpec.parse(text)


def test_a_group_of_strangers_or_of_nothing(photos: Path) -> None:
    with pytest.raises(SubjectError, match="shows 'ada', of whom there are no photos alone"):
        read_groups([GroupSpec(("tom", "ada"), photos / "both")], ["tom", "rex"])
    with pytest.raises(SubjectError, match="does not exist"):
        read_groups([GroupSpec(("tom", "rex"), photos / "gone")], ["tom", "rex"])
    (photos / "empty").mkdir()
    with pytest.raises(SubjectError, match="holds no picture of tom"):
        read_groups([GroupSpec(("tom", "rex"), photos / "empty")], ["tom", "rex"])


def test_whoever_knows_no_boxes_gets_the_box_alone() -> None:
    image = pair()[0]
    seen = []

    def segment(part: NDArray[np.uint8], category: str) -> NDArray[np.float32]:
        seen.append((part.shape, category))
        return np.ones(part.shape[:2], np.float32)

    mask = segment_inside(segment, image, (0.5, 0.25, 1.0, 0.75), "dog")
    assert seen == [((32, 48, 3), "dog")]
    assert mask[16:48, 48:].min() == 1 and mask.sum() == 32 * 48


def test_grabcut_in_a_box_of_one_colour_takes_the_box() -> None:
    mask = GrabCut().inside(np.full((60, 90, 3), 128, np.uint8), (30, 20, 60, 40))
    assert mask[22:38, 32:58].min() > 0.9 and mask[:15].max() == 0


def test_a_group_photo_is_a_scene_of_its_own(photos: Path) -> None:
    write_boxes(photos, [box("tom", TOM_BOX), box("rex", REX_BOX)])
    tom, rex = load(photos)
    ada = make_subject("ada", "owl", BLUE)
    sides = set()
    for seed in range(6):
        scene = natural(tom.together[0], [rex, ada, tom], np.random.default_rng(seed), (48, 96))
        assert scene.image.shape == (48, 96, 3) and scene.masks.shape == (3, 48, 96)
        assert scene.masks[1].max() == 0
        for index, channel in ((0, 1), (2, 0)):
            inside = scene.masks[index] > 0.9
            assert inside.sum() > 100
            assert (scene.image[inside].argmax(axis=-1) == channel).mean() > 0.95
        sides.add(bool(scene.masks[0][:, :48].sum() > scene.masks[0][:, 48:].sum()))
    assert sides == {True, False}


def test_what_is_beside_the_photos_counts_in_the_digest(photos: Path) -> None:
    write_boxes(photos, [box("tom", TOM_BOX), box("rex", REX_BOX)])
    tom, _ = load(photos)
    alone = replace(tom, together=())
    assert alone.digest == replace(tom, together=(), captions=()).digest
    assert len({tom.digest, alone.digest, replace(alone, captions=("a <tom> cat",)).digest}) == 3
    assert share_groups([alone], [], GrabCut()) == [alone]
