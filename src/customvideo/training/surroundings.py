"""What a run changes around it while it trains, and puts back.

That is torch's generators, and how a backbone spares memory; what is trained is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from customvideo.backbones.base import Backbone
from customvideo.errors import ConfigError

__all__ = ["checkpointing", "own_randomness", "text_encoder"]


@contextmanager
def own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators for the block, and put back what they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def text_encoder(backbone: Backbone, place: str) -> Iterator[None]:
    """Keep the text encoders where `place` says for the block, and bring them back afterwards."""
    if place == "device" or backbone.device.type == "cpu":
        yield
        return
    if not hasattr(backbone, "move_text"):
        raise ConfigError(
            f"Backbone '{backbone.name}' keeps its text encoder beside the denoiser; set "
            "text_encoder=device."
        )
    movable: Any = backbone
    movable.move_text(torch.device("cpu"))
    try:
        yield
    finally:
        movable.move_text(backbone.device)


@contextmanager
def checkpointing(backbone: Backbone, wanted: bool) -> Iterator[None]:
    """Let `backbone` recompute activations for the block, if wanted, and restore what was set."""
    if not wanted:
        yield
        return
    if not hasattr(backbone, "checkpointed"):
        raise ConfigError(
            f"Backbone '{backbone.name}' cannot recompute activations; set "
            "gradient_checkpointing=false."
        )
    switchable: Any = backbone
    before, switchable.checkpointed = switchable.checkpointed, True
    try:
        yield
    finally:
        switchable.checkpointed = before
