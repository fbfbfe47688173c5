"""DisenDiff and Stable Video Diffusion: a picture of all subjects is drawn, and then animated.

DisenDiff (Zhang et al., arXiv 2403.18551) is Custom Diffusion on a picture that holds all subjects,
with two losses on attention maps: a learned word is bound to where its category is read, and the
categories are read apart from each other. It is a method for pictures; to stand beside methods for
videos, CustomVideo's authors let an image-to-video model animate what it draws. Here the pictures
are the text-to-video model's own, of one frame.

Facts and numbers are those of the authors' code (Monalissaa/DisenDiff, `src/model.py`); what
differs here is in docs/methods/disendiff_svd.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import AfterValidator, Field
from torch import Tensor
from torch.nn import functional

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import AdapterConfig, DeltaSpec, new_adapter
from customvideo.attention.site import AttentionSite, intermediate
from customvideo.attention.tape import Tape
from customvideo.backbones.animators import (
    SVD,
    Animation,
    animator_for,
    check_animator,
    load_animator,
)
from customvideo.backbones.base import Backbone
from customvideo.backbones.pipelines import fitted_clip
from customvideo.methods.base import Batch, Example, check_template, class_columns
from customvideo.methods.denoising import single_frame
from customvideo.methods.photos import PhotoConfig, PhotoMethod, PhotoPrompt
from customvideo.methods.rendering import Draw, Rendering
from customvideo.methods.scaling import PHOTO
from customvideo.methods.separate import learned_words, scene_prompt
from customvideo.settings import Settings
from customvideo.subjects.scene import compose
from customvideo.subjects.subject import Subject
from customvideo.video import Video

__all__ = ["DisenDiffSvd", "DisenDiffSvdConfig", "calibration", "prepared", "soft_iou"]

_TINY = 1e-8


class DisenDiffSvdConfig(PhotoConfig):
    """The settings. "Code" means DisenDiff's, "pipeline" diffusers' for Stable Video Diffusion."""

    prompt: PhotoPrompt = PHOTO
    """Prompt of every training picture (code, but for its small words)."""
    compose: Literal["paste", "panel"] = "panel"
    """How subjects share a picture: side by side, or cut out and pasted (choice; the source has a
    photo of them together)."""
    background: Literal["keep", "plain", "random"] = "keep"
    """What lies behind the subjects (choice)."""
    initial: Literal["category", "rare", "random"] = "rare"
    """What the words start from (code: rare tokens)."""
    attention_weight: float = Field(default=0.01, ge=0)
    """Weight of the losses on attention; 0 switches them off and opens no watch (code)."""
    level_low: int = Field(default=90, ge=1)
    """Fewest positions of an attention grid that is watched (code: a quarter of the latents' side,
    256 positions; ZeroScope has 180 there)."""
    level_high: int = Field(default=300, ge=1)
    """Most positions of an attention grid that is watched."""
    prior_prompt: Annotated[str, AfterValidator(check_template)] = "photo of a {category}"
    """Prompt of the prior samples."""

    animator: str = "auto"
    """What animates: "svd-xt" (CustomVideo's table), "svd", "toybox", a folder of a
    StableVideoDiffusionPipeline, relative to where one works, or its hub id; "auto" is the
    backbone's own if it has one, else "svd-xt"."""
    animation_height: int | None = Field(default=None, ge=8, multiple_of=8)
    """Height it is animated at, in pixels; the video then gets the size that was asked for. None
    for that size itself."""
    animation_width: int | None = Field(default=None, ge=8, multiple_of=8)
    animation_steps: int = Field(default=25, ge=1, le=1000)
    """Denoiser calls of the animator (pipeline)."""
    animation_guidance: float = Field(default=3.0, ge=0)
    """Its guidance at the last frame, rising from 1 at the first (pipeline)."""
    animation_fps: int | None = Field(default=None, ge=1)
    """Frames a second that it is told; None for what it is used to (pipeline: 7)."""
    motion: int = Field(default=127, ge=0, le=255)
    """How much is to move (pipeline)."""
    augmentation: float = Field(default=0.02, ge=0)
    """Noise on the picture (pipeline)."""


class DisenDiffSvd(PhotoMethod):
    """The method as `customvideo.methods.base.Method` asks for it."""

    name: str = "disendiff_svd"
    config_class: ClassVar[type[Settings]] = DisenDiffSvdConfig
    config: DisenDiffSvdConfig

    def __init__(self, config: DisenDiffSvdConfig | None = None) -> None:
        self.config = config or DisenDiffSvdConfig()

    def trainable(self, backbone: Backbone, subjects: Sequence[Subject]) -> Adapter:
        """Custom Diffusion's: a word a subject, keys and values that leave the first position.

        Raises:
            ConfigError: what is to animate cannot be an animator; better said before training.
        """
        animator = animator_for(self.config.animator, backbone.name)
        check_animator(animator)
        SVD.check_kept(animator)
        return new_adapter(
            backbone,
            subjects,
            method=self.name,
            paths=dict.fromkeys(backbone.layers("text_kv"), DeltaSpec(holds_first=True)),
            config=AdapterConfig(initial=self.config.initial),
            settings=self.config.model_dump(mode="json"),
        )

    def scenes(
        self, subjects: Sequence[Subject], rng: np.random.Generator, canvas: tuple[int, int]
    ) -> list[Example]:
        """One picture with all subjects in it, and a prompt that names them in random order."""
        style, behind = self.config.compose, self.config.background
        scene = compose(subjects, rng, canvas, style=style, background=behind)
        words, templates = learned_words(subjects), [self.config.prompt]
        # A caption speaks of a background, which cut-outs have left behind.
        shown = scene if style == "panel" and behind == "keep" else None
        prompt = scene_prompt(subjects, words, rng, templates, shown)
        return [Example(scene.image[None], scene.masks, prompt)]

    def mask_uses(self) -> list[str]:
        """Cut-outs, where subjects are pasted."""
        return ["cut-outs"] if self.config.compose == "paste" else []

    def watches(
        self, backbone: Backbone, frames: int, height: int, width: int
    ) -> list[AttentionSite]:
        """The text attention at one level of the denoiser, if anything is asked of it."""
        if self.config.attention_weight == 0:
            return []
        with single_frame(backbone, self.config.single_frame):
            sites = backbone.sites(frames, height, width)
        return intermediate(sites, self.config.level_low, self.config.level_high)

    def columns(self, batch: Batch) -> Tensor:
        """The learned words, and after them their categories: (row, 2 * word, token)."""
        return torch.cat([batch.words, class_columns(batch.words)], dim=1)

    def losses(self, backbone: Backbone, batch: Batch, tape: Tape | None) -> dict[str, Tensor]:
        """L = L_rec + alpha L_prior + beta L_attention, each left out where it does not apply."""
        losses = super().losses(backbone, batch, tape)
        if tape is not None:
            losses["attention"] = self._attention(batch, tape)
        return losses

    def score(self, backbone: Backbone, batch: Batch, tape: Tape | None) -> Tensor:
        """The error inside the subjects' masks, plus the weighted losses on attention."""
        inside = super().score(backbone, batch, tape)
        return inside if tape is None else inside + self._attention(batch, tape)

    def ingredients(self, backbone: Backbone) -> dict[str, str]:
        """The animator: its name, and what tells its weights apart.

        Raises:
            ConfigError: it cannot be loaded.
        """
        name = animator_for(self.config.animator, backbone.name)
        found = load_animator(name, str(backbone.device)).fingerprint
        return {"animator": name, "animator_weights": found}

    def render(self, backbone: Backbone, wanted: Rendering, draw: Draw) -> Sequence[Video]:
        """One frame of each prompt by the plain sampler, animated; as many frames as asked for.

        Raises:
            ConfigError: there is no such animator, or it cannot make this size.
        """
        frames, *size = wanted.size
        height, width = size
        with single_frame(backbone, self.config.single_frame):
            drawn = draw(replace(wanted, size=(1, height, width)))
        stills = wanted.videos(backbone, drawn)
        if frames == 1:
            return stills
        name = animator_for(self.config.animator, backbone.name)
        animator = load_animator(name, str(backbone.device))
        clips = animator.animate(
            np.stack([still.frames[0] for still in stills]),
            wanted.seeds,
            self._animation(frames, height, width),
        )
        return [Video(fitted_clip(clip, (height, width)), backbone.fps) for clip in clips]

    def _animation(self, frames: int, height: int, width: int) -> Animation:
        config = self.config
        return Animation(
            frames=frames,
            size=(config.animation_height or height, config.animation_width or width),
            steps=config.animation_steps,
            guidance=config.animation_guidance,
            motion=config.motion,
            augmentation=config.augmentation,
            fps=config.animation_fps,
        )

    def _attention(self, batch: Batch, tape: Tape) -> Tensor:
        maps = tape.maps(require_grad=torch.is_grad_enabled())
        # Half precision has no room for sums over a picture.
        words, categories = averaged(maps).float().chunk(2, dim=1)
        return self.config.attention_weight * calibration(words, categories, batch.present)


def averaged(maps: Mapping[str, Tensor]) -> Tensor:
    """Site path -> (row, column, frame, height, width): the mean of all over sites and frames, on
    the finest of their grids, (row, column, height, width)."""
    stills = [found.float().mean(dim=2) for found in maps.values()]
    size = max((still.shape[-2:] for still in stills), key=lambda grid: grid[0])
    grown = [
        still if still.shape[-2:] == size else functional.interpolate(still, size, mode="bicubic")
        for still in stills
    ]
    return torch.stack(grown).mean(dim=0)


def calibration(words: Tensor, categories: Tensor, present: Tensor) -> Tensor:
    """DisenDiff's losses on attention, a scalar: the mean over rows that show a subject of

        sum_i [1 - IoU(sg(C_i), V_i)] + mean_{i<j} IoU(C_i, C_j)

    V_i is the prepared map of a learned word, C_i that of its category, squared, and sg takes no
    gradient: the word is pulled to where its category is read ("binding"), and the categories are
    pushed apart; squared, they have to be strong somewhere to meet their words ("separating and
    strengthening").

    Args:
        words: raw maps (row, word, height, width) of the learned words.
        categories: the same of their categories.
        present: (row, word) bool; what a row does not show counts neither alone nor in a pair.
    """
    learned, kinds = prepared(words), prepared(categories).square()
    shown = present.to(learned.dtype)
    bound = ((1 - soft_iou(kinds.detach(), learned)) * shown).sum(dim=1)
    pairs = list(combinations(range(words.shape[1]), 2))
    apart = torch.zeros_like(bound)
    if pairs:
        first, second = (list(side) for side in zip(*pairs, strict=True))
        both = shown[:, first] * shown[:, second]
        overlap = soft_iou(kinds[:, first], kinds[:, second]) * both
        apart = overlap.sum(dim=1) / both.sum(dim=1).clamp(min=1)
    return (bound + apart).sum() / present.any(dim=1).sum().clamp(min=1)


def prepared(maps: Tensor) -> Tensor:
    """Maps (row, word, height, width) stretched to [0, 1] each, and smoothed.

    The kernel is the code's: 3x3, and with its "sigma" of 0.5 proportional to exp(-distance^2).
    """
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    stretched = (maps - low) / (high - low + _TINY)
    line = torch.tensor([-1.0, 0.0, -1.0], device=maps.device, dtype=maps.dtype).exp()
    kernel = torch.outer(line, line) / line.sum().square()
    flat = stretched.flatten(0, 1)[:, None]
    padded = functional.pad(flat, (1, 1, 1, 1), mode="reflect")
    return functional.conv2d(padded, kernel[None, None]).reshape(maps.shape)


def soft_iou(first: Tensor, second: Tensor) -> Tensor:
    """(sum ab + 1) / (sum a + sum b - sum ab + 1) over height and width: (…, height, width) to
    (…)."""
    shared = (first * second).sum(dim=(-2, -1))
    either = (first + second).sum(dim=(-2, -1)) - shared
    return (shared + 1) / (either + 1)
