"""Custom Diffusion's scale augmentation: a photo smaller or larger than its frame, and said to be.

After Kumari et al. (arXiv 2212.04488), in the form of diffusers' training example. What a photo
shows, and what its prompt says otherwise, is settled before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from customvideo.methods.base import Batch, Example
from customvideo.subjects.prompt import Prompt

__all__ = ["FAR", "NEAR", "PHOTO", "scaled", "valid_cells"]

FAR = ("a far away", "very small")
"""What prompts of small photos begin with."""
NEAR = ("zoomed in", "close up")
"""What prompts of enlarged photos begin with."""
PHOTO = "photo of {subjects}"
"""What all prompts go on with."""

Floats: TypeAlias = NDArray[np.float32]

_VALID = "valid"
_BLANK = 128  # nothing, in pixels from -1 to 1
_SHRUNK_RATE = 2 / 3
_SHRUNK, _ENLARGED = (1 / 3, 1.0), (1.2, 1.4)
_SMALL = 0.6


def scaled(
    example: Example,
    rng: np.random.Generator,
    *,
    far: Sequence[str] = FAR,
    near: Sequence[str] = NEAR,
) -> Example:
    """`example` drawn at another scale; the same `rng`, the same scale and place.

    Twice in three it shrinks to a third at the least and lies somewhere on a blank canvas, else it
    is enlarged 1.2 to 1.4 times and cropped. A shrunk one under 0.6 begins its prompt with one of
    `far`, an enlarged one with one of `near`; none of an empty list. Where the canvas shows the
    photo goes along as an extra, for `valid_cells`.
    """
    canvas = example.frames.shape[1:3]
    factor = rng.uniform(*(_SHRUNK if rng.random() < _SHRUNK_RATE else _ENLARGED))
    size = (round(factor * canvas[0]), round(factor * canvas[1]))
    top, left = (
        int(rng.integers(abs(whole - part) + 1)) for whole, part in zip(canvas, size, strict=True)
    )

    def place(layers: Tensor, blank: float) -> Floats:
        """(layer, *size) on the blank canvas, or cropped to it if they are larger."""
        if factor > 1:
            return layers[:, top : top + canvas[0], left : left + canvas[1]].numpy()
        whole = torch.full((len(layers), *canvas), blank, dtype=torch.float32)
        whole[:, top : top + size[0], left : left + size[1]] = layers
        return whole.numpy()

    frames = torch.from_numpy(example.frames).movedim(-1, 1).float()
    images = [place(frame, _BLANK) for frame in _resized(frames, size)]
    masks = place(_resized(torch.from_numpy(example.masks)[None], size)[0], 0)
    valid = place(torch.ones(1, *size), 0)[0]
    words = far if factor < _SMALL else near if factor > 1 else ()
    text = f"{words[int(rng.integers(len(words)))]} " if words else ""
    return replace(
        example,
        frames=np.stack(images).round().clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1),
        masks=masks.clip(0, 1),
        prompt=Prompt(text + example.prompt.text, example.prompt.words),
        extra={**example.extra, _VALID: valid},
    )


def valid_cells(batch: Batch) -> Tensor:
    """Where errors of the rows count, 0 or 1 (row, height, width) at latent resolution.

    On the photo, and there a cell away from the blank, which the autoencoder lets shine through;
    right beside it only where the photo is too small for more. All of a row that was not scaled.
    """
    rows, _, _, height, width = batch.latents.shape
    everywhere = torch.ones(rows, height, width, device=batch.latents.device)
    if _VALID not in batch.extra:
        return everywhere
    # The largest over each cell: one blank pixel makes a blank cell.
    blank = functional.adaptive_max_pool2d(1 - batch.extra[_VALID][:, None], (height, width))
    inner = 1 - functional.max_pool2d(blank, 3, stride=1, padding=1)
    enough = inner.flatten(1).any(dim=1)[:, None, None, None]
    cells = torch.where(enough, inner, 1 - blank)[:, 0]
    return torch.where(batch.prior[:, None, None], everywhere, cells)


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(image, layer, *size) of (image, layer, height, width)."""
    return functional.interpolate(images, size=size, mode="bilinear", antialias=True)
