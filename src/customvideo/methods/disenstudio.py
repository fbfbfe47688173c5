"""DisenStudio (Chen et al., arXiv 2405.12796): every subject is read from a column of its own.

Wherever the denoiser reads text, the picture is split into columns, and each reads a prompt that
names its subject alone (spatial-disentangled cross-attention). It does so in training, on pictures
with the subjects side by side, and when videos are made. What trains are low-rank deltas of the
denoiser's and the text encoder's attention.

Figures are those of the authors' code (forchchch/disenstudio.github.io). There a user writes each
column's prompt and box; here both are derived from one prompt. See docs/methods/disenstudio.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.attention.site import AttentionSite
from customvideo.attention.tape import Tape
from customvideo.backbones.base import Backbone
from customvideo.backbones.regional import regional
from customvideo.errors import ConfigError
from customvideo.methods.base import Batch, Example
from customvideo.methods.denoising import row_losses, row_means, single_frame, squared_error
from customvideo.methods.dreambooth import DreamBoothLora, DreamBoothLoraConfig
from customvideo.methods.photos import PhotoPrompt
from customvideo.methods.rendering import Draw, Rendering
from customvideo.methods.separate import learned_words
from customvideo.settings import Settings
from customvideo.subjects.prompt import LearnedWord, Prompt, training_prompt
from customvideo.subjects.scene import compose
from customvideo.subjects.subject import Subject
from customvideo.video import Video

__all__ = ["DisenStudio", "DisenStudioConfig", "alone", "columns_of", "in_columns"]

_BANDS, _CHOSEN = "bands", "chosen"


class DisenStudioConfig(DreamBoothLoraConfig):
    """DisenStudio's settings. "Code" means the authors'."""

    prompt: PhotoPrompt = "{subjects}"
    """Prompt of a picture; each column reads its own subject of it, `a <tom> cat` (code)."""
    background: Literal["keep", "plain", "random"] = "keep"
    """What lies behind the subjects: their photos' own (code, which adds copies on photos of other
    places), light grey, or a colour drawn anew."""
    mix_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss on the whole picture, every column reading its subject (code)."""
    single_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss inside one subject's mask, only its own column reading it (code)."""
    rank: int = Field(default=16, ge=1)
    """Rank of all deltas (code)."""
    text_encoder: bool = True
    """Whether the text encoder trains, too (code, at a fifth of the rate)."""
    prior_samples: int = Field(default=100, ge=1)
    """One-frame prior samples per category (code)."""


class DisenStudio(DreamBoothLora):
    """The method as `customvideo.methods.base.Method` asks for it."""

    name: str = "disenstudio"
    config_class: ClassVar[type[Settings]] = DisenStudioConfig
    config: DisenStudioConfig

    def __init__(self, config: DisenStudioConfig | None = None) -> None:
        super().__init__(config)
        self._words: tuple[LearnedWord, ...] = ()

    def trainable(self, backbone: Backbone, subjects: Sequence[Subject]) -> Adapter:
        """Low-rank deltas, and words that will not train."""
        if getattr(backbone, "checkpointed", False):
            raise ConfigError(
                f"Method '{self.name}' cannot train with recomputed activations; set "
                "gradient_checkpointing=false."
            )
        self._words = learned_words(subjects)
        return super().trainable(backbone, subjects)

    def scenes(
        self, subjects: Sequence[Subject], rng: np.random.Generator, canvas: tuple[int, int]
    ) -> list[Example]:
        """All subjects side by side, which column is whose, and one of them that is chosen."""
        edges = np.linspace(0, canvas[1], len(subjects) + 1).round().astype(int)
        image = np.zeros((*canvas, 3), np.uint8)
        masks = np.zeros((len(subjects), *canvas), np.float32)
        bands = np.zeros((len(subjects), 2), np.float32)
        for place, index in enumerate(rng.permutation(len(subjects))):
            left, right = int(edges[place]), int(edges[place + 1])
            size, behind = (canvas[0], right - left), self.config.background
            panel = compose([subjects[index]], rng, size, background=behind)
            image[:, left:right] = panel.image
            masks[index, :, left:right] = panel.masks[0]
            bands[index] = left / canvas[1], right / canvas[1]
        chosen = np.eye(len(subjects), dtype=np.float32)[int(rng.integers(len(subjects)))]
        words, templates = learned_words(subjects), [self.config.prompt]
        prompt = training_prompt(words, rng, templates=templates)
        return [Example(image[None], masks, prompt, {_BANDS: bands, _CHOSEN: chosen})]

    def mask_uses(self) -> list[str]:
        """The loss on one subject alone."""
        return ["errors inside one subject"] if self.config.single_weight > 0 else []

    def losses(self, backbone: Backbone, batch: Batch, tape: Tape | None) -> dict[str, Tensor]:
        """L = a L_mix + b L_single + c L_prior, the last two left out where no row asks."""
        if bool(batch.prior.all()):
            return super().losses(backbone, batch, tape)
        bands, chosen = batch.extra[_BANDS], batch.extra[_CHOSEN]
        states = _states(backbone, batch.texts, self._words)
        rows = self._read(backbone, batch, states, bands).mean(dim=(1, 2))
        losses = row_losses(rows, batch, self.config.prior_weight)
        losses["reconstruction"] = self.config.mix_weight * losses["reconstruction"]
        if self.config.single_weight > 0:
            inside = (batch.masks * chosen[..., None, None]).sum(dim=1)
            error = self._read(backbone, batch, states, bands * chosen[..., None]) * inside
            losses["single"] = self.config.single_weight * error[~batch.prior].mean()
        return losses

    def score(self, backbone: Backbone, batch: Batch, tape: Tape | None) -> Tensor:
        """The error inside the subjects' masks, every column reading its subject."""
        inside = batch.masks.amax(dim=1)
        states = _states(backbone, batch.texts, self._words)
        read = self._read(backbone, batch, states, batch.extra[_BANDS])
        return row_means(read, inside).mean()

    def render(self, backbone: Backbone, wanted: Rendering, draw: Draw) -> Sequence[Video]:
        """The plain sampler's videos, each column reading its subject of the prompt alone."""
        words = wanted.adapter.words if wanted.adapter is not None else ()
        bands = columns_of(wanted.prompts, words)
        states = _states(backbone, wanted.prompts, words) if bands.any() else bands
        with in_columns(backbone, backbone.sites(*wanted.size), states, bands):
            return wanted.videos(backbone, draw(wanted))

    def _read(self, backbone: Backbone, batch: Batch, states: Tensor, bands: Tensor) -> Tensor:
        """Squared errors (row, height, width) with columns, as `in_columns` takes them."""
        mode = self.config.single_frame
        _, _, frames, height, width = batch.latents.shape
        # Sites are asked for in pixels.
        factor = backbone.size[0] // backbone.latent_shape(1, *backbone.size)[2]
        with single_frame(backbone, mode):
            sites = backbone.sites(frames, height * factor, width * factor)
        with in_columns(backbone, sites, states, bands):
            return squared_error(backbone, batch, frame_mode=mode)


def alone(text: str, words: Sequence[LearnedWord]) -> list[str]:
    """What the columns read: `text` with all its learned words put down to one, for each of them.

    "a <tom> cat and a <rex> dog on a beach" becomes "a <tom> cat on a beach" and "a <rex> dog on
    a beach": what stands from the first mention to the last gives way to the one mention, whatever
    it is. A word that `text`, spelt as the text encoder reads it, does not mention gets all of it.
    """
    found: list[re.Match[str] | None] = []
    for word in words:
        tokens = r"\s+".join(map(re.escape, word.tokens))
        noun = r"\s+".join(map(re.escape, word.category.split()))
        found.append(re.search(rf"(\b(an?|the)\s+)?{tokens}\s+{noun}s?\b", text, re.IGNORECASE))
    spans = [match.span() for match in found if match is not None]
    first, last = min((a for a, _ in spans), default=0), max((b for _, b in spans), default=0)
    return [text if match is None else text[:first] + match[0] + text[last:] for match in found]


def columns_of(texts: Sequence[str], words: Sequence[LearnedWord]) -> Tensor:
    """Where each word's column begins and ends, as shares of the width (row, word, 2).

    Columns are equally wide, from left to right in the order of mention. There are none in a row
    that mentions a single word or none: it is read as usual.
    """
    bands = torch.zeros(len(texts), len(words), 2)
    names = [word.name for word in words]
    for row, text in enumerate(texts):
        mentioned = Prompt(text, tuple(words)).mentioned
        for place, word in enumerate(mentioned if len(mentioned) > 1 else ()):
            share = torch.tensor([place, place + 1]) / len(mentioned)
            bands[row, names.index(word.name)] = share
    return bands


@contextmanager
def in_columns(
    backbone: Backbone, sites: Sequence[AttentionSite], states: Tensor, bands: Tensor
) -> Iterator[None]:
    """Let columns of the picture read texts of their own at `sites`, in predictions made inside.

    Args:
        states: encoded texts, one a word and row (word, row, token, dim).
        bands: each word's column (row, word, 2): from where to where, as shares of the width; a
            place belongs to the column that its middle lies in, and none lies in (0, 0).
    """
    where = bands.to(states.device)
    with regional(backbone, sites if bool(bands.any()) else (), states, partial(_inside, where)):
        yield


def _inside(bands: Tensor, site: AttentionSite) -> Tensor:
    """Which positions of a site lie in which column, 0 or 1 (word, row, 1, position)."""
    _, height, width = site.grid
    middle = (torch.arange(width, device=bands.device) + 0.5) / width
    left, right = bands.transpose(0, 1)[..., None].unbind(dim=2)
    inside = (left <= middle) & (middle < right)
    return inside[:, :, None, None].expand(-1, -1, 1, height, -1).flatten(3).float()


def _states(backbone: Backbone, texts: Sequence[str], words: Sequence[LearnedWord]) -> Tensor:
    """The columns' texts, encoded (word, row, token, dim)."""
    rows = [alone(text, words) for text in texts]
    columns = [text for word in zip(*rows, strict=True) for text in word]
    states = backbone.encode_prompt(columns).states
    return states.reshape(len(words), len(texts), *states.shape[1:])
