"""The manifest's format: what it holds, what it refuses, and what its digest tells apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from customvideo.benchmark.manifest import (
    Manifest,
    from_values,
    parse_manifest,
    read_manifest,
    schema,
    to_manifest,
)
from customvideo.errors import BenchmarkError

ROOT = Path(__file__).parents[2]


def values(**changes: Any) -> dict[str, Any]:
    """A small sound manifest, as plain values."""
    photo = {"file": "1.png", "source": "web", "path": "x/1.png", "licence": "CC0"}
    return {
        "name": "mine",
        "version": "1",
        "sources": {"web": {"addresses": ["https://example.org/"], "licence": "CC BY 4.0"}},
        "subjects": [
            {"name": "tom", "category": "cat", "images": [photo]},
            {"name": "rex", "category": "dog"},
            {"name": "ada", "category": "stuffed animal"},
        ],
        "combinations": [
            {"subjects": ["tom", "rex"], "prompts": ["a <tom> cat and a <rex> dog running"]}
        ],
    } | changes


def made(**changes: Any) -> Manifest:
    return from_values(values(**changes), "mine.json")


def pair(*subjects: str, prompts: list[str] | None = None, **more: Any) -> dict[str, Any]:
    asked = ["a <tom> cat and a <rex> dog running"] if prompts is None else prompts
    return {"subjects": list(subjects), "prompts": asked, **more}


def test_a_sound_manifest_has_no_problem_and_survives_its_file(tmp_path: Path) -> None:
    manifest = made()
    assert manifest.problems() == []
    (tmp_path / "customstudio.json").write_text(manifest.dump(), encoding="utf-8")
    again = read_manifest(tmp_path / "customstudio.json")
    assert again == manifest and again.digest({}) == manifest.digest({})


def test_the_published_schema_is_the_code_s() -> None:
    published = (ROOT / "docs" / "customstudio.schema.json").read_text(encoding="utf-8")
    assert published == schema()
    described = json.loads(published)
    assert {"name", "version", "subjects", "combinations"} == set(described["required"])
    assert described["additionalProperties"] is False


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sujects": []}, "unknown key 'sujects'; did you mean 'subjects'?"),
        ({"subjects": [{"name": "tom"}]}, "lacks 'subjects.0.category'"),
        ({"version": 1}, "'version' in 'mine.json' should be a valid string"),
        ({"format": 2}, "'format' in 'mine.json' should be 1"),
        (
            {"subjects": [{"name": "tom", "category": "cat", "images": [{"fil": "1.png"}]}]},
            "lacks 'subjects.0.images.0.file'",
        ),
        (
            {"subjects": [{"name": "t", "category": "c", "images": [{"file": "../1.png"}]}]},
            "should be a path below the subject's folder",
        ),
        (
            {"subjects": [{"name": "t", "category": "c", "images": [{"file": "C:\\1.png"}]}]},
            "should be a path below the subject's folder",
        ),
    ],
)
def test_another_form_is_one_clear_sentence(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(BenchmarkError) as error:
        made(**changes)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_every_fault_of_form_is_told() -> None:
    text = json.dumps(values(version=1, combinations=[{"subjects": ["tom"]}]))
    found = parse_manifest(text, "mine.json")
    assert isinstance(found, list) and len(found) == 2


def test_what_is_no_json_is_told() -> None:
    with pytest.raises(BenchmarkError, match=r"'mine\.json' is not JSON"):
        to_manifest("{", "mine.json")


@pytest.mark.parametrize(
    ("combination", "told"),
    [
        (pair("tom"), "has 1 subject; give it 2 to 4"),
        (pair("tom", "tom"), "has a subject twice"),
        (pair("tom", "rx"), "has an unknown subject 'rx'; did you mean 'rex'?"),
        (pair("tom", "rex", prompts=[]), "has no prompt"),
        (pair("tom", "rex", prompts=["a <tom> cat running"]), "does not mention <rex>"),
        (
            pair("tom", "rex", prompts=["a <tom> cat, a <rex> dog and <ada> running"]),
            "mentions <ada>, which is no subject of it",
        ),
        (
            pair("tom", "rex", prompts=["<tom> and a <rex> dog running"]),
            "write '<tom> cat and a <rex> dog running'",
        ),
    ],
)
def test_a_wrong_combination_is_told(combination: dict[str, Any], told: str) -> None:
    problems = made(combinations=[combination]).problems()
    assert any(told in problem for problem in problems), problems


def test_wrong_subjects_are_told_all_at_once() -> None:
    twice = {"file": "1.png", "source": "nowhere", "path": "1.png"}
    subjects = [
        {"name": "tom", "category": "cat", "images": [twice, twice]},
        {"name": "tom", "category": "cat"},
        {"name": "Rex", "category": "dog"},
        {"name": "ada", "category": ""},
        {"name": "bob", "category": "pig", "images": [{"file": "1.png", "source": "web"}]},
    ]
    problems = "\n".join(made(subjects=subjects, combinations=[]).problems())
    for told in (
        "2 subjects are called 'tom'",
        "'1.png' twice",
        "no source of the manifest",
        "'Rex' cannot name a subject",
        "Subject 'ada' has no category",
        "'1.png' of subject 'bob' does not say its path",
        "has no combination",
    ):
        assert told in problems
    assert "'' cannot be a category" not in problems


def test_the_same_pair_twice_is_told() -> None:
    problems = made(combinations=[pair("tom", "rex"), pair("rex", "tom")]).problems()
    assert sum("shows the same subjects as another" in problem for problem in problems) == 2
    alike = made(combinations=[pair("tom", "rex"), pair("tom", "rex")]).problems()
    assert alike == ["2 combinations are called 'tom+rex'; give each its own name."]


def test_the_digest_is_about_results_only() -> None:
    known = made().digest({})
    assert made(name="other", description="words", version="2").digest({}) == known
    terms = {"web": {"addresses": ["https://example.org/"], "licence": "CC0"}}
    assert made(sources=terms).digest({}) == known
    moved = {"web": {"addresses": ["https://example.org/2/"], "licence": "CC BY 4.0"}}
    assert made(sources=moved).digest({}) != known
    asked = [pair("tom", "rex", prompts=["a <tom> cat and a <rex> dog walking"])]
    assert made(combinations=asked).digest({}) != known
    assert made().digest({"rex/1.png": "ab"}) not in (known, made().digest({"rex/1.png": "cd"}))
    assert made().digest({"nobody/1.png": "ab"}) == known


def test_a_missing_subject_is_told_with_the_nearest() -> None:
    with pytest.raises(BenchmarkError, match="has no subject 'tim'; did you mean 'tom'"):
        made().subject("tim")
