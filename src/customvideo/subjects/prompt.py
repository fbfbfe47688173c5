"""Prompts, and which of their words name which subject.

A learned word is written in angle brackets, `<tom>`, and stands before its category:
`a <tom> cat on a beach`. This file knows text only; ids, tokenizers and embedding rows are the
business of `customvideo.adapters.tokens`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from customvideo.errors import PromptError

__all__ = [
    "TEMPLATES",
    "LearnedWord",
    "Prompt",
    "article",
    "check_category",
    "check_name",
    "list_subjects",
    "training_prompt",
]

TEMPLATES = (
    "{subjects}",
    "a photo of {subjects}",
    "a picture of {subjects}",
    "a good photo of {subjects}",
    "a close photo of {subjects}",
    "a photo showing {subjects}",
)

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_LONGEST_NAME = 32
_HALF = re.compile("[\ud800-\udfff]")
_BRACKETED = re.compile(r"<\s*([^\W\d_][\w-]*)\s*>")
# Spelt with a vowel but spoken with a consonant, and the reverse.
_CONSONANT_SOUND = re.compile(r"u(ni(?!n|m)|s[ae]|k|tensil|rin)|eu|ewe|one\b|once")
# Stands before each replaced word until the articles are set; a private-use character no text has.
_MARK = "\ue000"
_ARTICLE_BEFORE_MARK = re.compile(rf"\b(an?)(\s+{_MARK})(\w+)", re.IGNORECASE)
_VOWEL_SOUND = re.compile(r"[aeiou]|hour|honest|heir")


@dataclass(frozen=True)
class LearnedWord:
    """One word the text encoder learns, naming one subject.

    `vectors` is how many learned embedding rows the word has. Raises PromptError for a bad name,
    category or count.
    """

    name: str
    category: str
    vectors: int = 1

    def __post_init__(self) -> None:
        check_name(self.name)
        check_category(self.category)
        if self.vectors < 1:
            raise PromptError(
                f"The word '{self.word}' needs at least 1 vector, not {self.vectors}; "
                "choose 1 or more."
            )

    @property
    def word(self) -> str:
        """The word as prompts write it: `<tom>`."""
        return f"<{self.name}>"

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens the word expands to, one per vector: `<tom>`, `<tom>_1`, …"""
        return (self.word, *(f"{self.word}_{index}" for index in range(1, self.vectors)))


@dataclass(frozen=True)
class Prompt:
    """A text and the learned words it may use.

    `words` keeps the caller's order (the order of subjects and masks), whatever order the text
    mentions them in. Case does not matter inside the brackets: `<Tom>` is `<tom>`. Raises
    PromptError when two of `words` share a name, or the text holds halves of characters, which no
    text encoder reads.
    """

    text: str
    words: tuple[LearnedWord, ...] = ()

    def __post_init__(self) -> None:
        if _HALF.search(self.text):
            raise PromptError(
                "The prompt holds a broken character, as copying from elsewhere may leave it; type "
                "it anew."
            )
        names = [word.name for word in self.words]
        for name in names:
            if names.count(name) > 1:
                raise PromptError(
                    f"Two subjects share the word '<{name}>'; give each its own name."
                )

    @property
    def canonical(self) -> str:
        """The text with every learned word followed by its category: `<tom> cat`."""
        return self._replace(lambda word, noun: f"{word.word} {noun}")

    @property
    def plain(self) -> str:
        """The text as someone would write it who knows no learned word, as CLIP-T reads it.

        Every learned word is *replaced* by its category, once: `an <otto> cat` and `<otto>`
        become `a cat` and `cat`. An article directly before it follows its new neighbour.
        """
        marked = self._replace(lambda _word, noun: f"{_MARK}{noun}")
        return _ARTICLE_BEFORE_MARK.sub(_agree, marked).replace(_MARK, "")

    @property
    def encoded(self) -> str:
        """The canonical text with every word spelt as its tokens, separated by spaces.

        This is what a text encoder with the learned words attached reads.
        """
        return self._replace(lambda word, noun: f"{' '.join(word.tokens)} {noun}")

    @property
    def mentioned(self) -> tuple[LearnedWord, ...]:
        """The learned words in the text, each once, in the order of their first mention."""
        by_name = {word.name: word for word in self.words}
        return tuple(by_name[name] for name in self._names() if name in by_name)

    @property
    def unknown(self) -> tuple[str, ...]:
        """The bracketed words in the text that nobody learned, each once: (`<tim>`,)."""
        known = {word.name for word in self.words}
        return tuple(f"<{name}>" for name in self._names() if name not in known)

    def _names(self) -> list[str]:
        return list(dict.fromkeys(found.lower() for found in _BRACKETED.findall(self.text)))

    def _replace(self, write: Callable[[LearnedWord, str], str]) -> str:
        text = self.text
        for word in self.words:
            text = _replace_mentions(text, word, write)
        return text


def check_name(name: str) -> str:
    """Return `name` if it can name a subject, else raise PromptError.

    Names are lower-case because common text encoders lower-case their input, and `<Tom>` would
    then silently be another word than the one learned.
    """
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise PromptError(
            f"'{name}' cannot name a subject; use 1 to {_LONGEST_NAME} lower-case letters, "
            "digits, '-' or '_', starting with a letter, such as 'tom'."
        )
    return name


def check_category(category: str) -> str:
    """Return `category` if it is a noun like `cat` or `stuffed animal`, else raise PromptError."""
    if not re.fullmatch(r"\w[\w' -]*", category) or category != category.strip():
        raise PromptError(
            f"'{category}' cannot be a category; use a plain noun such as 'cat' or "
            "'stuffed animal'."
        )
    return category


def article(phrase: str) -> str:
    """The indefinite article before `phrase`, ignoring brackets: `a` or `an`."""
    sound = phrase.lower().lstrip("<")
    vowel = _VOWEL_SOUND.match(sound) and not _CONSONANT_SOUND.match(sound)
    return "an" if vowel else "a"


def list_subjects(words: Sequence[LearnedWord], joiner: str = "and") -> str:
    """Enumerate `words`: `a <tom> cat, an <ada> owl and a <rex> dog`."""
    phrases = [f"{article(word.name)} {word.word} {word.category}" for word in words]
    *earlier, last = phrases
    return f"{', '.join(earlier)} {joiner} {last}" if earlier else last


def training_prompt(
    words: Sequence[LearnedWord],
    rng: np.random.Generator,
    *,
    templates: Sequence[str] = TEMPLATES,
    joiner: str = "and",
) -> Prompt:
    """Draw a prompt that mentions every word once, in random order, in a random template.

    The order is drawn apart from the order of the subjects in the picture, so that no word gets
    tied to a side. The returned prompt's `words` keep the given order.
    """
    order = rng.permutation(len(words))
    template = templates[int(rng.integers(len(templates)))]
    subjects = list_subjects([words[index] for index in order], joiner)
    return Prompt(template.format(subjects=subjects), tuple(words))


def _replace_mentions(
    text: str, word: LearnedWord, write: Callable[[LearnedWord, str], str]
) -> str:
    """Replace each `<tom>`, and a category right after it, by `write(word, category)`."""
    noun = r"\s+".join(re.escape(part) for part in word.category.split())
    mention = re.compile(
        rf"<\s*{re.escape(word.name)}\s*>(?:\s*(?P<noun>{noun}s?)\b)?(?P<glued>(?=\w))?",
        re.IGNORECASE,
    )

    def rewrite(found: re.Match[str]) -> str:
        glue = "" if found["glued"] is None else " "
        return write(word, found["noun"] or word.category) + glue

    return mention.sub(rewrite, text)


def _agree(found: re.Match[str]) -> str:
    written, gap, noun = found.groups()
    right = article(noun)
    return f"{right.capitalize() if written[0] == 'A' else right}{gap}{noun}"
