"""What a customization method is: the questions it answers, and the table of methods.

A method says what trains, what it trains on, where it looks and what the loss is. It never
touches an optimizer, a device or a file: that is the trainer's side of the border, and `Example`,
`Batch`, `PriorPlan` and `Stage` are what crosses it. What few methods need is optional: `Staged`,
`Columned`, `ReadsMasks`, `TuningFree`, and `customvideo.methods.rendering.Renders`.

Axes: row = one sample of a batch; word = one learned word, in the adapter's order, which is the
order of the subjects; token = one position of the encoded text; frame, height, width = pixels for
an `Example`, latent cells for a `Batch`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from customvideo.adapters.adapter import Adapter
from customvideo.attention.site import AttentionSite
from customvideo.attention.tape import Tape
from customvideo.backbones.base import Backbone
from customvideo.errors import ConfigError
from customvideo.settings import Settings, validated
from customvideo.subjects.moving import ClipShape
from customvideo.subjects.prompt import Prompt
from customvideo.subjects.subject import Subject
from customvideo.tables import all_rows, look_up

__all__ = [
    "METHODS",
    "Batch",
    "Columned",
    "Example",
    "Filmed",
    "Method",
    "PriorPlan",
    "ReadsMasks",
    "Stage",
    "Staged",
    "TuningFree",
    "check_template",
    "class_columns",
    "learned_numbers",
    "load_method",
    "method_class",
]

# Looked up by name and imported on use; other packages add rows by the entry-point group below.
METHODS: dict[str, str] = {
    "customvideo": "customvideo.methods.customvideo:CustomVideo",
    "custom_diffusion": "customvideo.methods.custom_diffusion:CustomDiffusion",
    "disendiff_svd": "customvideo.methods.disendiff_svd:DisenDiffSvd",
    "disenstudio": "customvideo.methods.disenstudio:DisenStudio",
    "dreambooth": "customvideo.methods.dreambooth:DreamBooth",
    "dreambooth_lora": "customvideo.methods.dreambooth:DreamBoothLora",
    "dreamvideo": "customvideo.methods.dreamvideo:DreamVideo",
    "mudi": "customvideo.methods.mudi:MuDI",
    "vace": "customvideo.methods.vace:Vace",
    "videodreamer": "customvideo.methods.videodreamer:VideoDreamer",
}
ENTRY_POINTS = "customvideo.methods"


@dataclass(frozen=True, eq=False)
class Example:
    """One training sample in pixels, before the backbone's autoencoder.

    Attributes:
        frames: uint8 (frame, height, width, 3); a photo is a video of one frame.
        masks: float32 (subject, height, width) in [0, 1], one for each subject the method was
            given, all zero for a subject the sample does not show; the same for every frame. Of a
            clip (subject, frame, height, width).
        prompt: the sample's text; a subject is present if it is mentioned here.
        extra: whatever else the method's losses want to know of the sample, as arrays by name,
            with the same names and shapes in all its samples. The trainer only passes them on.
    """

    frames: NDArray[np.uint8]
    masks: NDArray[np.float32]
    prompt: Prompt
    extra: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows that go through the denoiser together: instance rows, prior rows, or both.

    Attributes:
        latents: clean latents (row, channel, frame, height, width).
        noise: Gaussian noise, shaped like `latents`.
        times: diffusion times (row,), as `Backbone.noise` counts them.
        texts: one text a row, as the text encoder reads it (`Prompt.encoded`).
        words: where the learned words stand in the encoded texts (row, word, token): 1/n at each
            of a word's n positions, 0 elsewhere; all zero in prior rows.
        masks: subject masks at latent resolution (row, word, height, width) in [0, 1]; zero in
            prior rows. Of clips (row, word, frame, height, width).
        present: (row, word) bool, whether the row shows and names the word's subject.
        prior: (row,) bool, True for class-prior rows, which only keep the base model's own notion
            of a category and take no other loss.
        extra: the examples' own arrays by name, (row, …) float32; zero in prior rows, and empty
            in a batch of prior rows alone.
        stage: name of the stage that the batch trains; "" for a method without stages.
        real: bool (row, token), which tokens of the encoded texts are no padding; None if all count
            (`TextStates.real`).
    """

    latents: torch.Tensor
    noise: torch.Tensor
    times: torch.Tensor
    texts: tuple[str, ...]
    words: torch.Tensor
    masks: torch.Tensor
    present: torch.Tensor
    prior: torch.Tensor
    extra: Mapping[str, torch.Tensor] = field(default_factory=dict)
    stage: str = ""
    real: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def moving(self) -> bool:
        """Whether the rows are clips, with masks that move."""
        return self.masks.ndim == 5

    def to(self, device: torch.device | str) -> Batch:
        """The same rows on `device`."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        moved: dict[str, Any] = {
            name: value.to(device)
            for name, value in values.items()
            if isinstance(value, torch.Tensor)
        }
        moved["extra"] = {name: value.to(device) for name, value in self.extra.items()}
        return replace(self, **moved)


@dataclass(frozen=True)
class Stage:
    """A part of a run in which only some of the adapter trains.

    Attributes:
        name: what messages and `Batch.stage` call it.
        steps: optimizer steps; None, in the last stage only, for all that remain.
        words: whether the learned words train.
        paths: the deltas that train, None for all; extras train where any delta does.
    """

    name: str
    steps: int | None = None
    words: bool = True
    paths: Collection[str] | None = None


@dataclass(frozen=True)
class PriorPlan:
    """Which class-prior samples a method wants: what the base model itself draws for a category.

    Attributes:
        categories: the categories to preserve.
        template: the prior prompt, with `{category}`.
        samples: one-frame samples per category.
        rows: prior rows that accompany each batch.
        clips_every: a pass over prior *clips* joins every so many steps; 0 for never.
        clip_samples: clips per category.
        clip_frames: frames of a clip.
        sampling_steps: denoising steps to make one sample.
        guidance: guidance scale to make one sample.
    """

    categories: tuple[str, ...]
    template: str = "a {category}"
    samples: int = 200
    rows: int = 2
    clips_every: int = 0
    clip_samples: int = 8
    clip_frames: int = 8
    sampling_steps: int = 25
    guidance: float = 7.5

    def prompt(self, category: str) -> str:
        """The prior prompt of one category."""
        return self.template.format(category=category)


def check_template(text: str) -> str:
    """Return `text` if it can be a `PriorPlan.template`, else raise ValueError."""
    if "{category}" not in text or set("{}") & set(text.replace("{category}", "")):
        raise ValueError("text with {category} in it and no other braces, such as 'a {category}'")
    return text


class Method(Protocol):
    """One customization method.

    A class is a method if it has these members; `customvideo.methods.customvideo` is the model to
    copy. Its constructor takes the settings object alone, or nothing for the defaults.
    """

    config_class: ClassVar[type[Settings]]

    @property
    def name(self) -> str:
        """The method's name in the table."""

    @property
    def config(self) -> Settings:
        """The settings it was made with."""

    def trainable(self, backbone: Backbone, subjects: Sequence[Subject]) -> Adapter:
        """Make the adapter to train, with one learned word a subject; it changes nothing yet.

        In a run torch is seeded with the run's seed, which is how it reaches a random start.
        """

    def scenes(
        self,
        subjects: Sequence[Subject],
        rng: np.random.Generator,
        canvas: tuple[int, int],
    ) -> list[Example]:
        """Draw training samples of `canvas` = (height, width) pixels; same `rng`, same samples."""

    def watches(
        self, backbone: Backbone, frames: int, height: int, width: int
    ) -> list[AttentionSite]:
        """Where the losses look, for samples of that size in pixels; empty to look nowhere."""

    def prior(self, backbone: Backbone, subjects: Sequence[Subject]) -> PriorPlan | None:
        """Which class-prior samples to train on beside the scenes; None for none."""

    def losses(
        self, backbone: Backbone, batch: Batch, tape: Tape | None
    ) -> dict[str, torch.Tensor]:
        """The weighted scalar loss terms of a batch by name; their sum is minimised.

        `tape` records the sites of `watches` and is None when there are none, or when every row
        of the batch is a prior row.
        """

    def score(self, backbone: Backbone, batch: Batch, tape: Tape | None) -> torch.Tensor:
        """How badly held-out rows are fitted, as one scalar: lower is better. Needs no gradient."""


@runtime_checkable
class Staged(Protocol):
    """A method that trains in stages, one after the other within a run.

    Warm-up begins anew in each. One stage without words is how a method keeps its words as they
    started.
    """

    def stages(self, adapter: Adapter) -> Sequence[Stage]:
        """The stages in their order; the same for the same settings."""


@runtime_checkable
class Filmed(Protocol):
    """A method that learns from clips, too; all others see the frames picked from them alone."""

    def clip_scenes(
        self, subjects: Sequence[Subject], rng: np.random.Generator, shape: ClipShape
    ) -> list[Example]:
        """Draw training clips of `shape` with masks that move; some subject has clips. They come
        in batches of their own (`Batch.moving`)."""


@runtime_checkable
class Columned(Protocol):
    """A method whose tape records other text positions than those of the learned words."""

    def columns(self, batch: Batch) -> torch.Tensor:
        """Weights (row, column, token) as `watch` takes them; the maps' second axis is theirs."""


@runtime_checkable
class ReadsMasks(Protocol):
    """A method that says what it does with masks, or that it does nothing with them."""

    def mask_uses(self) -> Sequence[str]:
        """The uses that masks have with these settings, a few words each, such as "cut-outs".

        Empty if they only say where photos are cropped, which all methods do."""


@runtime_checkable
class TuningFree(Protocol):
    """A method that trains nothing: its adapter is whole as `trainable` makes it.

    Steps, rates and all else about a training change nothing about it, and no other member that
    belongs to one is asked for; `customvideo.methods.untrained` has answers to all of them.
    """

    def untrained(self) -> str:
        """What its videos come from instead: a clause for people, without its full stop."""


def learned_numbers(method: Method, adapter: Adapter) -> int:
    """How many numbers of `adapter`, which `method` made, were learned."""
    if isinstance(method, TuningFree):
        return 0
    return sum(parameter.numel() for parameter in adapter.parameters())


def class_columns(words: torch.Tensor) -> torch.Tensor:
    """Where the category follows each learned word: 1 at the token after it, 0 elsewhere.

    `words` is (row, word, token) as in a `Batch`, and so is the result; all zero for a word that
    is not there. Of a category of several tokens this is the first.
    """
    inside = words > 0
    after = torch.zeros_like(inside)
    after[..., 1:] = inside[..., :-1]
    return (after & ~inside).to(words.dtype)


def method_class(name: str) -> type[Method]:
    """The class behind a method's name.

    Raises:
        ConfigError: no such method; the message lists the known ones.
    """
    found = look_up(name, all_rows(METHODS, ENTRY_POINTS), "method", ConfigError)
    return cast("type[Method]", found)


def load_method(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """Make the method called `name` with `options`, the keys of its settings class.

    Raises:
        ConfigError: no such method, no such option, or a value that does not fit.
    """
    cls = method_class(name)
    config = validated(cls.config_class, options or {})
    return cast("Any", cls)(config)  # type: ignore[no-any-return]
