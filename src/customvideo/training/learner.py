"""The module whose forward is the loss.

Distributed wrappers and mixed precision act on a module's `forward`, so the loss must be computed
there and nowhere else. It holds the adapter's parameters only; the frozen backbone stays outside.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from customvideo.adapters.adapter import Adapter
from customvideo.attention.tape import Tape
from customvideo.backbones.base import Backbone
from customvideo.methods.base import Batch, Method

__all__ = ["Learner"]


class Learner(nn.Module):
    """An adapter in training: its parameters, and the method's loss as the forward pass."""

    def __init__(self, backbone: Backbone, method: Method, adapter: Adapter) -> None:
        super().__init__()
        self.adapter = adapter
        self.method = method
        # In a tuple, because a module kept as an attribute would become part of this one: its
        # frozen weights would be moved, counted and saved.
        self._backbone = (backbone,)

    @property
    def backbone(self) -> Backbone:
        """The frozen model the adapter is attached to."""
        return self._backbone[0]

    def forward(self, batch: Batch, tape: Tape | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch (a scalar) and its weighted parts by name, detached."""
        parts = self.method.losses(self.backbone, batch, tape)
        loss = torch.stack([part.float() for part in parts.values()]).sum()
        return loss, {name: part.detach() for name, part in parts.items()}
