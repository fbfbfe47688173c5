"""Adapters on a tiny backbone: exact there and back, and every wrong file refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import AdapterConfig, DeltaSpec, key_value_paths, new_adapter
from customvideo.adapters.header import AdapterHeader, metadata, read_file
from customvideo.attention.tape import watch
from customvideo.backbones.base import Backbone
from customvideo.errors import AdapterError, PromptError, StorageError
from customvideo.subjects.subject import Subject
from tests.adapters.conftest import Trained

BASE: dict[str, Any] = {
    "method": "m",
    "family": "f",
    "backbone": "b",
    "fingerprint": "x",
    "words": (),
}
PROMPTS = ["a <tom> cat and a <rex> dog", "a cat on the beach"]


def predict(backbone: Backbone) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(2, *backbone.latent_shape(1, 64, 96), generator=generator)
    with torch.no_grad():
        return backbone.predict(latents, torch.tensor([500, 20]), backbone.encode_prompt(PROMPTS))


def state(backbone: Backbone) -> dict[str, Tensor]:
    parts = nn.ModuleList([backbone.denoiser, backbone.tables()[0].embedding])
    return {name: tensor.clone() for name, tensor in parts.state_dict().items()}


def hooks(backbone: Backbone) -> int:
    modules = [*backbone.denoiser.modules(), backbone.tables()[0].embedding]
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)


def test_a_new_adapter_changes_no_prompt_without_its_words(
    backbone: Backbone, subjects: list[Subject]
) -> None:
    before = predict(backbone)
    adapter = new_adapter(backbone, subjects, method="customvideo")
    assert set(adapter.deltas) == set(key_value_paths(backbone)) and len(adapter.deltas) > 10
    assert [word.word for word in adapter.words] == ["<tom>", "<rex>"]
    with adapter.attach(backbone):
        assert torch.equal(predict(backbone)[1], before[1])


@pytest.mark.parametrize("config", [{}, {"rank": 2, "alpha": 4.0, "vectors": 2}])
def test_saved_and_loaded_it_predicts_bit_for_bit_the_same(
    backbone: Backbone, trained: Trained, config: dict[str, object], tmp_path: Path
) -> None:
    adapter, base = trained(**config), predict(backbone)
    with adapter.attach(backbone):
        expected = predict(backbone)
    adapter.save(tmp_path / "adapter.safetensors")
    loaded = Adapter.load(tmp_path / "adapter.safetensors")
    with loaded.attach(backbone):
        assert torch.equal(predict(backbone), expected)
    assert loaded.header == adapter.header
    assert (expected - base).abs().amax(dim=(1, 2, 3, 4)).gt(1e-4).all()


@pytest.mark.parametrize("fail", [False, True])
def test_detaching_restores_the_base_exactly(
    backbone: Backbone, trained: Trained, fail: bool
) -> None:
    before, weights, tokenizer = predict(backbone), state(backbone), backbone.tables()[0].tokenizer
    try:
        with trained().attach(backbone):
            predict(backbone)
            if fail:
                raise RuntimeError("in the middle")
    except RuntimeError:
        assert fail
    assert hooks(backbone) == 0
    assert backbone.tables()[0].tokenizer is tokenizer
    assert torch.equal(predict(backbone), before)
    after = state(backbone)
    assert all(torch.equal(after[name], tensor) for name, tensor in weights.items())


def test_the_base_is_untouched_while_attached_and_the_handle_detaches(
    backbone: Backbone, trained: Trained
) -> None:
    weights = state(backbone)
    handle = trained().attach(backbone)
    attached = state(backbone)
    assert all(torch.equal(attached[name], tensor) for name, tensor in weights.items())
    assert hooks(backbone) > 0
    handle.detach()
    handle.detach()
    assert hooks(backbone) == 0


def test_a_failed_attach_leaves_nothing_behind(backbone: Backbone, trained: Trained) -> None:
    adapter, again = trained(), trained()
    with adapter.attach(backbone):
        there = hooks(backbone)
        with pytest.raises(PromptError, match="'<tom>' is already a token"):
            again.attach(backbone)
        assert hooks(backbone) == there
    assert hooks(backbone) == 0


def test_strength_scales_the_deltas_and_not_the_words(backbone: Backbone, trained: Trained) -> None:
    adapter = trained()
    path = key_value_paths(backbone)[0]
    layer, inputs = backbone.denoiser.get_submodule(path), torch.randn(3, 16)
    base, delta = layer(inputs), adapter.deltas[path](inputs)
    for strength in (1.0, 0.25, -1.0):
        with adapter.attach(backbone, strength):
            torch.testing.assert_close(layer(inputs), base + strength * delta)
    before = predict(backbone)
    with adapter.attach(backbone, 0.0):
        without = predict(backbone)
    assert torch.equal(without[1], before[1])
    assert not torch.equal(without[0], before[0])


def test_merged_weights_predict_the_same(backbone: Backbone, trained: Trained) -> None:
    adapter = trained(rank=3)
    with adapter.attach(backbone):
        expected = predict(backbone)
    layers = {path: backbone.denoiser.get_submodule(path) for path in adapter.deltas}
    found = {path: cast(Tensor, layer.weight).detach().clone() for path, layer in layers.items()}
    try:
        with torch.no_grad():
            for path, layer in layers.items():
                cast(Tensor, layer.weight).add_(adapter.deltas[path].merged())
        with adapter.attach(backbone, strength=0):
            torch.testing.assert_close(predict(backbone), expected, rtol=1e-4, atol=1e-5)
    finally:
        for path, layer in layers.items():
            cast(Tensor, layer.weight).data.copy_(found[path])


@pytest.mark.parametrize("watch_first", [False, True])
def test_a_tape_hears_the_adapted_keys(
    backbone: Backbone, trained: Trained, watch_first: bool
) -> None:
    adapter, site = trained(), backbone.sites(1, 64, 96)[0]
    words = torch.zeros(2, 1, backbone.tables()[0].max_length)
    words[:, 0, 2] = 1
    maps = []
    for first in (False, watch_first):
        if first:
            with watch(backbone.denoiser, [site], words) as tape, adapter.attach(backbone):
                predict(backbone)
        else:
            with adapter.attach(backbone), watch(backbone.denoiser, [site], words) as tape:
                predict(backbone)
        maps.append(tape.maps()[site.path])
    assert torch.equal(*maps)
    with watch(backbone.denoiser, [site], words) as tape:
        predict(backbone)
    assert not torch.equal(tape.maps()[site.path], maps[0])


def test_gradients_reach_words_and_deltas_only(backbone: Backbone, subjects: list[Subject]) -> None:
    adapter = new_adapter(backbone, subjects, method="customvideo")
    with adapter.attach(backbone):
        latents = torch.randn(2, *backbone.latent_shape(1, 64, 96))
        text = backbone.encode_prompt(PROMPTS)
        backbone.predict(latents, torch.tensor([500, 20]), text).square().sum().backward()
    assert all(parameter.grad is not None for parameter in adapter.parameters())
    assert adapter.tokens.value.grad is not None and adapter.tokens.value.grad.any()
    assert all(parameter.grad is None for parameter in backbone.denoiser.parameters())
    words, weights = adapter.parameter_groups(word_lr=1.0, weight_lr=2.0)
    assert words["params"] == [adapter.tokens.value] and words["lr"] == 1.0
    assert len(weights["params"]) == len(adapter.deltas) and weights["lr"] == 2.0


def test_an_adapter_of_words_alone_has_one_group(
    backbone: Backbone, subjects: list[Subject], tmp_path: Path
) -> None:
    adapter = new_adapter(backbone, subjects, method="words", paths=[])
    assert [group["lr"] for group in adapter.parameter_groups(0.1, 0.2)] == [0.1]
    adapter.save(tmp_path / "words.safetensors")
    assert Adapter.load(tmp_path / "words.safetensors").deltas == {}


def test_the_file_says_what_it_is_and_nothing_private(
    backbone: Backbone, trained: Trained, subjects: list[Subject], tmp_path: Path
) -> None:
    first, second = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    trained().save(first)
    trained().save(second)
    assert first.read_bytes() == second.read_bytes()
    header, _ = read_file(first)
    assert header.method == "customvideo" and header.fingerprint == backbone.fingerprint
    assert [word.category for word in header.words] == ["cat", "dog"]
    assert header.photos == {s.name: s.digest for s in subjects}
    assert header.settings["cache"] == "cache"
    assert header.settings["subjects"] == {"tom": "photos/tom"}
    assert {"customvideo", "torch", "diffusers"} <= set(header.versions)
    assert b"/home" not in first.read_bytes() and str(tmp_path).encode() not in first.read_bytes()


def test_header_text_does_not_depend_on_the_order_of_settings() -> None:
    one = AdapterHeader(**BASE, settings={"a": 1, "b": 2})
    two = AdapterHeader(**BASE, settings={"b": 2, "a": 1})
    assert metadata(one) == metadata(two)


def test_a_backbone_given_by_folder_is_named_without_it(
    backbone: Backbone, subjects: list[Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone, "name", "/home/ada/models/zeroscope")
    assert new_adapter(backbone, subjects, method="m").header.backbone == "zeroscope"


def posing_as(backbone: Backbone, **differences: object) -> Backbone:
    """`backbone`, but for some attributes."""
    names = ("family", "fingerprint", "name", "layer", "device", "tables")
    attributes = {name: getattr(backbone, name) for name in names}
    return cast(Backbone, SimpleNamespace(**attributes | differences))


def test_another_backbone_is_refused(
    backbone: Backbone, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, name = trained(), backbone.name
    path = next(iter(adapter.deltas))
    with pytest.raises(AdapterError, match=f"made for the backbone '{name}' .* weights differ"):
        adapter.attach(posing_as(backbone, name="other", fingerprint="0"))
    with pytest.raises(AdapterError, match=r"cannot be used with 'other' \(dit\)"):
        adapter.attach(posing_as(backbone, name="other", family="dit"))
    for broken, message in ((nn.Linear(3, 16), "8x16, which is 16x3"), (nn.Identity(), "missing")):
        attention: Any = backbone.denoiser.get_submodule(path.rpartition(".")[0])
        monkeypatch.setitem(attention._modules, path.rpartition(".")[2], broken)
        with pytest.raises(AdapterError, match=f"its layer '{path}', .*{message} in"):
            adapter.attach(backbone)
    assert hooks(backbone) == 0


def test_a_path_without_a_linear_layer_is_refused(
    backbone: Backbone, subjects: list[Subject]
) -> None:
    for path in ("nowhere.to_k", "conv_in"):
        with pytest.raises(AdapterError, match=f"no linear layer '{path}'"):
            new_adapter(backbone, subjects, method="m", paths=[path])


def test_a_known_word_is_refused_before_training(
    backbone: Backbone, subjects: list[Subject], trained: Trained
) -> None:
    with trained().attach(backbone), pytest.raises(PromptError, match="'<tom>' is already"):
        new_adapter(backbone, subjects, method="m")


def spoilt_header(kind: str, values: dict[str, Any]) -> dict[str, str]:
    """The metadata of a file whose header is wrong in one way."""
    [key] = metadata(AdapterHeader(**BASE))
    if kind == "foreign":
        return {"format": "pt"}
    if kind == "no json":
        return {key: "{"}
    changes: dict[str, dict[str, Any]] = {
        "newer": {"format_version": 99, "novel": 1},
        "bad header": {"words": [{"name": "A B", "category": "cat"}]},
        "fewer words": {"words": values["words"][:1]},
    }
    return {key: json.dumps(values | changes.get(kind, {}))}


def damage(path: Path, kind: str) -> None:
    """Turn a good adapter file into one that is wrong in one way."""
    good = path.read_bytes()
    header, tensors = read_file(path)
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind in CONTENTS:
        path.write_bytes(CONTENTS[kind](good))
    elif kind != "missing":
        if kind == "no words":
            del tensors["words"]
        if kind == "odd layer":
            tensors["deltas.somewhere.left"] = torch.zeros(2, 2)
        spoilt = spoilt_header(kind, header.model_dump(mode="json"))
        path.write_bytes(safetensors.torch.save(tensors, metadata=spoilt))


CONTENTS = {
    "cut short": lambda good: good[: len(good) // 2],
    "empty": lambda good: b"",
    "text": lambda good: b"dear diary, " * 40,
}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cut short", "not an adapter, or only a part of one"),
        ("empty", "not an adapter, or only a part of one"),
        ("text", "not an adapter, or only a part of one"),
        ("missing", "no adapter file"),
        ("folder", "no adapter file"),
        ("foreign", "holds weights but is not a customvideo adapter"),
        ("newer", "has format 99.* update customvideo"),
        ("no json", "header of .* is damaged"),
        ("bad header", "header of .* is damaged"),
        ("fewer words", "do not match its header"),
        ("no words", "do not match its header"),
        ("odd layer", "do not match its header"),
    ],
)
def test_files_that_are_no_adapter_are_refused_in_one_sentence(
    trained: Trained, tmp_path: Path, kind: str, message: str
) -> None:
    path = tmp_path / "adapter.safetensors"
    trained().save(path)
    damage(path, kind)
    with pytest.raises(AdapterError, match=message) as refused:
        Adapter.load(path)
    assert str(path) in str(refused.value) and str(refused.value).count("\n") == 0


def test_an_unwritable_place_leaves_the_earlier_file(trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    trained().save(path)
    before = path.read_bytes()
    with pytest.raises(StorageError):
        trained().save(path / "below.safetensors")
    assert path.read_bytes() == before


def test_an_adapter_moves_to_the_backbones_device(trained: Trained, backbone: Backbone) -> None:
    adapter = trained()
    with adapter.attach(posing_as(backbone, device=torch.device("meta"))):
        assert adapter.tokens.value.device.type == "meta"
        assert all(parameter.device.type == "meta" for parameter in adapter.parameters())


def test_torchs_seed_moves_a_random_start(backbone: Backbone, subjects: list[Subject]) -> None:
    def start(seed: int | None) -> Tensor:
        config = AdapterConfig(initial="random", seed=seed)
        return new_adapter(backbone, subjects, method="m", config=config).tokens.value.detach()

    with torch.random.fork_rng():
        torch.manual_seed(5)
        drawn = torch.get_rng_state()
        assert torch.equal(start(None), start(5)) and not torch.equal(start(None), start(0))
        assert torch.equal(torch.get_rng_state(), drawn), "a draw was taken from somebody else"


def test_going_on_keeps_what_a_file_does_not_say(
    backbone: Backbone, subjects: list[Subject], tmp_path: Path
) -> None:
    """That the first token trains nothing is a rule of training."""
    paths = dict.fromkeys(backbone.layers("text_kv"), DeltaSpec(holds_first=True))
    earlier = new_adapter(backbone, subjects[:1], method="m", paths=paths)
    earlier.save(tmp_path / "earlier.safetensors")
    later = new_adapter(backbone, subjects, method="m", paths=paths)
    later.go_on_from(Adapter.load(tmp_path / "earlier.safetensors"))
    assert all(delta.holds_first for delta in later.deltas.values())  # type: ignore[attr-defined]


def test_a_runs_folder_is_told_which_file_is_meant(trained: Trained, tmp_path: Path) -> None:
    trained().save(tmp_path / "adapter.safetensors")
    with pytest.raises(AdapterError, match=r"is a folder; give '.*adapter\.safetensors'"):
        Adapter.load(tmp_path)
