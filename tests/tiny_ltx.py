"""Tiny random models of LTX-Video's classes in its folder format; they are NOT models that draw
anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.tiny import WORDS

__all__ = ["build_tiny_ltx", "build_tiny_ltx_timed"]

_CHANNELS = 8


def build_tiny_ltx(folder: Path, seed: int = 0) -> Path:
    """Write a loadable `LTXPipeline` folder and return it.

    It halves time twice where the real one does so three times: 1, 5, 9, … frames.
    """
    levels = (True, True, False, False)
    return _build(
        folder,
        seed,
        patch_size=8,
        spatio_temporal_scaling=levels,
        decoder_spatio_temporal_scaling=levels,
    )


def build_tiny_ltx_timed(folder: Path, seed: int = 0) -> Path:
    """The same with the real one's 8 frames and 32x32 pixels a position, and a decoder as of 0.9.1,
    which is told a time and draws noise."""
    return _build(
        folder,
        seed,
        timestep_conditioning=True,
        decoder_inject_noise=(True, True, False, True, False),
    )


def _build(folder: Path, seed: int, **autoencoder: Any) -> Path:
    from diffusers import FlowMatchEulerDiscreteScheduler, LTXPipeline

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline = LTXPipeline(
            tokenizer=_tokenizer(),
            text_encoder=_text_encoder(),
            vae=_autoencoder(**autoencoder),
            # With the figures that come with the real one.
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True,
                base_shift=0.95,
                max_shift=2.05,
                base_image_seq_len=1024,
                max_image_seq_len=4096,
                shift_terminal=0.1,
            ),
            transformer=_transformer(),
        )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _tokenizer() -> Any:
    """T5's own class: a token for each of `tests.tiny.WORDS`, letters for everything else."""
    from transformers import T5TokenizerFast

    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -9.0)]
    words = [(f"▁{word}", -1.0) for word in WORDS]
    letters = [(letter, -5.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    return T5TokenizerFast(vocab=[*special, *words, *letters], extra_ids=0, model_max_length=128)


def _text_encoder() -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        # More rows than the tokenizer has tokens, as the real one.
        vocab_size=64,
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config)


def _transformer() -> Any:
    from diffusers import LTXVideoTransformer3DModel

    network = LTXVideoTransformer3DModel(
        in_channels=_CHANNELS,
        out_channels=_CHANNELS,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        num_layers=3,
        caption_channels=16,
    )
    # As they are drawn all texts would be nearly equal.
    readers = [block.attn2.to_out[0] for block in network.transformer_blocks]
    for layer in (network.caption_projection, *readers):
        for weight in layer.parameters():
            nn.init.normal_(weight, std=0.5)
    return network


def _autoencoder(**options: Any) -> Any:
    from diffusers import AutoencoderKLLTXVideo

    vae = AutoencoderKLLTXVideo(
        latent_channels=_CHANNELS,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        scaling_factor=0.8,
        **options,
    )
    vae.latents_mean.normal_()
    vae.latents_std.uniform_(0.5, 2.0)
    for name, weight in vae.named_parameters():
        # The noise would be scaled by zeros.
        if "per_channel_scale" in name:
            nn.init.normal_(weight)
    return vae
