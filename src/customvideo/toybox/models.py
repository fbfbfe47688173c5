"""The toybox model's architecture: stock transformers and diffusers classes at miniature size.

What every part looks like is decided here and nowhere else; training it is `pretrain.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    TextToVideoSDPipeline,
    UNet2DModel,
    UNet3DConditionModel,
    UNetSpatioTemporalConditionModel,
)
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    PreTrainedModel,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    ViTConfig,
    ViTModel,
)

from customvideo.toybox.world import ACTIONS, CATEGORIES

SIZE = (64, 96)
"""Height and width of a toybox frame, in pixels."""
FRAMES = 8
FPS = 8.0
LATENT_CHANNELS = 16
TEXT_WIDTH = 128
MAX_LENGTH = 48
JUDGE_SIZE = 64
"""Side of the square picture the judges look at, in pixels."""
ACTION_SIZE = 48
"""Side of the square clip the action judge looks at, in pixels."""

BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def byte_symbols() -> list[str]:
    """The 256 printable stand-ins byte-level BPE gives to the 256 byte values."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = {byte: chr(byte) for byte in printable}
    symbols |= {byte: chr(256 + index) for index, byte in enumerate(others)}
    return [symbols[byte] for byte in range(256)]


def build_tokenizer(words: Iterable[str]) -> CLIPTokenizer:
    """A CLIP tokenizer that knows each of `words` as one token and spells any other in bytes.

    All 256 byte symbols are present, plain and ending a word, so no text can be unknown to it.
    """
    symbols = byte_symbols()
    merges = _merges(sorted(set(words)))
    entries = [*symbols, *(symbol + "</w>" for symbol in symbols)]
    entries += [left + right for left, right in merges]
    vocabulary = {entry: index for index, entry in enumerate(dict.fromkeys([*entries, BOS, EOS]))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_LENGTH)


def _merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Byte-pair merges (Sennrich et al. 2016) that leave one token of each of `words`.

    Ties go to the first in the alphabet. The tokenizers library breaks them at random, anew in
    every process, and a model whose tokens trade places between two courses mixes them up.
    """
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for parts in spelled for pair in pairwise(parts)):
        most = max(pairs.values())
        left, right = best = min(pair for pair, count in pairs.items() if count == most)
        merges.append(best)
        for parts in spelled:
            for index in range(len(parts) - 1, 0, -1):
                if parts[index - 1 : index + 1] == [left, right]:
                    parts[index - 1 : index + 1] = [left + right]
    return merges


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> Any:
    """Padded token ids and mask, each (N, 48)."""
    return tokenizer(
        texts,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )


def text_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    """The text tower's shape; float32 because the stock pipeline mixes types otherwise."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=3 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=MAX_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )


def build_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """The contrastive judge; its text tower is also where the denoiser's text encoder starts."""
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=384,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=JUDGE_SIZE,
        patch_size=8,
    )
    text = text_config(tokenizer)
    return CLIPModel(
        CLIPConfig(
            text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=TEXT_WIDTH
        )
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The denoiser's own text encoder."""
    return CLIPTextModel(text_config(tokenizer))


def build_dino() -> ViTModel:
    """The identity judge: a small ViT whose class token is the feature."""
    config = ViTConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=JUDGE_SIZE,
        patch_size=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return ViTModel(config, add_pooling_layer=False)


def build_segmenter() -> UNet2DModel:
    """The instance segmenter; ask it through `answer_segmenter`."""
    return UNet2DModel(
        sample_size=(SIZE[0] // 2, SIZE[1] // 2),
        in_channels=12,
        out_channels=4 * (1 + len(CATEGORIES)) + 3,
        block_out_channels=(32, 48, 48),
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
        layers_per_block=1,
        attention_head_dim=16,
        norm_num_groups=8,
    )


@dataclass(frozen=True)
class SegmenterAnswer:
    """`classes` (N, 14, height, width), logits with the background first; at half that size `heat`
    (N, h, w), about 1 at a subject's centre and 0 elsewhere, and `offsets` (N, 2, h, w) in cells.
    """

    classes: Tensor
    heat: Tensor
    offsets: Tensor


def answer_segmenter(segmenter: UNet2DModel, pictures: Tensor) -> SegmenterAnswer:
    """What the segmenter says of `pictures` (N, 3, height, width) in [-1, 1].

    The net works on cells of 2x2 pixels, which is four times faster and costs no sharpness.
    """
    output = segmenter(F.pixel_unshuffle(pictures, 2), 0).sample
    classes, rest = output[:, :-3], output[:, -3:]
    return SegmenterAnswer(F.pixel_shuffle(classes, 2), rest[:, 0], 8 * rest[:, 1:])


def build_actions() -> VideoMAEForVideoClassification:
    """The action judge, on `action_view`s of one subject each."""
    return VideoMAEForVideoClassification(
        VideoMAEConfig(
            image_size=ACTION_SIZE,
            patch_size=8,
            num_frames=FRAMES,
            tubelet_size=2,
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_labels=len(ACTIONS),
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


def action_view(frames: Tensor, masks: Tensor, margin: float = 0.15) -> Tensor:
    """A clip's part that one subject moves in, as the action judge sees it.

    `frames` (frame, 3, height, width), `masks` (frame, height, width) of that subject, at least
    one of them not empty; the result (frame, 3, 48, 48) shows one square for all frames: what
    moves in it has moved. `margin` of the longer side stays free around the subject. What never
    changes is taken away: only what moves is left, and colours say little.
    """
    anywhere = (masks > 0).any(0)
    rows, columns = anywhere.any(1).nonzero()[:, 0], anywhere.any(0).nonzero()[:, 0]
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    side = round((1 + 2 * margin) * max(bottom - top, right - left))
    # Grey all around, so that the square may reach over the picture's edge.
    padded = F.pad(frames, (side, side, side, side))
    top, left = (top + bottom + side) // 2, (left + right + side) // 2
    square = padded[:, :, top : top + side, left : left + side]
    size = (ACTION_SIZE, ACTION_SIZE)
    view = F.interpolate(square, size=size, mode="bilinear", antialias=True, align_corners=False)
    return 2 * (view - view.mean(0))


def build_autoencoder() -> AutoencoderKL:
    """8x down, 16 channels; no attention in the middle, so it takes any size."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(24, 48, 64, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=SIZE[1],
        scaling_factor=1.0,
    )


def build_denoiser() -> UNet3DConditionModel:
    """ZeroScope's class with three levels; 8.9 million parameters."""
    return UNet3DConditionModel(
        sample_size=(SIZE[0] // 8, SIZE[1] // 8),
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D"),
        block_out_channels=(96, 96, 96),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=16,
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """ZeroScope's betas with a v target: one small net learns faint detail and bold shape alike."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def build_animator() -> UNetSpatioTemporalConditionModel:
    """Stable Video Diffusion's class with two levels, attention on the coarser; 2.6 million
    parameters. It is told frames a second, motion and noise on the first picture, as there."""
    return UNetSpatioTemporalConditionModel(
        sample_size=(SIZE[0] // 8, SIZE[1] // 8),
        in_channels=2 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal"),
        up_block_types=("CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"),
        block_out_channels=(64, 64),
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=48,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        num_attention_heads=(4, 4),
        num_frames=FRAMES,
    )


def build_animator_scheduler() -> EulerDiscreteScheduler:
    """Stable Video Diffusion's, from less noise: 80 (Karras et al. 2022) drowns these latents."""
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=80.0,
        timestep_type="continuous",
        timestep_spacing="leading",
        steps_offset=1,
    )


def parameter_count(module: nn.Module) -> int:
    """Number of parameters in `module`."""
    return sum(parameter.numel() for parameter in module.parameters())


def save_pipeline(folder: Path, parts: dict[str, Any]) -> None:
    """Write the parts as a stock `TextToVideoSDPipeline` folder, weights in bfloat16.

    The text encoder's config keeps saying float32: transformers loads by that word, diffusers
    casts everything to float32, and a disagreement would mix types in the stock pipeline.
    """
    halves = {
        name: part.to(torch.bfloat16) if isinstance(part, nn.Module) else part
        for name, part in parts.items()
    }
    TextToVideoSDPipeline(**halves).save_pretrained(folder, safe_serialization=True)
    say_float32(folder / "text_encoder" / "config.json")


def save_half(module: Any, folder: Path) -> None:
    """Write a model in bfloat16; a transformers model's config says float32 (see above)."""
    module.to(torch.bfloat16).save_pretrained(folder, safe_serialization=True)
    if isinstance(module, PreTrainedModel):
        say_float32(folder / "config.json")


def say_float32(config: Path) -> None:
    values = json.loads(config.read_text(encoding="utf-8"))
    values["dtype"] = "float32"
    values.pop("torch_dtype", None)
    config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
