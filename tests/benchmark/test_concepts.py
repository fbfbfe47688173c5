"""`concepts_list` files, as Custom Diffusion and diffusers write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from customvideo.benchmark.check import check
from customvideo.benchmark.concepts import read_concepts
from customvideo.benchmark.editions import load_edition
from customvideo.errors import BenchmarkError
from tests.benchmark.test_editions import draw

CAT = {
    "instance_prompt": "photo of a <new1> cat",
    "class_prompt": "cat",
    "instance_data_dir": "./data/cat",
    "class_data_dir": "./real_reg/samples_cat",
}
POT = {
    "instance_prompt": "photo of a <new2> wooden pot",
    "class_prompt": "wooden pot",
    "instance_data_dir": "./data/wooden_pot",
    "class_data_dir": "./real_reg/samples_wooden_pot",
}


def write(folder: Path, *concepts: Any) -> Path:
    path = folder / "concepts_list.json"
    path.write_text(json.dumps(concepts), encoding="utf-8")
    return path


def test_the_example_of_custom_diffusion_is_an_edition(tmp_path: Path) -> None:
    draw(tmp_path / "data" / "cat" / "1.png")
    draw(tmp_path / "data" / "wooden_pot" / "1.png", 1)
    edition = load_edition(write(tmp_path, CAT, POT))
    assert edition.name == "concepts_list" and edition.subjects == ("new1", "new2")
    (pair,) = edition.combinations
    assert pair.prompts[0] == "a <new1> cat and a <new2> wooden pot walking on the beach"
    loaded = edition.load(["new2", "new1"])
    assert [one.category for one in loaded] == ["wooden pot", "cat"]
    assert check(tmp_path / "concepts_list.json").sound


def test_photos_are_found_from_the_current_folder_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "data" / "cat" / "1.png")
    (tmp_path / "lists").mkdir()
    monkeypatch.chdir(tmp_path)
    (cat, pot) = read_concepts(write(tmp_path / "lists", CAT, POT))
    assert Path(cat.folder) == tmp_path / "data" / "cat"
    assert Path(pot.folder) == tmp_path / "lists" / "data" / "wooden_pot"


@pytest.mark.parametrize(
    ("instance", "kind", "name", "category"),
    [
        ("photo of <new1> sunglasses", "sunglasses", "new1", "sunglasses"),
        ("photo of sks dog", "photo of dog", "sks", "dog"),
        ("a photo of zwx stuffed animal", "a photo of a stuffed animal", "zwx", "stuffed animal"),
        ("a <Tom> cat on a mat", "an image of the cat", "tom", "cat"),
    ],
)
def test_words_and_categories(
    tmp_path: Path, instance: str, kind: str, name: str, category: str
) -> None:
    concept = {**CAT, "instance_prompt": instance, "class_prompt": kind}
    (found,) = read_concepts(write(tmp_path, concept))
    assert (found.name, found.category) == (name, category)


@pytest.mark.parametrize(
    ("concepts", "told"),
    [
        ((), "lists no concept"),
        (({**CAT, "class_prompt": ""},), "lacks 'class_prompt'"),
        (([CAT, POT],), "should be one list of concepts"),
        (({**CAT, "instance_prompt": "photo of a cat"},), "names no word"),
    ],
)
def test_wrong_lists_are_one_sentence(tmp_path: Path, concepts: tuple[Any], told: str) -> None:
    with pytest.raises(BenchmarkError, match=told):
        load_edition(write(tmp_path, *concepts))


def test_two_concepts_of_one_word_are_told(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="2 subjects are called 'new1'"):
        load_edition(write(tmp_path, CAT, {**CAT, "instance_data_dir": "./data/other"}))
