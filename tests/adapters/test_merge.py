"""Merging adapters of subjects trained apart, against the constraint and a solver of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import DeltaSpec, new_adapter
from customvideo.adapters.merge import merge_adapters
from customvideo.backbones.base import Backbone
from customvideo.errors import AdapterError, PromptError
from customvideo.subjects.subject import Subject

CAPTIONS = [
    *("a dog on the beach", "the man in a car", "a good picture of a bear", "running"),
    *("a duck and a bear walking on grass", "street with a car", "video of the beach"),
]
NAMING = ("a <{}> {}", "a photo of a <{}> {}")


@pytest.fixture
def alone(backbone: Backbone, subjects: list[Subject]) -> Callable[..., list[Adapter]]:
    """Make an adapter of keys and values for each subject, as if trained apart."""

    def make(spec: DeltaSpec | None = None, group: Any = "text_kv") -> list[Adapter]:
        paths = dict.fromkeys(backbone.layers(group), spec or DeltaSpec(holds_first=True))
        made = []
        for index, one in enumerate(subjects):
            adapter = new_adapter(
                backbone, [one], method="m", paths=paths, settings={"same": 1, "own": index}
            )
            generator = torch.Generator().manual_seed(index)
            with torch.no_grad():
                for value in adapter.parameters():
                    value.add_(0.3 * torch.randn(value.shape, generator=generator))
            made.append(adapter)
        return made

    return make


def said(backbone: Backbone, adapter: Adapter, texts: list[str]) -> dict[str, Tensor]:
    """Outputs (row, token, width) of every layer that reads text, with `adapter` attached."""
    with torch.no_grad(), adapter.attach(backbone):
        states = backbone.encode_prompt(texts).states
        return {path: backbone.layer(path)(states) for path in backbone.layers("text_kv")}


def spans(backbone: Backbone, adapter: Adapter, texts: list[str]) -> list[slice]:
    """From the learned word to the end of each text."""
    with torch.no_grad(), adapter.attach(backbone):
        ids = backbone.encode_prompt(texts).ids
        starts = [int((row > 0).int().argmax()) for row in adapter.tokens.select(ids).amax(dim=1)]
    end = backbone.tables()[0].tokenizer.eos_token_id
    return [
        slice(a, int((row == end).int().argmax()) + 1) for a, row in zip(starts, ids, strict=True)
    ]


@pytest.mark.parametrize("spec", [DeltaSpec(holds_first=True), DeltaSpec(rank=2)])
def test_each_subject_keeps_its_own_keys_and_values(
    backbone: Backbone, subjects: list[Subject], alone: Any, spec: DeltaSpec, tmp_path: Path
) -> None:
    adapters = alone(spec)
    before = [value.clone() for one in adapters for value in one.parameters()]
    merged = merge_adapters(adapters, backbone, captions=CAPTIONS)
    after = [value for one in adapters for value in one.parameters()]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    merged.save(tmp_path / "both.safetensors")
    merged = Adapter.load(tmp_path / "both.safetensors")
    assert [word.name for word in merged.words] == ["tom", "rex"]
    assert merged.header.photos.keys() == {"tom", "rex"}
    assert merged.header.settings == {"same": 1}
    for adapter, one in zip(adapters, subjects, strict=True):
        texts = [naming.format(one.name, one.category) for naming in NAMING]
        own, both = said(backbone, adapter, texts), said(backbone, merged, texts)
        for path, values in own.items():
            for row, span in enumerate(spans(backbone, adapter, texts)):
                torch.testing.assert_close(
                    both[path][row, span], values[row, span], atol=1e-3, rtol=1e-3
                )


def states(backbone: Backbone, adapter: Adapter, texts: list[str]) -> tuple[Tensor, Tensor]:
    with torch.no_grad(), adapter.attach(backbone):
        encoded = backbone.encode_prompt(texts)
    return encoded.states.double(), encoded.ids


def test_captions_change_as_little_as_the_subjects_allow(
    backbone: Backbone, subjects: list[Subject], alone: Any
) -> None:
    """The optimum of the constrained problem, solved through its Lagrangian's linear system."""
    adapters = alone()
    merged = merge_adapters(adapters, backbone, captions=CAPTIONS)
    end = backbone.tables()[0].tokenizer.eos_token_id
    ordinary, ids = states(backbone, merged, CAPTIONS)
    rows = [
        one[1 : int((row == end).int().argmax()) + 1]
        for one, row in zip(ordinary, ids, strict=True)
    ]
    square = torch.cat(rows).T @ torch.cat(rows)
    square += 1e-6 * square.diagonal().mean() * torch.eye(16, dtype=torch.float64)
    path = backbone.layers("text_kv")[0]
    named, wanted = [], []
    for adapter, one in zip(adapters, subjects, strict=True):
        texts = [naming.format(one.name, one.category) for naming in NAMING]
        found, _ = states(backbone, adapter, texts)
        spanned = [row[s] for row, s in zip(found, spans(backbone, adapter, texts), strict=True)]
        named += spanned
        matrix = adapter.deltas[path].weight.detach().double()  # type: ignore[union-attr]
        wanted += [row @ matrix.T for row in spanned]
    asked = torch.cat(named)
    count = len(asked)
    system = torch.zeros(16 + count, 16 + count, dtype=torch.float64)
    system[:16, :16], system[:16, 16:], system[16:, :16] = square, asked.T, asked
    right = torch.cat([torch.zeros(16, wanted[0].shape[1], dtype=torch.float64), torch.cat(wanted)])
    optimum = torch.linalg.solve(system, right)[:16].T
    weight = merged.deltas[path].weight.detach().double()  # type: ignore[union-attr]
    torch.testing.assert_close(weight, optimum, atol=1e-3, rtol=1e-2)


def test_where_two_ask_different_things_of_one_place_it_is_their_mean(
    backbone: Backbone, subjects: list[Subject], alone: Any
) -> None:
    adapters = alone()
    with torch.no_grad():
        adapters[1].tokens.value.copy_(adapters[0].tokens.value)
    merged = merge_adapters(adapters, backbone, captions=CAPTIONS)
    path = backbone.layers("text_kv")[0]
    texts = [NAMING[0].format(one.name, one.category) for one in subjects]
    # Both words stand third, after what begins the text and its article.
    one, other = (
        said(backbone, adapter, [text])[path][0, 2]
        for adapter, text in zip(adapters, texts, strict=True)
    )
    both = said(backbone, merged, texts)[path][:, 2]
    torch.testing.assert_close(both, ((one + other) / 2).expand(2, -1), atol=1e-3, rtol=1e-3)
    assert (one - other).abs().max() > 0.1


def test_what_cannot_be_merged_says_why(
    backbone: Backbone, subjects: list[Subject], alone: Any
) -> None:
    first, second = alone()
    elsewhere = alone(group="text_qo")
    everything = alone(DeltaSpec(kind="weight"))
    other = Adapter(second.header.model_copy(update={"method": "n"}), second.tokens, second.deltas)
    for adapters, captions, message in (
        ([first], CAPTIONS, "two adapters or more"),
        ([first, second], [], "captions of ordinary pictures"),
        ([first, other], CAPTIONS, "<rex> was not trained as the first one"),
        (elsewhere, CAPTIONS, "<tom> changes more than the keys and values"),
        (everything, CAPTIONS, "<tom> changes more than the keys and values"),
        ([first, second.with_extras({"x": torch.zeros(1)})], CAPTIONS, "<rex> changes more"),
    ):
        with pytest.raises(AdapterError, match=message):
            merge_adapters(adapters, backbone, captions=captions)
    with pytest.raises(PromptError, match="share the word '<tom>'"):
        merge_adapters([first, first], backbone, captions=CAPTIONS)
