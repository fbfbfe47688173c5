"""Which words of a prompt an adapter knows, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from customvideo.subjects.prompt import LearnedWord, Prompt
from customvideo.workspace.records import AdapterEntry

__all__ = ["PromptCheck", "check_prompt", "complete"]


@dataclass(frozen=True)
class PromptCheck:
    """What a prompt's learned words are.

    Attributes:
        known: words of the adapter that it uses, in the order of their first mention: `<tom>`.
        unknown: words in brackets that nobody learned, each with the nearest known one or "".
        bare: names of learned words that stand in the text without brackets: probably meant.
        plain: the prompt as the base model would be asked.
    """

    known: tuple[str, ...]
    unknown: tuple[tuple[str, str], ...]
    bare: tuple[str, ...]
    plain: str


def check_prompt(adapter: AdapterEntry | None, prompt: str) -> PromptCheck:
    """Tell known words in `prompt` from unknown ones; without an adapter every word is unknown."""
    words = _words(adapter)
    names = [word.name for word in words]
    asked = Prompt(prompt, words)
    unknown = []
    for word in asked.unknown:
        near = get_close_matches(word.strip("<>"), names, n=1)
        unknown.append((word, f"<{near[0]}>" if near else ""))
    mentioned = {word.name for word in asked.mentioned}
    spoken = {part.strip(".,;:!?'\"").lower() for part in prompt.split()}
    bare = tuple(name for name in names if name in spoken and name not in mentioned)
    return PromptCheck(
        tuple(word.word for word in asked.mentioned), tuple(unknown), bare, asked.plain
    )


def complete(adapter: AdapterEntry | None, text: str) -> tuple[str, ...]:
    """What an unfinished word at the end of `text` may become: `a <to` gives `<tom> cat`."""
    opened = text.rfind("<")
    if opened < 0 or ">" in text[opened:]:
        return ()
    begun = text[opened + 1 :].lower()
    return tuple(f"{w.word} {w.category}" for w in _words(adapter) if w.name.startswith(begun))


def _words(adapter: AdapterEntry | None) -> tuple[LearnedWord, ...]:
    return () if adapter is None else tuple(LearnedWord(name, noun) for name, noun in adapter.words)
