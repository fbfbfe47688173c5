"""Several adapters at once, and training that starts from weights without words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import AdapterConfig, DeltaSpec, new_adapter
from customvideo.adapters.deltas import FullDelta, LowRankDelta
from customvideo.adapters.together import Together
from customvideo.backbones.base import Backbone
from customvideo.backbones.reading import TellsReading
from customvideo.errors import AdapterError, ConfigError, PromptError
from customvideo.generation import SamplingConfig, generate, generate_with_attention
from customvideo.methods.customvideo import CustomVideo, CustomVideoConfig
from customvideo.subjects.subject import Subject
from customvideo.training.trainer import Trainer
from tests.adapters.conftest import subject
from tests.cast import make_cast, short_run

OPTIONS = SamplingConfig(num_steps=2, frames=2, height=64, width=96)
BOTH = "a <tom> cat and a <rex> dog"

Make = Callable[..., Adapter]


@pytest.fixture
def make(backbone: Backbone) -> Make:
    """An adapter of some subjects whose every parameter is random."""

    def made(seed: int, *found: Subject, rank: int | None = None, **config: object) -> Adapter:
        paths = dict.fromkeys(backbone.layers("text_kv"), DeltaSpec(rank=rank))
        adapter = new_adapter(
            backbone,
            found,
            method="customvideo" if found else "imported",
            paths=paths,
            config=AdapterConfig.model_validate(config),
        )
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        return adapter

    return made


@pytest.fixture
def tom(make: Make) -> Adapter:
    return make(1, subject("tom", "cat"))


@pytest.fixture
def rex(make: Make) -> Adapter:
    return make(2, subject("rex", "dog"), rank=2)


@torch.no_grad()
def states(backbone: Backbone, text: str) -> torch.Tensor:
    return backbone.encode_prompt([text]).states


def test_words_of_both_are_read_and_deltas_add_up(
    backbone: Backbone, tom: Adapter, rex: Adapter
) -> None:
    together = Together([tom, rex])
    assert [word.name for word in together.words] == ["tom", "rex"]
    path = backbone.layers("text_kv")[0]
    layer, given = backbone.layer(path), torch.randn(1, 3, tom.deltas[path].shape[1])
    with torch.no_grad():
        base = layer(given)
        before = backbone.encode_prompt(["a cat and a dog"])
        with together.attach(backbone):
            ids = backbone.encode_prompt([together.prompt(BOTH).encoded]).ids
            assert together.select(ids).sum(dim=-1).tolist() == [[1, 1]]
            assert together.select(ids).argmax(dim=-1).diff().item() > 0
            found = layer(given)
        added = tom.deltas[path](given) + rex.deltas[path](given)
        torch.testing.assert_close(found, base + added)
        assert torch.equal(layer(given), base)
        assert torch.equal(backbone.encode_prompt(["a cat and a dog"]).states, before.states)


def test_each_keeps_its_own_gate(backbone: Backbone, make: Make) -> None:
    tom = make(1, subject("tom", "cat"), gate="words")
    rex = make(2, subject("rex", "dog"), gate="phrase")
    plain = generate(backbone, None, "a cat", options=OPTIONS)
    with pytest.warns(UserWarning, match="no learned word"):
        gated = generate(backbone, [tom, rex], "a cat", options=OPTIONS)
    assert (plain.frames == gated.frames).all()
    one = generate(backbone, tom, "a <tom> cat", options=OPTIONS)
    both = generate(backbone, [tom, rex], "a <tom> cat", options=OPTIONS)
    assert isinstance(backbone, TellsReading)
    assert (one.frames == both.frames).all()
    assert (generate(backbone, [tom, rex], BOTH, options=OPTIONS).frames != one.frames).any()


def test_words_learned_behind_the_encoder_stand_side_by_side(
    backbone: Backbone, make: Make
) -> None:
    tom = make(1, subject("tom", "cat"), space="output")
    rex = make(2, subject("rex", "dog"), space="output")
    table = backbone.tables()[0]
    with Together([tom, rex]).attach(backbone):
        both = states(backbone, BOTH)
        with torch.no_grad():
            tom.tokens.value.zero_()
        without = states(backbone, BOTH)
    assert table.added is None and not table.memory
    assert ((both - without).abs().amax(dim=-1) > 0).sum() == 1
    with tom.attach(backbone):
        plain = states(backbone, "a <tom> cat")
    assert torch.equal(plain[0, 3], states(backbone, "a cat cat")[0, 3])


def test_weights_without_words_go_along(backbone: Backbone, tom: Adapter, make: Make) -> None:
    style = make(3, rank=2)
    alone = generate(backbone, tom, "a <tom> cat", options=OPTIONS)
    video, maps = generate_with_attention(backbone, [tom, style], "a <tom> cat", options=OPTIONS)
    assert (video.frames != alone.frames).any() and list(maps) == ["<tom>"]
    same = generate(backbone, [style, tom], "a <tom> cat", options=OPTIONS)
    np.testing.assert_allclose(same.frames, video.frames.astype(float), atol=1)


def test_one_in_a_list_is_that_one(backbone: Backbone, tom: Adapter) -> None:
    alone = generate(backbone, tom, "a <tom> cat", options=OPTIONS)
    assert (generate(backbone, [tom], "a <tom> cat", options=OPTIONS).frames == alone.frames).all()
    base = generate(backbone, [], "a cat", options=OPTIONS)
    assert (base.frames == generate(backbone, None, "a cat", options=OPTIONS).frames).all()


def test_the_same_word_twice_is_refused(backbone: Backbone, tom: Adapter, make: Make) -> None:
    other = make(4, subject("tom", "dog"))
    with pytest.raises(AdapterError, match=r"word '<tom>'; .*--rename tom=NAME"):
        generate(backbone, [tom, other], "a <tom> cat", options=OPTIONS)
    assert not backbone.tables()[0].embedding._forward_hooks


def test_a_method_that_draws_in_its_own_way_stays_alone(
    backbone: Backbone, tom: Adapter, rex: Adapter
) -> None:
    own = Adapter(rex.header.model_copy(update={"method": "mudi"}), rex.tokens, rex.deltas)
    with pytest.raises(ConfigError, match="'mudi' draws in a way of its own"):
        generate(backbone, [tom, own], BOTH, options=OPTIONS)


def test_a_removed_word_is_refused_unless_another_has_it(
    backbone: Backbone, tom: Adapter, rex: Adapter, make: Make
) -> None:
    less = Adapter(rex.header.model_copy(update={"removed": ("ida",)}), rex.tokens, rex.deltas)
    with pytest.raises(PromptError, match="<ida> was removed"):
        Together([tom, less]).prompt("a <ida> cat")
    ida = make(5, subject("ida", "cat"))
    assert Together([ida, less]).prompt("a <ida> cat").mentioned[0].name == "ida"


@pytest.mark.parametrize("rank", [0, 3])
def test_training_starts_from_weights_of_another_trainer(
    backbone: Backbone, tmp_path: Path, rank: int
) -> None:
    """All that they change is there at the first step, trains on, and is in the file."""
    keys, own = backbone.layers("text_kv"), backbone.layers("self")[:2]
    paths = dict.fromkeys([*keys[:4], *own], DeltaSpec(rank=2))
    style = new_adapter(backbone, [], method="imported", paths=paths)
    with torch.no_grad():
        for parameter in style.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    style.save(tmp_path / "style.safetensors")
    config = CustomVideoConfig(prior_weight=0.0, compose="paste", rank=rank)
    options = short_run(steps=1, learning_rate=1e-9, start_from=str(tmp_path / "style.safetensors"))
    adapter = Trainer(options, tmp_path / "run").fit(backbone, CustomVideo(config), make_cast())
    assert set(adapter.deltas) == {*keys, *own}
    for path, found in style.deltas.items():
        kept = adapter.deltas[path]
        assert isinstance(found, LowRankDelta)
        assert isinstance(kept, FullDelta if path in keys and not rank else LowRankDelta)
        torch.testing.assert_close(kept.merged(), found.merged())
    adapter.save(tmp_path / "a.safetensors")
    again = Adapter.load(tmp_path / "a.safetensors")
    trained = Trainer(
        options.model_copy(update={"learning_rate": 1e-2, "steps": 3}), tmp_path / "more"
    ).fit(backbone, CustomVideo(config), make_cast())
    for path in (keys[0], own[0]):
        assert torch.equal(again.deltas[path].merged(), adapter.deltas[path].merged())
        assert not torch.equal(trained.deltas[path].merged(), adapter.deltas[path].merged())
