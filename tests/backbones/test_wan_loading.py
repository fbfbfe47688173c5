"""Loading models of the Wan family, what they make, and every way in which that can fail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel

from customvideo.attention.site import intermediate
from customvideo.backbones.base import load_backbone
from customvideo.backbones.folder import Card
from customvideo.backbones.noise import Flow, FlowRelay
from customvideo.backbones.transformer import Loaded
from customvideo.backbones.wan import Wan, load
from customvideo.errors import BackboneError
from tests.tiny_wan import build_tiny_wan, build_tiny_wan_every_token, build_tiny_wan_experts

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "2.1": build_tiny_wan,
    "every-token": build_tiny_wan_every_token,
    "experts": build_tiny_wan_experts,
}


@pytest.fixture(scope="module", params=BUILDERS)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return BUILDERS[request.param](tmp_path_factory.mktemp("wan") / "tiny-wan")


@pytest.fixture(scope="module")
def backbone(tiny: Path) -> Wan:
    return load(tiny, device="cpu")


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A copy that may be broken."""
    return shutil.copytree(tiny, tmp_path / "copy")


@pytest.mark.parametrize(("frames", "near"), [(4, 5), (0, 1), (12, 13), (80, 81)])
def test_frames_that_are_not_four_and_one_are_refused(
    backbone: Wan, frames: int, near: int
) -> None:
    with pytest.raises(BackboneError, match=rf"1, 5, 9, … frames, not {frames}: choose {near}\."):
        backbone.latent_shape(frames, 64, 96)


@pytest.mark.parametrize("size", [(72, 96), (64, 90), (0, 96)])
def test_sizes_off_the_grid_are_refused(backbone: Wan, size: tuple[int, int]) -> None:
    step = 32 if backbone.size == (704, 1280) else 16
    with pytest.raises(BackboneError, match=rf"{size[0]}x{size[1]} pixels: .* multiple of {step}"):
        backbone.sites(5, *size)
    with pytest.raises(BackboneError, match="pixels"):
        backbone.encode_frames(torch.zeros(1, 1, 3, *size))


def test_half_a_folder_is_named(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    parts = [name for name, entry in index.items() if isinstance(entry, list) and entry[0]]
    assert len(parts) in (5, 6)
    for part in parts:
        (folder / part).rename(folder / "away")
        with pytest.raises(BackboneError, match=f"lacks the part '{part}'"):
            load_backbone(folder, device="cpu")
        (folder / "away").rename(folder / part)
    (folder / "model_index.json").unlink()
    with pytest.raises(BackboneError, match="lacks the list of parts"):
        load(folder, device="cpu")


def test_another_kind_of_folder_is_refused(folder: Path) -> None:
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | {"_class_name": "WanImageToVideoPipeline"}))
    with pytest.raises(BackboneError, match="holds a WanImageToVideoPipeline, not a WanPipeline"):
        load(folder, device="cpu")
    with pytest.raises(BackboneError, match="no model customvideo can use"):
        load_backbone(folder, device="cpu")


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_missing_or_damaged_weights_are_one_sentence(folder: Path, part: str) -> None:
    (weights,) = (folder / part).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BackboneError, match="cannot be loaded") as damaged:
        load(folder, device="cpu")
    weights.unlink()
    with pytest.raises(BackboneError, match="cannot be loaded") as missing:
        load(folder, device="cpu")
    for caught in (damaged, missing):
        assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_a_folder_without_a_card_is_taken_for_its_kind(tiny: Path, backbone: Wan) -> None:
    usual = (backbone.fps, backbone.frames, backbone.size)
    told = json.loads((tiny / "model_index.json").read_text())["expand_timesteps"]
    assert usual == ((24.0, 121, (704, 1280)) if told else (16.0, 81, (480, 832)))
    assert backbone.latent_shape(backbone.frames, *backbone.size)


def test_the_fingerprint_sees_every_network(backbone: Wan, folder: Path) -> None:
    parts = sorted(path.name for path in folder.glob("transformer*"))
    assert len(parts) == (2 if isinstance(backbone.noise, FlowRelay) else 1)
    for part in parts:
        module = getattr(WanPipeline.from_pretrained(folder), part)
        before = {name: value.clone() for name, value in module.state_dict().items()}
        module.load_state_dict({name: -value for name, value in before.items()})
        module.save_pretrained(folder / part)
        assert load(folder, device="cpu").fingerprint != backbone.fingerprint, part
        module.load_state_dict(before)
        module.save_pretrained(folder / part)
    assert load(folder, device="cpu").fingerprint == backbone.fingerprint


REAL = {
    "1.3b": ((12, 128, 8960, 30), 8, 1, (480, 832), 141.6e6, (30, 52), range(10, 20)),
    "14b": ((40, 128, 13824, 40), 8, 1, (480, 832), 2097.6e6, (30, 52), range(13, 27)),
    "5b": ((24, 128, 14336, 30), 16, 1, (704, 1280), 566.4e6, (22, 40), range(10, 20)),
    "a14b": ((40, 128, 13824, 40), 8, 2, (480, 832), 2 * 2097.6e6, (30, 52), range(13, 27)),
}
"""Heads, channels of one, hidden width, blocks; pixels of a latent; networks; size; parameters that
make keys and values of text; grid; the middle third of the blocks."""


@pytest.mark.parametrize("name", REAL)
def test_real_sizes_have_the_layers_that_are_counted_on(name: str, tmp_path: Path) -> None:
    shape, pixels, count, size, wanted, grid, middle = REAL[name]
    channels = 48 if pixels == 16 else 16
    config = dict(zip(("num_attention_heads", "attention_head_dim"), shape[:2], strict=True))
    with torch.device("meta"):
        made = [
            WanTransformer3DModel(
                **config,
                ffn_dim=shape[2],
                num_layers=shape[3],
                text_dim=4096,
                freq_dim=256,
                in_channels=channels,
                out_channels=channels,
            )
            for _ in range(count)
        ]
        statistics = {"latents_mean": [0.0] * channels, "latents_std": [1.0] * channels}
        vae = AutoencoderKLWan(
            base_dim=4, z_dim=channels, scale_factor_spatial=pixels, **statistics
        )
    small = WanPipeline.from_pretrained(build_tiny_wan(tmp_path))
    stock = WanPipeline(
        small.tokenizer,
        small.text_encoder,
        vae,
        small.scheduler,
        *made,
        boundary_ratio=0.875 if count == 2 else None,
    )
    card = Card(name, size=size)
    backbone = Wan(Loaded(stock, card, "0" * 64, {"flow_shift": 3.0}), torch.device("meta"))
    layers: list[Any] = [backbone.layer(path) for path in backbone.layers("text_kv")]
    assert len(layers) == 2 * count * shape[3]
    assert sum(p.numel() for one in layers for p in one.parameters()) == pytest.approx(wanted, 1e-3)
    sites = backbone.sites(1, *size)
    assert {site.grid for site in sites} == {(1, *grid)}
    chosen = [site.path for site in intermediate(sites)]
    prefixes = ["transformer.", "transformer_2."] if count == 2 else [""]
    assert chosen == [f"{one}blocks.{index}.attn2" for one in prefixes for index in middle]
    assert isinstance(backbone.noise, FlowRelay if count == 2 else Flow)
