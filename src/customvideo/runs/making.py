"""Videos from prompts, into files: what `customvideo generate` does.

How a video is drawn is `customvideo.generation`; here prompts and seeds become numbered files and
an adapter finds its backbone again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from customvideo import generation
from customvideo.adapters.adapter import Adapter
from customvideo.attention.draw import draw_words
from customvideo.backbones.base import Backbone, backbone_rows, load_backbone
from customvideo.backbones.upscaling import Upscaling, upscale
from customvideo.config import Recipe, default_recipe, load_recipe
from customvideo.errors import AdapterError, ConfigError
from customvideo.files import ensure_dir
from customvideo.generation import SamplingConfig
from customvideo.runs.folder import RECIPE, Say
from customvideo.runs.memory import enough_memory
from customvideo.settings import validated
from customvideo.subjects.prompt import LearnedWord, Prompt
from customvideo.video import Video

__all__ = [
    "GeneratePlan",
    "backbone_for",
    "backbone_name",
    "generate",
    "recipe_beside",
    "sampling_for",
    "watchable_scale",
]

_FORMATS = (".mp4", ".gif", ".png")
_KNOBS = ("fewer --frames", "a smaller --size")
"""What takes less memory."""
_WATCHABLE = 384
"""Videos narrower than this many pixels are enlarged in files made for people."""


@dataclass(frozen=True)
class GeneratePlan:
    """Videos to make: every prompt with every seed. `sampling` holds keys of `SamplingConfig`,
    `size` is `HxW` in pixels; without an adapter the base model is asked."""

    prompts: Sequence[str]
    out: Path
    adapter: Path | None = None
    seeds: Sequence[int] = (0,)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    size: str | None = None
    backbone: str | None = None
    attention: bool = False
    device: str = "auto"
    upscale: str | None = None
    """`MODEL` or `MODEL=STRENGTH` that redraws every video larger."""
    alongside: Sequence[Path] = ()
    """Adapters to attach besides, of the same backbone and with other words."""
    fast: bool = False
    """Fewer and cheaper steps; `sampling` is still what it says."""


def generate(plan: GeneratePlan, say: Say) -> list[Path]:
    """Make the plan's videos and return their files, numbered if there are several.

    Raises:
        UserError: a prompt, setting, adapter, backbone or place cannot be used.
    """
    work = list(product(plan.prompts, map(generation.check_seed, plan.seeds)))
    targets = _targets(plan.out, len(work))
    sampling = {**plan.sampling, **_size(plan.size)}
    validated(SamplingConfig, sampling)
    paths = [*([] if plan.adapter is None else [plan.adapter]), *plan.alongside]
    adapters = [Adapter.load(path) for path in paths]
    if plan.attention and not adapters:
        raise ConfigError("--attention draws learned words; give the --adapter that has them.")
    redrawing = None if plan.upscale is None else Upscaling.parse(plan.upscale)
    main, path = _main(paths, adapters)
    backbone = backbone_for(path, main, plan.backbone, plan.device)
    options = sampling_for(path, backbone, {} if plan.fast else sampling)
    if plan.fast:
        quick = generation.fast(options, backbone)
        options = validated(SamplingConfig, {**quick.model_dump(), **sampling})
    words = tuple(word for adapter in adapters for word in adapter.words)
    enlarge = _enlarger(redrawing, backbone, words, options)
    for target, (prompt, seed) in zip(targets, work, strict=True):
        began = time.monotonic()
        with enough_memory(f"generating on '{backbone.name}'", _KNOBS):
            if plan.attention:
                video = _with_attention(backbone, adapters, (prompt, seed, options), target)
            else:
                video = generation.generate(backbone, adapters, prompt, seed=seed, options=options)
            video = enlarge(video, prompt, seed)
        video.save(target, scale=1 if plan.size else watchable_scale(video))
        say(f"Wrote '{target}' ({time.monotonic() - began:.1f} s): {prompt}, seed {seed}")
    return targets


def _main(paths: Sequence[Path], adapters: Sequence[Adapter]) -> tuple[Adapter | None, Path | None]:
    """The adapter that says which backbone and how to sample, and its file: the first that lies
    beside its run's recipe, else the first."""
    found = list(zip(adapters, paths, strict=True))
    beside = [pair for pair in found if recipe_beside(pair[1]) is not None]
    return next(iter(beside or found), (None, None))


def backbone_for(
    path: Path | None, adapter: Adapter | None, name: str | None, device: str
) -> Backbone:
    """Load the backbone called `name`, or the one the adapter at `path` was made for.

    An adapter's header names no folder, so a backbone that is one is looked up in the recipe
    beside the adapter.

    Raises:
        AdapterError: the adapter's backbone cannot be found, or is not the one called `name`.
        BackboneError: it cannot be loaded.
    """
    if name is None:
        name = "toybox" if adapter is None or path is None else backbone_name(path, adapter)
    backbone = load_backbone(name, device)
    if adapter is not None:
        adapter.check_fits(backbone)
    return backbone


def sampling_for(path: Path | None, backbone: Backbone, keys: Mapping[str, Any]) -> SamplingConfig:
    """How the run of the adapter at `path` sampled, with `keys` changed.

    Without the run's recipe beside it, that is the packaged one for `backbone`, or for its family.

    Raises:
        ConfigError: an unknown key, or a value that does not fit.
    """
    recipe = recipe_beside(path)
    if recipe is None:
        recipe = default_recipe(backbone=backbone.name, family=backbone.family)
    return validated(SamplingConfig, {**recipe.sampling.model_dump(), **keys})


def watchable_scale(video: Video) -> int:
    """By how much to enlarge a video of toy size so that people can watch it."""
    return max(1, _WATCHABLE // video.size[1])


def _targets(out: Path, count: int) -> list[Path]:
    """`video.mp4`, or `video-1.mp4`, `video-2.mp4`, …"""
    if out.suffix.lower() not in _FORMATS:
        raise ConfigError(
            f"Cannot tell the format of '{out}'; end its name with one of {', '.join(_FORMATS)}."
        )
    ensure_dir(out.parent)
    digits = len(str(count))
    return [
        out if count == 1 else out.with_stem(f"{out.stem}-{index:0{digits}d}")
        for index in range(1, count + 1)
    ]


def _size(text: str | None) -> dict[str, int]:
    if text is None:
        return {}
    found = re.fullmatch(r"(\d+)[xX×](\d+)", text)
    if found is None:
        raise ConfigError(f"Cannot read the size '{text}'; write height x width, such as 320x576.")
    return {"height": int(found[1]), "width": int(found[2])}


def backbone_name(path: Path, adapter: Adapter) -> str:
    """What `load_backbone` takes for the backbone of the adapter at `path`.

    Raises:
        AdapterError: it was a folder, and nobody says where.
    """
    name = adapter.header.backbone
    if name in backbone_rows() or "/" in name:
        return name
    if recipe := recipe_beside(path):
        return recipe.backbone
    raise AdapterError(
        f"'{path}' was made for the backbone '{name}', which is a folder somewhere; say where with "
        "--backbone."
    )


def recipe_beside(path: Path | None) -> Recipe | None:
    """The recipe of the run that wrote the adapter at `path`, if it still lies there."""
    if path is None or not (path.parent / RECIPE).is_file():
        return None
    return load_recipe(path.parent / RECIPE)


def _enlarger(
    wanted: Upscaling | None,
    backbone: Backbone,
    words: tuple[LearnedWord, ...],
    options: SamplingConfig,
) -> Callable[[Video, str, int], Video]:
    """What redraws the video of a prompt and a seed larger; unless wanted, what leaves it."""
    if wanted is None:
        return lambda video, _prompt, _seed: video
    height, width = options.height or backbone.size[0], options.width or backbone.size[1]
    clip = options.frames or backbone.frames, height, width
    larger = wanted.load(clip, str(backbone.device))

    def enlarge(video: Video, prompt: str, seed: int) -> Video:
        return upscale(
            larger,
            video,
            Prompt(prompt, words).plain,
            Prompt(options.negative, words).plain,
            seed=seed,
            steps=options.num_steps,
            guidance=options.guidance,
            solver=options.solver,
            share=wanted.strength,
        )

    return enlarge


def _with_attention(
    backbone: Backbone,
    adapters: Sequence[Adapter],
    work: tuple[str, int, SamplingConfig],
    target: Path,
) -> Video:
    """The video, after one with every learned word's attention is written beside `target`."""
    prompt, seed, options = work
    video, maps = generation.generate_with_attention(
        backbone, adapters, prompt, seed=seed, options=options
    )
    drawn = draw_words(video, maps, scale=watchable_scale(video))
    drawn.save(target.with_stem(f"{target.stem}-attention"))
    return video
