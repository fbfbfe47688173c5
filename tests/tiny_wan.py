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
    """The same, as of Wan 2.2 TI2V: the network is told a time for every token, and latents are
    half as high and wide and of other channels."""
    from diffusers import AutoencoderKLWan

    channels = 12
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vae = AutoencoderKLWan(
            base_dim=8,
            z_dim=channels,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            latents_mean=torch.linspace(-0.3, 0.4, channels).tolist(),
            latents_std=torch.linspace(0.5, 1.4, channels).tolist(),
            is_residual=True,
            in_channels=12,
            out_channels=12,
            patch_size=2,
            scale_factor_spatial=16,
        )
    return _build(
        folder, seed, expand_timesteps=True, vae=vae, transformer=_transformer(seed, channels)
    )


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
        parts = {
            "text_encoder": UMT5EncoderModel(encoder),
            "vae": AutoencoderKLWan(base_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
            "transformer": _transformer(seed),
        }
        pipeline = WanPipeline(
            tokenizer=tiny_t5_tokenizer(),
            scheduler=UniPCMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
            ),
            **(parts | options),
        )
        # As it is drawn all pictures would be nearly equal.
        torch.nn.init.normal_(pipeline.vae.quant_conv.weight, std=4.0)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _transformer(seed: int, channels: int = 16) -> Any:
    from diffusers import WanTransformer3DModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=channels,
            out_channels=channels,
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
