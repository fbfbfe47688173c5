"""Deltas start at zero and equal the matrix they merge to."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from customvideo.adapters.deltas import Delta, FullDelta, LowRankDelta, WeightDelta
from customvideo.backbones.base import Backbone


def make(kind: str) -> Delta:
    return FullDelta(6, 4) if kind == "full" else LowRankDelta(6, 4, 2, alpha=3.0)


@pytest.mark.parametrize("kind", ["full", "low rank"])
def test_a_new_delta_adds_exactly_nothing(kind: str) -> None:
    assert not make(kind)(torch.randn(5, 3, 4)).any()


@pytest.mark.parametrize("kind", ["full", "low rank"])
def test_merged_is_the_same_map(kind: str) -> None:
    delta, inputs = make(kind), torch.randn(5, 3, 4)
    for parameter in delta.parameters():
        torch.nn.init.normal_(parameter)
    assert delta.merged().shape == (6, 4)
    torch.testing.assert_close(delta(inputs), inputs @ delta.merged().T)


def test_low_rank_is_scaled_by_alpha_over_rank() -> None:
    delta = LowRankDelta(2, 2, 1, alpha=0.5)
    with torch.no_grad():
        delta.down.copy_(torch.tensor([[1.0, 2.0]]))
        delta.up.copy_(torch.tensor([[10.0], [20.0]]))
    assert delta(torch.tensor([1.0, 1.0])).tolist() == [15.0, 30.0]


def test_low_rank_starts_where_its_generator_says() -> None:
    one, two = (
        LowRankDelta(6, 4, 2, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)
    )
    again = LowRankDelta(6, 4, 2, generator=torch.Generator().manual_seed(1))
    assert torch.equal(one.down, again.down)
    assert not torch.equal(one.down, two.down)


def test_weights_stay_float32_beside_a_half_precision_layer() -> None:
    delta = make("low rank")
    assert delta(torch.randn(3, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert delta.down.dtype == torch.float32


def test_weights_come_off_in_any_order(backbone: Backbone) -> None:
    path = backbone.layers("text_kv")[0]
    layer: Any = backbone.layer(path)
    own, seen = layer.weight.detach().clone(), torch.ones(1, layer.weight.shape[1])

    def adds() -> float:
        with torch.no_grad():
            return float((layer(seen) - seen @ own.T).mean()) / seen.numel()

    deltas = [WeightDelta(layer.weight, layer.bias) for _ in range(2)]
    for value, delta in enumerate(deltas, start=1):
        with torch.no_grad():
            delta.added_weight.fill_(value)
    for first, left in ((0, 2.0), (1, 1.0)):
        undo = [delta.attach(backbone, path, 1.0) for delta in deltas]
        assert adds() == pytest.approx(3, abs=1e-4)
        undo[first]()
        assert adds() == pytest.approx(left, abs=1e-4)
        undo[1 - first]()
        assert adds() == 0 and "forward" not in layer.__dict__
    assert torch.equal(layer.weight, own)
