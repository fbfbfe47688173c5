"""DreamBooth (Ruiz et al., arXiv 2208.12242): the whole denoiser learns what a rare word means.

The words themselves stay as they are; all else trains on photos of one subject each, beside a
class prior that keeps the category. `dreambooth_lora` is its low-rank form, and a method of its own
in every table, as it trains far fewer weights.

Facts and numbers are those of the paper and of diffusers' `examples/dreambooth`; what differs here
is in docs/methods/dreambooth.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import AdapterConfig, DeltaSpec, new_adapter
from customvideo.backbones.base import Backbone, LayerGroup
from customvideo.methods.base import Example, Stage
from customvideo.methods.photos import PhotoConfig, PhotoMethod
from customvideo.methods.separate import one_subject
from customvideo.settings import Settings
from customvideo.subjects.subject import Subject

__all__ = ["DreamBooth", "DreamBoothConfig", "DreamBoothLora", "DreamBoothLoraConfig"]


class DreamBoothConfig(PhotoConfig):
    """DreamBooth's settings."""

    initial: Literal["rare", "random"] = "rare"
    """What the words mean throughout: rare tokens (the paper), or noise like a token's, for a
    vocabulary without rare tokens, whose spelling would be fainter than any word."""
    text_encoder: bool = False
    """Whether the text encoder trains, too; its source then lowers the rate to 2 / 5."""


class DreamBoothLoraConfig(DreamBoothConfig):
    """The low-rank form's settings."""

    rank: int = Field(default=4, ge=1)
    """Rank of all deltas (diffusers' default)."""


class DreamBooth(PhotoMethod):
    """The method as `customvideo.methods.base.Method` asks for it."""

    name: str = "dreambooth"
    config_class: ClassVar[type[Settings]] = DreamBoothConfig

    def __init__(self, config: DreamBoothConfig | None = None) -> None:
        self.config: DreamBoothConfig = config or self.config_class()  # type: ignore[assignment]

    def trainable(self, backbone: Backbone, subjects: Sequence[Subject]) -> Adapter:
        """A word a subject, which will not train, and deltas on every layer photos pass."""
        return new_adapter(
            backbone,
            subjects,
            method=self.name,
            paths=self._deltas(backbone),
            config=AdapterConfig(initial=self.config.initial),
            settings=self.config.model_dump(mode="json"),
        )

    def stages(self, adapter: Adapter) -> list[Stage]:
        """One, in which the words stay as they started."""
        return [Stage("weights", words=False)]

    def scenes(
        self, subjects: Sequence[Subject], rng: np.random.Generator, canvas: tuple[int, int]
    ) -> list[Example]:
        """One photo of one subject."""
        return [one_subject(subjects, rng, canvas, templates=[self.config.prompt])]

    def _deltas(self, backbone: Backbone) -> dict[str, DeltaSpec]:
        # Photos that pass by the temporal layers cannot train them.
        passed: LayerGroup = "spatial" if self.config.single_frame == "skip" else "denoiser"
        groups: list[LayerGroup] = [passed, "encoder"] if self.config.text_encoder else [passed]
        paths = [path for group in groups for path in backbone.layers(group)]
        return dict.fromkeys(paths, DeltaSpec(kind="weight"))


class DreamBoothLora(DreamBooth):
    """DreamBooth with low-rank deltas (Hu et al. 2021) on all attention within a frame."""

    name: str = "dreambooth_lora"
    config_class: ClassVar[type[Settings]] = DreamBoothLoraConfig
    config: DreamBoothLoraConfig

    def _deltas(self, backbone: Backbone) -> dict[str, DeltaSpec]:
        groups: list[LayerGroup] = ["text_kv", "text_qo", "self"]
        groups += ["encoder_attention"] if self.config.text_encoder else []
        paths = [path for group in groups for path in backbone.layers(group)]
        return dict.fromkeys(paths, DeltaSpec(rank=self.config.rank))
