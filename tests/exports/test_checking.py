"""The check notices what it is for: wrong names, wrong numbers, a loader that does something else;
and the parts below it do what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from customvideo.adapters.build import DeltaSpec
from customvideo.adapters.deltas import FullDelta, LowRankDelta
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.backbones.stock import HasStock
from customvideo.errors import AdapterError, ConfigError, StorageError
from customvideo.exports import lora, names, verify
from customvideo.exports.base import export
from customvideo.exports.lowrank import factors, overall
from customvideo.exports.order import Order
from customvideo.files import atomic_folder
from tests.exports.conftest import learned

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "CLIP_SIZE", (5, 32, 32))


def test_a_name_of_no_layer_is_noticed(
    wan: Backbone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Keys and values exchanged for a name that sounds right but that nobody reads."""
    wrong = {
        path: name.replace("cross_attn.k", "cross_attn.key")
        for path, name in names.places(wan, "comfyui").items()
    }
    monkeypatch.setattr(lora, "places", lambda *_: wrong)
    with pytest.raises(AdapterError, match=r"cross_attn\.key"):
        export(Order(learned(wan), wan, "comfyui"), tmp_path / "out", check=True)
    assert not list(tmp_path.iterdir()), "a wrong export was left behind"


def test_exchanged_layers_are_noticed(
    wan: Backbone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    right = names.places(wan, "comfyui")
    wrong = {
        path: right[path.replace("to_k", "to_?").replace("to_v", "to_k").replace("to_?", "to_v")]
        for path in right
    }
    monkeypatch.setattr(lora, "places", lambda *_: wrong)
    with pytest.raises(AdapterError, match="deltas differ"):
        export(Order(learned(wan), wan, "comfyui"), tmp_path / "out", check=True)


def test_a_loader_that_does_something_else_is_noticed(
    unet3d: Backbone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(verify, "_loaded", lambda order, folder: order.backbone.stock())
    # The words are learned no more than the weights: the prompt has unknown tokens.
    with pytest.raises(AdapterError, match="draw another clip"):
        export(Order(learned(unet3d), unet3d, "diffusers"), tmp_path / "out", check=True)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(
    wan: Backbone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def load(_pipeline: object) -> None:
        raise ValueError("PEFT backend is required for this method.")

    monkeypatch.setattr(verify.runpy, "run_path", lambda _: {"load": load})
    with pytest.raises(ConfigError, match=r"pip install 'customvideo\[export\]'"):
        export(Order(learned(wan), wan, "diffusers"), tmp_path / "out", check=True)
    assert not list(tmp_path.iterdir())


def test_our_names_are_the_published_ones(wan: Backbone, ltx: Backbone) -> None:
    """diffusers turns each back into the path that it came from."""
    for backbone in (wan, ltx):
        convert = verify._PUBLISHED[backbone.family]
        found = names.places(backbone, "comfyui")
        assert set(backbone.layers("text_kv") + backbone.layers("self")) <= set(found)
        for path, name in found.items():
            published = name.removeprefix("diffusion_model.")
            (converted,) = convert({f"{published}.weight": torch.zeros(1)})
            assert converted == f"{path}.weight"


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_the_loss_is_what_is_missing(rank: int) -> None:
    delta = FullDelta(12, 9)
    torch.nn.init.normal_(delta.weight, generator=torch.Generator().manual_seed(rank))
    delta.requires_grad_(False)
    found = factors(delta, rank)
    missing = torch.linalg.matrix_norm(delta.weight - found.up @ found.down)
    assert found.rank == rank and abs(float(missing) - found.lost) <= 1e-5
    assert abs(overall([found]) - found.lost / found.norm) <= 1e-6
    noise = torch.randn(12, rank, generator=torch.Generator().manual_seed(0))
    other = noise @ torch.linalg.pinv(noise) @ delta.weight
    assert found.lost < float(torch.linalg.matrix_norm(delta.weight - other))


def test_low_rank_deltas_are_kept_and_may_be_made_smaller() -> None:
    delta = LowRankDelta(12, 9, 6, alpha=3.0, generator=torch.Generator().manual_seed(0))
    torch.nn.init.normal_(delta.up, generator=torch.Generator().manual_seed(1))
    kept = factors(delta, None)
    assert torch.equal(kept.down, delta.down) and kept.lost == 0
    assert torch.equal(kept.up, delta.up * 0.5)
    assert factors(delta, 2).rank == 2 and factors(delta, 2).lost > 0


@pytest.mark.parametrize("family", ["unet3d", "animatediff", "wan", "wan_experts", "ltx"])
def test_a_stock_copy_is_independent(family: str, request: pytest.FixtureRequest) -> None:
    backbone: Any = request.getfixturevalue(family)
    assert isinstance(backbone, HasStock)
    before = {name: value.clone() for name, value in backbone.denoiser.state_dict().items()}
    pipeline: Any = backbone.stock()
    network = getattr(pipeline, "unet", None) or pipeline.transformer
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
    after = backbone.denoiser.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("encoder", [False, True])
def test_a_merged_folder_takes_whole_weights(
    unet3d: Backbone, encoder: bool, tmp_path: Path
) -> None:
    groups = ("denoiser", "encoder") if encoder else ("denoiser",)
    layers = [path for group in groups for path in unet3d.layers(group)]  # type: ignore[arg-type]
    paths = dict.fromkeys(layers, DeltaSpec(kind="weight"))
    adapter = learned(unet3d, paths, size=0.02)
    verdict = export(Order(adapter, unet3d, "merged-folder"), tmp_path / "out", check=True).verdict
    assert verdict is not None and verdict.clip is not None and verdict.clip <= 1e-4
    assert verdict.moved is not None and verdict.moved > 0.02
    again = load_backbone(tmp_path / "out", device="cpu")
    assert again.family == "unet3d" and again.size == unet3d.size


def test_a_damaged_export_does_not_come_back(wan: Backbone, tmp_path: Path) -> None:
    order = Order(learned(wan, rank=4), wan, "comfyui")
    export(order, tmp_path / "out")
    (file,) = (tmp_path / "out" / "loras").iterdir()
    tensors = load_file(file)
    tensors["diffusion_model.blocks.0.cross_attn.k.lora_B.weight"] *= 2
    save_file(tensors, file)
    with pytest.raises(AdapterError, match="deltas differ"):
        verify.verify(order, tmp_path / "out")
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(AdapterError, match="no complete safetensors"):
        verify.verify(order, tmp_path / "out")


def test_a_folder_comes_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with pytest.raises(RuntimeError), atomic_folder(out) as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with atomic_folder(out) as folder:
        (folder / "whole").write_text("x")
        assert not out.exists()
    assert (out / "whole").read_text() == "x"
    with pytest.raises(StorageError, match="already"), atomic_folder(out):
        raise AssertionError("it must not begin")
    assert [path.name for path in out.iterdir()] == ["whole"]
    (tmp_path / "empty").mkdir()
    with atomic_folder(tmp_path / "empty") as folder:
        (folder / "a").write_text("x")
    assert (tmp_path / "empty" / "a").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError), atomic_folder(tmp_path / "file" / "out"):
        raise AssertionError("it must not begin")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_merged_folder_of_half_precision_is_checked_too(
    dtype: torch.dtype, wan: Backbone, tmp_path: Path
) -> None:
    order = Order(learned(wan, rank=4), wan, "merged-folder", dtype=dtype)
    verdict = export(order, tmp_path / "out", check=True).verdict
    assert verdict is not None and verdict.clip is not None
    assert verdict.clip <= 16 * torch.finfo(dtype).eps


def test_a_merged_folder_of_a_half_loaded_model_keeps_small_changes(
    wan_folder: Path, tmp_path: Path
) -> None:
    backbone = load_backbone(wan_folder, device="cpu", dtype="bf16")
    adapter = learned(backbone, rank=4)
    with torch.no_grad():
        for delta in adapter.deltas.values():
            delta.up.mul_(1e-3)  # type: ignore[union-attr, operator]
    export(Order(adapter, backbone, "merged-folder"), tmp_path / "out")
    (file,) = (tmp_path / "out" / "transformer").glob("*.safetensors")
    written, path = load_file(file), next(iter(adapter.deltas))
    change = written[f"{path}.weight"] - backbone.layer(path).weight.float()
    delta: Any = adapter.deltas[path]
    torch.testing.assert_close(change, delta.merged(), atol=1e-7, rtol=1e-3)


def test_eight_bits_are_no_weights_to_write(wan_folder: Path, tmp_path: Path) -> None:
    backbone = load_backbone(wan_folder, device="cpu")
    adapter = learned(backbone)
    layer: Any = backbone.layer(next(iter(adapter.deltas)))
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(AdapterError, match="8 bits"):
        export(Order(adapter, backbone, "merged-folder"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
