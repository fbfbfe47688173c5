"""CustomStudio, toybox edition: its numbers, its fixedness, and that training never saw it."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from customvideo.errors import StorageError, UserError
from customvideo.toybox import customstudio as cs
from customvideo.toybox import world as tw
from customvideo.toybox.captions import PLACE_PHRASES, vocabulary


@pytest.fixture(scope="module")
def studio() -> cs.Studio:
    return cs.studio()


def test_the_promised_numbers(studio: cs.Studio) -> None:
    assert len(studio.subjects) == 63
    assert len({subject.category for subject in studio.subjects}) == 13
    assert (len(studio.pairs), len(studio.triples), len(studio.quadruples)) == (68, 8, 4)
    assert all(len(group.names) == 2 for group in studio.pairs)
    assert all(len(group.names) == 3 for group in studio.triples)
    assert all(len(group.names) == 4 for group in studio.quadruples)


def test_names_are_unique_and_no_ordinary_words(studio: cs.Studio) -> None:
    names = [subject.name for subject in studio.subjects]
    assert len(set(names)) == 63
    assert not set(names) & set(vocabulary())
    assert all(name.isalpha() and name.islower() for name in names)


def test_enough_pairs_of_one_category(studio: cs.Studio) -> None:
    alike = [
        group
        for group in studio.pairs
        if len({studio.subject(name).category for name in group.names}) == 1
    ]
    assert len(alike) >= 10
    assert len({studio.subject(group.names[0]).category for group in alike}) == 13


def test_pairs_are_distinct_and_use_everyone(studio: cs.Studio) -> None:
    assert len({frozenset(group.names) for group in studio.pairs}) == 68
    uses = Counter(name for group in studio.pairs for name in group.names)
    assert len(uses) == 63
    assert max(uses.values()) <= 4


def test_prompts_are_canonical_and_span_places_and_actions(studio: cs.Studio) -> None:
    for group in (*studio.pairs, *studio.triples, *studio.quadruples):
        assert len({prompt.text for prompt in group.prompts}) >= 8
        assert len({prompt.place for prompt in group.prompts}) >= 8
        assert len({prompt.action for prompt in group.prompts}) == 6
        for prompt in group.prompts:
            assert prompt.text.endswith(PLACE_PHRASES[prompt.place][0])
            for name in group.names:
                assert f"a <{name}> {studio.subject(name).category}" in prompt.text


def test_a_prompt_reads_naturally(studio: cs.Studio) -> None:
    words = {word for group in studio.pairs for p in group.prompts for word in p.text.split()}
    names = {f"<{subject.name}>" for subject in studio.subjects}
    assert words - names <= set(vocabulary())


def test_the_benchmark_is_fixed_by_its_seed(studio: cs.Studio) -> None:
    cs.studio.cache_clear()
    assert cs.studio() == studio


def test_members_of_a_category_can_be_told_apart(studio: cs.Studio) -> None:
    for category in tw.CATEGORIES:
        toys = [s.individual for s in studio.subjects if s.category == category]
        assert len(toys) >= 4
        assert len({toy.main for toy in toys}) == len(toys)
        assert len({(toy.pattern, toy.accessory) for toy in toys}) == len(toys)


def test_held_out_is_about_colours_pattern_and_accessory(studio: cs.Studio) -> None:
    toy = studio.subjects[0].individual
    assert cs.held_out(toy)
    twin = {**vars(toy), "proportions": (0.0,) * 6}
    assert cs.held_out(tw.Individual(**twin))
    swapped = {**vars(toy), "main": toy.second, "second": toy.main}
    assert cs.held_out(tw.Individual(**swapped))
    other = next(name for name in tw.ACCESSORIES if name != toy.accessory)
    assert not cs.held_out(tw.Individual(**{**vars(toy), "accessory": other}))


def test_an_unknown_name_is_a_clear_error(studio: cs.Studio) -> None:
    with pytest.raises(UserError, match="no subject called 'nobody'"):
        studio.subject("nobody")


def test_photos_are_large_and_different(studio: cs.Studio) -> None:
    subject = studio.subjects[0]
    photos = cs.reference_photos(subject.individual, subject.name, height=60, width=96)
    again = cs.reference_photos(subject.individual, subject.name, 1, height=60, width=96)
    np.testing.assert_array_equal(photos[0][0], again[0][0])
    assert len(photos) == 5
    for image, mask in photos:
        assert image.shape == (60, 96, 3)
        assert image.dtype == np.uint8
        assert mask.dtype == np.float32
        assert set(np.unique(mask)) == {0.0, 1.0}
        assert 0.1 < mask.mean() < 0.7
    corners = {tuple(image[0, 0]) for image, _ in photos}
    assert len(corners) == 5


def test_a_written_subject_is_an_ordinary_folder(
    tmp_path: Path, studio: cs.Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = studio.subjects[0]
    photos = cs.reference_photos(subject.individual, subject.name, 2, 24, 36)
    monkeypatch.setattr(cs, "reference_photos", lambda *_: photos)
    folder = cs.write_subject(tmp_path / subject.name, subject.individual, subject.name, masks=True)
    for index, (expected, mask) in enumerate(photos, start=1):
        image = cv2.imread(str(folder / f"{index}.png"))
        white = cv2.imread(str(folder / "masks" / f"{index}.png"), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(image[..., ::-1], expected)
        np.testing.assert_array_equal(white, 255 * mask)
    settings = tomllib.loads((folder / "subject.toml").read_text())
    assert settings == {"word": subject.name, "category": subject.category}
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["1.png", "2.png", "masks", "subject.toml"]


def test_an_unwritable_place_is_a_clear_error(tmp_path: Path, studio: cs.Studio) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    with pytest.raises(StorageError):
        cs.write_subject(blocker / "tom", studio.subjects[0].individual, "tom", count=1)
