"""Tiny random models of Wan's classes in Wan's folder format; they are NOT models that draw
anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.tiny import WORDS
from tests.tiny_t5 import tiny_t5_tokenizer

__all__ = ["build_tiny_wan", "build_tiny_wan_every_token", "build_tiny_wan_experts"]


def build_tiny_wan(folder: Path, seed: int = 0) -> Path:
    """Write a loadable `WanPipeline` folder, as of Wan 2.1, and return it."""
    return _build(folder, seed)


def build_tiny_wan_every_token(folder: Path, seed: int = 0) -> Path:
    """The same, as of Wan 2.2 TI2V: the network is told a time for every token."""
    return _build(folder, seed, expand_timesteps=True)


def build_tiny_wan_experts(folder: Path, seed: int = 0) -> Path:
    """The same, as of Wan 2.2 A14B: one expert for much noise, another for little."""
    return _build(folder, seed, boundary_ratio=0.875, transformer_2=_transformer(seed + 1))


def _build(folder: Path, seed: int, **options: Any) -> Path:
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline
    from transformers import UMT5Config, UMT5EncoderModel

    encoder = UMT5Config(
        vocab_size=3 + len(WORDS), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline = WanPipeline(
            tokenizer=tiny_t5_tokenizer(),
            text_encoder=UMT5EncoderModel(encoder),
            vae=AutoencoderKLWan(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
            scheduler=UniPCMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
            ),
            transformer=_transformer(seed),
            **options,
        )
        # As it is drawn all pictures would be nearly equal.
        torch.nn.init.normal_(pipeline.vae.quant_conv.weight, std=4.0)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _transformer(seed: int) -> Any:
    from diffusers import WanTransformer3DModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            text_dim=16,
            freq_dim=32,
            ffn_dim=32,
            num_layers=3,
        )
        # As they are drawn all texts would be nearly equal.
        readers = [block.attn2.to_out[0] for block in network.blocks]
        for layer in (network.condition_embedder.text_embedder, *readers):
            for weight in layer.parameters():
                torch.nn.init.normal_(weight, std=0.5)
    return network
