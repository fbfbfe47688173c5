"""Tiny random models of the very classes the learned segmenters load, as folders on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from tests.tiny import clip_tokenizer

SIDE = 64


def build_sam(folder: Path) -> Path:
    """A SAM of 64x64 pixels with its stock processor."""
    config = transformers.SamConfig(
        vision_config={
            "hidden_size": 16,
            "output_channels": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "window_size": 2,
            "global_attn_indexes": [0],
            "mlp_dim": 16,
            "num_pos_feats": 4,
            "initializer_range": 0.02,
        },
        prompt_encoder_config={
            "hidden_size": 8,
            "image_size": SIDE,
            "image_embedding_size": SIDE // 16,
            "mask_input_channels": 4,
        },
        mask_decoder_config=_decoder(heads=2),
    )
    torch.manual_seed(0)
    _amplify(transformers.SamModel(config)).save_pretrained(folder)
    image_processor = transformers.SamImageProcessor(
        size={"longest_edge": SIDE},
        pad_size={"height": SIDE, "width": SIDE},
        mask_size={"longest_edge": SIDE // 4},
        mask_pad_size={"height": SIDE // 4, "width": SIDE // 4},
    )
    transformers.SamProcessor(image_processor).save_pretrained(folder)
    return folder


def build_sam2(folder: Path) -> Path:
    """A SAM 2 of 64x64 pixels; it needs no processor."""
    backbone = {
        "hidden_size": 8,
        "image_size": [SIDE, SIDE],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 1, 1],
        "window_size_per_stage": [4, 2, 2, 2],
        "window_positional_embedding_background_size": [2, 2],
        "global_attention_blocks": [3],
        "model_type": "sam2_hiera_det_model",
    }
    config = transformers.Sam2Config(
        vision_config={
            "backbone_config": backbone,
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "fpn_hidden_size": 8,
            "model_type": "sam2_vision_model",
        },
        prompt_encoder_config={"hidden_size": 8, "image_size": SIDE, "mask_input_channels": 4},
        mask_decoder_config=_decoder(heads=1),
    )
    torch.manual_seed(0)
    _amplify(transformers.Sam2Model(config)).save_pretrained(folder)
    return folder


def build_sam2_video(folder: Path) -> Path:
    """A SAM 2 with its memory, of 64x64 pixels, as published checkpoints are."""
    image = transformers.Sam2Config.from_pretrained(build_sam2(folder / "image"))
    # The stock memory attention reads 64 channels, whatever its configuration says, and fewer than
    # the decoder has.
    width, memory = 128, 64
    config = transformers.Sam2VideoConfig(
        vision_config={**image.vision_config.to_dict(), "fpn_hidden_size": width},
        prompt_encoder_config={**image.prompt_encoder_config.to_dict(), "hidden_size": width},
        mask_decoder_config={**image.mask_decoder_config.to_dict(), "hidden_size": width},
        image_size=SIDE,
        memory_attention_hidden_size=width,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=16,
        memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=width,
        memory_encoder_output_channels=memory,
        mask_downsampler_embed_dim=width,
        memory_fuser_num_layers=1,
        memory_fuser_embed_dim=width,
        memory_fuser_intermediate_dim=16,
    )
    torch.manual_seed(0)
    network = _amplify(transformers.Sam2VideoModel(config), by=5)
    with torch.no_grad():
        # It is sure to see something.
        network.get_parameter("mask_decoder.pred_obj_score_head.proj_out.bias").fill_(1e6)
    network.save_pretrained(folder)
    return folder


def build_sam3(folder: Path) -> Path:
    """A SAM 3 of 56x56 pixels and three queries, with the tokenizer of its text encoder."""
    layers = {"num_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vision = {
        "model_type": "sam3_vit_model",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
        "window_size": 2,
        "global_attn_indexes": [0],
        "pretrain_image_size": 28,
    }
    tokenizer = clip_tokenizer()
    text = {
        "model_type": "clip_text_model",
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 16,
        "projection_dim": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = transformers.Sam3Config(
        vision_config={
            "backbone_config": vision,
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        },
        text_config=text,
        geometry_encoder_config={"hidden_size": 32, "roi_size": 2, **layers},
        detr_encoder_config={"hidden_size": 32, **layers},
        detr_decoder_config={"hidden_size": 32, "num_queries": 3, **layers},
        mask_decoder_config={
            "hidden_size": 32,
            "num_upsampling_stages": 2,
            "num_attention_heads": 2,
        },
    )
    torch.manual_seed(0)
    transformers.Sam3Model(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_grounding_dino(folder: Path) -> Path:
    """A Grounding DINO of two queries that reads the words cat and dog, with its processor."""
    config = transformers.GroundingDinoConfig(
        backbone_config=transformers.SwinConfig(
            image_size=SIDE,
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 1, 1],
            window_size=2,
            out_features=["stage2", "stage3", "stage4"],
        ),
        text_config=transformers.BertConfig(
            vocab_size=8,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        ),
        d_model=32,
        num_queries=2,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        num_feature_levels=4,
        max_text_len=8,
        disable_custom_kernels=True,
    )
    torch.manual_seed(0)
    transformers.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "cat", "dog"]
    tokenizer = transformers.BertTokenizer({word: row for row, word in enumerate(vocabulary)})
    image_processor = transformers.GroundingDinoImageProcessor(
        size={"shortest_edge": SIDE, "longest_edge": 2 * SIDE}
    )
    processor = transformers.GroundingDinoProcessor(image_processor, tokenizer)
    processor.save_pretrained(folder)
    return folder


def _decoder(heads: int) -> dict[str, int]:
    return {
        "hidden_size": 8,
        "mlp_dim": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": heads,
        "iou_head_hidden_dim": 8,
        "iou_head_depth": 2,
    }


def _amplify(network: Any, by: float = 30) -> Any:
    """Make the weights large enough for the masks to depend visibly on image and prompt."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.mul_(by)
    return network
