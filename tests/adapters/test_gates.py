"""Gated deltas: heard at learned words, and nowhere else, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import AdapterConfig, DeltaSpec, new_adapter
from customvideo.adapters.gates import Gate
from customvideo.adapters.header import metadata
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.backbones.sampling import denoise
from customvideo.errors import AdapterError
from customvideo.generation import SamplingConfig, generate
from customvideo.methods.customvideo import CustomVideo, CustomVideoConfig
from customvideo.subjects.prompt import Prompt
from customvideo.subjects.subject import Subject
from customvideo.tables import import_target
from customvideo.training.trainer import Trainer
from tests.cast import CANVAS, make_cast, short_run

FAMILIES = {
    "unet3d": "tests.tiny:build_tiny_zeroscope",
    "animatediff": "tests.tiny_animatediff:build_tiny_animatediff",
    "wan": "tests.tiny_wan:build_tiny_wan",
    "wan experts": "tests.tiny_wan:build_tiny_wan_experts",
    "ltx": "tests.tiny_ltx:build_tiny_ltx",
    "cogvideox": "tests.tiny_cogvideox:build_tiny_cogvideox",
    "hunyuan": "tests.tiny_hunyuan:build_tiny_hunyuan",
}
SIZE = (5, 64, 96)
PLAIN = "a cat on the beach"
NAMED = "a <tom> cat and a <rex> dog"


@pytest.fixture(scope="module", params=FAMILIES)
def family(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backbone]:
    folder = tmp_path_factory.mktemp("tiny")
    import_target(FAMILIES[request.param])(folder)
    yield load_backbone(folder, device="cpu", dtype="fp32")


def moved(backbone: Backbone, subjects: list[Subject], gate: str, rank: int | None) -> Adapter:
    """An adapter of keys and values whose every parameter is random."""
    paths = dict.fromkeys(backbone.layers("text_kv"), DeltaSpec(rank=rank))
    config = AdapterConfig.model_validate({"gate": gate})
    adapter = new_adapter(backbone, subjects, method="customvideo", paths=paths, config=config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    return adapter


def encoded(backbone: Backbone, text: str, adapter: Adapter | None = None) -> Any:
    return backbone.encode_prompt([Prompt(text, adapter.words if adapter else ()).encoded])


def noise_of(backbone: Backbone, rows: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn((rows, *backbone.latent_shape(*SIZE)), generator=generator)


def some_time(backbone: Backbone, rows: int = 1) -> Tensor:
    return backbone.noise.spread_times(3)[1].expand(rows)


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("gate", ["words", "phrase"])
@torch.no_grad()
def test_prompts_without_learned_words_are_the_base_models(
    family: Backbone, subjects: list[Subject], gate: str, rank: int | None
) -> None:
    latents, time = noise_of(family), some_time(family)
    plain = family.predict(latents, time, encoded(family, PLAIN))
    ungated, gated = (moved(family, subjects, kind, rank) for kind in ("none", gate))
    with ungated.attach(family):
        assert not torch.equal(family.predict(latents, time, encoded(family, PLAIN)), plain)
        everywhere = family.predict(latents, time, encoded(family, NAMED, ungated))
    with gated.attach(family, strength=0):
        words_alone = family.predict(latents, time, encoded(family, NAMED, gated))
    with gated.attach(family):
        assert torch.equal(family.predict(latents, time, encoded(family, PLAIN)), plain)
        there = family.predict(latents, time, encoded(family, NAMED, gated))
    with gated.attach(family, strength=0.5):
        assert torch.equal(family.predict(latents, time, encoded(family, PLAIN)), plain)
        half = family.predict(latents, time, encoded(family, NAMED, gated))
    for one in (everywhere, words_alone, half, plain):
        assert not torch.equal(there, one)
    assert torch.equal(family.predict(latents, time, encoded(family, PLAIN)), plain)


@torch.no_grad()
def test_rows_of_a_batch_are_gated_one_by_one(family: Backbone, subjects: list[Subject]) -> None:
    latents, time = noise_of(family, 2), some_time(family, 2)
    plain = family.predict(latents, time, family.encode_prompt([PLAIN, PLAIN]))
    adapter = moved(family, subjects, "words", None)
    with adapter.attach(family):
        named = Prompt(NAMED, adapter.words).encoded
        both = family.predict(latents, time, family.encode_prompt([named, PLAIN]))
    assert torch.equal(both[1], plain[1]) and not torch.equal(both[0], plain[0])


class Halves:
    """Stands before a backbone and notes what the network said to each guidance half."""

    def __init__(self, backbone: Any) -> None:
        self.backbone = backbone
        self.said: list[tuple[Tensor, Tensor, Tensor]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backbone, name)

    def predict_guided(self, latents: Tensor, time: Tensor, text: Any, negative: Any, _: float):  # type: ignore[no-untyped-def]
        # At 0 the guided prediction is the negative half itself.
        without = self.backbone.predict_guided(latents, time, text, negative, 0.0)
        guided = self.backbone.predict_guided(latents, time, text, negative, 4.0)
        self.said.append((latents, time, without))
        return guided


@torch.no_grad()
def test_the_negative_half_of_a_video_is_the_base_models(
    family: Backbone, subjects: list[Subject]
) -> None:
    adapter, empty = moved(family, subjects, "phrase", 2), family.encode_prompt([""])
    start = noise_of(family)
    if family.family == "hunyuan":
        pytest.skip("no second half: the model is told its guidance")
    seen = {}
    for kind in ("phrase", "none"):
        adapter = moved(family, subjects, kind, 2)
        seen[kind] = Halves(family)
        with adapter.attach(family):
            text = encoded(family, NAMED, adapter)
            solver = family.noise.solvers[1]
            denoise(seen[kind], start, text, empty, steps=3, guidance=4.0, solver=solver)
    plain = encoded(family, PLAIN)
    for kind, same in (("phrase", True), ("none", False)):
        for latents, time, without in seen[kind].said:
            base = family.predict_guided(latents, time, plain, empty, 0.0)
            assert torch.equal(base, without) == same
    assert len(seen["phrase"].said) == 3


@torch.no_grad()
def test_a_video_is_the_same_with_and_without_cached_text(
    family: Backbone, subjects: list[Subject]
) -> None:
    adapter, latents, time = moved(family, subjects, "words", None), noise_of(family), None
    time = some_time(family)
    with adapter.attach(family):
        text, empty = encoded(family, NAMED, adapter), family.encode_prompt([""])
        plain = family.predict_guided(latents, time, text, empty, 4.0)
        with family.cached_text(text, empty):
            first = family.predict_guided(latents, time, text, empty, 4.0)
            again = family.predict_guided(latents, time, text, empty, 4.0)
    torch.testing.assert_close(first, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again, plain, atol=1e-5, rtol=1e-5)


def test_recomputed_layers_are_gated_alike(family: Any, subjects: list[Subject]) -> None:
    adapter = moved(family, subjects, "words", 2)
    found = {}
    for recomputed in (False, True):
        family.checkpointed = recomputed
        adapter.zero_grad(set_to_none=True)
        with adapter.attach(family):
            out = family.predict(
                noise_of(family), some_time(family), encoded(family, NAMED, adapter)
            )
            # Another text is read in between: what is computed again still reads its own.
            with torch.no_grad():
                family.predict(noise_of(family), some_time(family), encoded(family, PLAIN))
            out.square().sum().backward()
        found[recomputed] = [parameter.grad for parameter in adapter.parameters()]
    family.checkpointed = False
    for one, other in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    # Of two experts one alone is asked at this time.
    assert sum(grad is not None and bool(grad.any()) for grad in found[True]) > 4


# Where it is open


def opened(backbone: Any, subjects: list[Subject], gate: Any, text: str) -> Tensor:
    adapter = moved(backbone, subjects, gate, None)
    with adapter.attach(backbone):
        ids = encoded(backbone, text, adapter).ids
        with backbone.reads(ids):
            return Gate(backbone, adapter.tokens, gate, (1, 1))(torch.zeros(3, 32, 16))[..., 0]


def test_it_is_open_at_words_and_at_what_follows(
    backbone: Backbone, subjects: list[Subject]
) -> None:
    # Begin, a, <tom>, cat, and, a, <rex>, dog.
    words = opened(backbone, subjects, "words", NAMED)
    assert words.shape == (2, 3, 32)
    assert [row.nonzero().flatten().tolist() for row in words[0]] == [[2]] * 3
    assert words[1, 0].nonzero().flatten().tolist() == [6]
    phrase = opened(backbone, subjects, "phrase", NAMED)
    assert phrase[:, 0].nonzero().tolist() == [[0, 2], [0, 3], [1, 6], [1, 7]]


def test_what_reads_no_text_cannot_be_gated(backbone: Backbone, subjects: list[Subject]) -> None:
    for group, kind in (("text_qo", "linear"), ("text_kv", "weight")):
        paths = dict.fromkeys(backbone.layers(group), DeltaSpec(kind=kind))  # type: ignore[arg-type]
        with pytest.raises(AdapterError, match=r"only keys and values of text.*gate=none"):
            new_adapter(
                backbone, subjects, method="m", paths=paths, config=AdapterConfig(gate="words")
            )


def test_a_backbone_that_does_not_say_what_it_reads_is_refused(
    backbone: Backbone, subjects: list[Subject]
) -> None:
    adapter = moved(backbone, subjects, "words", None)

    class Silent:
        name = "silent"

    with pytest.raises(AdapterError, match=r"'silent' does not say.*gate=none"):
        Gate(Silent(), adapter.tokens, "words", (2,))  # type: ignore[arg-type]


# In a file and in training


@torch.no_grad()
def test_a_file_keeps_the_gate(backbone: Backbone, subjects: list[Subject], tmp_path: Path) -> None:
    adapter = moved(backbone, subjects, "phrase", 2)
    adapter.save(tmp_path / "a.safetensors")
    loaded = Adapter.load(tmp_path / "a.safetensors")
    assert loaded.header.gate == "phrase"
    said = []
    for one in (adapter, loaded):
        with one.attach(backbone):
            text = encoded(backbone, NAMED, one)
            said.append(backbone.predict(noise_of(backbone), some_time(backbone), text))
    assert torch.equal(*said)
    assert '"gate": "phrase"' in next(iter(metadata(loaded.header).values()))


@pytest.mark.parametrize("rank", [0, 2])
def test_training_with_a_gate(backbone: Backbone, rank: int) -> None:
    config = CustomVideoConfig(compose="paste", gate="words", rank=rank)
    method = CustomVideo(config)
    assert method.prior(backbone, make_cast()) is None
    adapter = Trainer(short_run(steps=2)).fit(backbone, method, make_cast())
    assert adapter.header.gate == "words" and adapter.header.settings["gate"] == "words"
    assert all(bool(delta.merged().any()) for delta in adapter.deltas.values())  # type: ignore[operator]
    options = SamplingConfig(num_steps=2, frames=2, height=CANVAS[0], width=CANVAS[1])
    with pytest.warns(UserWarning, match="no learned word"):
        shown = generate(backbone, adapter, PLAIN, options=options)
    assert np.array_equal(shown.frames, generate(backbone, None, PLAIN, options=options).frames)


def test_queries_cannot_be_gated(backbone: Backbone) -> None:
    method = CustomVideo(CustomVideoConfig(gate="words", train="kvqo"))
    with pytest.raises(AdapterError, match=r"train=kv"):
        method.trainable(backbone, make_cast())
