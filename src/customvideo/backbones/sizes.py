"""What is known of published models before anything of them is fetched: configs, licence, files.

The configs are the published ones, where they differ from their class's own defaults; all numbers
(parameters, layers, sites) are counted on networks made of them, see `blank.py`. Only how large a
number is in the published files is stated here, since no config says it.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from customvideo.backbones.base import backbone_rows
from customvideo.backbones.folder import WORDLESS, Card
from customvideo.files import expanded

__all__ = ["PUBLISHED", "Part", "Published", "cached", "missing_bytes", "published"]

_WEIGHTS = (".safetensors", ".bin")


@dataclass(frozen=True)
class Part:
    """One network of a pipeline.

    Attributes:
        library: whose class it is, "diffusers" or "transformers".
        kind: the class's name.
        config: what its published config says beyond the class's defaults.
        stored: bytes of a number in the published files, to our knowledge.
    """

    library: str
    kind: str
    config: Mapping[str, Any] = field(default_factory=dict)
    stored: int = 4


@dataclass(frozen=True)
class Published:
    """A model on the hub.

    Attributes:
        hub: its id.
        pipeline: class of its stock pipeline.
        card: name, licence and usual clip.
        parts: folder -> network.
        tokens: folder of a tokenizer -> tokens it reads.
        scheduler: class and config.
        index: further keys of its model_index.json.
        also: ids of other repositories that are fetched with it.
    """

    hub: str
    pipeline: str
    card: Card
    parts: Mapping[str, Part]
    tokens: Mapping[str, int]
    scheduler: tuple[str, Mapping[str, Any]]
    index: Mapping[str, Any] = field(default_factory=dict)
    also: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Write what its folder says, without any weight."""
        kind, config = self.scheduler
        index: dict[str, Any] = {"_class_name": self.pipeline, **self.index}
        index["scheduler"] = ["diffusers", kind]
        _write(folder / "scheduler" / "scheduler_config.json", {"_class_name": kind, **config})
        for name, part in self.parts.items():
            index[name] = [part.library, part.kind]
            stated = {"_class_name": part.kind} | dict(part.config)
            if part.library == "transformers":
                stated = _transformers_config(part)
            _write(folder / name / "config.json", stated)
        for name, length in self.tokens.items():
            index[name] = ["transformers", "PreTrainedTokenizerFast"]
            _write(
                folder / name / "tokenizer_config.json",
                {"model_max_length": length, WORDLESS: True},
            )
        _write(folder / "model_index.json", index)
        card = self.card
        stated = {"name": card.name, "licence": card.licence, "fps": card.fps}
        _write(folder / "customvideo.json", stated | {"frames": card.frames, "size": card.size})


def published(name: str) -> Published | None:
    """The published model that `name`, a row of the table or a hub id, means; None if unknown."""
    found = PUBLISHED.get(name) if name in backbone_rows() else None
    if found is None:
        found = next((one for one in PUBLISHED.values() if one.hub == name), None)
    return found


def cached(hub: str) -> Path | None:
    """The folder of the model `hub` in the hub's local cache, None if it is not there.

    The cache is looked into as it lies on the disk: the hub's own client would ask somebody even
    where it is told not to.
    """
    place = _hub_cache() / f"models--{hub.replace('/', '--')}"
    try:
        commit = (place / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    folder = place / "snapshots" / commit
    return folder if (folder / "model_index.json").is_file() else None


def missing_bytes(model: Published, numbers: Mapping[str, int]) -> dict[str, int]:
    """Part -> bytes still to be fetched, of the parts whose weights no local cache has.

    `numbers` says how many numbers each part is.
    """
    folder = cached(model.hub)
    return {
        name: numbers[name] * part.stored
        for name, part in model.parts.items()
        if folder is None or not _has_weights(folder / name)
    }


def _hub_cache() -> Path:
    """Where the hub's client keeps what it fetched, by the variables that it reads."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if place := os.environ.get(name):
            return expanded(place)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = os.environ.get("HF_HOME") or Path(cache) / "huggingface"
    return expanded(home) / "hub"


def _has_weights(place: Path) -> bool:
    return place.is_dir() and any(file.suffix in _WEIGHTS for file in place.iterdir())


def _transformers_config(part: Part) -> dict[str, Any]:
    config_class = getattr(importlib.import_module(part.library), part.kind).config_class
    stated: dict[str, Any] = config_class(**part.config).to_dict()
    return stated


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _card(name: str, licence: str, fps: float, frames: int, size: tuple[int, int]) -> Card:
    return Card(name, licence, fps, frames, size)


def _t5(kind: str, vocabulary: int, stored: int) -> Part:
    config = {
        "vocab_size": vocabulary,
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10240,
        "num_layers": 24,
        "num_heads": 64,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    }
    return Part("transformers", kind, config, stored)


def _clip(width: int, layers: int, heads: int, stored: int) -> Part:
    config = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
    return Part("transformers", "CLIPTextModel", config, stored)


def _stable_autoencoder(stored: int) -> Part:
    config = {
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "latent_channels": 4,
    }
    return Part("diffusers", "AutoencoderKL", config, stored)


_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def _unet3d(hub: str, frames: int, size: tuple[int, int], stored: int) -> Published:
    config = {
        "sample_size": 32,
        "block_out_channels": [320, 640, 1280, 1280],
        "cross_attention_dim": 1024,
        "attention_head_dim": 64,
    }
    return Published(
        hub,
        "TextToVideoSDPipeline",
        _card(hub, "cc-by-nc-4.0", 8.0, frames, size),
        {
            "unet": Part("diffusers", "UNet3DConditionModel", config, stored),
            "vae": _stable_autoencoder(stored),
            "text_encoder": _clip(1024, 23, 16, stored),
        },
        {"tokenizer": 77},
        ("DDIMScheduler", _DIFFUSION),
    )


_AUTOENCODER_22: dict[str, Any] = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "scale_factor_temporal": 4,
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}
"""The published one states means and deviations of the latents, too: they change no count."""


def _wan(
    hub: str, shape: tuple[int, int, int], clip: tuple[float, int, tuple[int, int]], **more: Any
) -> Published:
    """`shape` is heads, layers and width of the feed-forward."""
    heads, layers, width = shape
    small = more.pop("autoencoder", None)
    config: dict[str, Any] = {
        "num_attention_heads": heads,
        "num_layers": layers,
        "ffn_dim": width,
    }
    if small is not None:
        config |= {"in_channels": 48, "out_channels": 48}
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    network = Part("diffusers", "WanTransformer3DModel", config)
    experts: tuple[str, ...] = more.pop("experts", ("transformer",))
    return Published(
        hub,
        "WanPipeline",
        _card(hub, "apache-2.0", *clip),
        {
            **dict.fromkeys(experts, network),
            "vae": Part("diffusers", "AutoencoderKLWan", small or {}),
            "text_encoder": _t5("UMT5EncoderModel", 256384, more.pop("encoder", 4)),
        },
        {"tokenizer": 512},
        ("UniPCMultistepScheduler", {**flow, "flow_shift": more.pop("shift", 3.0)}),
        **more,
    )


def _cogvideox(hub: str, shape: tuple[int, int, bool], licence: str) -> Published:
    """`shape` is heads, layers, and whether it turns by positions."""
    heads, layers, turns = shape
    config = {
        "num_attention_heads": heads,
        "num_layers": layers,
        "use_rotary_positional_embeddings": turns,
    }
    diffusion = {
        **_DIFFUSION,
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
        "snr_shift_scale": 1.0 if turns else 3.0,
    }
    return Published(
        hub,
        "CogVideoXPipeline",
        _card(hub, licence, 8.0, 49, (480, 720)),
        {
            "transformer": Part("diffusers", "CogVideoXTransformer3DModel", config, 2),
            "vae": Part("diffusers", "AutoencoderKLCogVideoX", {}, 2),
            "text_encoder": _t5("T5EncoderModel", 32128, 2),
        },
        {"tokenizer": 226},
        ("CogVideoXDDIMScheduler", diffusion),
    )


_LTX = Published(
    "Lightricks/LTX-Video",
    "LTXPipeline",
    _card("Lightricks/LTX-Video", "other", 25.0, 161, (512, 704)),
    {
        "transformer": Part("diffusers", "LTXVideoTransformer3DModel"),
        "vae": Part("diffusers", "AutoencoderKLLTXVideo"),
        "text_encoder": _t5("T5EncoderModel", 32128, 4),
    },
    {"tokenizer": 128},
    (
        "FlowMatchEulerDiscreteScheduler",
        {
            "use_dynamic_shifting": True,
            "base_shift": 0.95,
            "max_shift": 2.05,
            "base_image_seq_len": 1024,
            "max_image_seq_len": 4096,
            "shift_terminal": 0.1,
        },
    ),
)

_LLAMA = {
    "vocab_size": 128320,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}

_HUNYUAN = Published(
    "hunyuanvideo-community/HunyuanVideo",
    "HunyuanVideoPipeline",
    _card("hunyuanvideo-community/HunyuanVideo", "other", 24.0, 129, (720, 1280)),
    {
        "transformer": Part("diffusers", "HunyuanVideoTransformer3DModel", {}, 2),
        "vae": Part("diffusers", "AutoencoderKLHunyuanVideo", {}, 2),
        "text_encoder": Part("transformers", "LlamaModel", _LLAMA, 2),
        "text_encoder_2": _clip(768, 12, 12, 2),
    },
    {"tokenizer": 351, "tokenizer_2": 77},
    ("FlowMatchEulerDiscreteScheduler", {"shift": 7.0}),
)

_ANIMATEDIFF = Published(
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "AnimateDiffPipeline",
    _card("animatediff", "creativeml-openrail-m", 8.0, 16, (512, 512)),
    {
        "unet": Part(
            "diffusers",
            "UNetMotionModel",
            {
                "sample_size": 64,
                "cross_attention_dim": 768,
                "num_attention_heads": 8,
                "use_motion_mid_block": True,
            },
        ),
        "vae": _stable_autoencoder(4),
        "text_encoder": _clip(768, 12, 12, 4),
    },
    {"tokenizer": 77},
    ("DDIMScheduler", {**_DIFFUSION, "beta_schedule": "linear", "clip_sample": False}),
    also=("guoyww/animatediff-motion-adapter-v1-5-2",),
)

_SMALL_CLIP = (16.0, 81, (480, 832))

PUBLISHED: dict[str, Published] = {
    "zeroscope": _unet3d("cerspense/zeroscope_v2_576w", 24, (320, 576), 2),
    "modelscope": _unet3d("ali-vilab/text-to-video-ms-1.7b", 16, (256, 256), 4),
    "animatediff": _ANIMATEDIFF,
    "wan-1.3b": _wan("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", (12, 30, 8960), _SMALL_CLIP),
    "wan-14b": _wan("Wan-AI/Wan2.1-T2V-14B-Diffusers", (40, 40, 13824), _SMALL_CLIP),
    "wan2.2-5b": _wan(
        "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        (24, 30, 14336),
        (24.0, 121, (704, 1280)),
        autoencoder=_AUTOENCODER_22,
        encoder=2,
        shift=5.0,
        index={"expand_timesteps": True},
    ),
    "wan2.2-14b": _wan(
        "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
        (40, 40, 13824),
        _SMALL_CLIP,
        encoder=2,
        experts=("transformer", "transformer_2"),
        index={"boundary_ratio": 0.875},
    ),
    "ltx": _LTX,
    "cogvideox-2b": _cogvideox("THUDM/CogVideoX-2b", (30, 30, False), "apache-2.0"),
    "cogvideox-5b": _cogvideox("THUDM/CogVideoX-5b", (48, 42, True), "other"),
    "hunyuan": _HUNYUAN,
}
"""Row of the table of backbones -> what is published under it."""
