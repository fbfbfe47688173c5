"""The photos edition: its numbers, and that every file says where it is from and on what terms."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from customvideo.benchmark.check import check
from customvideo.benchmark.editions import Edition, load_edition
from customvideo.benchmark.photos import load
from customvideo.errors import BenchmarkError

ROOT = Path(__file__).parents[2]
PINNED = re.compile(r"https://\S+/[0-9a-f]{40}/\S+")


@pytest.fixture(scope="module")
def edition() -> Edition:
    return load_edition("photos")


def test_the_promised_numbers(edition: Edition) -> None:
    assert len(edition.subjects) == 63
    assert len({edition.category(name) for name in edition.subjects}) == 13
    sizes = Counter(one.size for one in edition.combinations)
    assert sizes == {2: 68, 3: 6}
    alike = [one for one in edition.combinations if one.size == 2 and edition.same_category(one)]
    assert len(alike) >= 10
    assert {name for one in edition.combinations for name in one.subjects} == set(edition.subjects)


def test_prompts_are_many_and_different(edition: Edition) -> None:
    for one in edition.combinations:
        assert 4 <= len(set(one.prompts)) == len(one.prompts) <= 5
    texts = [text for one in edition.combinations for text in one.prompts]
    assert len(set(texts)) == len(texts)
    assert max(len(text.split()) for text in texts) < 30


def test_every_file_has_an_address_and_terms(edition: Edition) -> None:
    manifest = edition.manifest
    for entry in manifest.subjects:
        assert 4 <= len(entry.images) <= 6
        for file in entry.files:
            source = manifest.sources[file.source]
            assert file.path and (file.licence or source.licence)
            assert file.credit or source.credit
            # The same file for everybody: an address names a version.
            assert all(PINNED.fullmatch(address) for address in source.addresses)
            assert re.fullmatch(r"\d+\.\w+|.*-unsplash\.jpg", file.file)
            ours = "Unsplash" in file.licence
            assert ours or file.source == "customconcept101" or "unsplash" not in file.credit
    paths = [file.path for entry in manifest.subjects for file in entry.files]
    assert len(set(paths)) == len(paths)


def test_nobody_in_it_is_a_person(edition: Edition) -> None:
    assert "person" not in {edition.category(name) for name in edition.subjects}


def test_the_package_carries_no_picture() -> None:
    folder = Path(load.__code__.co_filename).parent
    assert {path.suffix for path in folder.iterdir() if path.is_file()} <= {
        ".py",
        ".json",
        ".toml",
        ".j2",
        ".html",
        ".css",
    }
    assert json.loads(load().manifest())["name"] == "photos"


def test_what_is_not_fetched_is_told(
    tmp_path: Path, edition: Edition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(BenchmarkError, match="'customvideo bench fetch photos'"):
        load_edition("photos").load(["cat", "dog"])
    assert len(check("photos").problems) == 1
    assert edition.footage(edition.combinations[0], 0, 0, 1, (8, 8)) is None


def test_a_subject_half_fetched_is_told(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    with pytest.raises(BenchmarkError, match=r"00\.jpg' of subject 'cat' is missing; fetch"):
        load_edition("photos", tmp_path).load(["cat"])


def test_the_documentation_counts_right(edition: Edition) -> None:
    text = " ".join((ROOT / "docs" / "customstudio.md").read_text(encoding="utf-8").split())
    for source in edition.manifest.sources:
        photos = [one.source for entry in edition.manifest.subjects for one in entry.images]
        first = [entry.images[0].source for entry in edition.manifest.subjects]
        assert f"{photos.count(source)} photos of {first.count(source)} subjects" in text
