"""The toybox's editions: everybody is there, photos are drawn once, and the truth is filmed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from customvideo.errors import BenchmarkError
from customvideo.toybox import customstudio as cs
from customvideo.toybox import edition as te
from customvideo.toybox.customstudio import studio
from tests.surroundings import contents


def test_the_63_are_there_with_all_their_groups() -> None:
    edition = te.load()
    assert {one.name for one in edition.subjects} == {one.name for one in studio().subjects}
    assert Counter(len(group.names) for group in edition.groups) == {2: 68, 3: 8, 4: 4}
    assert edition.default_backbone == "toybox"


def test_the_development_edition_is_the_six_pairs() -> None:
    edition = te.load_development()
    assert len(edition.subjects) == 12 and len(edition.groups) == 6
    assert edition.groups[0].prompts[1].text == "a <ash> cat and a <blu> dog jumping in the snow"
    assert edition.seal != te.load().seal


def test_photos_are_drawn_once_and_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edition = te.load_development()
    drawn = []
    photos = cs.reference_photos(edition.subjects[0].individual, "ash", 2, 24, 36)

    def draw(individual: object, name: str, count: int) -> object:
        drawn.append(name)
        return photos

    monkeypatch.setattr(cs, "reference_photos", draw)
    edition.prepare(["blu", "ash"], tmp_path)
    edition.prepare(["ash", "cleo"], tmp_path)
    assert sorted(drawn) == ["ash", "blu", "cleo"]
    assert {name.split("/")[0] for name in contents(tmp_path)} == {"ash", "blu", "cleo"}
    # A folder without its last file is one that was interrupted.
    (tmp_path / "ash" / "subject.toml").unlink()
    edition.prepare(["ash"], tmp_path)
    assert drawn.count("ash") == 2
    assert (tmp_path / "ash" / "masks" / "1.png").is_file()


def test_the_cache_is_the_user_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    homes = {te.load().home, te.load_development().home}
    assert len(homes) == 2 and all(home.is_relative_to(tmp_path) for home in homes)
    assert not list(tmp_path.iterdir())


def test_footage_is_true_moving_and_fixed_by_its_seed() -> None:
    edition = te.load()
    group = edition.groups[0]
    name = "+".join(group.names)
    one, same = (edition.footage(name, 1, 3, 2, (32, 48)) for _ in range(2))
    other = edition.footage(name, 1, 4, 2, (32, 48))
    assert one is not None and same is not None and other is not None
    assert one.frames.shape == (2, 32, 48, 3) and one.fps == 8
    np.testing.assert_array_equal(one.frames, same.frames)
    assert (one.frames[0] != one.frames[1]).any() and (one.frames != other.frames).any()


def test_footage_of_nothing_is_told() -> None:
    with pytest.raises(BenchmarkError, match=r"no prompt 9 of 'ash\+blu'"):
        te.load_development().footage("ash+blu", 9, 0, 1, (16, 16))
