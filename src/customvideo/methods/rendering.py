"""How a method makes videos its own way, where the plain sampler is not all there is to it.

Most methods have no need of this file: their adapter is attached and the sampler draws. What one
that does gets is a `Rendering`, and what it returns is videos; prompts, seeds, warnings and the
adapter are `customvideo.generation`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, cast, runtime_checkable

import torch
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import Backbone, TextStates
from customvideo.methods.base import ENTRY_POINTS, METHODS, load_method, method_class
from customvideo.tables import all_rows
from customvideo.video import Video

__all__ = ["Draw", "Mixes", "Rendering", "Renders", "renderer"]


@dataclass(frozen=True, eq=False)
class Rendering:
    """A few videos that are to be made together.

    Attributes:
        prompts: what is asked for, one text a row, as the text encoder reads it.
        text: the prompts encoded, one row each.
        negative: what to keep away from, in one row.
        seeds: one a row.
        size: (frames, height, width) of each video, in pixels.
        steps: denoiser calls.
        guidance: classifier-free guidance; 1 or less turns it off.
        solver: a key of `customvideo.backbones.sampling.SOLVERS`.
        adapter: what is attached meanwhile; None for the base model.
        avoided: the text behind `negative`, as the text encoder reads it.
        guidance_every: steps from one asking for the negative half to the next.
        block_cache: threshold of the first-block cache; 0 for none.
    """

    prompts: tuple[str, ...]
    text: TextStates
    negative: TextStates
    seeds: tuple[int, ...]
    size: tuple[int, int, int]
    steps: int
    guidance: float
    solver: str
    adapter: Adapter | None = None
    avoided: str = ""
    guidance_every: int = 1
    block_cache: float = 0.0

    def noise(self, backbone: Backbone) -> Tensor:
        """Where the sampler starts: (row, channel, frame, height, width), each from its seed."""
        shape = backbone.latent_shape(*self.size)
        # Drawn on the CPU, one generator a row: the same on every device and in every batch.
        rows = [
            torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in self.seeds
        ]
        return torch.stack(rows).to(backbone.device)

    def videos(self, backbone: Backbone, latents: Tensor) -> list[Video]:
        """Clean latents (row, channel, frame, height, width) as one video a row."""
        pixels = backbone.decode_frames(latents).float().cpu()
        # (row, frame, 3, height, width) in [-1, 1] -> (row, frame, height, width, 3), 0 to 255
        frames = ((pixels.movedim(2, -1) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return [Video(row.contiguous().numpy(), backbone.fps) for row in frames]


Draw: TypeAlias = Callable[[Rendering], Tensor]
"""The plain sampler: clean latents (row, channel, frame, height, width)."""


@runtime_checkable
class Renders(Protocol):
    """A method whose videos are not just drawn by the plain sampler."""

    def render(self, backbone: Backbone, wanted: Rendering, draw: Draw) -> Sequence[Video]:
        """The videos, one a row of `wanted`, with the adapter attached and no gradient.

        `draw(wanted)` is the plain sampler, for all of it or, with `dataclasses.replace`, for
        something else on the way, such as one frame. The same `wanted`, the same videos.
        """


@runtime_checkable
class Mixes(Protocol):
    """A method whose videos depend on other models than the backbone."""

    def ingredients(self, backbone: Backbone) -> Mapping[str, str]:
        """What tells those models apart, by name; the same, wherever they are found.

        Raises:
            ConfigError: one cannot be used.
        """


def renderer(adapter: Adapter) -> Renders | None:
    """The method that made `adapter`, if it renders in its own way.

    An adapter of a method that is not installed here is drawn by the plain sampler.

    Raises:
        ConfigError: the method no longer takes the settings in the header.
    """
    header = adapter.header
    known = header.method in all_rows(METHODS, ENTRY_POINTS)
    if not known or not hasattr(method_class(header.method), "render"):
        return None
    return cast(Renders, load_method(header.method, header.settings))
