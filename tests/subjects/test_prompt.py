"""Learned words in prompts, and the prompts training draws."""

from __future__ import annotations

import numpy as np
import pytest

from customvideo.errors import PromptError
from customvideo.subjects.prompt import (
    TEMPLATES,
    LearnedWord,
    Prompt,
    article,
    check_category,
    check_name,
    list_subjects,
    training_prompt,
)

TOM = LearnedWord("tom", "cat", vectors=3)
REX = LearnedWord("rex", "dog")
OTTO = LearnedWord("otto", "stuffed animal")
ELA = LearnedWord("ela", "elephant")
ALL = (TOM, REX, OTTO, ELA)


def test_tokens_of_a_word() -> None:
    assert TOM.word == "<tom>"
    assert TOM.tokens == ("<tom>", "<tom>_1", "<tom>_2")
    assert REX.tokens == ("<rex>",)


@pytest.mark.parametrize(
    ("text", "canonical", "plain"),
    [
        ("a <tom> cat", "a <tom> cat", "a cat"),
        ("<tom>", "<tom> cat", "cat"),
        ("<Tom> Cat on a mat", "<tom> Cat on a mat", "Cat on a mat"),
        ("a < tom >  cat", "a <tom> cat", "a cat"),
        ("<tom>'s hat", "<tom> cat's hat", "cat's hat"),
        ("<tom>, asleep", "<tom> cat, asleep", "cat, asleep"),
        ("(<tom>)", "(<tom> cat)", "(cat)"),
        ("<tom>cat", "<tom> cat", "cat"),
        ("<tom>runs", "<tom> cat runs", "cat runs"),
        ("<tom> catalogue", "<tom> cat catalogue", "cat catalogue"),
        ("two <tom> cats", "two <tom> cats", "two cats"),
        ("a <tom> and a <rex> dog", "a <tom> cat and a <rex> dog", "a cat and a dog"),
        ("<tom> and <tom> cat", "<tom> cat and <tom> cat", "cat and cat"),
        ("an <otto>", "an <otto> stuffed animal", "a stuffed animal"),
        ("an <otto> stuffed  animal", "an <otto> stuffed  animal", "a stuffed  animal"),
        ("A <ela> here", "A <ela> elephant here", "An elephant here"),
        ("a b<c", "a b<c", "a b<c"),
        ("", "", ""),
    ],
)
def test_canonical_and_plain_forms(text: str, canonical: str, plain: str) -> None:
    prompt = Prompt(text, ALL)
    assert prompt.canonical == canonical
    assert prompt.plain == plain
    assert Prompt(canonical, ALL).canonical == canonical


def test_encoded_spells_every_vector() -> None:
    prompt = Prompt("a <Tom> with <rex> dog", ALL)
    assert prompt.encoded == "a <tom> <tom>_1 <tom>_2 cat with <rex> dog"


def test_mentioned_words_come_in_the_text_s_order_and_once() -> None:
    prompt = Prompt("<rex>, <TOM> and <rex>", ALL)
    assert prompt.mentioned == (REX, TOM)
    assert prompt.words == ALL


def test_unknown_words_are_reported_and_left_alone() -> None:
    prompt = Prompt("<tim> and <tom> and <tim> but 1 < 2 > 0", ALL)
    assert prompt.unknown == ("<tim>",)
    assert prompt.plain.startswith("<tim> and cat and <tim>")


def test_words_that_begin_alike_are_told_apart() -> None:
    words = (LearnedWord("tom", "cat", 2), LearnedWord("tom_1", "dog"))
    prompt = Prompt("<tom_1> and <tom>", words)
    assert prompt.encoded == "<tom_1> dog and <tom> <tom>_1 cat"
    assert prompt.plain == "dog and cat"


def test_two_subjects_with_one_word() -> None:
    with pytest.raises(PromptError, match="share the word '<tom>'; give each its own name"):
        Prompt("<tom>", (TOM, LearnedWord("tom", "dog")))


@pytest.mark.parametrize("name", ["Tom", "tom cat", "", "1tom", "-tom", "töm", "<tom>", "t" * 33])
def test_bad_names(name: str) -> None:
    with pytest.raises(PromptError, match="lower-case letters, digits"):
        check_name(name)


@pytest.mark.parametrize("name", ["t", "tom", "tom-2", "my_cat2"])
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("category", ["", " cat", "<cat>", "cat,dog", "-"])
def test_bad_categories(category: str) -> None:
    with pytest.raises(PromptError, match="plain noun"):
        check_category(category)


def test_a_word_needs_a_vector() -> None:
    with pytest.raises(PromptError, match="'<tom>' needs at least 1 vector, not 0"):
        LearnedWord("tom", "cat", 0)


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("cat", "a"),
        ("elephant", "an"),
        ("<ada> owl", "an"),
        ("umbrella", "an"),
        ("unicorn", "a"),
        ("ukulele", "a"),
        ("uninteresting toy", "an"),
        ("hourglass", "an"),
        ("one-eyed cat", "a"),
    ],
)
def test_articles(phrase: str, expected: str) -> None:
    assert article(phrase) == expected


def test_enumerations() -> None:
    assert list_subjects([TOM]) == "a <tom> cat"
    assert list_subjects([TOM, ELA], "with") == "a <tom> cat with an <ela> elephant"
    assert list_subjects([TOM, REX, ELA]) == "a <tom> cat, a <rex> dog and an <ela> elephant"


def test_training_prompts_name_everyone_in_every_order_and_template() -> None:
    rng = np.random.default_rng(0)
    prompts = [training_prompt((TOM, REX), rng) for _ in range(200)]
    assert all(set(prompt.mentioned) == {TOM, REX} for prompt in prompts)
    assert {prompt.mentioned for prompt in prompts} == {(TOM, REX), (REX, TOM)}
    assert {prompt.words for prompt in prompts} == {(TOM, REX)}
    assert len({prompt.text for prompt in prompts}) == 2 * len(TEMPLATES)
    assert all(prompt.canonical == prompt.text for prompt in prompts)


def test_training_prompts_repeat_with_their_seed() -> None:
    one, other = (
        [training_prompt(ALL, rng, joiner="beside").text for _ in range(5)]
        for rng in (np.random.default_rng(7), np.random.default_rng(7))
    )
    assert one == other
    assert all(" beside " in text for text in one)
