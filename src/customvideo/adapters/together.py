"""Several adapters on one backbone at once: subjects learned apart, or a style beside them.

Nothing is merged and nothing is solved: their deltas add up where they meet, and each keeps its own
method, ranks and gates. One adapter of several that is to be trained on or handed on is
`customvideo.adapters.merge`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TypeAlias

import torch
from torch import Tensor

from customvideo.adapters.adapter import Adapter, asked_of
from customvideo.adapters.attachment import Attachment
from customvideo.backbones.base import Backbone
from customvideo.errors import AdapterError
from customvideo.subjects.prompt import LearnedWord, Prompt

__all__ = ["Learned", "Together"]


class Together:
    """Adapters that are put on and taken off together, in their order."""

    def __init__(self, adapters: Sequence[Adapter]) -> None:
        """Raises:
        AdapterError: two of them have a word of the same name.
        """
        self.adapters = tuple(adapters)
        seen: set[str] = set()
        for word in self.words:
            if word.name in seen:
                raise AdapterError(
                    f"Two of the adapters have a word '{word.word}'; give one of them another, "
                    f"with customvideo merge --rename {word.name}=NAME, or leave one out."
                )
            seen.add(word.name)

    @property
    def words(self) -> tuple[LearnedWord, ...]:
        """The learned words of all, in the order of the adapters."""
        return tuple(word for adapter in self.adapters for word in adapter.words)

    def prompt(self, text: str) -> Prompt:
        """`text` with the words that it may use.

        Raises:
            PromptError: it names a subject that was removed from an adapter, and none has it.
        """
        removed = [name for adapter in self.adapters for name in adapter.header.removed]
        return asked_of(self.words, removed, text)

    def select(self, ids: Tensor) -> Tensor:
        """Where the words stand in encoded prompts, as `Adapter.select`."""
        return torch.cat([adapter.select(ids) for adapter in self.adapters], dim=1)

    def attach(self, backbone: Backbone, strength: float = 1.0) -> Attachment:
        """Put all of them on `backbone`, as `Adapter.attach`; all or none.

        Raises:
            AdapterError, PromptError: as `Adapter.attach`.
        """
        self.check_fits(backbone)
        with ExitStack() as undo:
            check: Callable[[], None] = _nothing
            for adapter in self.adapters:
                handle = adapter.attach(backbone, strength)
                undo.callback(handle.detach)
                # The last with words is the one on top of the tokenizer.
                check = handle.check if adapter.words else check
            return Attachment(undo.pop_all(), check)

    def check_fits(self, backbone: Backbone) -> None:
        """Refuse any backbone but the one that all were made for.

        Raises:
            AdapterError: says what differs.
        """
        for adapter in self.adapters:
            adapter.check_fits(backbone)


def _nothing() -> None:
    pass


Learned: TypeAlias = Adapter | Together
"""What can be on a backbone when videos are drawn."""
