"""VideoDreamer's Disen-Mix finetuning (Chen et al., arXiv 2311.00990), on any backbone.

Low-rank deltas of the denoiser's and the text encoder's attention learn from two kinds of pictures:
of one subject each, and *mixed* ones with all subjects side by side. In a mixed picture a feature
of the picture itself is added to its text, to soak up the seams; it is dropped when videos are
made. A weak third loss asks for the mixed picture from its text alone.

There is no public code. What the paper's figure does not say is taken from DisenBooth
(forchchch/DisenBooth), by the same authors, and the picture's feature is a proxy: see
docs/methods/videodreamer.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from customvideo.adapters.adapter import Adapter
from customvideo.attention.tape import Tape
from customvideo.backbones.base import Backbone
from customvideo.methods.base import Batch, Example
from customvideo.methods.denoising import squared_error
from customvideo.methods.dreambooth import DreamBoothLora, DreamBoothLoraConfig
from customvideo.methods.photos import PhotoPrompt
from customvideo.methods.separate import learned_words
from customvideo.settings import Settings
from customvideo.subjects.prompt import training_prompt
from customvideo.subjects.scene import compose
from customvideo.subjects.subject import Subject

__all__ = ["VideoDreamer", "VideoDreamerConfig", "picture_feature"]

_POOLED = (4, 4)
"""Cells, up and across, of the latents that a picture's feature is made of."""


class VideoDreamerConfig(DreamBoothLoraConfig):
    """VideoDreamer's settings. "Stated" means by the paper's figure."""

    prompt: PhotoPrompt = "{subjects}"
    """Prompt of a lone subject: `a <tom> cat` (stated)."""
    mixed_prompt: PhotoPrompt = "a picture is divided into several regions, {subjects}"
    """Prompt of a mixed picture (stated)."""
    mixed_share: float = Field(default=0.5, ge=0, le=1)
    """How many samples are mixed; the rest show one subject (choice)."""
    background: Literal["keep", "plain", "random"] = "keep"
    """What lies behind the subjects of a mixed picture; their photos' own, stitched (stated)."""
    mixed_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss on mixed pictures with their feature (choice)."""
    weak_weight: float = Field(default=0.01, ge=0)
    """Weight of the loss on mixed pictures without (DisenBooth's weak denoising)."""
    rank: int = Field(default=16, ge=1)
    """Rank of all deltas (DisenStudio, by the same authors)."""
    text_encoder: bool = True
    """Whether the text encoder trains, too (stated)."""
    prior_weight: float = Field(default=0.0, ge=0)
    """Weight of class-prior preservation (none is stated)."""


class VideoDreamer(DreamBoothLora):
    """The method as `customvideo.methods.base.Method` asks for it."""

    name: str = "videodreamer"
    config_class: ClassVar[type[Settings]] = VideoDreamerConfig
    config: VideoDreamerConfig

    def __init__(self, config: VideoDreamerConfig | None = None) -> None:
        super().__init__(config)
        self._adapter: Adapter | None = None

    def trainable(self, backbone: Backbone, subjects: Sequence[Subject]) -> Adapter:
        """Low-rank deltas, words that will not train, and, for several subjects, the feature."""
        adapter = super().trainable(backbone, subjects)
        if len(subjects) > 1 and self.config.mixed_share > 0:
            adapter = adapter.with_extras(_new_feature(backbone))
        self._adapter = adapter
        return adapter

    def scenes(
        self, subjects: Sequence[Subject], rng: np.random.Generator, canvas: tuple[int, int]
    ) -> list[Example]:
        """A picture of one subject, or all of them side by side."""
        if len(subjects) == 1 or rng.random() >= self.config.mixed_share:
            return super().scenes(subjects, rng, canvas)
        scene = compose(subjects, rng, canvas, style="panel", background=self.config.background)
        prompt = training_prompt(
            learned_words(subjects), rng, templates=[self.config.mixed_prompt], joiner=","
        )
        return [Example(scene.image[None], scene.masks, prompt)]

    def losses(self, backbone: Backbone, batch: Batch, tape: Tape | None) -> dict[str, Tensor]:
        """L = L_single + a L_mixed + b L_weak, and a prior; each left out where no row asks."""
        mixed = batch.present.sum(dim=1) > 1
        text = backbone.encode_prompt(batch.texts)
        told = text
        if self._parts:
            feature = picture_feature(self._parts, batch.latents) * mixed[:, None]
            told = replace(text, states=text.states + feature[:, None].to(text.states.dtype))
        mode = self.config.single_frame
        error = squared_error(backbone, batch, frame_mode=mode, text=told).mean(dim=(1, 2))
        kinds = {
            "reconstruction": (1.0, ~mixed & ~batch.prior),
            "mixed": (self.config.mixed_weight, mixed),
            "prior": (self.config.prior_weight, batch.prior),
        }
        losses = {
            name: weight * error[rows].mean()
            for name, (weight, rows) in kinds.items()
            if rows.any()
        }
        if mixed.any():
            told = replace(text, states=text.states[mixed], ids=text.ids[mixed])
            weak = squared_error(backbone, _rows(batch, mixed), frame_mode=mode, text=told)
            losses["weak"] = self.config.weak_weight * weak.mean()
        return losses

    @property
    def _parts(self) -> Mapping[str, Tensor]:
        """What is trained of the feature, by name; empty where no picture is mixed."""
        assert self._adapter is not None, "losses are asked for after `trainable`"
        return self._adapter.extras


def picture_feature(parts: Mapping[str, Tensor], latents: Tensor) -> Tensor:
    """A feature (row, dim) of pictures, to be added to every token of their texts.

    DisenBooth's gated adapter, f = MLP(g) + L g with g = sigmoid(gate) x, where x is a picture's
    embedding. Theirs is CLIP's, as wide as the text; here x is the picture's own clean `latents`
    (row, channel, frame, height, width), pooled to 4x4 cells, and L brings it to the text's width.
    """
    pooled = functional.adaptive_avg_pool2d(latents.float().mean(dim=2), _POOLED).flatten(1)
    gated = torch.sigmoid(parts["gate"]) * pooled
    inner = functional.linear(gated, parts["first.weight"], parts["first.bias"]).relu()
    feature = functional.linear(inner, parts["second.weight"], parts["second.bias"])
    return feature + functional.linear(gated, parts["lift.weight"])


def _new_feature(backbone: Backbone) -> dict[str, Tensor]:
    """The feature's untrained parts: an open gate by half, and linear layers as torch's start."""
    channels = backbone.latent_shape(1, *backbone.size)[0]
    with torch.no_grad():
        width = backbone.encode_prompt([""]).states.shape[-1]
    pooled = channels * _POOLED[0] * _POOLED[1]

    def uniform(*shape: int, inputs: int) -> Tensor:
        return torch.empty(shape).uniform_(-(inputs**-0.5), inputs**-0.5)

    return {
        "gate": torch.zeros(pooled),
        "first.weight": uniform(width, pooled, inputs=pooled),
        "first.bias": uniform(width, inputs=pooled),
        "second.weight": uniform(width, width, inputs=width),
        "second.bias": uniform(width, inputs=width),
        "lift.weight": uniform(width, pooled, inputs=pooled),
    }


def _rows(batch: Batch, chosen: Tensor) -> Batch:
    """The rows of `batch` where `chosen` (row,) is True."""
    values = {one.name: getattr(batch, one.name) for one in fields(batch)}
    kept: dict[str, Any] = {
        name: value[chosen] for name, value in values.items() if isinstance(value, Tensor)
    }
    texts = tuple(text for text, keep in zip(batch.texts, chosen.tolist(), strict=True) if keep)
    extra = {name: value[chosen] for name, value in batch.extra.items()}
    return replace(batch, **kept, texts=texts, extra=extra)
