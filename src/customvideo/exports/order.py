"""What goes into an export and what comes out of it, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from pydantic import JsonValue

from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import Backbone

__all__ = ["DTYPES", "Exported", "Order", "Target", "Verdict"]

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
"""Types that exported numbers can have."""


@dataclass(frozen=True, eq=False)
class Order:
    """What is to be exported, and how.

    Attributes:
        adapter: what was learned.
        backbone: the one it was made for, with nothing attached.
        target: for whom, a row of `TARGETS`.
        rank: of the low-rank matrices that full ones become; 0 keeps full ones, where the target
            takes them; None for each delta's own, and 64 for full ones.
        dtype: of the numbers in the files.
        words_only: leave out the deltas, where the target carries none.
        sampling: how the run sampled, for whoever reads the files.
    """

    adapter: Adapter
    backbone: Backbone
    target: str
    rank: int | None = None
    dtype: torch.dtype = torch.float32
    words_only: bool = False
    sampling: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        """What files of this adapter are called."""
        return "-".join(["customvideo", *(word.name for word in self.adapter.words)])


@dataclass(frozen=True)
class Verdict:
    """What checking an export found.

    Attributes:
        keys: how many tensors of the files found their place in the target.
        error: relative Frobenius error of the deltas read back, all layers together.
        clip: largest difference of a pixel, in [0, 1], between a short clip that the target's own
            loader draws and ours with what the files hold; None where no target can be loaded here.
        lost: the same between ours with what the files hold and with the whole adapter.
        moved: the same between ours with the whole adapter and the base model's.
    """

    keys: int
    error: float
    clip: float | None = None
    lost: float | None = None
    moved: float | None = None


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        losses: path of a layer -> the share of its delta's Frobenius norm that is lost.
        loss: the same share of all of them together.
        notes: what a person has to know to use it, a sentence each.
        verdict: what checking it found, if that was asked for.
    """

    losses: Mapping[str, float] = field(default_factory=dict)
    loss: float = 0.0
    notes: tuple[str, ...] = ()
    verdict: Verdict | None = None


class Target(Protocol):
    """A program, or a kind of file, that an adapter can be written for."""

    def write(self, order: Order, folder: Path) -> Exported:
        """Write the files of `order`, which it can carry, into the empty `folder`."""
        ...
