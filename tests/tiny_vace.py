"""A tiny random reference-to-video model in VACE's folder format; it is NOT a model that draws
anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.tiny import WORDS
from tests.tiny_t5 import tiny_t5_tokenizer


def build_tiny_vace(folder: Path, seed: int = 0) -> Path:
    """Write a loadable `WanVACEPipeline` folder and return it."""
    from diffusers import (
        AutoencoderKLWan,
        UniPCMultistepScheduler,
        WanVACEPipeline,
        WanVACETransformer3DModel,
    )
    from transformers import UMT5Config, UMT5EncoderModel

    encoder = UMT5Config(
        vocab_size=3 + len(WORDS), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline = WanVACEPipeline(
            tokenizer=tiny_t5_tokenizer(),
            text_encoder=UMT5EncoderModel(encoder),
            vae=AutoencoderKLWan(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
            scheduler=UniPCMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0
            ),
            transformer=WanVACETransformer3DModel(
                num_attention_heads=2,
                attention_head_dim=12,
                text_dim=16,
                freq_dim=32,
                ffn_dim=32,
                num_layers=2,
                vace_layers=[0, 1],
            ),
        )
        # As they are drawn all pictures and all texts would be nearly equal.
        torch.nn.init.normal_(pipeline.vae.quant_conv.weight, std=4.0)
        for layer in (pipeline.transformer.condition_embedder.text_embedder, *_crossings(pipeline)):
            for weight in layer.parameters():
                torch.nn.init.normal_(weight, std=0.5)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _crossings(pipeline: Any) -> list[torch.nn.Module]:
    """The layers by which texts and pictures reach the denoiser."""
    network = pipeline.transformer
    blocks = [*network.blocks, *network.vace_blocks]
    texts = [block.attn2.to_out[0] for block in blocks]
    others = [layer for block in blocks for layer in (block.attn1.to_v, block.attn1.to_out[0])]
    return [*texts, *others, *(block.proj_out for block in network.vace_blocks)]
