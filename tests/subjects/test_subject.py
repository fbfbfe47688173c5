"""Subjects, and everything that can be wrong with their folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from customvideo.errors import PromptError, SubjectError
from customvideo.subjects.folders import SubjectSpec, load_subjects
from customvideo.subjects.subject import Subject
from tests.subjects.photos import BLUE, RED, blob, make_subject, mask_bytes, save, save_photo


def left_half(image: NDArray[np.uint8], category: str) -> NDArray[np.float32]:
    mask = np.zeros(image.shape[:2], np.float32)
    mask[:, : image.shape[1] // 2] = 1
    return mask


def refuse(image: NDArray[np.uint8], category: str) -> NDArray[np.float32]:
    raise AssertionError("no mask should have to be made")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Tom's folder with two photos and no masks."""
    save_photo(tmp_path / "tom" / "b.png")
    save_photo(tmp_path / "tom" / "a.jpg")
    return tmp_path / "tom"


def load(spec: str, **options: object) -> Subject:
    options = {"segmenter": left_half} | options
    return load_subjects([spec], **options)[0]  # type: ignore[arg-type]


def test_a_folder_becomes_a_subject(folder: Path) -> None:
    tom = load(f"tom:cat={folder}")
    assert (tom.name, tom.word, tom.category) == ("tom", "<tom>", "cat")
    assert tom.files == ("a.jpg", "b.png")
    assert [image.shape for image in tom.images] == [(48, 64, 3)] * 2
    assert [mask.dtype for mask in tom.masks] == [np.float32] * 2
    assert tom.masks[0].mean() == 0.5


def test_every_photo_is_read_before_a_mask_is_made(folder: Path) -> None:
    (folder / "z.jpg").write_text("not a picture")
    with pytest.raises(SubjectError, match=r"z\.jpg"):
        load(f"tom:cat={folder}", segmenter=refuse)


def test_the_segmenter_is_told_the_category(folder: Path) -> None:
    told = []

    def segment(image: NDArray[np.uint8], category: str) -> NDArray[np.float32]:
        told.append(category)
        return left_half(image, category)

    load(f"tom:stuffed animal={folder}", segmenter=segment)
    assert told == ["stuffed animal"] * 2


def test_mask_files_and_alpha_come_before_the_segmenter(folder: Path) -> None:
    image, mask = blob()
    save(folder / "masks" / "A.png", mask_bytes(mask))
    save(folder / "b.png", np.dstack([image, mask_bytes(mask)]))
    tom = load(f"tom:cat={folder}", segmenter=refuse)
    np.testing.assert_array_equal(tom.masks[0], mask)
    np.testing.assert_array_equal(tom.masks[1], mask)


def test_a_mask_file_comes_before_alpha(folder: Path) -> None:
    image, mask = blob()
    save(folder / "b.png", np.dstack([image, mask_bytes(mask)]))
    save(folder / "masks" / "b.png", mask_bytes(left_half(image, "")))
    tom = load(f"tom:cat={folder}")
    np.testing.assert_array_equal(tom.masks[1], left_half(image, ""))


def test_embedded_segmenter_by_name(folder: Path) -> None:
    tom = load(f"tom:cat={folder}", segmenter="grabcut")
    truth = blob()[1] > 0.5
    for mask in tom.masks:
        found = mask > 0.5
        assert (found & truth).sum() > 0.8 * (found | truth).sum()


# --- names and categories


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tom:cat=photos/tom", ("tom", Path("photos/tom"), "cat")),
        ("tom=photos/a=b", ("tom", Path("photos/a=b"), None)),
        (" tom : stuffed animal = C:/tom ", ("tom", Path("C:/tom"), "stuffed animal")),
    ],
)
def test_parsing(text: str, expected: tuple[str, Path, str | None]) -> None:
    spec = SubjectSpec.parse(text)
    assert (spec.name, spec.folder, spec.category) == expected


@pytest.mark.parametrize(
    "text", ["photos/tom", "tom=", "=photos", "tom:=photos", ":cat=photos", ""]
)
def test_bad_syntax_is_answered_with_the_syntax(text: str) -> None:
    with pytest.raises(SubjectError, match="NAME:CATEGORY=FOLDER"):
        SubjectSpec.parse(text)


@pytest.mark.parametrize("name", ["Tom", "to m", "7up"])
def test_bad_names(name: str) -> None:
    with pytest.raises(PromptError, match=f"'{name}' cannot name a subject"):
        SubjectSpec.parse(f"{name}:cat=photos")


def test_category_from_the_folder(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "subject.toml").write_text('category = "dog"\n')
    assert load(f"tom={folder}", known_nouns={"tom"}).category == "dog"
    assert not caplog.messages
    assert load(f"tom:cat={folder}").category == "cat"
    assert "is 'cat', as given, though its subject.toml says 'dog'" in caplog.messages[0]


def test_category_from_a_name_that_is_a_noun(folder: Path) -> None:
    assert load(f"cat={folder}", known_nouns=["Cat", "dog"]).category == "cat"


def test_no_category_anywhere(folder: Path) -> None:
    with pytest.raises(SubjectError, match="'tom' has no category; write --subject NAME:CATEGORY"):
        load(f"tom={folder}", known_nouns=["cat"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("category = ", "cannot be read as TOML"),
        ('categry = "cat"', "unknown key 'categry'; did you mean category?"),
        ("category = 3", "'category' in .* must be text"),
        ('category = "<cat>"', "'<cat>' cannot be a category"),
        ('word = "Tom"', "'Tom' cannot name a subject"),
    ],
)
def test_bad_settings(folder: Path, text: str, words: str) -> None:
    (folder / "subject.toml").write_text(text)
    with pytest.raises((SubjectError, PromptError), match=words):
        load(f"tom={folder}")


def test_a_folder_of_subject_folders(tmp_path: Path) -> None:
    for name, category in (("tom", "cat"), ("d1", "dog")):
        save_photo(tmp_path / name / "0.png")
        (tmp_path / name / "subject.toml").write_text(f'category = "{category}"')
    (tmp_path / "d1" / "subject.toml").write_text('category = "dog"\nword = "<rex>"')
    (tmp_path / ".hidden").mkdir()
    subjects = load_subjects(tmp_path, left_half)
    assert [(subject.word, subject.category) for subject in subjects] == [
        ("<rex>", "dog"),
        ("<tom>", "cat"),
    ]
    assert [subject.name for subject in load_subjects(str(tmp_path), left_half)] == ["rex", "tom"]


def test_a_folder_of_photos_is_no_folder_of_folders(folder: Path) -> None:
    with pytest.raises(SubjectError, match="should hold one folder per subject"):
        load_subjects(folder, left_half)


def test_two_subjects_with_one_word(folder: Path) -> None:
    with pytest.raises(SubjectError, match="share the word '<tom>'; give each its own name"):
        load_subjects([f"tom:cat={folder}", f"tom:dog={folder}"], left_half)


def test_no_subject_at_all() -> None:
    with pytest.raises(SubjectError, match="No subject was given"):
        load_subjects([], left_half)


# --- folders and files


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(SubjectError, match=r"gone' for the pictures of subject 'tom' does not ex"):
        load(f"tom:cat={tmp_path / 'gone'}")
    with pytest.raises(SubjectError, match="for subject folders does not exist"):
        load_subjects(tmp_path / "gone")


def test_a_file_instead_of_a_folder(folder: Path) -> None:
    with pytest.raises(SubjectError, match="is a file; give the folder"):
        load(f"tom:cat={folder / 'a.jpg'}")


def test_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.heic").touch()
    with pytest.raises(SubjectError, match=r"no picture of subject 'tom' \(only \.heic files\)"):
        load(f"tom:cat={tmp_path}")


def test_pictures_that_share_a_stem(folder: Path) -> None:
    save_photo(folder / "A.webp")
    with pytest.raises(SubjectError, match=r"A\.webp' and 'a\.jpg' have the same name"):
        load(f"tom:cat={folder}")


def test_masks_that_share_a_stem(folder: Path) -> None:
    for suffix in ("png", "webp"):
        save(folder / "masks" / f"a.{suffix}", mask_bytes(blob()[1]))
    with pytest.raises(SubjectError, match="mask the same picture; remove one"):
        load(f"tom:cat={folder}")


def test_a_mask_that_matches_no_picture(folder: Path) -> None:
    save(folder / "masks" / "c.png", mask_bytes(blob()[1]))
    with pytest.raises(SubjectError, match=r"c\.png' belongs to no picture .* 'a\.png'"):
        load(f"tom:cat={folder}")


@pytest.mark.parametrize(("value", "words"), [(0, "is empty; white"), (255, "the whole picture")])
def test_an_empty_or_full_mask_file(folder: Path, value: int, words: str) -> None:
    save(folder / "masks" / "a.png", np.full((48, 64), value, np.uint8))
    with pytest.raises(SubjectError, match=rf"The mask '.*a\.png' .*{words}"):
        load(f"tom:cat={folder}")


def test_an_invisible_picture(folder: Path) -> None:
    save(folder / "b.png", np.dstack([blob()[0], np.zeros((48, 64), np.uint8)]))
    with pytest.raises(SubjectError, match=r"The alpha channel of '.*b\.png' is empty"):
        load(f"tom:cat={folder}")


def test_a_segmenter_that_finds_nothing(folder: Path) -> None:
    def nothing(image: NDArray[np.uint8], category: str) -> NDArray[np.float32]:
        return np.zeros(image.shape[:2], np.float32)

    with pytest.raises(SubjectError, match=r"a\.jpg' is empty; add a mask file under masks/"):
        load(f"tom:cat={folder}", segmenter=nothing)


def test_unknown_segmenter(folder: Path) -> None:
    with pytest.raises(SubjectError, match="There is no segmenter 'magic'; known are grabcut"):
        load(f"tom:cat={folder}", segmenter="magic")


# --- the class itself


def with_changes(subject: Subject, **changes: object) -> Subject:
    fields = ("name", "word", "category", "images", "masks", "files")
    return Subject(**{field: getattr(subject, field) for field in fields} | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"word": "<rex>"}, "must be '<tom>', not '<rex>'"),
        ({"name": "Tom"}, "'Tom' cannot name"),
        ({"category": ""}, "cannot be a category"),
        ({"images": (), "masks": (), "files": ()}, "0 images"),
        ({"files": ("0.png",)}, "2 images, 2 masks and 1 file names"),
    ],
)
def test_what_a_subject_refuses(changes: dict[str, object], words: str) -> None:
    with pytest.raises((SubjectError, PromptError), match=words):
        with_changes(make_subject("tom", "cat", RED), **changes)


def test_images_and_masks_are_checked_by_the_subject() -> None:
    tom = make_subject("tom", "cat", RED, photos=1)
    small = np.zeros((8, 8, 3), np.uint8)
    for changes, words in (
        ({"images": (tom.images[0] / 255,)}, r"float64 \(56, 64, 3\); give uint8"),
        ({"images": (small,), "masks": (small[..., 0],)}, "only 8x8 pixels"),
        ({"masks": (tom.masks[0][:-1],)}, r"is \(55, 64\) but its image is \(56, 64\)"),
        ({"masks": (tom.masks[0] * 0,)}, "'0.png' of subject 'tom' is empty"),
        ({"masks": (tom.masks[0] * 2,)}, "values outside 0 to 1"),
        ({"masks": (tom.masks[0] * np.nan,)}, "values outside 0 to 1"),
    ):
        with pytest.raises(SubjectError, match=words):
            with_changes(tom, **changes)


def test_a_subject_is_frozen() -> None:
    with pytest.raises(AttributeError):
        make_subject("tom", "cat", RED).name = "rex"  # type: ignore[misc]


def test_the_digest_names_the_pixels_and_masks_and_nothing_else() -> None:
    tom = make_subject("tom", "cat", RED)
    assert len(tom.digest) == 64
    assert tom.digest == make_subject("rex", "dog", RED).digest
    assert tom.digest != make_subject("tom", "cat", BLUE).digest
    other_mask = (tom.masks[0], np.roll(tom.masks[1], 1, axis=0))
    assert tom.digest != with_changes(tom, masks=other_mask).digest
