"""Cheaper steps: guidance asked now and then, and blocks that answer as in the step before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from customvideo.backbones.base import Backbone, load_backbone
from customvideo.backbones.reusing import can_reuse, reusing
from customvideo.backbones.sampling import denoise
from customvideo.errors import ConfigError
from customvideo.generation import SamplingConfig, fast, generate
from customvideo.tables import import_target

FAMILIES = {
    "wan": "tests.tiny_wan:build_tiny_wan",
    "wan experts": "tests.tiny_wan:build_tiny_wan_experts",
    "ltx": "tests.tiny_ltx:build_tiny_ltx",
    "cogvideox": "tests.tiny_cogvideox:build_tiny_cogvideox",
    "hunyuan": "tests.tiny_hunyuan:build_tiny_hunyuan",
}
SIZE = (5, 64, 96)


@pytest.fixture(scope="module", params=FAMILIES)
def transformer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("tiny")
    import_target(FAMILIES[request.param])(folder)
    yield load_backbone(folder, device="cpu", dtype="fp32")


def drawn(backbone: Backbone, every: int = 1) -> Tensor:
    shape = (1, *backbone.latent_shape(*SIZE))
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    options: Any = {"steps": 6, "guidance": 3.0, "solver": "native", "guidance_every": every}
    return denoise(backbone, noise, backbone.encode_prompt(["a cat"]), **options)


def test_blocks_answer_again_where_little_changes(transformer: Any) -> None:
    """The last block is asked once a video, or network, instead of once a step."""
    legs = (
        list(transformer.denoiser.children()) if "Dict" in repr(transformer.denoiser)[:12] else []
    )
    networks = legs or [transformer.denoiser]
    calls: list[int] = []
    for network in networks:
        blocks = getattr(network, "single_transformer_blocks", None)
        blocks = blocks or getattr(network, "blocks", None) or network.transformer_blocks
        last = blocks[-1].norm1 if hasattr(blocks[-1], "norm1") else blocks[-1].norm
        last.register_forward_hook(lambda *_: calls.append(1))
    plain = drawn(transformer)
    every = len(calls)
    with reusing(transformer, 1e6):
        once = drawn(transformer)
    assert len(calls) - every == len(networks) < every
    assert torch.isfinite(once).all() and not torch.equal(once, plain)
    with reusing(transformer, 0.0):
        assert torch.equal(drawn(transformer), plain)
    assert torch.equal(drawn(transformer), plain)
    assert not any(network.is_cache_enabled for network in networks)
    for network in networks:
        for module in network.modules():
            module._forward_hooks.clear()


def test_both_kinds_of_calls_are_kept_apart(transformer: Any) -> None:
    """With and without the negative half there are other rows."""
    with reusing(transformer, 0.05):
        assert torch.isfinite(drawn(transformer, every=2)).all()


def test_a_video_is_the_same_whatever_is_drawn_beside_it(transformer: Any) -> None:
    options = SamplingConfig(
        num_steps=4, frames=5, height=64, width=96, solver="native", guidance=3.0, block_cache=0.3
    )
    alone = generate(transformer, None, "a dog", seed=1, options=options)
    both = generate(transformer, None, ["a cat", "a dog"], seed=[0, 1], options=options)
    assert (both[1].frames == alone.frames).all()


def test_what_has_no_such_blocks_says_so(tiny_zeroscope: Path) -> None:
    backbone = load_backbone(tiny_zeroscope, device="cpu")
    options = SamplingConfig(num_steps=1, frames=1, height=64, width=96, block_cache=0.1)
    with pytest.raises(ConfigError, match=r"no blocks whose answers .* set block_cache=0"):
        generate(backbone, None, "a cat", options=options)
    assert not can_reuse(backbone)


class Counting:
    """A predictor whose halves differ by the same in every step."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone: Any = backbone
        self.noise = backbone.noise
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def predict(self, latents: Tensor, times: Tensor, text: Any) -> Tensor:
        self.asked.append("one")
        return latents * 0.1 + 0.2

    def predict_guided(self, latents: Tensor, time: Any, *texts: Any) -> Tensor:
        self.asked.append("two")
        scale: Any = texts[2]
        return latents * 0.1 - 0.1 + scale * 0.3


def test_guidance_is_asked_now_and_then(tiny_zeroscope: Path) -> None:
    predictor = Counting(load_backbone(tiny_zeroscope, device="cpu"))
    noise = torch.randn(1, 4, 2, 8, 12, generator=torch.Generator().manual_seed(0))
    text = predictor.encode_prompt(["a cat"])
    whole = denoise(predictor, noise, text, steps=5, guidance=4.0)
    assert predictor.asked == ["two"] * 5
    predictor.asked.clear()
    thin = denoise(predictor, noise, text, steps=5, guidance=4.0, guidance_every=2)
    assert predictor.asked == ["two", "one", "two", "one", "two"]
    torch.testing.assert_close(thin, whole)


def test_several_scales_are_had_at_the_price_of_one(tiny_zeroscope: Path) -> None:
    backbone: Any = load_backbone(tiny_zeroscope, device="cpu")
    noise = torch.randn(1, 4, 2, 8, 12, generator=torch.Generator().manual_seed(0))
    text, negative = backbone.encode_prompt(["a cat"]), backbone.encode_prompt([""])
    scales = torch.tensor([4.0, 1.0]).view(2, 1, 1, 1, 1, 1)
    guided, within = backbone.predict_guided(noise, torch.tensor([400]), text, negative, scales)
    exact = backbone.predict_guided(noise, torch.tensor([400]), text, negative, 4.0)
    torch.testing.assert_close(guided, exact)
    plain = backbone.predict(noise, torch.tensor([400]), text)
    torch.testing.assert_close(within, plain, atol=1e-5, rtol=1e-4)


def test_fast_is_a_matter_of_settings(tiny_zeroscope: Path) -> None:
    backbone = load_backbone(tiny_zeroscope, device="cpu")
    found = fast(SamplingConfig(num_steps=25, solver="ddim", guidance=7.0), backbone)
    assert found == SamplingConfig(num_steps=12, solver="unipc", guidance=7.0)
