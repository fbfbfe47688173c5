"""A tiny random model of a finder's very class, as a folder on disk."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

SIDE = 32


def build_owlv2(folder: Path, tokenizer: Path) -> Path:
    """An OWLv2 of sixteen patches with the tokenizer of another folder; it needs no processor."""
    words = transformers.CLIPTokenizer.from_pretrained(tokenizer)
    tower = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {
        **tower,
        "vocab_size": len(words),
        "max_position_embeddings": 16,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    vision = {**tower, "image_size": SIDE, "patch_size": 8}
    config = transformers.Owlv2Config(text_config=text, vision_config=vision, projection_dim=16)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = transformers.Owlv2ForObjectDetection(config)
        for name, parameter in model.named_parameters():
            # The default deviations leave all texts and patches nearly equal.
            if "embedding" in name or parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
