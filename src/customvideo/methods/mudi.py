"""MuDI (Jang et al., arXiv 2404.04243): cut-outs in training, and cut-outs in the first noise.

DreamBooth in low rank, with two additions. *Seg-Mix*: some training pictures show all subjects, cut
out and placed at random on a plain ground. *Mean-shifted noise*: sampling starts from noise whose
mean is such a picture, faintly, so that no subject is missing. The adapter carries small cut-outs
of its subjects for that.

Figures are those of the authors' training code (agwmon/MuDI, for SDXL). Their sampling was not
read: how strongly the noise is shifted, and what happens between the cut-outs, are choices here, as
is all that concerns videos. See docs/methods/mudi.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from customvideo.adapters.adapter import Adapter
from customvideo.attention.tape import Tape
from customvideo.backbones.base import Backbone
from customvideo.methods.base import Batch, Example
from customvideo.methods.dreambooth import DreamBoothLora, DreamBoothLoraConfig
from customvideo.methods.photos import PhotoPrompt
from customvideo.methods.rendering import Draw, Rendering
from customvideo.methods.separate import learned_words
from customvideo.settings import Settings
from customvideo.subjects.prompt import Prompt, training_prompt
from customvideo.subjects.scene import compose
from customvideo.subjects.subject import Subject
from customvideo.video import Video

__all__ = ["MuDI", "MuDIConfig", "layout"]

_CUTOUTS = "cutouts."


class MuDIConfig(DreamBoothLoraConfig):
    """MuDI's settings. "Code" means the authors' training command."""

    segmix_share: float = Field(default=0.3, ge=0, le=1)
    """How many samples show cut-outs of all subjects; the rest show one subject's photo (code)."""
    segmix_prompt: PhotoPrompt = "a photo of {subjects}, simple background"
    """Prompt of a picture of cut-outs (code)."""
    shift: float = Field(default=1.0, ge=0)
    """How far the first noise is shifted towards the cut-outs: 1 as far as a noised picture of them
    would be, 0 not at all (choice)."""
    views: int = Field(default=2, ge=1, le=8)
    """Photos of each subject whose cut-outs the adapter carries (choice)."""
    cutout_side: int = Field(default=128, ge=32)
    """Height and width of a cut-out in pixels, at most; less on a backbone smaller than that
    (choice)."""
    rank: int = Field(default=32, ge=1)
    """Rank of all deltas (code)."""
    prior_samples: int = Field(default=100, ge=1)
    """One-frame prior samples per category (code)."""


class MuDI(DreamBoothLora):
    """The method as `customvideo.methods.base.Method` asks for it."""

    name: str = "mudi"
    config_class: ClassVar[type[Settings]] = MuDIConfig
    config: MuDIConfig

    def __init__(self, config: MuDIConfig | None = None) -> None:
        super().__init__(config)
        self._adapter: Adapter | None = None

    def trainable(self, backbone: Backbone, subjects: Sequence[Subject]) -> Adapter:
        """Low-rank deltas, words that will not train, and the subjects' cut-outs."""
        adapter = super().trainable(backbone, subjects)
        if self.config.shift > 0:
            side = min(self.config.cutout_side, *backbone.size)
            adapter = adapter.with_extras(
                {_CUTOUTS + one.name: _cut_out(one, side, self.config.views) for one in subjects}
            )
        self._adapter = adapter
        return adapter

    def scenes(
        self, subjects: Sequence[Subject], rng: np.random.Generator, canvas: tuple[int, int]
    ) -> list[Example]:
        """A photo of one subject, or, for Seg-Mix, cut-outs of all of them on a plain ground."""
        if len(subjects) == 1 or rng.random() >= self.config.segmix_share:
            return super().scenes(subjects, rng, canvas)
        scene = compose(subjects, rng, canvas, style="paste", background="plain")
        words, templates = learned_words(subjects), [self.config.segmix_prompt]
        prompt = training_prompt(words, rng, templates=templates)
        return [Example(scene.image[None], scene.masks, prompt)]

    def losses(self, backbone: Backbone, batch: Batch, tape: Tape | None) -> dict[str, Tensor]:
        """L = L_rec + alpha L_prior, as DreamBooth's."""
        losses = super().losses(backbone, batch, tape)
        assert self._adapter is not None, "losses are asked for after `trainable`"
        # Cut-outs are carried among what trains, and owe the trainer a gradient: zero, so that
        # they stay as they are but for weight decay, which takes less than they are rounded by.
        for cutouts in self._adapter.extras.values():
            losses = {name: term + 0 * cutouts.sum() for name, term in losses.items()}
        return losses

    def mask_uses(self) -> list[str]:
        """Cut-outs, in training and in the first noise."""
        return ["cut-outs"]

    def render(self, backbone: Backbone, wanted: Rendering, draw: Draw) -> Sequence[Video]:
        """The plain sampler's videos, from noise shifted towards the subjects a prompt names."""
        adapter = wanted.adapter
        if adapter is None or self.config.shift == 0:
            return wanted.videos(backbone, draw(wanted))
        shift = torch.cat(
            [
                self._mean(backbone, adapter, wanted, row).to(backbone.device)
                for row in range(len(wanted.prompts))
            ]
        )
        known = {one.name: getattr(wanted, one.name) for one in fields(Rendering)}
        return wanted.videos(backbone, draw(_Shifted(**known, shift=shift)))

    def _mean(self, backbone: Backbone, adapter: Adapter, wanted: Rendering, row: int) -> Tensor:
        """What the noise of one row is shifted by, (1, channel, 1, height, width)."""
        size = wanted.size[1:]
        mentioned = Prompt(wanted.prompts[row], adapter.words).mentioned
        names = {word.name for word in mentioned}
        chosen = [one for one in _subjects(adapter) if one.name in names]
        if not chosen:
            return torch.zeros(1, *backbone.latent_shape(1, *size))
        image, mask = layout(chosen, wanted.seeds[row], size)
        pixels = torch.from_numpy(image).movedim(-1, 0)[None, None]
        latents = backbone.encode_frames(pixels.to(backbone.device, torch.float32) / 127.5 - 1)
        cells = functional.interpolate(
            torch.from_numpy(mask)[None, None], size=tuple(latents.shape[-2:]), mode="area"
        )
        last = backbone.noise.last[None].to(latents.device)
        mean = backbone.noise.mix(latents, torch.zeros_like(latents), last)
        # Between the cut-outs the noise is left alone, or every ground would tend to be plain.
        return self.config.shift * mean * cells[:, :, None].to(latents.device)


@dataclass(frozen=True, eq=False)
class _Shifted(Rendering):
    """A rendering that starts from noise with a mean, `shift` (row, channel, 1, height, width)."""

    shift: Tensor | None = None

    def noise(self, backbone: Backbone) -> Tensor:
        noise = super().noise(backbone)
        return noise if self.shift is None else noise + self.shift


def layout(
    subjects: Sequence[Subject], seed: int, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A picture of cut-outs as Seg-Mix places them, and where they are: the same for a seed.

    Returns:
        uint8 (height, width, 3), and float32 (height, width) in [0, 1]; `size` is (height, width).
    """
    rng = np.random.default_rng(seed)
    scene = compose(subjects, rng, size, style="paste", background="plain")
    return scene.image, scene.masks.sum(axis=0).clip(0, 1)


def _cut_out(subject: Subject, side: int, views: int) -> Tensor:
    """Cut-outs of a subject's first photos, (view, side, side, 4): colours and mask in [0, 1]."""
    parts = zip(subject.images[:views], subject.masks, subject.files, strict=False)
    scenes = [
        compose(
            [replace(subject, images=(image,), masks=(mask,), files=(file,))],
            np.random.default_rng(0),
            (side, side),
            style="paste",
            background="plain",
        )
        for image, mask, file in parts
    ]
    pixels = [np.dstack([scene.image / 255, scene.masks[0]]) for scene in scenes]
    return torch.from_numpy(np.stack(pixels)).float()


def _subjects(adapter: Adapter) -> list[Subject]:
    """The subjects whose cut-outs an adapter carries, in the order of its words."""
    extras: Mapping[str, Tensor] = adapter.extras
    found = []
    for word in adapter.words:
        if _CUTOUTS + word.name in extras:
            pixels = extras[_CUTOUTS + word.name].detach().cpu().clamp(0, 1)
            images = tuple((pixels[..., :3] * 255).round().to(torch.uint8).numpy())
            masks = tuple(pixels[..., 3].contiguous().numpy())
            files = tuple(f"cut-out {index}" for index in range(len(images)))
            found.append(Subject(word.name, word.word, word.category, images, masks, files))
    return found
