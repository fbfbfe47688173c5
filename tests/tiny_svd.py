"""A tiny random picture-to-video model in Stable Video Diffusion's folder format; it is NOT a model
that makes anything move."""

from __future__ import annotations

from pathlib import Path

import torch


def build_tiny_svd(folder: Path, seed: int = 0) -> Path:
    """Write a loadable `StableVideoDiffusionPipeline` folder and return it."""
    from diffusers import (
        AutoencoderKLTemporalDecoder,
        EulerDiscreteScheduler,
        StableVideoDiffusionPipeline,
        UNetSpatioTemporalConditionModel,
    )
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from customvideo.backbones.animators import picture_processor

    tower = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        projection_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=224,
        patch_size=56,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline = StableVideoDiffusionPipeline(
            vae=AutoencoderKLTemporalDecoder(
                down_block_types=("DownEncoderBlock2D",) * 4, block_out_channels=(32,) * 4
            ),
            image_encoder=CLIPVisionModelWithProjection(tower),
            unet=UNetSpatioTemporalConditionModel(
                down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
                up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
                block_out_channels=(32, 32),
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=24,
                layers_per_block=1,
                cross_attention_dim=16,
                num_attention_heads=2,
                num_frames=3,
            ),
            scheduler=EulerDiscreteScheduler(
                prediction_type="v_prediction",
                use_karras_sigmas=True,
                sigma_min=0.002,
                sigma_max=700.0,
                timestep_type="continuous",
                timestep_spacing="leading",
                steps_offset=1,
            ),
            feature_extractor=picture_processor((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder
