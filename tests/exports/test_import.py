"""Other trainers' files become adapters, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import DeltaSpec
from customvideo.adapters.deltas import FullDelta, LowRankDelta, WeightDelta
from customvideo.backbones.base import Backbone
from customvideo.errors import AdapterError
from customvideo.exports.base import export
from customvideo.exports.importing import import_adapter
from customvideo.exports.order import Order
from customvideo.generation import SamplingConfig, generate, generate_with_attention
from tests.exports.conftest import learned

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RANK, DIM = 2, 24
DOWN = torch.randn(RANK, DIM, generator=torch.Generator().manual_seed(1))
UP = torch.randn(DIM, RANK, generator=torch.Generator().manual_seed(2))
PATH = "blocks.1.attn2.to_k"

FORMATS: dict[str, Callable[[], dict[str, Tensor]]] = {
    "comfyui": lambda: pair("diffusion_model.blocks.1.cross_attn.k", "lora_A", "lora_B"),
    "published, no prefix": lambda: pair(
        "blocks.1.cross_attn.k", "lora_A.default", "lora_B.default"
    ),
    "diffusers": lambda: pair("transformer.blocks.1.attn2.to_k", "lora_A", "lora_B"),
    "older diffusers": lambda: pair("transformer.blocks.1.attn2.to_k", "lora.down", "lora.up"),
    "an adapter with a name": lambda: pair(
        "transformer.blocks.1.attn2.to_k", "lora_A.mine", "lora_B.mine"
    ),
    "peft of published names": lambda: pair(
        "base_model.model.diffusion_model.blocks.1.cross_attn.k", "lora_A", "lora_B"
    ),
    "kohya, two lines": lambda: pair("lora_unet__blocks_1_cross_attn_k", "lora_down", "lora_up"),
    "peft": lambda: pair("base_model.model.blocks.1.attn2.to_k", "lora_A", "lora_B"),
    "kohya": lambda: {
        **pair("lora_unet_blocks_1_cross_attn_k", "lora_down", "lora_up"),
        "lora_unet_blocks_1_cross_attn_k.alpha": torch.tensor(float(RANK)),
    },
    "comfyui, kohya's parts": lambda: pair(
        "diffusion_model.blocks.1.cross_attn.k", "lora_down", "lora_up"
    ),
}


def pair(name: str, down: str, up: str) -> dict[str, Tensor]:
    return {f"{name}.{down}.weight": DOWN, f"{name}.{up}.weight": UP}


def saved(tmp_path: Path, tensors: dict[str, Tensor], name: str = "other.safetensors") -> Path:
    save_file({key: value.clone() for key, value in tensors.items()}, tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("form", FORMATS)
def test_every_way_to_name_a_layer(wan: Backbone, form: str, tmp_path: Path) -> None:
    adapter = import_adapter(saved(tmp_path, FORMATS[form]()), wan)
    assert set(adapter.deltas) == {PATH} and adapter.words == ()
    delta = adapter.deltas[PATH]
    assert isinstance(delta, LowRankDelta)
    assert (delta.merged() - UP @ DOWN).abs().max() <= 1e-6


def test_alpha_is_a_scale(wan: Backbone, tmp_path: Path) -> None:
    tensors = FORMATS["kohya"]() | {"lora_unet_blocks_1_cross_attn_k.alpha": torch.tensor(1.0)}
    delta: Any = import_adapter(saved(tmp_path, tensors), wan).deltas[PATH]
    assert (delta.merged() - UP @ DOWN / RANK).abs().max() <= 1e-6


def test_pefts_alpha_stands_in_its_config(wan: Backbone, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": 8}))
    file = saved(tmp_path, FORMATS["peft"](), "adapter_model.safetensors")
    delta: Any = import_adapter(file, wan).deltas[PATH]
    assert (delta.merged() - UP @ DOWN * 4).abs().max() <= 1e-5


def test_full_matrices_and_biases(wan: Backbone, tmp_path: Path) -> None:
    name = "diffusion_model.blocks.0.cross_attn.v"
    tensors = {
        f"{name}.diff": UP @ DOWN,
        "diffusion_model.blocks.0.cross_attn.o.diff_b": torch.ones(DIM),
    }
    deltas = import_adapter(saved(tmp_path, tensors), wan).deltas
    assert isinstance(deltas["blocks.0.attn2.to_v"], FullDelta)
    biased = deltas["blocks.0.attn2.to_out.0"]
    assert isinstance(biased, WeightDelta) and biased.added_bias is not None
    assert torch.equal(biased.added_bias, torch.ones(DIM)) and not biased.added_weight.any()


@pytest.mark.parametrize(
    ("family", "target"),
    [
        ("wan", "comfyui"),
        ("wan", "kohya"),
        ("ltx", "comfyui"),
        ("animatediff", "comfyui"),
        ("animatediff", "kohya"),
    ],
)
def test_what_is_exported_comes_back(
    family: str, target: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    backbone: Backbone = request.getfixturevalue(family)
    adapter = learned(backbone, rank=4)
    export(Order(adapter, backbone, target), tmp_path / "out")
    (file,) = (tmp_path / "out" / "loras").iterdir()
    again = import_adapter(file, backbone)
    assert set(again.deltas) == set(adapter.deltas)
    for path, delta in adapter.deltas.items():
        own: Any = delta
        other: Any = again.deltas[path]
        assert (own.merged() - other.merged()).abs().max() <= 1e-5


@pytest.mark.parametrize("group", ["text_kv", "text_qo"])
def test_custom_diffusions_weights_come_back(unet3d: Backbone, group: Any, tmp_path: Path) -> None:
    adapter = learned(unet3d, dict.fromkeys(unet3d.layers(group), DeltaSpec()))
    export(Order(adapter, unet3d, "diffusers"), tmp_path / "out")
    file = tmp_path / "out" / "pytorch_custom_diffusion_weights.safetensors"
    again = import_adapter(file, unet3d)
    for path, delta in adapter.deltas.items():
        own: Any = delta
        other: Any = again.deltas[path]
        assert isinstance(other, FullDelta)
        assert (own.merged() - other.merged()).abs().max() <= 1e-6


def test_experts_are_told_apart_by_the_files_name(wan_experts: Backbone, tmp_path: Path) -> None:
    tensors = FORMATS["comfyui"]()
    low = import_adapter(saved(tmp_path, tensors, "cat_LOW_noise.safetensors"), wan_experts)
    assert set(low.deltas) == {f"transformer_2.{PATH}"}
    both = {
        **pair("transformer.blocks.0.attn2.to_k", "lora_A", "lora_B"),
        **pair("transformer_2.blocks.0.attn2.to_k", "lora_A", "lora_B"),
    }
    assert set(import_adapter(saved(tmp_path, both), wan_experts).deltas) == {
        "transformer.blocks.0.attn2.to_k",
        "transformer_2.blocks.0.attn2.to_k",
    }
    with pytest.raises(AdapterError, match="which of the two experts"):
        import_adapter(saved(tmp_path, tensors), wan_experts)


def test_a_text_encoders_lora(animatediff: Backbone, tmp_path: Path) -> None:
    down, up = torch.randn(2, 16), torch.randn(16, 2)
    name = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
    deltas = import_adapter(saved(tmp_path, tensors), animatediff).deltas
    assert set(deltas) == {"text_encoder.encoder.layers.0.self_attn.q_proj"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"diffusion_model.blocks.9.cross_attn.k.lora_A.weight": DOWN}, "1 of its 3 tensors"),
        ({"diffusion_model.blocks.1.cross_attn.k.dora_scale": UP}, "dora_scale"),
        ({"diffusion_model.blocks.1.cross_attn.q.lora_A.weight": DOWN}, "only a part"),
        (
            {"diffusion_model.blocks.1.cross_attn.q.diff": torch.zeros(DIM, DIM + 1)},
            "24x25 numbers, and it has 24x24",
        ),
    ],
)
def test_half_understood_files_are_refused(
    wan: Backbone, change: dict[str, Tensor], words: str, tmp_path: Path
) -> None:
    file = saved(tmp_path, FORMATS["comfyui"]() | change)
    with pytest.raises(AdapterError, match=words) as caught:
        import_adapter(file, wan)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", None])
def test_files_that_are_none(wan: Backbone, content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(AdapterError, match=r"x\.safetensors"):
        import_adapter(file, wan)
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(AdapterError, match="no weights"):
        import_adapter(tmp_path / "empty.safetensors", wan)


def test_an_adapter_without_words_is_one_like_any_other(unet3d: Backbone, tmp_path: Path) -> None:
    """It is saved, attached alone and beside another, and drawn with."""
    words = learned(unet3d)
    export(Order(words, unet3d, "diffusers"), tmp_path / "out")
    file = tmp_path / "out" / "pytorch_custom_diffusion_weights.safetensors"
    import_adapter(file, unet3d).save(tmp_path / "a.safetensors")
    adapter = Adapter.load(tmp_path / "a.safetensors")
    assert adapter.words == () and adapter.tokens.value.shape == (0, 16)
    options = SamplingConfig(num_steps=2, frames=2, height=32, width=32)
    base = generate(unet3d, None, "a cat", options=options)
    moved = generate(unet3d, adapter, "a cat", options=options)
    same, maps = generate_with_attention(unet3d, adapter, "a cat", options=options)
    assert maps == {} and (moved.frames == same.frames).all()
    assert (moved.frames != base.frames).any()
    with words.attach(unet3d), adapter.attach(unet3d), torch.no_grad():
        ids = unet3d.encode_prompt(["a <tom> cat"]).ids
        assert adapter.tokens.select(ids).shape == (1, 0, ids.shape[1])
        assert words.tokens.select(ids)[0, 0].sum() == 1


def test_imported_names_are_in_the_header(wan: Backbone, tmp_path: Path) -> None:
    header = import_adapter(saved(tmp_path, FORMATS["kohya"]()), wan).header
    assert header.method == "imported" and header.settings == {"file": "other.safetensors"}
    assert load_file(tmp_path / "other.safetensors")


def told(tmp_path: Path, config: dict[str, Any], *, beside: bool, **more: Tensor) -> Path:
    """A LoRA whose scale is told by PEFT's config beside it, or in diffusers' metadata."""
    tensors = {key: value.clone() for key, value in FORMATS["diffusers"]().items()} | more
    metadata = {"format": "pt"}
    if beside:
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    else:
        flat = {f"transformer.{name}": value for name, value in config.items()}
        metadata["lora_adapter_metadata"] = json.dumps(flat)
    path = tmp_path / "adapter_model.safetensors"
    save_file(tensors, path, metadata=metadata)
    return path


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"lora_alpha": 8, "r": RANK}, 4.0),
        ({"lora_alpha": 8, "r": RANK, "use_rslora": True}, 8 / RANK**0.5),
        ({"lora_alpha": 8, "r": RANK, "alpha_pattern": {"to_k": 3, "to_v": 5}}, 1.5),
        ({"lora_alpha": 8, "r": RANK, "alpha_pattern": {"^blocks.1.attn2.to_q": 3}}, 4.0),
    ],
)
def test_a_scale_that_is_told_elsewhere_counts(
    config: dict[str, Any], scale: float, beside: bool, wan: Backbone, tmp_path: Path
) -> None:
    (delta,) = import_adapter(told(tmp_path, config, beside=beside), wan).deltas.values()
    torch.testing.assert_close(delta.merged(), UP @ DOWN * scale)


def test_a_bias_of_a_lora_is_scaled_and_one_of_a_difference_is_not(
    wan: Backbone, tmp_path: Path
) -> None:
    name, ones = "transformer.blocks.1.attn2.to_k", torch.ones(DIM)
    more = {f"{name}.lora_B.bias": ones, f"{name}.diff_b": 10 * ones}
    path = told(tmp_path, {"lora_alpha": 8}, beside=True, **more)
    (delta,) = import_adapter(path, wan).deltas.values()
    assert isinstance(delta, WeightDelta) and delta.added_bias is not None
    torch.testing.assert_close(delta.added_bias, 14 * ones)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"lora_alpha": "much"}, "no number"),
        ({"lora_alpha": 8, "alpha_pattern": {"(a|b)+": 3}}, "alpha_pattern"),
    ],
)
def test_a_scale_that_cannot_be_read_is_refused(
    config: dict[str, Any], why: str, wan: Backbone, tmp_path: Path
) -> None:
    with pytest.raises(AdapterError, match=why):
        import_adapter(told(tmp_path, config, beside=False), wan)


K = "diffusion_model.blocks.1.cross_attn.k"


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ({f"{K}.lora_A.weight": DOWN, f"{K}.lora_B.weight": UP[:, :1]}, "do not fit together"),
        ({f"{K}.lora_A.weight": DOWN[0], f"{K}.lora_B.weight": UP}, "do not fit together"),
        ({f"{K}.lora_A.weight": torch.ones(()), f"{K}.lora_B.weight": UP}, "do not fit together"),
        ({f"{K}.lora_A.weight": DOWN[:0], f"{K}.lora_B.weight": UP[:, :0]}, "do not fit together"),
        (pair(K, "lora_A", "lora_B") | {f"{K}.alpha": torch.ones(2)}, "do not fit together"),
        ({f"{K}.lora_A.weight": DOWN * torch.nan, f"{K}.lora_B.weight": UP}, "no finite number"),
        ({f"{K}.lora_A.weight": DOWN + 1j, f"{K}.lora_B.weight": UP + 0j}, "no finite number"),
        (pair(K, "lora_A", "lora_B") | FORMATS["diffusers"](), "two things"),
        ({f"{K}.lokr_w1": UP, f"{K}.lokr_w2": DOWN}, "no plain LoRA"),
        ({"x.custom_diffusion.weight": torch.ones(())}, "no layer"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    tensors: dict[str, Tensor], why: str, wan: Backbone, tmp_path: Path
) -> None:
    with pytest.raises(AdapterError, match=why):
        import_adapter(saved(tmp_path, tensors), wan)


def test_a_difference_beside_a_lora_is_added(wan: Backbone, tmp_path: Path) -> None:
    tensors = pair(K, "lora_A", "lora_B") | {f"{K}.diff": torch.ones(DIM, DIM)}
    (delta,) = import_adapter(saved(tmp_path, tensors), wan).deltas.values()
    torch.testing.assert_close(delta.merged(), UP @ DOWN + 1)
