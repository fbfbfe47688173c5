"""DreamVideo's subject learning (Wei et al., arXiv 2312.04433): words, then identity adapters.

Stage one is textual inversion: only the words train. Stage two freezes them and trains a small
bottleneck beside each text attention, the paper's identity adapter. Errors count inside the
subject's mask only, and there is no prior. Figures are those of the authors' code (ali-vilab/VGen,
`configs/dreamvideo/subjectLearning`), for one subject. Several are learned jointly here, each
picture with one of them, which is a choice. The motion adapter, which learns from videos, is left
out: photos are all that the methods here are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import AdapterConfig, DeltaSpec, new_adapter
from customvideo.attention.site import AttentionSite
from customvideo.attention.tape import Tape
from customvideo.backbones.base import Backbone
from customvideo.methods.base import Batch, Example, PriorPlan, Stage
from customvideo.methods.denoising import row_means, squared_error
from customvideo.methods.separate import one_subject
from customvideo.settings import Settings
from customvideo.subjects.subject import Subject

__all__ = ["DreamVideo", "DreamVideoConfig"]


class DreamVideoConfig(Settings):
    """DreamVideo's settings. "VGen" means the authors' code and configurations."""

    word_steps: int = Field(default=3000, ge=1)
    """Steps of textual inversion before the adapters begin (VGen: 1500 to 3000)."""
    vectors: int = Field(default=1, ge=1, le=8)
    """Learned embedding vectors per word (VGen)."""
    initial: Literal["category", "rare", "random"] = "category"
    """What the words start from (VGen: the category's own embedding)."""
    masked: bool = True
    """Whether errors outside the subject's mask count nothing (VGen: `use_mask_diffusion`)."""
    offset_noise: float = Field(default=0.1, ge=0)
    """Noise shared by all positions of a channel, on top of the usual (VGen: `noise_strength`)."""
    single_frame: Literal["run", "skip", "repeat"] = "run"
    """How a photo passes the temporal layers: as a video of one frame (VGen), past them, or
    repeated to a whole clip."""


class DreamVideo:
    """The method as `customvideo.methods.base.Method` asks for it."""

    name: str = "dreamvideo"
    config_class: ClassVar[type[Settings]] = DreamVideoConfig

    def __init__(self, config: DreamVideoConfig | None = None) -> None:
        self.config: DreamVideoConfig = config or DreamVideoConfig()

    def trainable(self, backbone: Backbone, subjects: Sequence[Subject]) -> Adapter:
        """One word per subject, and one bottleneck, shared by all, beside each text attention."""
        sites = backbone.sites(backbone.frames, *backbone.size)
        return new_adapter(
            backbone,
            subjects,
            method=self.name,
            paths={site.path: DeltaSpec(kind="bottleneck") for site in sites},
            config=AdapterConfig(vectors=self.config.vectors, initial=self.config.initial),
            settings=self.config.model_dump(mode="json"),
        )

    def stages(self, adapter: Adapter) -> Sequence[Stage]:
        """Textual inversion, then the identity adapters with the words frozen."""
        return [Stage("words", self.config.word_steps, paths=()), Stage("adapters", words=False)]

    def scenes(
        self, subjects: Sequence[Subject], rng: np.random.Generator, canvas: tuple[int, int]
    ) -> list[Example]:
        """One picture of one subject, drawn at random."""
        return [one_subject(subjects, rng, canvas, vectors=self.config.vectors)]

    def watches(
        self, backbone: Backbone, frames: int, height: int, width: int
    ) -> list[AttentionSite]:
        """Nowhere."""
        return []

    def prior(self, backbone: Backbone, subjects: Sequence[Subject]) -> PriorPlan | None:
        """None."""
        return None

    def mask_uses(self) -> list[str]:
        """The loss, if it is masked."""
        return ["no error counts outside"] if self.config.masked else []

    def losses(self, backbone: Backbone, batch: Batch, tape: Tape | None) -> dict[str, Tensor]:
        """|| M (e - e_theta) ||^2 with the subject's mask M, the mean over *all* positions."""
        error = self._error(backbone, self._offset(batch))
        if self.config.masked:
            error = error * batch.masks.amax(dim=1)
        return {"reconstruction": error.mean()}

    def score(self, backbone: Backbone, batch: Batch, tape: Tape | None) -> Tensor:
        """The error inside the subjects' masks."""
        inside = batch.masks.amax(dim=1)
        return row_means(self._error(backbone, batch), inside).mean()

    def _error(self, backbone: Backbone, batch: Batch) -> Tensor:
        return squared_error(backbone, batch, frame_mode=self.config.single_frame)

    def _offset(self, batch: Batch) -> Batch:
        """The batch with offset noise added to its noise."""
        if self.config.offset_noise == 0:
            return batch
        # One place's own noise is the offset: as random as any other, and a loss that drew it
        # would not repeat itself when a run is resumed.
        offset = batch.noise[..., :1, :1]
        return replace(batch, noise=batch.noise + self.config.offset_noise * offset)
