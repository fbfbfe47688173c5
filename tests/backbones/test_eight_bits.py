"""Frozen weights and optimizer moments in 8 bits: how far off, how much smaller, and what lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import DeltaSpec, new_adapter
from customvideo.backbones import eight_bits as in_bits
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.backbones.float8 import Float8Linear
from customvideo.errors import AdapterError, BackboneError, ConfigError
from customvideo.methods.customvideo import CustomVideo, CustomVideoConfig
from customvideo.training import optimizer as optimizers
from customvideo.training.trainer import StepReport, Trainer
from tests.cast import make_cast, short_run
from tests.tiny import build_tiny_zeroscope
from tests.tiny_wan import build_tiny_wan

# bitsandbytes says of every layer that it works on halves.
pytestmark = pytest.mark.filterwarnings("ignore:MatMul8bitLt")
SIZE = (1, 64, 96)
METHOD = CustomVideoConfig(prior_weight=0.0, compose="paste", train="kv", rank=0)


@pytest.fixture(scope="module", params=[build_tiny_wan, build_tiny_zeroscope])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found: Path = request.param(tmp_path_factory.mktemp("tiny"))
    return found


@pytest.fixture(scope="module", params=in_bits.EIGHT_BITS)
def pair(request: pytest.FixtureRequest, folder: Path) -> tuple[Any, Any]:
    """The model as it is, and in 8 bits."""
    if request.param == "int8":
        pytest.importorskip("bitsandbytes")
    return load_backbone(folder, "cpu"), load_backbone(folder, "cpu", request.param)


@torch.no_grad()
def predicted(backbone: Backbone) -> Tensor:
    shape = (2, *backbone.latent_shape(*SIZE))
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    text = backbone.encode_prompt(["a cat", "a dog"])
    return backbone.predict(noise, torch.tensor([300, 700]), text)


def test_predictions_are_a_little_off_and_weights_smaller(pair: tuple[Any, Any]) -> None:
    plain, small = pair
    assert small.fingerprint == plain.fingerprint and small.dtype == plain.dtype
    found, wanted = predicted(small), predicted(plain)
    off = ((found - wanted).norm() / wanted.norm()).item()
    assert 0 < off < 0.07
    kept = [layer for layer in small.denoiser.modules() if isinstance(layer, nn.Linear)]
    in_eight = [layer for layer in kept if layer.weight.dtype == torch.int8]
    assert len(in_eight) > len(kept) / 2
    spared = in_bits.saved_bytes(plain.denoiser)
    assert spared == sum(3 * one.weight.numel() - 4 * one.out_features for one in in_eight)


def test_training_goes_on_and_its_adapter_fits_the_whole_model(
    pair: tuple[Any, Any], tmp_path: Path
) -> None:
    plain, small = pair
    before = {name: value.clone() for name, value in small.denoiser.named_buffers()}
    adapter = Trainer(short_run(steps=2), None).fit(small, CustomVideo(METHOD), make_cast())
    adapter.save(tmp_path / "a.safetensors")
    again = Adapter.load(tmp_path / "a.safetensors")
    again.check_fits(plain)
    assert any(delta.weight.abs().max() > 0 for delta in _full(again))
    assert all(torch.equal(small.denoiser.get_buffer(name), one) for name, one in before.items())


def _full(adapter: Adapter) -> list[Any]:
    return list(adapter.deltas.values())


def test_whole_weights_cannot_be_trained_in_eight_bits(pair: tuple[Any, Any]) -> None:
    _, small = pair
    path = small.layers("text_kv")[0]
    paths = {path: DeltaSpec(kind="weight")}
    adapter = new_adapter(small, make_cast(), method="dreambooth", paths=paths)
    with pytest.raises(AdapterError, match=r"in 8 bits, .* set base=full"):
        adapter.attach(small)


def test_floats_of_eight_bits_are_exact_in_their_own_numbers() -> None:
    plain = nn.Linear(24, 5)
    with torch.no_grad():
        plain.weight.copy_(torch.linspace(-0.2, 0.2, 120).view(5, 24))
        plain.bias.fill_(0.5)
        plain.weight[1] = 0
        plain.weight[2] *= 2.0**-20
        plain.weight[3] *= 1e4
    small = Float8Linear.of(plain)
    bare = small.weight.view(torch.float8_e4m3fn).float() * small.scale
    torch.testing.assert_close(bare, plain.weight.detach(), rtol=2**-4, atol=0)
    assert not bare[1].any()

    # A cast of the model leaves the bits, and the scales lose nothing by it.
    small = small.to(torch.bfloat16)
    assert small.weight.dtype == torch.int8 and small.weight.shape == (5, 24)
    values = torch.eye(24, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = small(values)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, (bare.T + 0.5).bfloat16(), rtol=2**-7, atol=2**-7)
    found.sum().backward()
    torch.testing.assert_close(values.grad, bare.sum(0).expand(24, 24), rtol=2**-6, atol=0)


def test_without_the_package_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (in_bits, optimizers):
        monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(BackboneError, match=r"bitsandbytes, which is not installed: pip install"):
        load_backbone(folder, "cpu", "int8")
    backbone = load_backbone(folder, "cpu")
    options = short_run(optimizer="adamw8bit")
    with pytest.raises(ConfigError, match=r"adamw8bit needs the package bitsandbytes"):
        Trainer(options, None).fit(backbone, CustomVideo(METHOD), make_cast())


def test_an_optimizer_in_eight_bits_resumes_to_the_last_bit(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    backbone = load_backbone(build_tiny_zeroscope(tmp_path / "tiny"), device="cpu")

    def run(out: str, steps: int, *, resume: bool = False, kind: str = "adamw8bit") -> Adapter:
        losses: list[StepReport] = []
        config = short_run(steps=steps, optimizer=kind)
        trainer = Trainer(config, tmp_path / out, on_step=losses.append)
        return trainer.fit(backbone, CustomVideo(METHOD), make_cast(), resume=resume)

    whole = run("whole", 4)
    run("parts", 2)
    resumed = run("parts", 4, resume=True)
    plain = run("plain", 4, kind="adamw")
    for one, other, wide in zip(
        whole.parameters(), resumed.parameters(), plain.parameters(), strict=True
    ):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, wide, atol=2e-3, rtol=0.1)
