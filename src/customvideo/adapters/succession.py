"""What a layer's delta begins as where training goes on from another trainer's weights.

They have no words and may change more layers than the method trains, and in another form; no number
of theirs is lost. Going on from an adapter of ours is `Adapter.go_on_from` alone.
"""

from __future__ import annotations

import copy

import torch

from customvideo.adapters.deltas import Delta, FullDelta, LowRankDelta, WeightDelta
from customvideo.errors import AdapterError

__all__ = ["begun"]


@torch.no_grad()
def begun(path: str, own: Delta | None, found: Delta, alpha: float | None) -> Delta:
    """The delta of the layer at `path` that does what `found` does: `own` with its numbers where it
    can hold them, else one of the form of `found`, whose scale follows the header's `alpha`.

    Raises:
        AdapterError: `own` trains less of the layer than `found` changes.
    """
    if isinstance(found, LowRankDelta) and (own is None or isinstance(own, LowRankDelta)):
        held = own is not None and own.holds_first
        low = LowRankDelta(
            len(found.up), found.down.shape[1], len(found.down), alpha=alpha, holds_first=held
        )
        low.up.copy_(found.up * (found.scale / low.scale))
        low.down.copy_(found.down)
        return low
    if own is None:
        return copy.deepcopy(found)
    if isinstance(found, FullDelta | LowRankDelta):
        if isinstance(own, FullDelta):
            own.weight.copy_(found.merged())
            return own
        if isinstance(own, WeightDelta):
            own.added_weight.copy_(found.merged())
            return own
    if isinstance(own, WeightDelta) and isinstance(found, WeightDelta):
        own.added_weight.copy_(found.added_weight)
        if own.added_bias is not None and found.added_bias is not None:
            own.added_bias.copy_(found.added_bias)
        return own
    raise AdapterError(
        f"The weights to start from change the whole of '{path}', of which only a part is to be "
        "trained; train full matrices (rank=0), or use them alongside, with a second --adapter."
    )
