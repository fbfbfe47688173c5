"""From a prompt to a video: a function of its arguments that writes nothing.

Seeds, prompts, the adapter and decoding are handled here; the loop that takes the noise away is
`customvideo.backbones.sampling`, files are `customvideo.video`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from operator import index
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.together import Learned, Together
from customvideo.backbones.base import Backbone, guided_inside
from customvideo.backbones.reusing import can_reuse, reusing
from customvideo.backbones.sampling import Predictor, denoise
from customvideo.errors import ConfigError
from customvideo.methods.layout import Box, check_layout
from customvideo.methods.recording import Recorder, Regions
from customvideo.methods.rendering import Rendering, renderer
from customvideo.settings import LARGEST_SEED, Settings
from customvideo.subjects.prompt import Prompt
from customvideo.video import Video

__all__ = [
    "CustomVideoWarning",
    "SamplingConfig",
    "check_seed",
    "fast",
    "generate",
    "generate_with_attention",
]

_ROWS_AT_ONCE = 4
"""Videos denoised together: more would not be faster, but would need more memory."""


Adapters: TypeAlias = Adapter | Sequence[Adapter] | None
"""What is attached: one adapter, several at once, or none."""


_FAST_STEPS, _FAST_CACHE = 0.5, 0.1
"""Share of the steps, and threshold of the block cache, of fast videos."""


class CustomVideoWarning(UserWarning):
    """A prompt will be generated, or a subject learned, but hardly as their author means it."""


class SamplingConfig(Settings):
    """How a video is drawn from the model."""

    num_steps: int = Field(default=25, ge=1, le=1000)
    """Denoiser calls."""
    guidance: float = Field(default=9.0, ge=0)
    """Classifier-free guidance; 1 or less turns it off. A model that guides itself is told it."""
    negative: str = ""
    """What to keep away from; learned words may stand here, too. A model that guides itself does
    not read it."""
    frames: int | None = Field(default=None, ge=1)
    """None for the backbone's own clip length."""
    height: int | None = Field(default=None, ge=1)
    """In pixels; None for the backbone's own."""
    width: int | None = Field(default=None, ge=1)
    solver: Literal["native", "ddim", "dpmsolver++", "unipc", "euler"] = "dpmsolver++"
    """Who takes the noise away; "native" is the scheduler that came with the model."""
    strength: float = Field(default=1.0, ge=0)
    """Scale of the adapter's weights; 0 leaves the base model with the learned words alone."""
    regions: Literal["off", "alike", "all"] = "off"
    """Whether learned words keep to their own places: where one subject is, the words of the others
    are not read, of those of the same category (`alike`) or of all. Of methods that render in their
    own way it changes nothing."""
    guidance_every: int = Field(default=1, ge=1)
    """The negative half of guidance is asked in every such step; in between, its difference from
    the last time stands in: nearly half of a step is spared, for slightly other videos."""
    block_cache: float = Field(default=0.0, ge=0)
    """Where the first block changes by less than this share, the others answer as in the step
    before (diffusers' first-block cache); 0 for never. Of transformers, videos without `regions`
    and recorded attention."""
    regions_begin: float = Field(default=0.2, ge=0, le=1)
    """Share of the steps in which the picture is laid out before."""


@overload
def generate(
    backbone: Backbone,
    adapter: Adapters,
    prompt: str,
    *,
    seed: int = 0,
    options: SamplingConfig | None = None,
    layout: Mapping[str, Box] | None = None,
) -> Video: ...
@overload
def generate(
    backbone: Backbone,
    adapter: Adapters,
    prompt: str | Sequence[str],
    *,
    seed: int | Sequence[int] = 0,
    options: SamplingConfig | None = None,
    layout: Mapping[str, Box] | None = None,
) -> Video | list[Video]: ...
def generate(
    backbone: Backbone,
    adapter: Adapters,
    prompt: str | Sequence[str],
    *,
    seed: int | Sequence[int] = 0,
    options: SamplingConfig | None = None,
    layout: Mapping[str, Box] | None = None,
) -> Video | list[Video]:
    """Draw one video, or one for each of several prompts or seeds.

    The same seed gives the same video, whatever else is drawn beside it. One seed serves all
    prompts, one prompt all seeds; a sequence of either gives a list. The adapter, or each of
    several, is attached meanwhile and off afterwards.

    `layout` gives learned words boxes (left, top, right, bottom, shares of the picture) outside of
    which they are not read; then `regions` has no part. Of methods that render in their own way it
    changes nothing.

    Raises:
        ConfigError: as many prompts as seeds are needed, a seed is none or out of range, or a box
            cannot be used.
        BackboneError: the model cannot make this size.
        AdapterError: an adapter was made for another backbone, or two have the same word.
    Warns:
        CustomVideoWarning: the prompt has no learned word, or words nobody learned, or the model
            reads no negative prompt.
    """
    single = isinstance(prompt, str) and np.ndim(seed) == 0
    lines, seeds = _paired(prompt, seed)
    options = options or SamplingConfig()
    learned = _learned(adapter)
    regions = _regions(learned, options, layout)
    with _attached(backbone, learned, options):
        prompts = [learned.prompt(text) if learned else Prompt(text) for text in lines]
        for asked in dict.fromkeys(prompts):
            _warn(backbone, asked)
        videos: list[Video] = []
        # What is used again is decided for all rows of a call.
        together = 1 if options.block_cache else _ROWS_AT_ONCE
        for start in range(0, len(prompts), together):
            rows = slice(start, start + together)
            wanted = _rendering(backbone, prompts[rows], seeds[rows], options)
            videos += _render(backbone, wanted, learned, regions)
    return videos[0] if single else videos


def fast(options: SamplingConfig, backbone: Backbone) -> SamplingConfig:
    """`options` for videos in about half of the time, a little less like the subjects; see
    docs/speed.md.

    Half of the steps, by the solver that loses least with few where the model takes it, and blocks
    used again where the model can. The negative half of guidance is asked in every step: what is
    spared by asking less often costs more likeness than fewer steps do.
    """
    changes: dict[str, Any] = {"num_steps": max(1, round(_FAST_STEPS * options.num_steps))}
    if options.solver != "native" and "unipc" in backbone.noise.solvers:
        changes["solver"] = "unipc"
    if can_reuse(backbone):
        changes["block_cache"] = _FAST_CACHE
    return options.model_copy(update=changes)


def check_seed(seed: Any) -> int:
    """Return `seed` as an int if it can fix a draw, else raise ConfigError."""
    try:
        number = index(seed)
    except TypeError:
        raise ConfigError(
            f"The seed {seed!r} is not a whole number: choose 0 to {LARGEST_SEED}."
        ) from None
    if not 0 <= number <= LARGEST_SEED:
        raise ConfigError(f"The seed {number} is out of range: choose 0 to {LARGEST_SEED}.")
    return number


def generate_with_attention(
    backbone: Backbone,
    adapter: Adapters,
    prompt: str,
    *,
    seed: int = 0,
    options: SamplingConfig | None = None,
    layout: Mapping[str, Box] | None = None,
) -> tuple[Video, dict[str, NDArray[np.float32]]]:
    """Draw the video that `generate` draws, and say where each learned word was looked at.

    The maps (frame, height, width) of every learned word in the prompt are attention
    probabilities, averaged over steps and over the sites of intermediate size, on the finest of
    those sites' grids. Without learned words there are none. Warns as `generate`.

    Raises:
        ConfigError: as `generate`, or the adapter's method renders in a way of its own.
        BackboneError, AdapterError: as `generate`.
    """
    learned = _learned(adapter)
    if learned is None or not learned.words:
        return generate(backbone, adapter, prompt, seed=seed, options=options, layout=layout), {}
    if isinstance(learned, Adapter) and renderer(learned) is not None:
        raise ConfigError(
            f"The method '{learned.header.method}' renders in its own way, of which no attention "
            "is recorded; generate without it."
        )
    options, seed = options or SamplingConfig(), check_seed(seed)
    regions = _regions(learned, options, layout)
    with _attached(backbone, learned, options):
        asked = learned.prompt(prompt)
        _warn(backbone, asked)
        wanted = _rendering(backbone, [asked], [seed], options)
        recorder = Recorder(backbone, learned, wanted, regions)
        video = wanted.videos(backbone, _draw(recorder, backbone, wanted))[0]
    maps = recorder.average()[0].cpu().numpy()
    mentioned = {word.name for word in asked.mentioned}
    order = enumerate(learned.words)
    return video, {word.word: maps[index] for index, word in order if word.name in mentioned}


@torch.no_grad()
def _render(
    backbone: Backbone, wanted: Rendering, learned: Learned | None, regions: Regions | None
) -> Sequence[Video]:
    """One video a row, as the method of the adapter makes them."""
    if isinstance(learned, Adapter):
        wanted = replace(wanted, adapter=learned)
        if (method := renderer(learned)) is not None:
            return method.render(backbone, wanted, partial(_draw, backbone, backbone))
    predictor: Predictor = backbone
    if learned is not None and regions is not None:
        recorder = Recorder(backbone, learned, wanted, regions)
        predictor = recorder if recorder.apart else backbone
    return wanted.videos(backbone, _draw(predictor, backbone, wanted))


def _regions(
    learned: Learned | None, options: SamplingConfig, layout: Mapping[str, Box] | None
) -> Regions | None:
    if layout:
        check_layout(layout, () if learned is None else learned.words)
        return Regions(layout=layout)
    if options.regions == "off":
        return None
    return Regions(alike=options.regions == "alike", begin=options.regions_begin)


def _draw(predictor: Predictor, backbone: Backbone, wanted: Rendering) -> Tensor:
    """The plain sampler; `predictor` is the backbone, or stands before it."""
    cached = wanted.block_cache > 0 and predictor is backbone
    with reusing(backbone, wanted.block_cache) if cached else nullcontext():
        return denoise(
            predictor,
            wanted.noise(backbone),
            wanted.text,
            wanted.negative,
            steps=wanted.steps,
            guidance=wanted.guidance,
            guidance_every=wanted.guidance_every,
            solver=wanted.solver,
        )


def _learned(adapter: Adapters) -> Learned | None:
    """What is to be attached as one thing."""
    if adapter is None or isinstance(adapter, Adapter):
        return adapter
    if len(adapter) < 2:
        return adapter[0] if adapter else None
    for one in adapter:
        if renderer(one) is not None:
            raise ConfigError(
                f"The method '{one.header.method}' draws in a way of its own, for its own adapter "
                "alone; give that adapter by itself."
            )
    return Together(adapter)


def _attached(
    backbone: Backbone, learned: Learned | None, options: SamplingConfig
) -> AbstractContextManager[object]:
    return nullcontext() if learned is None else learned.attach(backbone, options.strength)


@torch.no_grad()
def _rendering(
    backbone: Backbone, prompts: Sequence[Prompt], seeds: Sequence[int], options: SamplingConfig
) -> Rendering:
    avoided = Prompt(options.negative, prompts[0].words).encoded
    if avoided and guided_inside(backbone):
        warnings.warn(
            f"The backbone '{backbone.name}' guides itself and reads no negative prompt; leave "
            f"'{options.negative}' out.",
            CustomVideoWarning,
            # The caller of `generate`, past this function's decorator.
            stacklevel=4,
        )
    texts = tuple(prompt.encoded for prompt in prompts)
    height, width = backbone.size
    return Rendering(
        prompts=texts,
        text=backbone.encode_prompt(texts),
        negative=backbone.encode_prompt([avoided]),
        seeds=tuple(seeds),
        size=(
            options.frames or backbone.frames,
            options.height or height,
            options.width or width,
        ),
        steps=options.num_steps,
        guidance=options.guidance,
        solver=options.solver,
        avoided=avoided,
        guidance_every=options.guidance_every,
        block_cache=options.block_cache,
    )


def _paired(prompt: str | Sequence[str], seed: int | Sequence[int]) -> tuple[list[str], list[int]]:
    texts = [prompt] if isinstance(prompt, str) else list(prompt)
    numbers: Any = seed if np.ndim(seed) else [seed]
    seeds = [check_seed(number) for number in numbers]
    rows = max(len(texts), len(seeds))
    if not (texts and seeds):
        raise ConfigError("There is nothing to generate; give at least one prompt and one seed.")
    if min(len(texts), len(seeds)) not in (1, rows):
        raise ConfigError(
            f"{len(texts)} prompts cannot be paired with {len(seeds)} seeds: give one of either, "
            "or as many of both."
        )
    return texts * (rows // len(texts)), seeds * (rows // len(seeds))


def _warn(backbone: Backbone, prompt: Prompt) -> None:
    for problem in _problems(backbone, prompt):
        # The caller of `generate` or `generate_with_attention`.
        warnings.warn(problem, CustomVideoWarning, stacklevel=3)


def _problems(backbone: Backbone, prompt: Prompt) -> Iterator[str]:
    learned = ", ".join(word.word for word in prompt.words)
    if unknown := [word for word in prompt.unknown if not _in_vocabulary(backbone, word)]:
        known = f"the adapter knows {learned}" if learned else "no adapter is attached"
        yield f"Nobody learned {', '.join(unknown)} in '{prompt.text}'; {known}."
    if prompt.words and not prompt.mentioned:
        yield (
            f"The prompt '{prompt.text}' has no learned word, so no subject of the adapter will "
            f"appear; write {learned} where it should."
        )
    if strangers := _unheard(backbone, prompt):
        yield (
            f"The backbone '{backbone.name}' never learned {', '.join(strangers)} and will make "
            "little of it; use simpler words."
        )
    if _is_cut(backbone, prompt):
        yield (
            f"The prompt '{prompt.text}' is longer than the backbone '{backbone.name}' reads, and "
            "its end is ignored; shorten it."
        )


def _in_vocabulary(backbone: Backbone, word: str) -> bool:
    """Whether the text encoder has the word itself, as one that an adapter was merged into."""
    return word in backbone.tables()[0].tokenizer.get_vocab()


def _unheard(backbone: Backbone, prompt: Prompt) -> list[str]:
    """Ordinary words of the prompt that a closed vocabulary lacks, each once."""
    if backbone.known_words is None:
        return []
    ordinary = re.sub(r"<[^<>]*>", " ", prompt.plain).lower()
    words = dict.fromkeys(re.findall(r"[^\W\d_]+", ordinary))
    return [f"'{word}'" for word in words if word not in backbone.known_words]


def _is_cut(backbone: Backbone, prompt: Prompt) -> bool:
    table = backbone.tables()[0]
    return len(table.tokenizer(prompt.encoded, verbose=False).input_ids) > table.max_length
