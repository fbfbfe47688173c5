"""Learned words come out of a real tokenizer and text encoder, and old rows never move."""

from __future__ import annotations

import copy

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from customvideo.adapters.build import initial_rows
from customvideo.adapters.tokens import LearnedTokens, check_words, table_rows
from customvideo.backbones.base import Backbone, TextTable
from customvideo.errors import AdapterError, PromptError
from customvideo.subjects.prompt import LearnedWord, Prompt

TOM, REX = LearnedWord("tom", "cat", 2), LearnedWord("rex", "dog")


@pytest.fixture
def table(backbone: Backbone) -> TextTable:
    return backbone.tables()[0]


def learned(table: TextTable, *words: LearnedWord) -> LearnedTokens:
    width = table_rows(table).shape[1]
    rows = torch.randn(
        sum(w.vectors for w in words), width, generator=torch.Generator().manual_seed(0)
    )
    return LearnedTokens(words, width, rows)


def test_every_vector_is_one_row_and_the_rest_is_untouched(
    backbone: Backbone, table: TextTable
) -> None:
    tokens = learned(table, TOM, REX)
    old = {i: row.clone() for i, row in enumerate(table_rows(table))}
    with tokens.attach(table):
        text = Prompt("a <rex> and a <tom>", (TOM, REX)).encoded
        ids = table.tokenizer(text, return_tensors="pt")["input_ids"][0]
        rows = table.embedding(ids)
        new = [i for i, number in enumerate(ids.tolist()) if number not in old]
        assert table.tokenizer.convert_ids_to_tokens(ids[new]) == ["<rex>", "<tom>", "<tom>_1"]
        assert torch.equal(rows[new], tokens.value[[2, 0, 1]])
        for position, number in enumerate(ids.tolist()):
            if number in old:
                assert torch.equal(rows[position], old[number])


def test_detaching_restores_tokenizer_hooks_and_states(
    backbone: Backbone, table: TextTable
) -> None:
    found = table.tokenizer
    size, before = len(found), backbone.encode_prompt(["a <tom> cat"])
    handle = learned(table, TOM).attach(table)
    during = backbone.encode_prompt(["a <tom> cat"])
    plain = backbone.encode_prompt(["a cat"]).states
    assert not torch.equal(before.ids, during.ids)
    handle.detach()
    handle.detach()
    after = backbone.encode_prompt(["a <tom> cat"])
    assert table.tokenizer is found and len(found) == size
    assert torch.equal(before.ids, after.ids) and torch.equal(before.states, after.states)
    assert torch.equal(plain, backbone.encode_prompt(["a cat"]).states)
    assert not table.embedding._forward_hooks and not table.embedding._forward_pre_hooks


def test_training_with_weight_decay_moves_the_words_and_nothing_else(
    backbone: Backbone, table: TextTable
) -> None:
    tokens = learned(table, TOM, REX)
    words, rows = tokens.value.detach().clone(), table_rows(table).detach().clone()
    plain = backbone.encode_prompt(["a cat on the beach"]).states
    optimizer = torch.optim.AdamW(tokens.parameters(), lr=0.1, weight_decay=0.5)
    with tokens.attach(table):
        backbone.encode_prompt(["a <tom> <tom>_1 cat"]).states.square().sum().backward()
        optimizer.step()
        assert torch.equal(plain, backbone.encode_prompt(["a cat on the beach"]).states)
    assert tokens.value.grad is not None
    assert tokens.value.grad[:2].abs().sum(dim=1).gt(0).all()  # the two vectors of <tom>
    assert not tokens.value.grad[2].any()  # <rex> was not mentioned
    assert not torch.equal(tokens.value[:2], words[:2])
    assert torch.equal(table_rows(table), rows)
    assert torch.equal(plain, backbone.encode_prompt(["a cat on the beach"]).states)


def test_select_weighs_every_token_of_a_word(backbone: Backbone, table: TextTable) -> None:
    tokens = learned(table, TOM, REX)
    with tokens.attach(table):
        texts = ["a <tom> <tom>_1 cat", "<rex> and <rex> and <tom> <tom>_1", "a <tom> cat", "a cat"]
        weights = tokens.select(backbone.encode_prompt(texts).ids)
    assert weights.shape[:2] == (4, 2)
    # Behind the token that begins every text.
    assert weights[0, 0, :5].tolist() == [0, 0, 0.5, 0.5, 0]
    assert weights[1, :, :7].tolist() == [[0, 0, 0, 0, 0, 0.5, 0.5], [0, 0.5, 0, 0.5, 0, 0, 0]]
    # One of the two vectors is not there: less than the whole word.
    assert weights.sum(-1).tolist() == [[1, 0], [1, 1], [0.5, 0], [0, 0]]


def test_two_adapters_words_live_together(backbone: Backbone, table: TextTable) -> None:
    one, two = learned(table, TOM), learned(table, REX)
    with one.attach(table), two.attach(table):
        ids = table.tokenizer("<rex> <tom>", return_tensors="pt")["input_ids"]
        assert torch.equal(
            table.embedding(ids)[0, [1, 2]].detach(),
            torch.stack([two.value[0], one.value[0]]).detach(),
        )
        assert two.select(ids).flatten().tolist() == [0, 1, 0, 0]


def test_words_come_off_in_reverse_order(table: TextTable) -> None:
    found = table.tokenizer
    first = learned(table, TOM).attach(table)
    second = learned(table, REX).attach(table)
    try:
        with pytest.raises(AdapterError, match="detach that one first"):
            first.detach()
    finally:
        second.detach()
        first.detach()
    assert table.tokenizer is found


def test_a_word_that_is_a_token_already_is_refused(table: TextTable) -> None:
    found = table.tokenizer
    with learned(table, REX).attach(table):
        with pytest.raises(PromptError, match=r"'<rex>' is already a token .* another name"):
            learned(table, REX).attach(table)
        check_words(table.tokenizer, [TOM])
    assert table.tokenizer is found


def test_a_word_that_collides_when_lower_cased_is_refused(table: TextTable) -> None:
    longer = copy.deepcopy(table.tokenizer)
    longer.add_tokens(["<Tom>"])
    with pytest.raises(PromptError, match="'<tom>' is already a token"):
        check_words(longer, [TOM])


def test_a_word_that_is_one_ordinary_piece_is_refused(table: TextTable) -> None:
    class Wordy:
        """A vocabulary in which the whole word is one merged piece under another spelling."""

        unk_token_id = 0

        def get_vocab(self) -> dict[str, int]:
            return {"<tom></w>": 5}

        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            return [5]

    with pytest.raises(PromptError, match="'<tom>' is already a token"):
        check_words(Wordy(), [TOM])
    Wordy.unk_token_id = 5
    check_words(Wordy(), [TOM])


def test_a_word_that_does_not_come_out_as_one_id_is_refused(
    table: TextTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(table.tokenizer), "add_tokens", lambda _self, _tokens: 0)
    found = table.tokenizer
    with pytest.raises(PromptError, match="does not read '<tom>' as one token per vector"):
        learned(table, TOM).attach(table)
    assert table.tokenizer is found
    assert not table.embedding._forward_hooks


def test_rows_of_another_width_are_refused(table: TextTable) -> None:
    with pytest.raises(AdapterError, match="3 numbers a vector and the text encoder's have 16"):
        LearnedTokens([REX], 3, torch.zeros(1, 3)).attach(table)


def test_a_padded_table_is_no_obstacle() -> None:
    """T5's table has more rows than its tokenizer has tokens: ids meant for words have old rows."""

    class Short:
        unk_token_id = None

        def __init__(self) -> None:
            self.vocabulary = {"a": 0, "and": 1, "cat": 2}

        def __len__(self) -> int:
            return len(self.vocabulary)

        def get_vocab(self) -> dict[str, int]:
            return self.vocabulary

        def add_tokens(self, tokens: list[str]) -> None:
            for token in tokens:
                self.vocabulary[token] = len(self.vocabulary)

        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            return [self.vocabulary[word] for word in text.split() if word in self.vocabulary]

    table = TextTable(Short(), torch.nn.Embedding(10, 4), 8)
    tokens = LearnedTokens([REX], 4, torch.full((1, 4), 7.0))
    with tokens.attach(table):
        ids = torch.tensor([table.tokenizer.encode("a <rex> cat", add_special_tokens=False)])
        rows = table.embedding(ids)[0]
    assert rows[1].tolist() == [7.0] * 4
    assert torch.equal(rows[[0, 2]], table_rows(table)[[0, 2]])


def test_where_spaces_are_written_into_pieces_none_is_left_over() -> None:
    """T5's vocabulary has a piece of nothing but a space, which would stand before each word."""
    pieces = ("<pad>", "</s>", "<unk>", "▁", "▁a", "▁cat", "▁and", "a", ",")
    spelt = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=2))
    spelt.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=spelt, unk_token="<unk>")

    def read(closes_up: bool) -> list[str]:
        table = TextTable(tokenizer, torch.nn.Embedding(20, 4), 16, closes_up=closes_up)
        tokens = LearnedTokens([TOM], 4, torch.zeros(2, 4))
        with tokens.attach(table):
            ids = table.tokenizer.encode("a <tom> <tom>_1 cat, a <tom> <tom>_1 cat")
            assert tokens.select(torch.tensor([ids])).count_nonzero() == 4
            found: list[str] = table.tokenizer.convert_ids_to_tokens(ids)
        return found

    once = ["▁a", "<tom>", "<tom>_1", "▁cat"]
    assert read(closes_up=True) == [*once, ",", *once]
    assert read(closes_up=False).count("▁") == 4


def test_words_start_at_their_category(table: TextTable) -> None:
    generator = torch.Generator().manual_seed(0)
    pony = LearnedWord("ann", "pony")  # not in the vocabulary: spelt letter by letter
    rows = initial_rows(table, [TOM, pony], "category", generator)
    cat = table.tokenizer.encode("cat", add_special_tokens=False)
    assert len(cat) == 1
    assert torch.equal(rows[0], table_rows(table)[cat[0]])
    assert 0 < (rows[1] - rows[0]).norm() < 0.2 * rows[0].norm()
    pieces = table.tokenizer.encode("pony", add_special_tokens=False)
    assert len(pieces) > 1
    torch.testing.assert_close(rows[2], table_rows(table)[pieces].mean(dim=0))


def test_words_start_at_different_rare_tokens(table: TextTable) -> None:
    rows = initial_rows(table, [TOM, REX], "rare", torch.Generator())
    ktn, pll = (table.tokenizer.encode(w, add_special_tokens=False) for w in ("ktn", "pll"))
    assert torch.equal(rows[0], table_rows(table)[ktn[0]])
    assert torch.equal(rows[2], table_rows(table)[pll[0]])


def test_random_words_look_like_the_table(table: TextTable) -> None:
    many = LearnedWord("tom", "cat", 500)
    rows = initial_rows(table, [many], "random", torch.Generator().manual_seed(0))
    spread, mean = torch.std_mean(table_rows(table), dim=0)
    torch.testing.assert_close(rows.mean(dim=0), mean, rtol=0, atol=0.15 * spread.max().item())
    torch.testing.assert_close(rows.std(dim=0), spread, rtol=0.15, atol=0)
    again = initial_rows(table, [many], "random", torch.Generator().manual_seed(0))
    assert torch.equal(rows, again)
