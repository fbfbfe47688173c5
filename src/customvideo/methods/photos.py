"""What methods share that learn from photos with a class prior beside them.

Settings and losses only: which layers train, how a photo is shown, where its errors count and
whether attention is watched is each method's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from customvideo.attention.site import AttentionSite
from customvideo.attention.tape import Tape
from customvideo.backbones.base import Backbone
from customvideo.methods.base import Batch, PriorPlan, check_template
from customvideo.methods.denoising import row_losses, row_means, squared_error
from customvideo.settings import Settings
from customvideo.subjects.subject import Subject

__all__ = ["PhotoConfig", "PhotoMethod", "PhotoPrompt"]


def _check_prompt(text: str) -> str:
    if "{subjects}" not in text or set("{}") & set(text.replace("{subjects}", "")):
        raise ValueError("text with {subjects} in it and no other braces, as 'photo of {subjects}'")
    return text


PhotoPrompt = Annotated[str, AfterValidator(_check_prompt)]
"""A template of training prompts, with `{subjects}`, which becomes `a <tom> cat`."""


class PhotoConfig(Settings):
    """Settings of a method that learns from photos, with a class prior beside them."""

    prompt: PhotoPrompt = "a photo of {subjects}"
    """Prompt of every photo."""
    single_frame: Literal["run", "skip", "repeat"] = "run"
    """How a photo passes the temporal layers: as a video of one frame, past them, or repeated to
    a whole clip."""

    prior_weight: float = Field(default=1.0, ge=0)
    """Weight of class-prior preservation (1 in the sources); 0 switches it off."""
    prior_prompt: Annotated[str, AfterValidator(check_template)] = "a photo of a {category}"
    """Prompt of the prior samples."""
    prior_samples: int = Field(default=200, ge=1)
    """One-frame prior samples per category (200 in the sources)."""
    prior_rows: int = Field(default=2, ge=1)
    """Prior rows beside each batch (as many as photos, in the sources)."""
    prior_sampling_steps: int = Field(default=25, ge=1)
    """Denoising steps per prior sample."""
    prior_guidance: float = Field(default=7.5, ge=1)
    """Guidance scale of the prior samples."""


class PhotoMethod:
    """The members of `customvideo.methods.base.Method` that such methods have in common."""

    config: PhotoConfig

    def watches(
        self, backbone: Backbone, frames: int, height: int, width: int
    ) -> list[AttentionSite]:
        """Nowhere, unless a method says otherwise."""
        return []

    def prior(self, backbone: Backbone, subjects: Sequence[Subject]) -> PriorPlan | None:
        """Pictures of each subject's category."""
        if self.config.prior_weight == 0:
            return None
        return PriorPlan(
            categories=tuple(sorted({subject.category for subject in subjects})),
            template=self.config.prior_prompt,
            samples=self.config.prior_samples,
            rows=self.config.prior_rows,
            sampling_steps=self.config.prior_sampling_steps,
            guidance=self.config.prior_guidance,
        )

    def mask_uses(self) -> list[str]:
        """None, unless a method says otherwise."""
        return []

    def losses(self, backbone: Backbone, batch: Batch, tape: Tape | None) -> dict[str, Tensor]:
        """L = L_rec + alpha L_prior, each left out where it does not apply."""
        rows = self._errors(backbone, batch, self._counts(batch))
        return row_losses(rows, batch, self.config.prior_weight)

    def score(self, backbone: Backbone, batch: Batch, tape: Tape | None) -> Tensor:
        """The error inside the subjects' masks: what lies behind them is nothing to be learned."""
        inside = batch.masks.amax(dim=1) * self._counts(batch)
        return self._errors(backbone, batch, inside).mean()

    def _counts(self, batch: Batch) -> Tensor:
        """How much an error counts at each latent cell (row, height, width)."""
        rows, _, _, height, width = batch.latents.shape
        return torch.ones(rows, height, width, device=batch.latents.device)

    def _errors(self, backbone: Backbone, batch: Batch, counts: Tensor) -> Tensor:
        """Squared error of the prediction, one weighted mean a row (row,), float32."""
        error = squared_error(backbone, batch, frame_mode=self.config.single_frame)
        return row_means(error, counts)
