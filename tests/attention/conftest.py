"""A small stock denoiser with text attention at known sites."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from customvideo.attention.site import AttentionSite
from tests.tiny import UNET_CONFIG

TOKENS = 7
PLACES = {
    "down_blocks.0.attentions.1": (8, 12),
    "up_blocks.2.attentions.0": (8, 12),
    "down_blocks.1.attentions.0": (4, 6),
}


@dataclass
class Scene:
    """A denoiser, and what it is run on: 2 rows of `frames` frames, 2 words in 7 tokens."""

    denoiser: nn.Module
    frames: int

    @property
    def sites(self) -> list[AttentionSite]:
        found = []
        for place, size in PLACES.items():
            path = f"{place}.transformer_blocks.0.attn2"
            heads = self.denoiser.get_submodule(path).heads
            grid = (self.frames, *size)
            found.append(AttentionSite(path, "cross", grid, heads, f"{path}.to_k", f"{path}.to_v"))
        return found

    @property
    def words(self) -> Tensor:
        """The first word has two tokens, the second stands in the second row only."""
        words = torch.zeros(2, 2, TOKENS)
        words[:, 0, [2, 3]] = 0.5
        words[1, 1, 5] = 1
        return words

    def run(self) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        latents = torch.randn(2, 4, self.frames, 8, 12, generator=generator)
        text = torch.randn(2, TOKENS, 16, generator=generator)
        predicted: Tensor = self.denoiser(latents, 7, text, return_dict=False)[0]
        return predicted


@pytest.fixture(scope="module")
def denoiser() -> nn.Module:
    from diffusers import UNet3DConditionModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet: nn.Module = UNet3DConditionModel(**UNET_CONFIG).eval().requires_grad_(False)
        for name, parameter in unet.named_parameters():
            # Sharp attention, so that a wrong map is far from a right one.
            if "attn2.to_q" in name or "attn2.to_k" in name:
                nn.init.normal_(parameter, std=0.7)
    return unet


@pytest.fixture
def scene(denoiser: nn.Module) -> Scene:
    return Scene(denoiser, frames=1)
