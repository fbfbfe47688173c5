"""The denoising loss that methods share: the squared error of a prediction, row by row.

How errors are weighed over the picture is each method's own; so is what else it adds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from customvideo.backbones.base import Backbone, TextStates
from customvideo.errors import ConfigError
from customvideo.methods.base import Batch

__all__ = ["row_losses", "row_means", "single_frame", "squared_error"]


def squared_error(
    backbone: Backbone, batch: Batch, *, frame_mode: str = "run", text: TextStates | None = None
) -> Tensor:
    """|| target - prediction ||^2 at each place of the picture, float32 (row, height, width).

    The mean over channels and frames, weighted as the noise process weighs times.

    Args:
        backbone: what predicts, with the adapter attached.
        batch: the rows.
        frame_mode: how single frames pass the temporal layers, see `single_frame`.
        text: what the rows are told; the batch's own texts if None.

    Raises:
        ConfigError: the backbone has no such way for single frames.
    """
    noise = backbone.noise
    noisy = noise.mix(batch.latents, batch.noise, batch.times)
    target = noise.target(batch.latents, batch.noise, batch.times)
    with single_frame(backbone, frame_mode):
        told = backbone.encode_prompt(batch.texts) if text is None else text
        prediction = backbone.predict(noisy, batch.times, told)
    error = (prediction.float() - target.float()).square().mean(dim=(1, 2))
    return error * noise.weight(batch.times)[:, None, None]


def row_means(error: Tensor, counts: Tensor) -> Tensor:
    """The mean of each row's `error` (row, height, width), every place weighing `counts` of the
    same shape; (row,), and 0 for a row where nothing counts."""
    return (error * counts).sum(dim=(1, 2)) / counts.sum(dim=(1, 2)).clamp(min=1e-6)


def row_losses(rows: Tensor, batch: Batch, prior_weight: float) -> dict[str, Tensor]:
    """The terms "reconstruction" and "prior" (weighted) of one error a row, `rows` (row,).

    A term is the mean over the rows it concerns, so accumulated batches of equal size average to
    the loss of one large batch; it is left out where no row concerns it.
    """
    losses = {}
    if not batch.prior.all():
        losses["reconstruction"] = rows[~batch.prior].mean()
    if batch.prior.any():
        losses["prior"] = prior_weight * rows[batch.prior].mean()
    return losses


@contextmanager
def single_frame(backbone: Backbone, mode: str) -> Iterator[None]:
    """Let photos pass `backbone`'s temporal layers as `mode` says, and restore what was set.

    "run" sends one frame through them, "skip" past them, "repeat" makes it a whole clip.

    Raises:
        ConfigError: the backbone knows nothing but "run".
    """
    switchable: Any = backbone
    if not hasattr(backbone, "single_frame"):
        if mode != "run":
            raise ConfigError(
                f"Backbone '{backbone.name}' knows no single_frame '{mode}'; use 'run'."
            )
        yield
        return
    before = switchable.single_frame
    switchable.single_frame = mode
    try:
        yield
    finally:
        switchable.single_frame = before
