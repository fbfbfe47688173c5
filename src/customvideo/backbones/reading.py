"""What text a network reads at this moment, for whatever hooks on its layers have to know.

A projection of text sees states alone; which token each of them came from is known where a
prediction begins, and is kept here while it runs. Nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from customvideo.backbones.base import TextStates, TextTable

__all__ = ["Reading", "TellsReading", "joined_ids"]


@runtime_checkable
class TellsReading(Protocol):
    """A backbone that says what its network reads."""

    reading: Tensor | None
    """Ids (row, token) of the text that the network reads now, of both guidance halves while there
    are two, the negative first; None while it reads nothing. A layer may see each row several
    times, once a frame, and further positions beside the text's."""


class Reading:
    """The part of a backbone that encodes prompts and says which of them its network reads."""

    reading: Tensor | None = None

    def tables(self) -> list[TextTable]:
        """The text encoders' input tables, the main one first."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        raise NotImplementedError

    def _encode(self, texts: Sequence[str]) -> TextStates:
        """The prompts as the text encoders give them, on `text_device`."""
        raise NotImplementedError

    @property
    def text_device(self) -> torch.device:
        """Where the text encoders are."""
        return next(self.tables()[0].embedding.parameters()).device

    def encode_prompt(self, texts: Sequence[str]) -> TextStates:
        """Encode prompts; see `Backbone.encode_prompt`."""
        table = self.tables()[0]
        if table.added is None:
            return _moved(self._encode(texts), self.device)
        new = [text for text in dict.fromkeys(texts) if text not in table.memory]
        if new:
            with torch.no_grad():
                found = _moved(self._encode(new), torch.device("cpu"))
            table.memory |= {text: _row(found, index) for index, text in enumerate(new)}
        whole = _moved(_stacked([table.memory[text] for text in texts]), self.device)
        return replace(whole, states=whole.states + table.added(whole.ids).to(whole.states.dtype))

    @contextmanager
    def reads(self, ids: Tensor | None) -> Iterator[None]:
        """Inside, the network reads the text of `ids` (row, token)."""
        before, self.reading = self.reading, ids
        try:
            yield
        finally:
            self.reading = before

    def recompute(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(*args)`, computed again in the backward pass, when it reads the same text."""
        ids = self.reading

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), self.reads(ids)

        # Reentrant checkpoints lose the gradient of anything captured by a hook.
        return checkpoint(function, *args, use_reentrant=False, context_fn=contexts)


def _moved(text: TextStates, device: torch.device) -> TextStates:
    return _each(text, lambda tensor: tensor.to(device))


def _row(text: TextStates, index: int) -> TextStates:
    return _each(text, lambda tensor: tensor[index : index + 1].clone())


def _each(text: TextStates, change: Callable[[Tensor], Tensor]) -> TextStates:
    told = {one.name: getattr(text, one.name) for one in fields(text)}
    changed: dict[str, Any] = {
        name: None if tensor is None else change(tensor) for name, tensor in told.items()
    }
    return TextStates(**changed)


def _stacked(rows: Sequence[TextStates]) -> TextStates:
    def column(name: str) -> Any:
        found = [getattr(row, name) for row in rows]
        return None if found[0] is None else torch.cat(found)

    return TextStates(**{one.name: column(one.name) for one in fields(TextStates)})


def joined_ids(text: TextStates, negative: TextStates | None) -> Tensor:
    """Ids (row or 2 * row, token) of what the network reads, negative half first."""
    if negative is None:
        return text.ids
    return torch.cat([negative.ids.expand(text.rows, -1), text.ids])
