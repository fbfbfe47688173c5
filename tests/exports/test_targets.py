"""Every target that can carry a family's adapters, read back by the target's own loader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from customvideo.adapters.build import DeltaSpec
from customvideo.backbones.base import Backbone
from customvideo.exports import verify as checking
from customvideo.exports.base import export
from customvideo.exports.order import Order
from customvideo.exports.possible import POSSIBLE
from customvideo.exports.targets import TARGETS
from tests.exports.conftest import learned

FAMILIES = ("unet3d", "animatediff", "wan", "wan_experts", "ltx", "hunyuan")
CASES = [
    (family, target)
    for family in FAMILIES
    for target in POSSIBLE[family.removesuffix("_experts")]
    if target != "textual-inversion"
]
LOADED = ("diffusers", "merged-folder", "textual-inversion")
LORA = "customvideo-tom-rex.safetensors"

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def metadata(file: Path) -> dict[str, str]:
    with safe_open(file, framework="pt") as opened:
        found: dict[str, str] = opened.metadata()
    return found


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "CLIP_SIZE", (5, 32, 32))


@pytest.mark.parametrize(("family", "target"), CASES)
def test_the_targets_own_loader_draws_what_we_draw(
    family: str, target: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if target == "diffusers" and family not in ("unet3d", "animatediff"):
        pytest.importorskip("peft")
    backbone: Backbone = request.getfixturevalue(family)
    order = Order(learned(backbone, vectors=2), backbone, target)
    found = export(order, tmp_path / "out", check=True)
    assert found.loss <= 1e-6 and found.verdict is not None
    assert found.verdict.keys > 0 and found.verdict.error <= 1e-5
    assert (found.verdict.clip is not None) == (target in LOADED)
    if found.verdict.clip is not None:
        assert found.verdict.clip <= 1e-4, "the files say something else"
        assert found.verdict.lost is not None and found.verdict.lost <= 1e-4
        assert found.verdict.moved is not None and found.verdict.moved > 0.02, "nothing is shown"


def test_cogvideox_merges_what_changes_whole_layers(cogvideox: Backbone, tmp_path: Path) -> None:
    paths = dict.fromkeys(cogvideox.layers("text_qo"), DeltaSpec(rank=4))
    order = Order(learned(cogvideox, paths), cogvideox, "merged-folder")
    verdict = export(order, tmp_path / "out", check=True).verdict
    assert verdict is not None and verdict.clip is not None and verdict.clip <= 1e-4
    assert verdict.moved is not None and verdict.moved > 0.02


@pytest.mark.parametrize("family", ["unet3d", "animatediff"])
def test_words_alone_load_as_textual_inversions(
    family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    backbone: Backbone = request.getfixturevalue(family)
    order = Order(learned(backbone), backbone, "textual-inversion", words_only=True)
    verdict = export(order, tmp_path / "out", check=True).verdict
    assert verdict is not None and verdict.clip is not None and verdict.clip <= 1e-4
    assert verdict.lost is not None and verdict.lost > 0.01, "what was left out is not told"
    file = tmp_path / "out" / "tom" / "learned_embeds.safetensors"
    (token,) = load_file(file)
    assert token == "<tom>" and load_file(file)[token].ndim == 1


@pytest.mark.parametrize("target", ["comfyui", "diffusers"])
def test_the_usual_names_of_wan(wan: Backbone, target: str, tmp_path: Path) -> None:
    adapter = learned(wan, rank=4, alpha=2.0)
    export(Order(adapter, wan, target), tmp_path / "out")
    name = f"loras/{LORA}" if target == "comfyui" else "pytorch_lora_weights.safetensors"
    tensors = load_file(tmp_path / "out" / name)
    assert set(tensors) == {
        f"diffusion_model.blocks.{block}.cross_attn.{part}.lora_{half}.weight"
        for block in range(3)
        for part in "kv"
        for half in "AB"
    }
    key = "diffusion_model.blocks.1.cross_attn.k"
    product = tensors[f"{key}.lora_B.weight"] @ tensors[f"{key}.lora_A.weight"]
    merged: Any = adapter.deltas["blocks.1.attn2.to_k"]
    assert (product - merged.merged()).abs().max() <= 1e-6, "alpha is folded in"


def test_the_usual_names_of_ltx(ltx: Backbone, tmp_path: Path) -> None:
    export(Order(learned(ltx), ltx, "comfyui"), tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "loras" / LORA)
    assert "diffusion_model.transformer_blocks.0.attn2.to_k.lora_A.weight" in tensors


def test_kohyas_names_come_with_alpha_and_a_warning(wan: Backbone, tmp_path: Path) -> None:
    found = export(Order(learned(wan, rank=4), wan, "kohya"), tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "loras" / LORA)
    key = "lora_unet_blocks_2_cross_attn_v"
    assert tensors[f"{key}.alpha"] == 4 and tensors[f"{key}.lora_down.weight"].shape[0] == 4
    assert tensors[f"{key}.lora_up.weight"].shape[1] == 4
    assert any("diffusers cannot read" in note for note in found.notes)


def test_experts_get_a_file_each(wan_experts: Backbone, tmp_path: Path) -> None:
    export(Order(learned(wan_experts), wan_experts, "comfyui"), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out" / "loras").iterdir()}
    stem = LORA.removesuffix(".safetensors")
    assert names == {f"{stem}_high_noise.safetensors", f"{stem}_low_noise.safetensors"}
    base = metadata(tmp_path / "out" / "loras" / min(names))["ss_base_model_version"]
    assert base == "wan2.2"


def test_rank_zero_keeps_full_matrices_for_comfyui(wan: Backbone, tmp_path: Path) -> None:
    adapter = learned(wan)
    found = export(Order(adapter, wan, "comfyui", rank=0), tmp_path / "out", check=True)
    tensors = load_file(tmp_path / "out" / "loras" / LORA)
    own: Any = adapter.deltas["blocks.0.attn2.to_v"]
    assert torch.equal(tensors["diffusion_model.blocks.0.cross_attn.v.diff"], own.weight)
    assert found.verdict is not None and found.verdict.error == 0
    assert any("ComfyUI alone" in note for note in found.notes)


def test_a_lower_rank_says_what_it_loses(wan: Backbone, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    order = Order(learned(wan), wan, "diffusers", rank=8)
    found = export(order, tmp_path / "out", check=True)
    assert set(found.losses) == set(order.adapter.deltas)
    assert 0.1 < found.loss < 0.9 and found.verdict is not None
    assert abs(found.verdict.error - found.loss) <= 1e-4, "another loss than was told"
    assert found.verdict.clip is not None and found.verdict.clip <= 1e-4
    assert found.verdict.lost is not None and found.verdict.moved is not None
    assert 1e-3 < found.verdict.lost < 2 * found.verdict.moved


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_and_no_more(
    wan: Backbone, dtype: torch.dtype, tmp_path: Path
) -> None:
    found = export(Order(learned(wan), wan, "comfyui", dtype=dtype), tmp_path / "out", check=True)
    assert found.verdict is not None and 1e-5 < found.verdict.error < 1e-2
    file = tmp_path / "out" / "loras" / LORA
    assert {tensor.dtype for tensor in load_file(file).values()} == {dtype}


def test_words_for_comfyui(wan: Backbone, tmp_path: Path) -> None:
    adapter = learned(wan, vectors=3)
    export(Order(adapter, wan, "comfyui"), tmp_path / "out")
    rows = load_file(tmp_path / "out" / "embeddings" / "rex.safetensors")
    assert list(rows) == ["umt5xxl"]
    assert torch.equal(rows["umt5xxl"], adapter.tokens.value[3:])
    assert "`embedding:rex dog`" in (tmp_path / "out" / "README.md").read_text()


def test_files_say_what_they_are(wan: Backbone, tmp_path: Path) -> None:
    sampling = {"solver": "unipc", "num_steps": 20, "regions": "alike", "negative": ""}
    order = Order(learned(wan, rank=4), wan, "comfyui", sampling=sampling)
    notes = export(order, tmp_path / "out").notes
    assert any("keep to their own places" in note for note in notes)
    said = metadata(tmp_path / "out" / "loras" / LORA)
    assert said["format"] == "pt" and said["ss_network_dim"] == said["ss_network_alpha"] == "4"
    assert said["ss_network_module"] == "networks.lora_wan"
    assert said["modelspec.architecture"] == "wan2.1/lora"
    assert json.loads(said["trained_words"]) == ["<tom> cat", "<rex> dog"]
    assert "<tom> cat and a <rex> dog" in said["modelspec.usage_hint"]
    own = json.loads(said["customvideo"])
    assert own["header"]["fingerprint"] == wan.fingerprint and own["sampling"] == sampling
    page = (tmp_path / "out" / "README.md").read_text()
    assert "solver: unipc" in page and "negative" not in page


def test_the_same_export_gives_the_same_bytes(wan: Backbone, tmp_path: Path) -> None:
    order = Order(learned(wan, rank=4), wan, "comfyui")
    export(order, tmp_path / "a")
    export(order, tmp_path / "b")
    for file in (tmp_path / "a").rglob("*.*"):
        assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()


@pytest.mark.parametrize("group", ["text_kv", "text_qo", "self"])
def test_custom_diffusions_processors_carry_all_attention(
    unet3d: Backbone, group: Any, tmp_path: Path
) -> None:
    paths = dict.fromkeys(unet3d.layers(group), DeltaSpec())
    verdict = export(
        Order(learned(unet3d, paths), unet3d, "diffusers"), tmp_path / "out", check=True
    ).verdict
    assert verdict is not None and verdict.clip is not None and verdict.clip <= 1e-4


def test_every_target_has_a_page_and_a_family() -> None:
    usable = {target for targets in POSSIBLE.values() for target in targets}
    assert usable == set(TARGETS)
