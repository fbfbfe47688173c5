"""Captions: what lies beside a photo in a text file, and how a learned word gets into it.

A caption says what the photo shows besides the subject: where it is, what it does, in which light.
The subject itself is a learned word in it. Prompts of scenes without captions are
`customvideo.subjects.prompt`; who writes captions is `customvideo.subjects.captioner`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from customvideo.errors import PromptError, SubjectError
from customvideo.subjects.prompt import LearnedWord, Prompt, article, list_subjects

__all__ = ["LONGEST_CAPTION", "captioned_prompt", "read_caption", "with_words"]

LONGEST_CAPTION = 1000
"""Characters; no text encoder reads more."""
_SUFFIX = ".txt"


def read_caption(picture: Path, words: Sequence[LearnedWord]) -> str:
    """The caption beside `picture`, with each of `words` in it; "" if there is none.

    Raises:
        SubjectError: the file is no text, is too long, or names a word of nobody here.
    """
    path = picture.with_suffix(_SUFFIX)
    if not path.is_file():
        return ""
    try:
        with path.open("rb") as file:
            text = file.read(4 * LONGEST_CAPTION + 1).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SubjectError(
            f"The caption '{path}' cannot be read as text; save it as UTF-8 or remove it."
        ) from error
    text = " ".join(text.split())
    if len(text) > LONGEST_CAPTION:
        raise SubjectError(
            f"The caption '{path}' has over {LONGEST_CAPTION} characters; shorten it to a sentence."
        )
    if not text.isprintable():
        raise SubjectError(f"The caption '{path}' holds control characters; remove them.")
    if unknown := Prompt(text, tuple(words)).unknown:
        known = ", ".join(word.word for word in words)
        raise SubjectError(
            f"The caption '{path}' mentions {unknown[0]}, but its picture shows {known}; correct "
            "the word."
        )
    return with_words(text, words) if text else ""


def with_words(text: str, words: Sequence[LearnedWord]) -> str:
    """`text` with every one of `words` in it.

    A word that is missing is put in front of its category, "a cat sleeps" becoming "a <tom> cat
    sleeps"; where the category is not there, or is that of several missing words, in front of all.
    """
    there = {word.name for word in Prompt(text, tuple(words)).mentioned}
    missing = [word for word in words if word.name not in there]
    left = []
    for word in missing:
        alone = sum(one.category.lower() == word.category.lower() for one in missing) == 1
        changed = _inserted(text, word) if alone else text
        if changed == text:
            left.append(word)
        text = changed
    return f"{list_subjects(left)}, {text}" if left else text


def captioned_prompt(
    words: Sequence[LearnedWord],
    captions: Sequence[str],
    rng: np.random.Generator,
    joiner: str = "and",
) -> Prompt:
    """A prompt of the captions, one a word, in random order; "" stands for the plain phrase.

    The returned prompt's `words` keep the given order.

    Raises:
        PromptError: nothing to say.
    """
    if not words or len(words) != len(captions):
        raise PromptError("A prompt of captions needs one a word; give as many captions as words.")
    phrases = [
        caption.rstrip(" .") or list_subjects([word])
        for word, caption in zip(words, captions, strict=True)
    ]
    ordered = [phrases[index] for index in rng.permutation(len(phrases))]
    return Prompt(f" {joiner} ".join(ordered), tuple(words))


def _inserted(text: str, word: LearnedWord) -> str:
    """`text` with the word before the first mention of its category; as it was without one."""
    noun = r"\s+".join(re.escape(part) for part in word.category.split())
    # Not where a learned word already stands before it: that cat is somebody else.
    found = re.search(rf"(?<!>)(?<!> )\b(?:(?P<article>an?)\s+)?(?P<noun>{noun}s?)\b", text, re.I)
    if found is None:
        return text
    before = found["article"]
    if before is not None:
        right = article(word.name)
        before = f"{right.capitalize() if before[0] == 'A' else right} "
    return f"{text[: found.start()]}{before or ''}{word.word} {found['noun']}{text[found.end() :]}"
