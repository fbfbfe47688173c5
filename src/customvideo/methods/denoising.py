"""The denoising loss that methods share: the squared error of a prediction, row by row.

How errors are weighed over the picture is each method's own; so is what else it adds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from customvideo.backbones.base import Backbone, TextStates
from customvideo.errors import ConfigError
from customvideo.methods.base import Batch

__all__ = [
    "MaskGauge",
    "gauged",
    "mask_means",
    "row_losses",
    "row_means",
    "single_frame",
    "squared_error",
]

_SUMS = ("masked", "errors", "masks", "places")


@dataclass
class MaskGauge:
    """How errors lie to masks, over all predictions made while it is open; it trains nothing."""

    found: list[Tensor] = field(default_factory=list)

    def add(self, error: Tensor, batch: Batch) -> None:
        """Note one prediction's `error` (row, …), of the rows that are no prior."""
        ours = ~batch.prior
        if not bool(ours.any()):
            return
        with torch.no_grad():
            errors, inside = error[ours].detach(), batch.masks[ours].amax(dim=1)
            places = torch.as_tensor(float(inside.numel()), device=inside.device)
            parts = [(errors * inside).sum(), errors.sum(), inside.sum(), places]
            self.found.append(torch.stack(parts).cpu().double())

    def sums(self) -> dict[str, float]:
        """Over all places seen: errors times masks, errors, masks, and how many places."""
        if not self.found:
            return {}
        return dict(zip(_SUMS, torch.stack(self.found).sum(dim=0).tolist(), strict=True))


def mask_means(sums: Mapping[str, float]) -> dict[str, float]:
    """Of a gauge's sums, the mean error "inside" and "outside" the masks, and the share "covered"
    by them; without what there was none of."""
    if not sums:
        return {}
    masked, total, inside, places = (sums[name] for name in _SUMS)
    found = {"covered": inside / places}
    if inside > 0:
        found["inside"] = masked / inside
    if places - inside > 0:
        found["outside"] = (total - masked) / (places - inside)
    return found


_OPEN: ContextVar[MaskGauge | None] = ContextVar("open mask gauge", default=None)


@contextmanager
def gauged() -> Iterator[MaskGauge]:
    """A gauge that sees the errors of all predictions made inside, whatever a method does with
    them."""
    gauge = MaskGauge()
    before = _OPEN.set(gauge)
    try:
        yield gauge
    finally:
        _OPEN.reset(before)


def squared_error(
    backbone: Backbone, batch: Batch, *, frame_mode: str = "run", text: TextStates | None = None
) -> Tensor:
    """|| target - prediction ||^2 at each place of the picture, float32 (row, height, width).

    The mean over channels and frames, weighted as the noise process weighs times; of clips the mean
    over channels alone, (row, frame, height, width).

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
    error = (prediction.float() - target.float()).square()
    error = error.mean(dim=1) if batch.moving else error.mean(dim=(1, 2))
    weighted = error * noise.weight(batch.times).reshape(-1, *[1] * (error.ndim - 1))
    if (gauge := _OPEN.get()) is not None:
        gauge.add(weighted, batch)
    return weighted


def row_means(error: Tensor, counts: Tensor) -> Tensor:
    """The mean of each row's `error` (row, …), every place weighing `counts` of the same shape;
    (row,), and 0 for a row where nothing counts."""
    places = tuple(range(1, error.ndim))
    return (error * counts).sum(dim=places) / counts.sum(dim=places).clamp(min=1e-6)


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
