"""Learned words: new rows beside a text encoder's embedding table, which itself stays untouched.

Each vector of a word is one row of one parameter, put in place of the encoder's own row by hooks
on its input embedding. The table is neither resized (that would shrink a padded one) nor trained
with masked gradients (weight decay would still move every old row). Texts are the business of
`customvideo.subjects.prompt`; this file turns their tokens into ids and rows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from customvideo.adapters.attachment import Attachment
from customvideo.backbones.base import TextTable
from customvideo.errors import AdapterError, PromptError
from customvideo.subjects.prompt import LearnedWord, Prompt

if TYPE_CHECKING:
    from transformers import AddedToken

__all__ = [
    "LearnedTokens",
    "WordSpace",
    "added_tokens",
    "category_rows",
    "check_words",
    "table_rows",
]


WordSpace = Literal["input", "output"]
"""Where a word is learned: as a row of the text encoder's input table, or as what is added to what
the encoder puts out where the word stands."""


class LearnedTokens(nn.Module):
    """The vectors of some learned words, in the order of the words' tokens.

    `value` is the one parameter, (row, dim). In the space "output" the encoder reads each word as
    its category, whatever is learned, so that a prompt is encoded once and for all; what other
    tokens know of the word is lost.
    """

    _held: Tensor

    def __init__(
        self,
        words: Sequence[LearnedWord],
        dim: int,
        initial: Tensor,
        space: WordSpace = "input",
    ) -> None:
        """`initial` (row, dim) holds one row per vector of each word, in order.

        Raises:
            PromptError: two words are the same.
        """
        super().__init__()
        self.words = Prompt("", tuple(words)).words
        self.tokens = tuple(token for word in self.words for token in word.tokens)
        assert initial.shape == (len(self.tokens), dim), "one initial row per vector"
        self.value = nn.Parameter(initial.detach().float().clone())
        self.space: WordSpace = space
        self._first: int | None = None
        self.register_buffer("_held", torch.zeros(len(self.tokens), 1, dtype=torch.bool), False)

    def hold(self, names: Collection[str]) -> None:
        """From now on the words of these `names` stay as they are, whatever trains."""
        held = [word.name in names for word in self.words for _ in word.tokens]
        self._held = torch.tensor(held, device=self.value.device)[:, None]

    @property
    def rows(self) -> Tensor:
        """`value`, without gradient for the words that are held."""
        if not bool(self._held.any()):
            return self.value
        return torch.where(self._held, self.value.detach(), self.value)

    def attach(self, table: TextTable) -> Attachment:
        """Teach `table` the words: its tokenizer becomes an extended copy, its rows gain ours.

        Raises:
            PromptError: a word cannot be added; see `check_words`.
            AdapterError: the table's rows have another width.
        """
        width = table_rows(table).shape[-1]
        if width != self.value.shape[1]:
            raise AdapterError(
                f"The learned words have {self.value.shape[1]} numbers a vector and the text "
                f"encoder's have {width}; use the backbone that the adapter was made for."
            )
        found = table.tokenizer
        if not self.words:
            self._first = len(found)
            return Attachment(ExitStack(), lambda: None)
        longer, self._first = _extended(table, self.words, self.tokens)
        undo = ExitStack()
        read = self._learned
        if self.space == "output":
            read = partial(_same, category_rows(table, self.words))
            undo.callback(_forget_added, table, table.added)
            table.added = _sum_of(table.added, self._added)
            table.memory.clear()
        before, after = _substitution(read, len(self.tokens), self._first)
        undo.callback(setattr, table, "tokenizer", found)
        undo.callback(table.embedding.register_forward_pre_hook(before).remove)
        undo.callback(table.embedding.register_forward_hook(after).remove)
        table.tokenizer = longer
        return Attachment(undo, partial(_check_on_top, table, longer))

    def _learned(self) -> Tensor:
        return self.rows

    def _added(self, ids: Tensor) -> Tensor:
        """What the words add to encoded prompts (row, token, dim), 0 where none stands."""
        assert self._first is not None
        at = ids - self._first
        ours = (at >= 0) & (at < len(self.tokens))
        rows = F.embedding(at.clamp(0, len(self.tokens) - 1), self.rows)
        return torch.where(ours[..., None], rows, 0)

    def select(self, ids: Tensor) -> Tensor:
        """Where the words stand in encoded prompts `ids` (row, token).

        Returns:
            float32 weights (row, word, token): 1/n at each of the n tokens of a word, 0 elsewhere.
            They sum to 1 for a word in the prompt, to 0 for one that is not, and to less than 1
            for one whose end was cut off.
        """
        assert self._first is not None, "attach the words before looking for them"
        start, masks = self._first, []
        for word in self.words:
            found = (ids >= start) & (ids < start + word.vectors)
            count = found.sum(dim=-1, keepdim=True).clamp(min=word.vectors)
            masks.append(found.float() / count)
            start += word.vectors
        none = torch.zeros(len(ids), 0, ids.shape[1], device=ids.device)
        return torch.stack(masks, dim=1) if masks else none


def table_rows(table: TextTable) -> Tensor:
    """The encoder's own rows, (token, dim)."""
    rows = table.embedding.weight
    assert isinstance(rows, Tensor)
    return rows


def category_rows(table: TextTable, words: Sequence[LearnedWord]) -> Tensor:
    """Each word's category in the encoder's own rows, their mean, once a vector (row, dim)."""
    found = []
    for word in words:
        ids = table.tokenizer.encode(word.category, add_special_tokens=False)
        found += [table_rows(table)[ids].float().mean(dim=0)] * word.vectors
    return torch.stack(found).detach()


def added_tokens(table: TextTable, tokens: Sequence[str]) -> list[str | AddedToken]:
    """`tokens` as the tokenizer of `table` takes them."""
    if not table.closes_up:
        return list(tokens)
    from transformers import AddedToken

    return [AddedToken(token, lstrip=True) for token in tokens]


def _same(rows: Tensor) -> Tensor:
    return rows


def _sum_of(earlier: Added | None, own: Added) -> Added:
    """What the words of an adapter that was attached before add, and `own`."""
    if earlier is None:
        return own
    before = earlier
    return lambda ids: before(ids) + own(ids)


def _forget_added(table: TextTable, before: Added | None) -> None:
    table.added = before
    table.memory.clear()


def check_words(tokenizer: Any, words: Sequence[LearnedWord]) -> None:
    """Refuse words that a tokenizer already knows as a token of its own, in any case.

    Raises:
        PromptError: names the word.
    """
    known = {token.lower() for token in tokenizer.get_vocab()}
    for word in words:
        for token in word.tokens:
            pieces = tokenizer.encode(token, add_special_tokens=False)
            if token.lower() in known or (len(pieces) == 1 and pieces != [tokenizer.unk_token_id]):
                raise PromptError(
                    f"'{token}' is already a token of the text encoder's vocabulary; give the "
                    f"subject '{word.name}' another name, or detach the adapter that has it."
                )


def _extended(
    table: TextTable, words: Sequence[LearnedWord], tokens: Sequence[str]
) -> tuple[Any, int]:
    """A copy of the tokenizer of `table` that knows `tokens`, and the id of the first of them.

    Raises:
        PromptError: a token is known already, or does not come out as one id.
    """
    tokenizer = table.tokenizer
    check_words(tokenizer, words)
    longer = copy.deepcopy(tokenizer)
    longer.add_tokens(added_tokens(table, tokens))
    first = len(tokenizer)
    wanted = list(range(first, first + len(tokens)))
    for word in words:
        own = [wanted[tokens.index(token)] for token in word.tokens]
        text = Prompt(f"a {word.word} and a", (word,)).encoded
        read = [i for i in longer.encode(text, add_special_tokens=False) if i >= first]
        if read != own:
            raise PromptError(
                f"The text encoder's tokenizer does not read '{word.word}' as one token per "
                "vector; give the subject another name."
            )
    return longer, first


def _check_on_top(table: TextTable, ours: Any) -> None:
    if table.tokenizer is not ours:
        raise AdapterError(
            "Another adapter was attached after this one and is still there; detach that one first."
        )


Hook = Callable[..., Any]
Added = Callable[[Tensor], Tensor]


def _substitution(rows: Callable[[], Tensor], count: int, first: int) -> tuple[Hook, Hook]:
    """Hooks before and after a lookup that answer `count` ids from `first` on with `rows` (row,
    dim)."""
    asked: list[Tensor] = []

    def before(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        ids, *rest = args
        asked[:] = [ids]
        # The table has no row there, or a spare one; row 0 stands in until the hook below.
        return (ids.masked_fill(_ours(ids), 0), *rest)

    def after(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
        ids = asked.pop()
        own = F.embedding((ids - first).clamp(0, count - 1), rows().to(output.device, output.dtype))
        return torch.where(_ours(ids)[..., None], own, output)

    def _ours(ids: Tensor) -> Tensor:
        return (ids >= first) & (ids < first + count)

    return before, after
