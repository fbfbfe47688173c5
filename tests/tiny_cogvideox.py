"""Tiny random models of CogVideoX's classes in CogVideoX's folder format; they are NOT models that
draw anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.tiny import WORDS
from tests.tiny_t5 import tiny_t5_tokenizer

__all__ = ["SCHEDULE", "build_tiny_cogvideox", "build_tiny_cogvideox_turned"]

SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": True,
    "timestep_spacing": "trailing",
    "snr_shift_scale": 3.0,
}


def build_tiny_cogvideox(folder: Path, seed: int = 0, **network: Any) -> Path:
    """Write a loadable `CogVideoXPipeline` folder, as of 2B, and return it."""
    from diffusers import CogVideoXDDIMScheduler

    return _build(folder, seed, 1.15258426, CogVideoXDDIMScheduler(**SCHEDULE), network)


def build_tiny_cogvideox_turned(folder: Path, seed: int = 0, **network: Any) -> Path:
    """The same, as of 5B: queries and keys are turned by their positions, another solver."""
    from diffusers import CogVideoXDPMScheduler

    network = {"use_rotary_positional_embeddings": True, **network}
    scheduler = CogVideoXDPMScheduler(**SCHEDULE | {"snr_shift_scale": 1.0})
    return _build(folder, seed, 0.7, scheduler, network)


def _build(folder: Path, seed: int, scale: float, scheduler: Any, network: dict[str, Any]) -> Path:
    from diffusers import AutoencoderKLCogVideoX, CogVideoXPipeline
    from transformers import T5Config, T5EncoderModel

    encoder = T5Config(
        vocab_size=3 + len(WORDS),
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline = CogVideoXPipeline(
            tokenizer=tiny_t5_tokenizer(),
            text_encoder=T5EncoderModel(encoder),
            vae=AutoencoderKLCogVideoX(
                block_out_channels=(4, 4, 4, 4),
                latent_channels=4,
                layers_per_block=1,
                norm_num_groups=2,
                scaling_factor=scale,
            ),
            transformer=_transformer(network),
            scheduler=scheduler,
        )
        # As it is drawn all pictures would be nearly equal.
        torch.nn.init.normal_(pipeline.vae.encoder.conv_out.conv.weight, std=1.0)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _transformer(changes: dict[str, Any]) -> Any:
    from diffusers import CogVideoXTransformer3DModel

    settings: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 4,
        "out_channels": 4,
        "time_embed_dim": 16,
        "text_embed_dim": 16,
        "num_layers": 3,
        "sample_height": 8,
        "sample_width": 12,
        "sample_frames": 9,
    }
    network = CogVideoXTransformer3DModel(**(settings | changes))
    for name, weight in network.named_parameters():
        # As they are drawn all texts would be nearly equal, and no attention would matter.
        if "text_proj" in name or ".attn1.to_" in name:
            torch.nn.init.normal_(weight, std=0.4)
    return network
