"""Custom Diffusion (Kumari et al., arXiv 2212.04488): several subjects, each in its own photos.

One word a subject and the keys and values of text train, jointly on photos of one subject each,
which are scaled at random; a class prior stands beside them. It is CustomVideo without its two
ideas, and equals it number for number where those are switched off. Subjects trained apart are
joined by `customvideo.adapters.merge`.

Facts and numbers are those of the authors' code (adobe-research/custom-diffusion) and of diffusers'
`examples/custom_diffusion`; what differs here is in docs/methods/custom_diffusion.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import AdapterConfig, DeltaSpec, new_adapter
from customvideo.backbones.base import Backbone
from customvideo.methods.base import Batch, Example, check_template
from customvideo.methods.photos import PhotoConfig, PhotoMethod, PhotoPrompt
from customvideo.methods.scaling import FAR, NEAR, PHOTO, scaled, valid_cells
from customvideo.methods.separate import one_subject
from customvideo.settings import FROM_LIST, Settings
from customvideo.subjects.subject import Subject

__all__ = ["CustomDiffusion", "CustomDiffusionConfig"]


Texts = Annotated[tuple[str, ...], FROM_LIST]


class CustomDiffusionConfig(PhotoConfig):
    """Custom Diffusion's settings."""

    prompt: PhotoPrompt = PHOTO
    """Prompt of every photo (both codes')."""
    prior_prompt: Annotated[str, AfterValidator(check_template)] = "photo of a {category}"
    """Prompt of the prior samples (the authors'; that of diffusers is the category alone)."""
    augment: bool = True
    """Whether photos are scaled, with prompts that say so."""
    far: Texts = FAR
    """What prompts of small photos begin with, one at random; empty for nothing."""
    near: Texts = NEAR
    """What prompts of enlarged photos begin with."""
    initial: Literal["category", "rare", "random"] = "rare"
    """What the words start from: the category's own embedding, rare tokens (the sources), or
    noise."""


class CustomDiffusion(PhotoMethod):
    """The method as `customvideo.methods.base.Method` asks for it."""

    name: str = "custom_diffusion"
    config_class: ClassVar[type[Settings]] = CustomDiffusionConfig

    def __init__(self, config: CustomDiffusionConfig | None = None) -> None:
        self.config: CustomDiffusionConfig = config or CustomDiffusionConfig()

    def trainable(self, backbone: Backbone, subjects: Sequence[Subject]) -> Adapter:
        """One word a subject, and full deltas on keys and values that leave the first position."""
        paths = dict.fromkeys(backbone.layers("text_kv"), DeltaSpec(holds_first=True))
        return new_adapter(
            backbone,
            subjects,
            method=self.name,
            paths=paths,
            config=AdapterConfig(initial=self.config.initial),
            settings=self.config.model_dump(mode="json"),
        )

    def scenes(
        self, subjects: Sequence[Subject], rng: np.random.Generator, canvas: tuple[int, int]
    ) -> list[Example]:
        """One photo of one subject, scaled."""
        example = one_subject(subjects, rng, canvas, templates=[self.config.prompt])
        if not self.config.augment:
            return [example]
        return [scaled(example, rng, far=self.config.far, near=self.config.near)]

    def _counts(self, batch: Batch) -> Tensor:
        return valid_cells(batch)
