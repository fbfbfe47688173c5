"""Editions by name and by folder: what they hold, and that folders are checked as a whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customvideo.benchmark.check import check
from customvideo.benchmark.editions import EDITIONS, Combination, load_edition
from customvideo.errors import BenchmarkError
from customvideo.subjects.prompt import LearnedWord, Prompt


def draw(path: Path, seed: int = 0, size: tuple[int, int] = (48, 64)) -> Path:
    """A picture of a bright square, with noise from `seed`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 60, (*size, 3)).astype(np.uint8)
    pixels[12:36, 16:48] = 220
    Image.fromarray(pixels).save(path)
    return path


def own_folder(root: Path, **categories: str) -> Path:
    """A folder of subject folders, as a user has them, with masks."""
    for index, (name, category) in enumerate(categories.items()):
        draw(root / name / "1.png", index)
        mask = np.zeros((48, 64), np.uint8)
        mask[12:36, 16:48] = 255
        (root / name / "masks").mkdir()
        Image.fromarray(mask).save(root / name / "masks" / "1.png")
        (root / name / "subject.toml").write_text(f'category = "{category}"\n', encoding="utf-8")
    return root


def write_manifest(root: Path, **changes: object) -> None:
    values = {
        "name": "mine",
        "version": "1",
        "subjects": [
            {"name": "tom", "category": "cat", "images": [{"file": "1.png"}]},
            {"name": "rex", "category": "dog"},
        ],
        "combinations": [
            {"subjects": ["tom", "rex"], "prompts": ["a <tom> cat and a <rex> dog running"]}
        ],
    }
    (root / "customstudio.json").write_text(json.dumps(values | changes), encoding="utf-8")


@pytest.mark.parametrize("name", sorted(EDITIONS))
def test_every_built_in_edition_is_sound(name: str) -> None:
    edition = load_edition(name)
    assert edition.name == name
    assert len(edition.digest) == 64 and edition.digest == load_edition(name).digest
    for combination in edition.combinations:
        words = tuple(LearnedWord(one, edition.category(one)) for one in combination.subjects)
        assert combination.size == len(set(combination.subjects)) >= 2
        for text in combination.prompts:
            prompt = Prompt(text, words)
            assert prompt.canonical == text and set(prompt.mentioned) == set(words)


def test_a_combination_is_found_in_any_order() -> None:
    edition = load_edition("toybox-development")
    assert edition.combination("blu+ash") is edition.combination("ash+blu")
    assert edition.combination("ash+blu").subjects == ("ash", "blu")
    with pytest.raises(BenchmarkError, match=r"no combination 'ash\+bla'; did you mean 'ash\+blu'"):
        edition.combination("ash+bla")
    with pytest.raises(BenchmarkError, match="no subject 'nobody'"):
        edition.category("nobody")


def test_a_folder_is_an_edition_of_all_its_pairs(tmp_path: Path) -> None:
    edition = load_edition(own_folder(tmp_path / "pets", tom="cat", rex="dog", kit="cat"))
    assert edition.name == "pets" and edition.subjects == ("kit", "rex", "tom")
    assert [one.name for one in edition.combinations] == ["kit+rex", "kit+tom", "rex+tom"]
    alike = [edition.same_category(one) for one in edition.combinations]
    assert alike == [False, True, False]
    assert all(len(one.prompts) == 5 for one in edition.combinations)
    assert edition.combinations[0].prompts[0] == "a <kit> cat and a <rex> dog walking on the beach"
    assert edition.default_backbone is None
    assert edition.footage(edition.combinations[0], 0, 0, 1, (8, 8)) is None


def test_subjects_are_loaded_in_the_order_asked_for(tmp_path: Path) -> None:
    edition = load_edition(own_folder(tmp_path, tom="cat", rex="dog"))
    subjects = edition.load(["tom", "rex"], known_nouns=())
    assert [(one.name, one.category) for one in subjects] == [("tom", "cat"), ("rex", "dog")]
    assert subjects[0].masks[0].mean() == pytest.approx(24 * 32 / (48 * 64))


def test_the_word_in_a_folder_s_settings_is_the_subject_s_name(tmp_path: Path) -> None:
    own_folder(tmp_path, tom="cat", rex="dog")
    (tmp_path / "tom" / "subject.toml").write_text('word = "<leo>"\ncategory = "cat"\n')
    edition = load_edition(tmp_path)
    assert edition.subjects == ("rex", "leo")
    assert edition.load(["leo"])[0].word == "<leo>"


def test_the_digest_of_a_folder_is_about_its_photos(tmp_path: Path) -> None:
    own_folder(tmp_path, tom="cat", rex="dog")
    before = load_edition(tmp_path).digest
    (tmp_path / "tom" / "notes.txt").write_text("not a photo")
    assert load_edition(tmp_path).digest == before
    draw(tmp_path / "tom" / "1.png", seed=9)
    assert load_edition(tmp_path).digest != before


def test_a_folder_s_manifest_decides(tmp_path: Path) -> None:
    own_folder(tmp_path, tom="cat", rex="dog", kit="cat")
    write_manifest(tmp_path)
    edition = load_edition(tmp_path)
    asked = ("a <tom> cat and a <rex> dog running",)
    assert edition.combinations == (Combination("tom+rex", ("tom", "rex"), asked),)
    draw(tmp_path / "tom" / "2.png")
    with pytest.raises(BenchmarkError, match=r"2\.png' is not in the manifest"):
        edition.load(["tom"])
    assert len(edition.load(["rex"])) == 1


def test_wrong_input_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no edition or folder 'toybax'; did you mean 'toybo"):
        load_edition("toybax")
    with pytest.raises(BenchmarkError, match="holds no subject"):
        load_edition(tmp_path)
    (tmp_path / "tom").mkdir()
    (tmp_path / "rex").mkdir()
    with pytest.raises(BenchmarkError, match=r"has no category.*\(and 1 more: 'customvideo bench"):
        load_edition(tmp_path)
    (tmp_path / "tom" / "subject.toml").write_text("category = ")
    with pytest.raises(BenchmarkError, match="cannot be read as TOML"):
        load_edition(tmp_path)


def test_a_sound_folder_is_reported_sound(tmp_path: Path) -> None:
    report = check(own_folder(tmp_path, tom="cat", rex="dog"))
    assert report.sound and (report.subjects, report.combinations, report.pictures) == (2, 1, 2)
    assert "nothing is wrong" in str(report)


def test_everything_wrong_is_reported_at_once(tmp_path: Path) -> None:
    own_folder(tmp_path, tom="cat", rex="dog")
    (tmp_path / "rex" / "2.jpg").write_bytes(b"no picture")
    draw(tmp_path / "rex" / "masks" / "9.png")
    photos = [{"file": "1.png", "sha256": "0" * 64}, {"file": "3.png"}]
    subjects = [
        {"name": "tom", "category": "cat", "images": photos},
        {"name": "rex", "category": "dog"},
        {"name": "ida", "category": "cat"},
    ]
    combinations = [{"subjects": ["tom"], "prompts": ["a <tom> cat"]}]
    combinations += [{"subjects": ["tom", "zed"], "prompts": ["a <tom> cat and a <zed> owl"]}]
    write_manifest(tmp_path, subjects=subjects, combinations=combinations)
    report = check(tmp_path)
    for told in (
        "The combination 'tom' has 1 subject",
        "unknown subject 'zed'",
        "1.png' is not the file that the manifest knows",
        "3.png' of subject 'tom' is missing",
        "2.jpg' is not a JPEG, PNG or WebP picture",
        "9.png' belongs to no picture",
        "of subject 'ida' is missing",
    ):
        assert sum(told in problem for problem in report.problems) == 1, (told, report.problems)
    assert len(report.problems) == 7
    assert all(problem.endswith(".") and "\n" not in problem for problem in report.problems)


def test_a_wrong_form_is_reported_not_raised(tmp_path: Path) -> None:
    own_folder(tmp_path, tom="cat", rex="dog")
    write_manifest(tmp_path, version=1, colour="red")
    assert len(check(tmp_path).problems) == 2
    with pytest.raises(BenchmarkError, match="no edition or folder"):
        check(tmp_path / "elsewhere")
