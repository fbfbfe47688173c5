"""Words learned at the text encoder's output: prompts are encoded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import AdapterConfig, DeltaSpec, new_adapter
from customvideo.adapters.merge import merge_adapters
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.errors import AdapterError
from customvideo.generation import SamplingConfig, generate
from customvideo.methods.customvideo import CustomVideo, CustomVideoConfig
from customvideo.subjects.subject import Subject
from customvideo.training.trainer import Trainer
from tests.cast import make_cast, make_subject, short_run
from tests.tiny import build_tiny_zeroscope
from tests.tiny_cogvideox import build_tiny_cogvideox
from tests.tiny_hunyuan import build_tiny_hunyuan
from tests.tiny_ltx import build_tiny_ltx
from tests.tiny_wan import build_tiny_wan

BUILDERS = (
    build_tiny_zeroscope,
    build_tiny_wan,
    build_tiny_ltx,
    build_tiny_cogvideox,
    build_tiny_hunyuan,
)
OUTPUT = AdapterConfig(space="output")


@pytest.fixture(scope="module", params=BUILDERS, ids=lambda build: build.__name__)
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    build: Callable[[Path], Path] = request.param
    return load_backbone(build(tmp_path_factory.mktemp("tiny")), device="cpu")


def test_a_word_is_its_category_until_it_learns(backbone: Backbone) -> None:
    tom = make_subject("tom", "cat", 0)
    adapter = new_adapter(backbone, [tom], method="customvideo", paths=[], config=OUTPUT)
    texts = ["a <tom> cat on the beach", "a dog"]
    with adapter.attach(backbone), torch.no_grad():
        before = backbone.encode_prompt(texts)
        words = adapter.tokens.select(before.ids)[:, 0] > 0
        adapter.tokens.value += 2.0
        after = backbone.encode_prompt(texts)
    # What is learned stands at the word's own place, and nowhere else.
    moved = (after.states - before.states).abs().amax(dim=-1)
    assert words.sum() == 1
    torch.testing.assert_close(moved, 2.0 * words, atol=1e-5, rtol=0)
    table = backbone.tables()[0]
    assert table.added is None and not table.memory
    if backbone.family == "hunyuan":
        # Its tokenizer reads the space before a learned word as a token, and before "cat" not.
        return
    with torch.no_grad():
        plain = backbone.encode_prompt(["a cat cat on the beach", "a dog"])
    torch.testing.assert_close(before.states, plain.states, atol=1e-5, rtol=1e-5)


def test_a_prompt_is_encoded_once_and_carries_gradient_to_the_word_alone(
    backbone: Backbone,
) -> None:
    tom = make_subject("tom", "cat", 0)
    adapter = new_adapter(backbone, [tom], method="customvideo", paths=[], config=OUTPUT)
    seen: list[int] = []
    with adapter.attach(backbone):
        handle = backbone.tables()[0].embedding.register_forward_hook(
            lambda _module, args, _output: seen.append(len(args[0]))
        )
        texts = ["a <tom> cat", "a dog", "a <tom> cat"]
        first, again = (backbone.encode_prompt(texts) for _ in range(2))
        assert seen == [2] and torch.equal(first.states, again.states)
        handle.remove()
        first.states.sum().backward()
        gradient = adapter.tokens.value.grad
        # Twice in three prompts.
        assert gradient is not None and torch.equal(gradient, torch.full_like(gradient, 2.0))


def test_training_saving_and_generating(backbone: Backbone, tmp_path: Path) -> None:
    config = CustomVideoConfig(word_space="output", prior_weight=0.0, attention_weight=0.1)
    run = short_run(steps=3, word_learning_rate=0.5, canvas=(64, 96), least_cells=0.0)
    adapter = Trainer(run, None).fit(backbone, CustomVideo(config), make_cast())
    assert bool(adapter.tokens.value.any()) and adapter.header.space == "output"
    adapter.save(tmp_path / "adapter.safetensors")
    loaded = Adapter.load(tmp_path / "adapter.safetensors")
    options = SamplingConfig(num_steps=2, frames=1, height=64, width=96, solver="native")
    prompt = " and ".join(f"a {word.word} {word.category}" for word in adapter.words)

    def drawn(one: Adapter) -> Any:
        return generate(backbone, one, prompt, options=options).frames

    learned = drawn(adapter)
    assert (learned == drawn(loaded)).all()
    with torch.no_grad():
        loaded.tokens.value.zero_()
    assert (learned != drawn(loaded)).any()


def test_words_of_both_ends_are_not_merged(backbone: Backbone) -> None:
    made = [
        new_adapter(
            backbone,
            [make_subject(name, "cat", seed)],
            method="customvideo",
            paths=[],
            config=AdapterConfig.model_validate({"space": space}),
        )
        for seed, (name, space) in enumerate([("tom", "input"), ("kit", "output")])
    ]
    with pytest.raises(AdapterError, match="different ends of the text encoder"):
        merge_adapters(made, backbone, how="sum")


@torch.no_grad()
def test_what_is_remembered_of_prompts_ends_with_whatever_is_put_on(
    backbone: Backbone, subjects: list[Subject]
) -> None:
    """A word of the ordinary kind, or a change of the encoder, that comes after prompts were
    encoded and goes before others are."""
    behind = new_adapter(
        backbone, subjects[:1], method="m", paths={}, config=AdapterConfig(space="output")
    )
    before = new_adapter(backbone, subjects[1:], method="m", paths={})
    before.tokens.value.add_(1)
    layers = dict.fromkeys(backbone.layers("encoder"), DeltaSpec(kind="weight"))
    encoder = new_adapter(backbone, [], method="m", paths=layers)
    for delta in encoder.deltas.values():
        for value in delta.parameters():
            value.add_(0.1)

    def encoded() -> Tensor:
        return backbone.encode_prompt(["a <rex> dog"]).states

    for other in (before, encoder):
        with other.attach(backbone), behind.attach(backbone):
            wanted = encoded()
        with behind.attach(backbone):
            alone = encoded()
            with other.attach(backbone):
                assert torch.equal(encoded(), wanted)
            assert torch.equal(encoded(), alone)
        assert not torch.equal(alone, wanted)
