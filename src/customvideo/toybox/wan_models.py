"""The toybox's Wan edition: Wan's stock classes at miniature size, about four million parameters.

What every part looks like is decided here; training it is `recipe/wan.py`. Its weights do not come
with the package: `customvideo toybox pretrain --edition wan` makes them, as an ordinary folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from customvideo.backbones.folder import quiet_loading
from customvideo.records import write_record
from customvideo.toybox import models

__all__ = [
    "FPS",
    "FRAMES",
    "build_autoencoder",
    "build_denoiser",
    "build_scheduler",
    "build_text_encoder",
    "build_tokenizer",
    "save_pipeline",
]

FRAMES = 9
"""The first alone, then two by two; the class reads them four by four, which 9 allows."""
FPS = 16.0
"""Wan's own. Twice the toybox's: frames that share a latent should be alike."""
STRIDE = 2
"""Frames of a latent, but for the first. Wan's is 4, which with the class costs one more halving
in space."""
PATCH = 4
LATENT_CHANNELS = 16
WIDTH = 48
"""The autoencoder's, at all its sizes: what 8x8 pixels are reduced to before the code is read."""


def build_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """The toybox's tokens with the same numbers, in T5's manner: an end closes every text, and
    nothing begins one."""
    known = models.build_tokenizer(words)
    backend = known.backend_tokenizer
    end = (models.EOS, known.eos_token_id)
    backend.post_processor = TemplateProcessing(single=f"$A {end[0]}", special_tokens=[end])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=models.EOS,
        pad_token=models.BOS,
        unk_token=models.EOS,
        model_max_length=models.MAX_LENGTH,
    )


def build_text_encoder(tokenizer: PreTrainedTokenizerFast) -> UMT5EncoderModel:
    """Two layers of Wan's text encoder."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(tokenizer),
            d_model=models.TEXT_WIDTH,
            d_kv=32,
            d_ff=256,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            # An encoder has no use for it, but the config insists.
            decoder_start_token_id=tokenizer.pad_token_id,
            dtype="float32",
        )
    )


def build_autoencoder() -> AutoencoderKLWan:
    """8x down and 2x in time, 16 channels; pixels are taken four by four, as Wan 2.2 takes them two
    by two: a network this small has no layers to spare for what a reshape does."""
    return AutoencoderKLWan(
        base_dim=WIDTH,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 1],
        num_res_blocks=0,
        temperal_downsample=[True],
        patch_size=PATCH,
        in_channels=3 * PATCH**2,
        out_channels=3 * PATCH**2,
        scale_factor_temporal=STRIDE,
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
    )


def build_denoiser(patch: int = 1) -> WanTransformer3DModel:
    """Seven blocks of 160 channels, which see every `patch`-th of the 8x12 positions of a latent
    down and across: 8x12 in the model itself, 4x6 where Wan's own patches of 2x2 begin it."""
    return WanTransformer3DModel(
        patch_size=(1, patch, patch),
        num_attention_heads=5,
        attention_head_dim=32,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        text_dim=models.TEXT_WIDTH,
        freq_dim=64,
        ffn_dim=320,
        num_layers=7,
    )


def build_scheduler() -> UniPCMultistepScheduler:
    """Wan's, shifted less: pictures this small drown earlier."""
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=2.0
    )


def save_pipeline(folder: Path, parts: dict[str, Any], card: dict[str, Any]) -> None:
    """Write the parts as a stock `WanPipeline` folder with a card, networks in bfloat16."""
    # Diffusers warns of parts that it computes in float32; only how they are kept is meant here.
    with quiet_loading():
        halves = {
            name: part.to(torch.bfloat16) if isinstance(part, nn.Module) else part
            for name, part in parts.items()
        }
        WanPipeline(**halves).save_pretrained(folder, safe_serialization=True)
    models.say_float32(folder / "text_encoder" / "config.json")
    write_record(folder / "customvideo.json", card)
