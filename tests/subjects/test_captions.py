"""Captions beside photos, and how learned words get into them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from customvideo.errors import SubjectError
from customvideo.subjects.captions import (
    LONGEST_CAPTION,
    captioned_prompt,
    read_caption,
    with_words,
)
from customvideo.subjects.prompt import LearnedWord

TOM, REX, ADA = LearnedWord("tom", "cat"), LearnedWord("rex", "dog"), LearnedWord("ada", "owl")
KIM = LearnedWord("kim", "cat")


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("a cat sleeps on a sofa", [TOM], "a <tom> cat sleeps on a sofa"),
        ("a <tom> cat sleeps", [TOM], "a <tom> cat sleeps"),
        ("<Tom> sleeps", [TOM], "<Tom> sleeps"),
        ("An owl in a tree", [LearnedWord("tom", "owl")], "A <tom> owl in a tree"),
        ("a cat in a tree", [LearnedWord("ada", "cat")], "an <ada> cat in a tree"),
        ("the black Cats play", [TOM], "the black <tom> Cats play"),
        ("concatenated on a sofa", [TOM], "a <tom> cat, concatenated on a sofa"),
        ("a dog chases a cat", [TOM, REX], "a <rex> dog chases a <tom> cat"),
        ("two cats at a window", [TOM, KIM], "a <tom> cat and a <kim> cat, two cats at a window"),
        ("a <tom> cat beside a cat", [TOM, KIM], "a <tom> cat beside a <kim> cat"),
        ("a stuffed  animal", [LearnedWord("bo", "stuffed animal")], "a <bo> stuffed  animal"),
    ],
)
def test_every_word_gets_into_the_text(text: str, words: list[LearnedWord], expected: str) -> None:
    assert with_words(text, words) == expected


def test_a_caption_is_the_text_file_of_the_same_stem(tmp_path: Path) -> None:
    picture = tmp_path / "01.jpg"
    assert read_caption(picture, [TOM]) == ""
    (tmp_path / "01.txt").write_text("\ufeff  a cat\n on snow ", encoding="utf-8")
    assert read_caption(picture, [TOM]) == "a <tom> cat on snow"
    (tmp_path / "01.txt").write_text(" \n", encoding="utf-8")
    assert read_caption(picture, [TOM]) == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00 cat", "cannot be read as text"),
        (b"x" * (LONGEST_CAPTION + 1), "over 1000 characters"),
        (b"a cat\x1b[31m", "control characters"),
        (b"a <tim> cat", "mentions <tim>, but its picture shows <tom>"),
    ],
)
def test_what_is_no_caption(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "01.txt").write_bytes(content)
    with pytest.raises(SubjectError, match=message):
        read_caption(tmp_path / "01.jpg", [TOM])


def test_a_prompt_of_captions_names_everybody_in_either_order() -> None:
    captions = ["a <tom> cat on a sofa.", ""]
    texts = {
        captioned_prompt([TOM, REX], captions, np.random.default_rng(seed)).text
        for seed in range(8)
    }
    assert texts == {
        "a <tom> cat on a sofa and a <rex> dog",
        "a <rex> dog and a <tom> cat on a sofa",
    }
    prompt = captioned_prompt([TOM, ADA], ["", ""], np.random.default_rng(0))
    assert prompt.words == (TOM, ADA) and "an <ada> owl" in prompt.text
