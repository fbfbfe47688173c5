"""The table of segmenters, the sanity checks, and the overlays people judge masks by."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customvideo.errors import StorageError, SubjectError
from customvideo.subjects.grabcut import GrabCut
from customvideo.subjects.masks import (
    SEGMENTERS,
    check_mask,
    coverage,
    outliers,
    overlay,
    resolve_segmenter,
    save_overlays,
)
from customvideo.subjects.subject import Subject
from tests.subjects.photos import BLUE, GREY, RED, blob, make_subject


@pytest.mark.parametrize("name", SEGMENTERS)
def test_every_row_of_the_table_can_be_made_without_weights(name: str) -> None:
    assert callable(resolve_segmenter(name))


def test_rows_take_a_model_where_they_have_one() -> None:
    assert resolve_segmenter("sam", "some/folder").model == "some/folder"  # type: ignore[attr-defined]
    assert isinstance(resolve_segmenter("grabcut"), GrabCut)
    with pytest.raises(SubjectError, match="'grabcut' has no weights"):
        resolve_segmenter("grabcut", "some/folder")


def test_an_unknown_row_names_the_nearest_or_all_of_them() -> None:
    with pytest.raises(SubjectError, match="'sam4'; did you mean 'sam"):
        resolve_segmenter("sam4")
    with pytest.raises(SubjectError, match="'magic'; known are grabcut, grounded-sam, sam, sam2"):
        resolve_segmenter("magic")


def test_a_good_mask_passes_as_float32() -> None:
    image, mask = blob()
    checked = check_mask(mask.astype(np.float64), image, "the mask")  # type: ignore[arg-type]
    assert checked.dtype == np.float32
    np.testing.assert_array_equal(checked, mask)


@pytest.mark.parametrize(
    ("value", "words"), [(0.0, "The mask 'x' is empty"), (1.0, "covers the whole picture")]
)
@pytest.mark.parametrize(
    ("made", "remedy"), [(False, "white marks the subject"), (True, "choose another segmenter")]
)
def test_empty_and_full_masks(value: float, words: str, made: bool, remedy: str) -> None:
    image, mask = blob()
    with pytest.raises(SubjectError, match=f"{words}.*{remedy}"):
        check_mask(np.full_like(mask, value), image, "the mask 'x'", made=made)


def test_a_faint_mask_counts_as_empty() -> None:
    image, mask = blob()
    with pytest.raises(SubjectError, match="is empty"):
        check_mask(mask * np.float32(1 / 255), image, "the mask")


def test_coverage_is_the_mean_weight() -> None:
    assert coverage(np.array([[0, 1], [0.5, 0.5]], np.float32)) == 0.5


@pytest.mark.parametrize(
    ("percent", "odd"),
    [
        ((5, 26, 34, 42), [0]),
        ((30, 28, 85, 35), [2]),
        ((12, 15, 40, 20), []),
        ((17, 18, 18, 21), []),
        ((5, 60), []),
    ],
)
def test_a_mask_unlike_its_companions_is_found(percent: tuple[int, ...], odd: list[int]) -> None:
    images = tuple(np.zeros((50, 100, 3), np.uint8) for _ in percent)
    masks = tuple(np.zeros((50, 100), np.float32) for _ in percent)
    for mask, share in zip(masks, percent, strict=True):
        mask[:, :share] = 1
    files = tuple(f"{index}.png" for index in range(len(percent)))
    assert outliers(Subject("tom", "<tom>", "cat", images, masks, files)) == odd


def test_an_overlay_leaves_the_subject_bright_and_draws_its_outline() -> None:
    image, mask = blob(96, 96, GREY)
    drawn = overlay(image, mask)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    assert drawn[0, 0].max() < 80  # the background is dimmed
    red, green, _ = drawn[48, 48].astype(int)
    assert red > 150 > 130 > green  # the subject is tinted
    outline = (drawn == (255, 255, 0)).all(axis=-1)
    assert outline.any()
    assert not outline[48, 48] and not outline[0, 0]
    np.testing.assert_array_equal(image, blob(96, 96, GREY)[0])


def test_overlays_are_saved_with_their_coverage(tmp_path: Path) -> None:
    subjects = [make_subject("tom", "cat", RED), make_subject("rex", "dog", BLUE, photos=1)]
    save_overlays(subjects, tmp_path / "masks")
    fractions = json.loads((tmp_path / "masks" / "coverage.json").read_text())
    assert {name: set(files) for name, files in fractions.items()} == {
        "tom": {"0.png", "1.png"},
        "rex": {"0.png"},
    }
    assert fractions["tom"]["0.png"] == pytest.approx(subjects[0].masks[0].mean(), abs=1e-4)
    written = np.asarray(Image.open(tmp_path / "masks" / "tom" / "1.png"))
    np.testing.assert_array_equal(written, overlay(subjects[0].images[1], subjects[0].masks[1]))


def test_overlays_in_an_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "masks").write_text("a file in the way")
    with pytest.raises(StorageError, match="masks"):
        save_overlays([make_subject("tom", "cat", RED)], tmp_path / "masks")
