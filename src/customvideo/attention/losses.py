"""Attention maps held against masks: pure functions, one form per published loss.

CustomVideo (Wang et al., arXiv 2401.09962) asks that a learned word be read where its subject is:
the target is 1 inside the subject's mask and slightly negative elsewhere. No code was released
with it, so which penalty it takes is open: the forms here are those of public relatives, and `mse`
is the default. Nothing here knows how maps are recorded (`customvideo.attention.tape`) or masks
made (`customvideo.subjects`).

Axes: maps are (row, word, frame, height, width) in attention cells; masks are
(row, word, height, width) or (row, word, frame, height, width) at any resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from customvideo.errors import AttentionError

__all__ = [
    "LOSS_FORMS",
    "attention_loss",
    "attention_share",
    "latent_masks",
    "mask_targets",
    "pool_frames",
    "shrink_masks",
]

Form: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(maps, targets, how much each position counts) -> error (site, row, word)."""

_TINY = 1e-8
# Targets that are shares or probabilities cannot be negative.
_WITHOUT_DEPTH = ("bce", "share")
# Below this, log(probability) would only measure float32 rounding.
_LEAST_PROBABILITY = 1e-7


def attention_loss(
    maps: Mapping[str, Tensor],
    masks: Tensor,
    present: Tensor,
    *,
    form: str = "mse",
    nu: float = 0.05,
    outside: Literal["all", "others"] = "all",
) -> Tensor:
    """How far the maps of the present words are from their masks, as one float32 scalar.

    The mean over the sites and over all present (row, word) pairs of one of these, where A is a
    word's map, T its target from `mask_targets` and the mean runs over the labelled positions:

    - "mse": mean (A - T)^2 on raw probabilities; VideoMage (Huang et al. 2025).
    - "mse_maxnorm": mean (A / max A - T)^2, the maximum taken per frame; Break-A-Scene
      (Avrahami et al. 2023), whose targets are ours for `nu` = 0.
    - "bce": binary cross-entropy of A; MotionBooth (Wu et al. 2024). `nu` does not enter, since
      its targets are probabilities.
    - "inner": -mean A T, the inner product.
    - "share": (1 - sum A T / sum A)^2, of what the word is read the share read outside, however
      much that is; TokenCompose (Wang et al., arXiv 2312.03626, equation 3). Without `nu`.

    Args:
        maps: site path -> (row, word, frame, height, width).
        masks: soft masks in [0, 1] of the same rows and words.
        present: bool (row, word): which words a row shows and its prompt mentions; the others
            contribute nothing. With none at all the loss is 0.
        form: one of `LOSS_FORMS`.
        nu: depth of the negative target, >= 0.
        outside: see `mask_targets`.

    Raises:
        AttentionError: an unknown form, or no maps.
    """
    if form not in LOSS_FORMS:
        raise AttentionError(
            f"There is no attention loss '{form}'; choose one of {', '.join(LOSS_FORMS)}."
        )
    if not maps:
        raise AttentionError("The attention loss got no maps; watch at least one site.")
    total = torch.zeros((), device=masks.device)
    for stack in _by_grid(maps):
        depth = 0.0 if form in _WITHOUT_DEPTH else nu
        grid = (stack.shape[-2], stack.shape[-1])
        seen = pool_frames(masks, stack.shape[-3])
        target, labelled = mask_targets(seen, present, grid, nu=depth, outside=outside)
        # (site, row, word, frame, height, width) -> (site, row, word)
        total = total + (LOSS_FORMS[form](stack, target, labelled) * present).sum()
    return total / (len(maps) * present.sum().clamp(min=1))


def mask_targets(
    masks: Tensor,
    present: Tensor,
    grid: tuple[int, int],
    *,
    nu: float = 0.05,
    outside: Literal["all", "others"] = "all",
) -> tuple[Tensor, Tensor]:
    """What each map should be, and how much each position counts.

    The target is 1 inside the word's mask and -`nu` outside, as in CustomVideo. A cell that is
    partly inside has the mean target of its labelled part. `outside` says what "outside" is:
    "all" is everything else; "others" is only where another present word's mask is, and the
    background has no label.

    Returns:
        target and weight, both float32 (row, word, frame or 1, height, width) on `grid`.
    """
    if nu < 0:
        raise AttentionError(f"The depth nu of the negative target is {nu}; give 0 or more.")
    inside = _framed(shrink_masks(masks, grid))
    if outside == "all":
        return inside - nu * (1 - inside), torch.ones_like(inside)
    shown = inside * present[:, :, None, None, None]
    # Where masks overlap, the word's own claim wins.
    other = torch.minimum(shown.sum(dim=1, keepdim=True) - shown, 1 - inside)
    labelled = inside + other
    return (inside - nu * other) / labelled.clamp(min=_TINY), labelled


def attention_share(maps: Mapping[str, Tensor], masks: Tensor) -> Tensor:
    """How much more a word is read inside its own mask than by chance, (row, word).

    The share of the word's attention that falls inside its mask, divided by the share of the area
    that the mask covers; the mean over sites. 1 is chance, 1 / area is perfect. It is 0 for a
    word without attention (one the prompt does not mention).
    """
    shares = []
    for stack in _by_grid(maps):
        seen = pool_frames(masks, stack.shape[-3])
        inside = _framed(shrink_masks(seen, (stack.shape[-2], stack.shape[-1])))
        inside = inside.expand_as(stack)
        mass = (stack * inside).sum((-3, -2, -1)) / stack.sum((-3, -2, -1)).clamp(min=_TINY)
        shares.append(mass / inside.mean((-3, -2, -1)).clamp(min=_TINY))
    return torch.cat(shares).mean(dim=0)


def shrink_masks(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resample (..., height, width) masks to `grid` by area, keeping them soft; float32."""
    flat = masks.float().reshape(-1, 1, *masks.shape[-2:])
    return F.interpolate(flat, size=grid, mode="area").reshape(*masks.shape[:-2], *grid)


def latent_masks(masks: Tensor, frames: int) -> Tensor:
    """Masks (word, frame, height, width) of a clip's frames at its `frames` latent ones.

    Video autoencoders keep the first frame by itself and join those after it in groups of equal
    size: so are the masks, by their mean.

    Raises:
        AttentionError: the numbers of frames are not of this kind.
    """
    given = masks.shape[1]
    if given == frames:
        return masks
    if frames < 2 or (given - 1) % (frames - 1):
        raise AttentionError(
            f"{given} frames became {frames} latent ones, which are no first frame and groups of "
            "equal size; train on pictures alone with clip_share=0."
        )
    rest = masks[:, 1:].reshape(len(masks), frames - 1, -1, *masks.shape[2:])
    return torch.cat([masks[:, :1], rest.mean(dim=2)], dim=1)


def pool_frames(masks: Tensor, frames: int) -> Tensor:
    """Masks (row, word, frame, height, width) at `frames` frames, by their means in time; those of
    one frame, and those without that axis, stay as they are."""
    if masks.ndim == 4 or masks.shape[2] in (1, frames):
        return masks
    return F.adaptive_avg_pool3d(masks.float(), (frames, *masks.shape[-2:]))


def _framed(masks: Tensor) -> Tensor:
    """(row, word, height, width) -> (row, word, 1, height, width); five axes stay as they are."""
    return masks.unsqueeze(2) if masks.ndim == 4 else masks


def _by_grid(maps: Mapping[str, Tensor]) -> list[Tensor]:
    """Maps of one shape stacked to (site, row, word, frame, height, width), in float32.

    Sites of one level share a shape, and one operation on a stack costs what it costs on a map.
    """
    groups: dict[torch.Size, list[Tensor]] = {}
    for recorded in maps.values():
        groups.setdefault(recorded.shape, []).append(recorded)
    return [torch.stack(group).float() for group in groups.values()]


def _pointwise(error: Callable[[Tensor, Tensor], Tensor]) -> Form:
    """The form that is the mean of `error(maps, target)` over the labelled positions."""

    def form(maps: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
        found = error(maps, target) * labelled
        count = labelled.expand_as(found).sum((-3, -2, -1)).clamp(min=_TINY)
        return found.sum((-3, -2, -1)) / count

    return form


def _mse(maps: Tensor, target: Tensor) -> Tensor:
    return (maps - target).square()


def _mse_maxnorm(maps: Tensor, target: Tensor) -> Tensor:
    peak = maps.amax(dim=(-2, -1), keepdim=True).clamp(min=_TINY)
    return _mse(maps / peak, target)


def _bce(maps: Tensor, target: Tensor) -> Tensor:
    # Not F.binary_cross_entropy, which refuses to run under autocast.
    safe = maps.clamp(_LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    return -(target * safe.log() + (1 - target) * (-safe).log1p())


def _inner(maps: Tensor, target: Tensor) -> Tensor:
    return -maps * target


def _share(maps: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
    read = maps * labelled
    inside = (read * target).sum((-3, -2, -1)) / read.sum((-3, -2, -1)).clamp(min=_TINY)
    return (1 - inside).square()


LOSS_FORMS: dict[str, Form] = {
    "mse": _pointwise(_mse),
    "mse_maxnorm": _pointwise(_mse_maxnorm),
    "bce": _pointwise(_bce),
    "inner": _pointwise(_inner),
    "share": _share,
}
"""Form -> its function; a new one is a row here."""
