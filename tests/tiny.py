"""A tiny random text-to-video model in ZeroScope's folder format, for tests on a CPU.

It has every kind of module the real one has (text and temporal attention, temporal convolutions,
three levels, a byte-complete CLIP tokenizer) and random weights where the stock initialiser puts
zeros, so that a skipped module changes the output. It is NOT a model that draws anything.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

MAX_LENGTH = 32
WORDS = (
    *("a", "the", "and", "on", "in", "of", "photo", "picture", "good", "close", "video", "with"),
    *("cat", "dog", "bear", "car", "man", "duck", "beach", "grass", "street", "walking", "running"),
    *("ktn", "pll", "ucd", "sks"),
)
"""Words that are one token each; every other text is spelt byte by byte."""

UNET_CONFIG: dict[str, Any] = {
    "sample_size": [8, 12],
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "DownBlock3D"],
    "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D"],
    "block_out_channels": [8, 16, 16],
    "layers_per_block": 2,
    "norm_num_groups": 4,
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
}

ZEROSCOPE_UNET_CONFIG: dict[str, Any] = {
    "sample_size": 32,
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 1024,
    "attention_head_dim": 64,
}
"""The full-size denoiser (1.4 B parameters): build it on the meta device only."""

SCHEDULER_CONFIG: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def build_tiny_zeroscope(folder: Path, seed: int = 0, prediction_type: str = "epsilon") -> Path:
    """Write a loadable `TextToVideoSDPipeline` folder and return it; same seed, same weights."""
    from diffusers import DDIMScheduler

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _text_encoder().save_pretrained(folder / "text_encoder")
        _randomised(_vae()).save_pretrained(folder / "vae")
        _randomised(_unet()).save_pretrained(folder / "unet")
    clip_tokenizer().save_pretrained(folder / "tokenizer")
    scheduler = DDIMScheduler(**SCHEDULER_CONFIG, prediction_type=prediction_type)
    scheduler.save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(_INDEX, indent=2))
    return folder


_INDEX = {
    "_class_name": "TextToVideoSDPipeline",
    "_diffusers_version": "0.33.1",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet3DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def _randomised(module: nn.Module) -> nn.Module:
    # The stock initialiser zeroes the last temporal convolution: it would be an identity.
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return module.eval()


def _unet() -> nn.Module:
    from diffusers import UNet3DConditionModel

    unet: nn.Module = UNet3DConditionModel(**UNET_CONFIG)
    return unet


def _vae() -> nn.Module:
    from diffusers import AutoencoderKL

    vae: nn.Module = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[4, 4, 8, 8],
        norm_num_groups=2,
        latent_channels=4,
    )
    return vae


def _text_encoder() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    vocabulary, _ = _vocabulary()
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=MAX_LENGTH,
        bos_token_id=vocabulary["<|startoftext|>"],
        eos_token_id=vocabulary["<|endoftext|>"],
        pad_token_id=vocabulary["<|endoftext|>"],
        dtype="float32",
    )
    encoder = CLIPTextModel(config).eval()
    for name, parameter in encoder.named_parameters():
        # The default deviation of 0.02 leaves all prompts nearly equal.
        if "embedding" in name:
            nn.init.normal_(parameter, std=0.5)
    return encoder


def clip_tokenizer() -> Any:
    """A CLIP tokenizer that spells a few words whole and all others by letters."""
    from transformers import CLIPTokenizer

    vocabulary, merges = _vocabulary()
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_LENGTH)


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """All 256 byte symbols, plain and ending a word, then the merges that spell `WORDS`."""
    alphabet = _byte_symbols()
    tokens = [*alphabet, *(f"{symbol}</w>" for symbol in alphabet)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        # Each word is built from its end: no prefix is shared, so no merge hides another.
        tail = f"{word[-1]}</w>"
        for symbol in reversed(word[:-1]):
            if (symbol, tail) not in merges:
                merges.append((symbol, tail))
                tokens.append(symbol + tail)
            tail = symbol + tail
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}, merges


def _byte_symbols() -> list[str]:
    """The 256 printable stand-ins for bytes that byte-level BPE uses (Radford et al. 2019)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + index) for index in range(len(rest))]
