"""Words of an adapter renamed, taken away, and taken along into further training.

Nothing here needs the backbone, and no adapter is changed but the one that is told to go on from
another.
"""

from __future__ import annotations

import torch

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.deltas import Delta, RoutedDelta
from customvideo.adapters.header import AdapterHeader
from customvideo.adapters.tokens import LearnedTokens
from customvideo.errors import AdapterError

__all__ = ["renamed", "require_word", "shares_deltas", "without"]


def renamed(adapter: Adapter, old: str, new: str) -> Adapter:
    """The same adapter, sharing its deltas, whose word `old` is called `new`.

    Raises:
        AdapterError: it has no word `old`.
        PromptError: it has a word `new` already, or `new` can name nobody.
    """
    require_word(adapter, old)
    header = adapter.header
    words = tuple(
        word.model_copy(update={"name": new}) if word.name == old else word for word in header.words
    )
    photos = {new if name == old else name: digest for name, digest in header.photos.items()}
    changed = header.model_copy(update={"words": words, "photos": photos})
    value = adapter.tokens.value.detach()
    tokens = LearnedTokens(changed.learned_words, value.shape[1], value, changed.space)
    return Adapter(changed, tokens, adapter.deltas, _extras(adapter, {old: new}))


def without(adapter: Adapter, name: str) -> Adapter:
    """The same adapter without the word `name`; prompts that hold it are refused from now on.

    Deltas that belong to it alone go with it; those that it shares stay, so that nothing changes
    for the others.

    Raises:
        AdapterError: it has no such word, or no other.
    """
    require_word(adapter, name)
    header = adapter.header
    if len(header.words) == 1:
        raise AdapterError(
            f"'<{name}>' is the only word of the adapter, and without it nothing is left; delete "
            "the file instead."
        )
    index = [word.name for word in header.words].index(name)
    counts = [word.vectors for word in header.words]
    rows = list(torch.split(adapter.tokens.value.detach(), counts))
    del rows[index]
    parts, gone = _fewer(header, index)
    deltas = {
        path: delta if gone is None else _without_part(delta, gone)
        for path, delta in adapter.deltas.items()
    }
    update = {
        "format_version": AdapterHeader.model_fields["format_version"].default,
        "words": tuple(word for word in header.words if word.name != name),
        "photos": {key: digest for key, digest in header.photos.items() if key != name},
        "parts": parts,
        "removed": (*header.removed, name),
    }
    changed = header.model_copy(update=update)
    value = torch.cat(rows)
    tokens = LearnedTokens(changed.learned_words, value.shape[1], value, changed.space)
    return Adapter(changed, tokens, deltas, _extras(adapter, {name: None}))


def shares_deltas(adapter: Adapter, name: str) -> bool:
    """Whether there are deltas that the word `name` shares with others."""
    header = adapter.header
    index = [word.name for word in header.words].index(name)
    return bool(adapter.deltas) and _fewer(header, index)[1] is None


def require_word(adapter: Adapter, name: str) -> None:
    """Refuse a name that is none of the adapter's.

    Raises:
        AdapterError: says which there are.
    """
    known = [word.name for word in adapter.words]
    if name not in known:
        listed = ", ".join(f"'{one}'" for one in known)
        raise AdapterError(f"The adapter knows no '{name}'; it knows {listed}.")


def _fewer(header: AdapterHeader, index: int) -> tuple[tuple[int, ...], int | None]:
    """The counts of words of the parts that remain without the word at `index`, and which part goes
    with it, None for none."""
    parts, first = list(header.parts), 0
    for place, count in enumerate(parts):
        if index < first + count:
            parts[place] -= 1
            if parts[place]:
                return tuple(parts), None
            del parts[place]
            return tuple(parts), place
        first += count
    return (), None


def _without_part(delta: Delta, gone: int) -> Delta:
    assert isinstance(delta, RoutedDelta), "a header with parts says so"
    return RoutedDelta([part for place, part in enumerate(delta.parts) if place != gone])


def _extras(adapter: Adapter, names: dict[str, str | None]) -> dict[str, torch.Tensor]:
    """The adapter's extras; those that end in a subject's name follow it."""
    found: dict[str, torch.Tensor] = {}
    for key, value in adapter.extras.items():
        head, dot, subject = key.rpartition(".")
        new = names.get(subject, subject) if dot else subject
        if new is not None:
            found[head + dot + new] = value.detach()
    return found
