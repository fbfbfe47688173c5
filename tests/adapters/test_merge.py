"""Merging adapters of subjects trained apart, against the constraint and a solver of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import AdapterConfig, DeltaSpec, new_adapter
from customvideo.adapters.deltas import FullDelta, LowRankDelta
from customvideo.adapters.interference import matrix, measure, prompts_of, read_inputs
from customvideo.adapters.merge import _OWN, _PULL, WAYS, merge_adapters
from customvideo.adapters.tokens import LearnedTokens
from customvideo.adapters.words import renamed, shares_deltas, without
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.errors import AdapterError, PromptError
from customvideo.generation import generate
from customvideo.subjects.prompt import Prompt
from customvideo.subjects.subject import Subject
from tests.cast import make_subject
from tests.tiny_wan import build_tiny_wan, build_tiny_wan_experts

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


# Other ways


def moved(adapter: Adapter, seed: int) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in adapter.parameters():
            value.add_(0.3 * torch.randn(value.shape, generator=generator))
    return adapter


def test_a_sum_of_low_ranks_is_exact_and_stays_low(backbone: Backbone, alone: Any) -> None:
    """Also of different ranks, and of a rank so high that the sum is full."""
    paths = backbone.layers("text_kv")
    for ranks, kind in (((2, 3), LowRankDelta), ((4, 14), FullDelta)):
        first, second = (alone(DeltaSpec(rank=rank))[place] for place, rank in enumerate(ranks))
        merged = merge_adapters([first, second], backbone, how="sum")
        assert list(merged.deltas) == paths
        for path, delta in merged.deltas.items():
            wanted = sum(one.deltas[path].merged() for one in (first, second))  # type: ignore[operator]
            assert isinstance(delta, LowRankDelta | FullDelta)
            torch.testing.assert_close(delta.merged(), wanted)
        # A level of eight channels cannot hold a rank of more.
        assert any(isinstance(delta, kind) for delta in merged.deltas.values())
    small = merge_adapters([first, alone()[1]], backbone, how="sum")
    assert all(isinstance(delta, FullDelta) for delta in small.deltas.values())


def test_a_scale_of_low_ranks_is_summed_too(
    backbone: Backbone, subjects: list[Subject], tmp_path: Path
) -> None:
    made = [
        moved(
            new_adapter(
                backbone,
                [one],
                method="m",
                paths=backbone.layers("text_kv"),
                config=AdapterConfig(rank=2, alpha=alpha),
            ),
            seed,
        )
        for one, alpha, seed in zip(subjects, (1.0, 6.0), (0, 1), strict=True)
    ]
    merge_adapters(made, backbone, how="sum").save(tmp_path / "a.safetensors")
    merged = Adapter.load(tmp_path / "a.safetensors")
    for path, delta in merged.deltas.items():
        wanted = sum(one.deltas[path].merged() for one in made)  # type: ignore[operator]
        torch.testing.assert_close(delta.merged(), wanted)  # type: ignore[operator]


def test_other_layers_can_be_summed(backbone: Backbone, alone: Any) -> None:
    first, second = alone(DeltaSpec(kind="weight"))
    merged = merge_adapters([first, second], backbone, how="sum")
    for path, delta in merged.deltas.items():
        one, other = first.deltas[path].merged(), second.deltas[path].merged()
        assert torch.equal(delta.merged(), one + other)  # type: ignore[operator]
    some = alone(group="text_qo")[1]
    union = merge_adapters([first, some], backbone, how="sum")
    assert set(union.deltas) == {*first.deltas, *some.deltas}
    with pytest.raises(AdapterError, match=r"WeightDelta of <tom> and a FullDelta of <rex>"):
        merge_adapters([first, alone()[1]], backbone, how="sum")


@pytest.mark.parametrize("build", [None, build_tiny_wan, build_tiny_wan_experts])
def test_gradient_fusion_is_the_least_squares_it_says(
    backbone: Backbone, subjects: list[Subject], build: Any, tmp_path: Path
) -> None:
    """Against a solver that descends, and better than it was told nothing."""
    backbone = backbone if build is None else load_backbone(build(tmp_path / "wan"), device="cpu")
    made = [
        moved(new_adapter(backbone, [one], method="m"), seed) for seed, one in enumerate(subjects)
    ]
    merged = merge_adapters(made, backbone, how="gradient")
    rows = torch.cat([one.tokens.value.detach() for one in made])
    tokens = LearnedTokens([one.words[0] for one in made], rows.shape[1], rows)
    with tokens.attach(backbone.tables()[0]):
        given = [
            read_inputs(backbone, [one.encoded for one in prompts_of(own.words, _OWN)])
            for own in made
        ]
    path = backbone.layers("text_kv")[-1]
    states = [inputs.states[path][inputs.read] for inputs in given]
    wanted = [x @ matrix(own.deltas[path]).T for x, own in zip(states, made, strict=True)]
    pull = _PULL * torch.cat(states).square().sum() / states[0].shape[1]
    delta = torch.zeros(wanted[0].shape[1], states[0].shape[1], dtype=torch.float64)
    delta.requires_grad_()
    solver = torch.optim.LBFGS([delta], max_iter=2000, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        errors = [(x @ delta.T - y).square().sum() for x, y in zip(states, wanted, strict=True)]
        total = torch.stack(errors).sum() + pull * delta.square().sum()
        total.backward()
        return total

    for _ in range(5):
        solver.step(loss)
    torch.testing.assert_close(matrix(merged.deltas[path]), delta.detach(), atol=1e-4, rtol=1e-3)


def test_states_are_what_the_layers_are_given(subjects: list[Subject], tmp_path: Path) -> None:
    """Where a projection stands between encoder and attention, and in each of two experts."""
    backbone = load_backbone(build_tiny_wan_experts(tmp_path / "wan"), device="cpu")
    inputs = read_inputs(backbone, ["a cat", "a dog on the beach"])
    path, other = "transformer.blocks.0.attn2.to_k", "transformer_2.blocks.0.attn2.to_k"
    assert inputs.states[path] is inputs.states["transformer.blocks.2.attn2.to_v"]
    assert not torch.equal(inputs.states[path], inputs.states[other])
    with torch.no_grad():
        text = backbone.encode_prompt(["a cat", "a dog on the beach"])
        embedder = backbone.layer("transformer.condition_embedder.text_embedder")
        torch.testing.assert_close(inputs.states[path].float(), embedder(text.states))
    assert text.real is not None and torch.equal(inputs.read, text.real)


def test_a_tokenizer_that_begins_with_nothing_will_do(
    subjects: list[Subject], tmp_path: Path
) -> None:
    backbone = load_backbone(build_tiny_wan(tmp_path / "wan"), device="cpu")
    assert backbone.tables()[0].tokenizer.bos_token_id is None
    paths = dict.fromkeys(backbone.layers("text_kv"), DeltaSpec())
    made = [new_adapter(backbone, [one], method="m", paths=paths) for one in subjects]
    for index, adapter in enumerate(made):
        generator = torch.Generator().manual_seed(index)
        with torch.no_grad():
            for value in adapter.parameters():
                value.add_(0.3 * torch.randn(value.shape, generator=generator))
    for way in WAYS:
        merged = merge_adapters(made, backbone, how=way, captions=CAPTIONS)
        assert [word.name for word in merged.words] == ["tom", "rex"]
        assert all(bool(matrix(delta).any()) for delta in merged.deltas.values())


def test_adapters_without_words_are_summed_alone(backbone: Backbone) -> None:
    paths = dict.fromkeys(backbone.layers("text_kv"), DeltaSpec())
    made = [new_adapter(backbone, [], method="imported", paths=paths) for _ in range(2)]
    path = next(iter(made[0].deltas))
    for adapter in made:
        with torch.no_grad():
            adapter.deltas[path].weight.fill_(1)  # type: ignore[union-attr, operator]
    merged = merge_adapters(made, backbone, how="sum")
    assert not merged.words and bool((matrix(merged.deltas[path]) == 2).all())
    for way in ("closed-form", "gradient"):
        with pytest.raises(AdapterError, match="--how sum"):
            merge_adapters(made, backbone, how=way, captions=CAPTIONS)  # type: ignore[arg-type]


def test_interference_is_measured(backbone: Backbone, alone: Any) -> None:
    adapters = alone()
    made = {way: merge_adapters(adapters, backbone, how=way, captions=CAPTIONS) for way in WAYS}
    nothing = merge_adapters(adapters, backbone, how="sum")
    with torch.no_grad():
        for delta in nothing.deltas.values():
            delta.weight.zero_()  # type: ignore[union-attr, operator]
    costs = measure(backbone, adapters, {**made, "base": nothing})
    assert costs.keys() == {"tom", "rex"}
    for row in costs.values():
        assert row["base"].of_change == pytest.approx(1)
        assert row["gradient"].of_change < 0.8 < row["sum"].of_change
        assert 0 < row["gradient"].of_output < row["gradient"].of_change


# Gated adapters


@pytest.fixture
def gated(backbone: Backbone, subjects: list[Subject]) -> list[Adapter]:
    return [
        moved(
            new_adapter(
                backbone,
                [one],
                method="m",
                paths=dict.fromkeys(backbone.layers("text_kv"), DeltaSpec(rank=rank)),
                config=AdapterConfig(gate="phrase"),
            ),
            seed,
        )
        for seed, (one, rank) in enumerate(zip(subjects, (None, 2), strict=True))
    ]


@torch.no_grad()
def predicted(backbone: Backbone, adapter: Adapter, text: str) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn((1, *backbone.latent_shape(2, 64, 96)), generator=generator)
    with adapter.attach(backbone):
        told = backbone.encode_prompt([Prompt(text, adapter.words).encoded])
        return backbone.predict(latents, torch.tensor([500]), told)


def test_gated_adapters_lose_nothing(
    backbone: Backbone, subjects: list[Subject], gated: list[Adapter], tmp_path: Path
) -> None:
    merge_adapters(gated, backbone, how="sum").save(tmp_path / "a.safetensors")
    merged = Adapter.load(tmp_path / "a.safetensors")
    assert merged.header.parts == (1, 1)
    for own in gated:
        text = f"a {own.words[0].word} on the beach"
        assert torch.equal(predicted(backbone, merged, text), predicted(backbone, own, text))
    for row in measure(backbone, gated, {"sum": merged}).values():
        assert row["sum"].of_change == 0
    # Three, one of them twice routed, and again none is changed.
    third = make_subject("ida", "cat", 5)
    later = new_adapter(backbone, [third], method="m", config=AdapterConfig(gate="phrase"))
    whole = merge_adapters([merged, moved(later, 9)], backbone, how="sum")
    assert whole.header.parts == (1, 1, 1)
    for own in (*gated, later):
        text = f"a {own.words[0].word}"
        assert torch.equal(predicted(backbone, whole, text), predicted(backbone, own, text))
    together = predicted(backbone, whole, "a <tom> and a <rex>")
    assert not torch.equal(together, predicted(backbone, merged, "a <tom>"))
    assert torch.equal(together, predicted(backbone, merged, "a <tom> and a <rex>"))


def test_gated_adapters_are_reconciled_by_no_other_way(
    backbone: Backbone, gated: list[Adapter], alone: Any
) -> None:
    with pytest.raises(AdapterError, match=r"heard at their own words.*--how sum"):
        merge_adapters(gated, backbone, how="gradient")
    with pytest.raises(AdapterError, match=r"gate=none and that of <tom> gate=phrase"):
        merge_adapters([gated[0], alone()[1]], backbone, how="sum")


# Words renamed and removed


def test_a_word_is_renamed(backbone: Backbone, alone: Any) -> None:
    first, _ = alone()
    other = renamed(first, "tom", "tim")
    assert [word.word for word in other.words] == ["<tim>"] and "tim" in other.header.photos
    assert torch.equal(predicted(backbone, other, "a <tim>"), predicted(backbone, first, "a <tom>"))
    assert [word.name for word in merge_adapters([first, other], backbone, how="sum").words] == [
        *("tom", "tim")
    ]
    with pytest.raises(AdapterError, match=r"no 'rex'; it knows 'tom'"):
        renamed(first, "rex", "tim")
    with pytest.raises(PromptError, match="cannot name a subject"):
        renamed(first, "tom", "Tim!")


@pytest.mark.parametrize("kind", ["shared", "gated", "trained together"])
def test_removing_a_word_changes_nothing_for_the_others(
    backbone: Backbone, subjects: list[Subject], alone: Any, gated: list[Adapter], kind: str
) -> None:
    if kind == "trained together":
        config = AdapterConfig(vectors=2, gate="words")
        both = moved(new_adapter(backbone, subjects, method="m", config=config), 4)
    else:
        both = merge_adapters(alone() if kind == "shared" else gated, backbone, how="sum")
    less = without(both, "tom")
    assert [word.name for word in less.words] == ["rex"] and less.header.photos.keys() == {"rex"}
    text = "a <rex> and a cat on the beach"
    assert torch.equal(predicted(backbone, less, text), predicted(backbone, both, text))
    assert shares_deltas(both, "tom") == (kind != "gated")
    if kind == "gated":
        own = gated[1]
        assert torch.equal(predicted(backbone, less, text), predicted(backbone, own, text))
        size, wanted = (sum(value.numel() for value in one.parameters()) for one in (less, own))
        assert size == wanted
    with pytest.raises(PromptError, match=r"<tom> was removed"):
        less.prompt("a <tom> and a <rex>")
    with pytest.raises(PromptError, match=r"<tom> was removed"):
        generate(backbone, less, "a <Tom>")
    with pytest.raises(AdapterError, match="only word"):
        without(less, "rex")
