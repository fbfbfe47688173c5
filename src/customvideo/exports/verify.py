"""Checking an export by reading it back: every name, every number, and a short clip.

Names are looked up in diffusers' own tables of what models were called when they were published,
not in ours. The clip is drawn by a stock pipeline that the exported files were loaded into, which
is only possible for targets that diffusers loads.
"""

from __future__ import annotations

import re
import runpy
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.loaders import single_file_utils
from diffusers.utils import logging as diffusers_logging
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.deltas import Delta, FullDelta, LowRankDelta, WeightDelta
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.backbones.sampling import denoise
from customvideo.backbones.stock import HasStock
from customvideo.errors import AdapterError, ConfigError
from customvideo.exports.for_diffusers import LOADER, PROCESSORS
from customvideo.exports.names import linear_paths, places, split
from customvideo.exports.order import Order, Verdict
from customvideo.exports.possible import CLIP
from customvideo.exports.reading import read_deltas, read_weights
from customvideo.quiet import without_bars, without_warnings
from customvideo.subjects.prompt import Prompt, list_subjects

__all__ = ["verify"]

CLIP_SIZE = (5, 64, 96)
"""Frames, height and width that every family can draw."""
_STEPS, _GUIDANCE, _SEED = 2, 5.0, 0
_TOLERANCE = 1e-3
"""Of a pixel in [0, 1], whatever the adapter changes."""
_ROUNDED = 16
_SLACK = 0.01
"""The same as a share of what the adapter changes, for numbers in half precision."""
_ROUNDING = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 2e-2}
"""Of a delta's Frobenius norm, more than its type rounds."""
_KEY_END = re.compile(r"\.(lora_(A|B|down|up)\.weight|alpha|diff)$")

_PUBLISHED: dict[str, Callable[..., dict[str, Tensor]]] = {
    "wan": single_file_utils.convert_wan_transformer_to_diffusers,
    "ltx": single_file_utils.convert_ltx_transformer_checkpoint_to_diffusers,
}


def verify(order: Order, folder: Path, loss: float = 0.0) -> Verdict:
    """Check the files that `order` became, which may have lost as much as `loss`.

    Raises:
        AdapterError: a name leads nowhere, a number changed more than it was rounded, or the
            target's own loader draws something else.
        ConfigError: a library that the target's loader needs is not installed.
    """
    files = sorted(file for file in folder.rglob("*.safetensors"))
    adapter = order.adapter
    if order.target == "merged-folder":
        return _compared(order, folder, adapter, Verdict(len(files), 0.0))
    if order.target == "textual-inversion":
        words = Adapter(adapter.header, adapter.tokens, {})
        return _compared(order, folder, words, Verdict(len(files), 0.0))
    deltas: dict[str, Delta] = {}
    keys = 0
    for file in files:
        if file.parent.name in ("words", "embeddings") or not _is_weights(file):
            continue
        keys += _check_names(file, order.backbone)
        deltas |= read_deltas(file, order.backbone)
    found = Verdict(keys, _error(order, deltas))
    if found.error > loss + _ROUNDING[order.dtype]:
        raise AdapterError(
            f"The exported deltas differ from the adapter's by {100 * found.error:.2g} %; export "
            "again, and report this with the version of customvideo if it stays."
        )
    if order.target != "diffusers":
        return found
    held = Adapter(adapter.header, adapter.tokens, deltas)
    return _compared(order, folder, held, found)


def _is_weights(file: Path) -> bool:
    return file.name == PROCESSORS or "lora" in file.name or file.parent.name == "loras"


def _check_names(file: Path, backbone: Backbone) -> int:
    """How many tensors the file has; diffusers' table has to lead each name to a layer.

    Raises:
        AdapterError: one leads nowhere.
    """
    keys = list(read_weights(file))
    convert = _PUBLISHED.get(backbone.family)
    known = {split(backbone, path)[1] for path in linear_paths(backbone)}
    dotted = {name.replace(".", "_"): name for name in _dotted(backbone)}
    for key in keys:
        name = _KEY_END.sub("", key)
        if name.startswith("lora_unet_"):
            name = dotted.get(name.removeprefix("lora_unet_"), name)
        published = name.removeprefix("diffusion_model.")
        path = name.removeprefix("transformer.")
        if convert is None and path == name:
            continue
        if convert is not None and (published != name or path == name):
            (converted,) = convert({f"{published}.weight": torch.zeros(1)})
            path = converted.removesuffix(".weight")
        if path not in known:
            raise AdapterError(
                f"The export says '{key}', which is no layer of the published model; report this "
                "with the versions of customvideo and diffusers."
            )
    return len(keys)


def _dotted(backbone: Backbone) -> list[str]:
    names = places(backbone, "comfyui").values()
    return [name.removeprefix("diffusion_model.") for name in names]


def _error(order: Order, deltas: Mapping[str, Delta]) -> float:
    """Relative Frobenius error of `deltas` against the adapter's own, all layers together.

    Raises:
        AdapterError: a layer is missing, or one came up.
    """
    own = order.adapter.deltas
    if set(own) != set(deltas):
        # An attention whose keys alone are changed is written with its values, too.
        spare = [path for path in set(deltas) - set(own) if _matrix(deltas[path]).any()]
        if spare or set(own) - set(deltas):
            raise AdapterError(
                f"The export holds {len(deltas)} layers and the adapter {len(own)}; report this "
                "with the versions of customvideo and diffusers."
            )
    missing = sum(float((_matrix(own[p]) - _matrix(deltas[p])).square().sum()) for p in own)
    whole = sum(float(_matrix(delta).square().sum()) for delta in own.values())
    return (missing / whole) ** 0.5 if whole else 0.0


def _matrix(delta: Delta) -> Tensor:
    assert isinstance(delta, FullDelta | LowRankDelta | WeightDelta), "it was exported"
    return delta.merged().detach().double().cpu()


def _compared(order: Order, folder: Path, held: Adapter, found: Verdict) -> Verdict:
    """`found` with a clip of what was written beside ours with `held`, which is what it holds.

    Raises:
        AdapterError: the two differ by more than rounding does.
    """
    backbone, words = order.backbone, order.adapter.words
    text = list_subjects(words) if words else "a picture"
    asked = Prompt(text, words)
    ours = _drawn(backbone, held, asked)
    whole = ours if held is order.adapter else _drawn(backbone, order.adapter, asked)
    theirs = _theirs(order, folder, asked)
    clip, lost = float((theirs - ours).abs().max()), float((ours - whole).abs().max())
    moved = float((whole - _drawn(backbone, None, Prompt(asked.plain))).abs().max())
    rounding, kinds = 0.0, {order.dtype, backbone.dtype} - {torch.float32}
    if order.target == "merged-folder" and kinds:
        # All weights are rounded, and not what was learned alone.
        rounding = _ROUNDED * max(torch.finfo(kind).eps for kind in kinds)
    if clip > _TOLERANCE + _SLACK * moved + rounding:
        raise AdapterError(
            f"The exported files draw another clip than the adapter (a pixel differs by {clip:.2g} "
            "of 1); report this with the versions of customvideo and diffusers."
        )
    return replace(found, clip=clip, lost=lost, moved=moved)


@torch.no_grad()
def _drawn(backbone: Backbone, adapter: Adapter | None, asked: Prompt) -> Tensor:
    """Our clip (row, frame, 3, height, width) in [0, 1], on the CPU."""
    with nullcontext() if adapter is None else adapter.attach(backbone):
        latents = denoise(
            backbone,
            _noise(backbone),
            backbone.encode_prompt([asked.encoded]),
            backbone.encode_prompt([""]),
            steps=_STEPS,
            guidance=_GUIDANCE,
            solver="native",
        )
    return (backbone.decode_frames(latents).float().cpu() / 2 + 0.5).clamp(0, 1)


def _theirs(order: Order, folder: Path, asked: Prompt) -> Tensor:
    """The same of a stock pipeline that loaded the files."""
    backbone = order.backbone
    if backbone.family == "cogvideox":
        # The stock pipeline draws the noise that its sampler adds in another order of axes.
        return _drawn(load_backbone(folder, str(backbone.device)), None, Prompt(asked.encoded))
    with (
        without_bars(diffusers_logging),
        without_warnings("diffusers", "transformers", "peft"),
        warnings.catch_warnings(),
    ):
        # The name that all supported versions know; newer ones have a second.
        warnings.filterwarnings("ignore", "`torch_dtype` is deprecated", FutureWarning)
        pipeline = _loaded(order, folder)
        pipeline.set_progress_bar_config(disable=True)
        frames, height, width = CLIP_SIZE
        drawn: Tensor = pipeline(
            **_told(backbone, pipeline, asked),
            num_inference_steps=_STEPS,
            guidance_scale=_GUIDANCE,
            num_frames=frames,
            height=height,
            width=width,
            output_type="pt",
        ).frames
    return drawn.float().cpu()


def _told(backbone: Backbone, pipeline: Any, asked: Prompt) -> dict[str, Any]:
    """Noise and prompts as the stock pipeline of this family takes them."""
    latents = _noise(backbone).to(pipeline.dtype)
    # A stock tokenizer's user spells a word of several vectors; CLIP's pipelines do it.
    text = asked.canonical if backbone.family in CLIP else asked.encoded
    told: dict[str, Any] = {"prompt": text, "latents": latents}
    if backbone.family == "ltx":
        patches = pipeline.transformer_spatial_patch_size, pipeline.transformer_temporal_patch_size
        told["latents"] = pipeline._pack_latents(latents, *patches)
    if backbone.family == "hunyuan":
        # Its second text encoder learned no word, and the pipeline has it read the same text.
        told["pooled_prompt_embeds"] = pipeline.encode_prompt(asked.plain)[1]
        return told
    return told | {"negative_prompt": ""}


def _loaded(order: Order, folder: Path) -> Any:
    """The stock pipeline, with the files put on it as their README says.

    Raises:
        ConfigError: a library that this takes is not installed.
    """
    backbone = order.backbone
    if order.target == "merged-folder":
        return DiffusionPipeline.from_pretrained(
            folder, torch_dtype=order.dtype, local_files_only=True, use_safetensors=True
        ).to(backbone.device)
    assert isinstance(backbone, HasStock), "it has been checked"
    pipeline = backbone.stock()
    if order.target == "textual-inversion":
        for word in order.adapter.words:
            pipeline.load_textual_inversion(folder / word.name)
        return pipeline
    try:
        runpy.run_path(str(folder / LOADER))["load"](pipeline)
    except (ImportError, ValueError) as error:
        if "PEFT" not in str(error):
            raise
        raise ConfigError(
            "diffusers loads LoRAs with the package 'peft'; install it with pip install "
            "'customvideo[export]', or leave out --verify."
        ) from error
    return pipeline


def _noise(backbone: Backbone) -> Tensor:
    shape = (1, *backbone.latent_shape(*CLIP_SIZE))
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(_SEED))
    return drawn.to(backbone.device)
