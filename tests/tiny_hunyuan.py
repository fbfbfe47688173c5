"""Tiny random models of HunyuanVideo's classes in its folder format; they are NOT models that draw
anything.

The tokenizer splits text as LLaMA 3's does, byte-level and with single tokens for the words of the
pipeline's template, so that the template is as long as the real model finds it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.tiny import WORDS, build_tiny_zeroscope

__all__ = ["build_tiny_hunyuan", "build_tiny_hunyuan_unguided"]

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPECIAL = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<pad>")


def build_tiny_hunyuan(folder: Path, seed: int = 0) -> Path:
    """Write a loadable `HunyuanVideoPipeline` folder whose network is told the guidance, and
    return it."""
    return _build(folder, seed, guided=True)


def build_tiny_hunyuan_unguided(folder: Path, seed: int = 0) -> Path:
    """The same, not distilled: the network knows nothing of guidance."""
    return _build(folder, seed, guided=False)


def _build(folder: Path, seed: int, *, guided: bool) -> Path:
    from diffusers import (
        AutoencoderKLHunyuanVideo,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideoPipeline,
    )
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTokenizer,
        LlamaConfig,
        LlamaModel,
    )

    clip = build_tiny_zeroscope(folder / "clip", seed)
    tokenizer = _tokenizer()
    llama = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=tokenizer.pad_token_id,
        # All prompts begin alike: as they are drawn they would stay nearly equal.
        initializer_range=0.5,
    )
    pooled = CLIPTextConfig.from_pretrained(clip / "text_encoder", max_position_embeddings=77)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline = HunyuanVideoPipeline(
            tokenizer=tokenizer,
            text_encoder=LlamaModel(llama),
            tokenizer_2=CLIPTokenizer.from_pretrained(clip / "tokenizer", model_max_length=77),
            text_encoder_2=CLIPTextModel(pooled),
            vae=AutoencoderKLHunyuanVideo(
                latent_channels=4,
                block_out_channels=(4, 4, 4, 4),
                layers_per_block=1,
                norm_num_groups=2,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
            transformer=_transformer(guided),
        )
        # As they are drawn all pictures and all prompts would be nearly equal.
        nn.init.normal_(pipeline.vae.quant_conv.weight, std=2.0)
        nn.init.normal_(pipeline.text_encoder_2.get_input_embeddings().weight, std=0.5)
    pipeline.save_pretrained(folder, safe_serialization=True)
    shutil.rmtree(clip)
    return folder


def _transformer(guided: bool) -> Any:
    from diffusers import HunyuanVideoTransformer3DModel

    network = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=3,
        num_single_layers=2,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        guidance_embeds=guided,
        text_embed_dim=16,
        pooled_projection_dim=16,
        rope_axes_dim=(4, 4, 4),
    )
    # What opens and closes the blocks' branches starts near zero, and text would hardly count.
    for name, weight in network.named_parameters():
        if "norm" in name and "linear.weight" in name:
            nn.init.normal_(weight, std=0.3)
    for layer in (network.context_embedder.proj_in, network.time_text_embed.text_embedder.linear_1):
        nn.init.normal_(layer.weight, std=0.5)
    return network


def _tokenizer() -> Any:
    from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    whole = Tokenizer(models.BPE())
    whole.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    whole.decoder = decoders.ByteLevel()
    texts = [DEFAULT_PROMPT_TEMPLATE["template"], *WORDS, *(f" {word}" for word in WORDS)]
    trainer = trainers.BpeTrainer(
        vocab_size=5000,
        min_frequency=1,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    whole.train_from_iterator(texts, trainer)
    first = (_SPECIAL[0], whole.token_to_id(_SPECIAL[0]))
    whole.post_processor = processors.TemplateProcessing(
        single=f"{_SPECIAL[0]} $A", special_tokens=[first]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=whole,
        bos_token=_SPECIAL[0],
        eos_token="<|eot_id|>",
        pad_token="<pad>",
        padding_side="right",
    )
