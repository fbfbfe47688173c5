"""Where gated deltas are heard: at learned words, in the text that the network is reading.

A gated delta of a text projection adds nothing anywhere else, so that prompts without learned words
and the negative half of guidance are the base model's to the last bit. For text encoders without a
token that begins every prompt this does what Custom Diffusion's rule for that token does for CLIP,
and more. What is added is `customvideo.adapters.deltas`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from customvideo.adapters.tokens import LearnedTokens
from customvideo.backbones.base import Backbone
from customvideo.backbones.reading import TellsReading
from customvideo.errors import AdapterError

__all__ = ["Gate", "GateKind"]

GateKind = Literal["none", "words", "phrase"]
"""Deltas are heard everywhere, at learned words, or at these and at the token after each, which
begins its category."""


class Gate:
    """Which positions of what the backbone reads belong to which words."""

    def __init__(
        self, backbone: Backbone, tokens: LearnedTokens, kind: GateKind, parts: Sequence[int]
    ) -> None:
        """`tokens` are attached to `backbone`; `parts` counts the words of each part of a delta,
        in their order.

        Raises:
            AdapterError: the backbone does not say what it reads.
        """
        if not isinstance(backbone, TellsReading):
            raise AdapterError(
                f"The backbone '{backbone.name}' does not say which text it reads, so deltas "
                "cannot be held to learned words there; train with gate=none."
            )
        assert sum(parts) == len(tokens.words), "each word belongs to one part"
        self._backbone = backbone
        self._tokens = tokens
        self._phrase = kind == "phrase"
        self._parts = list(parts)
        self._asked: Tensor | None = None
        self._answer: Tensor | None = None

    def __call__(self, inputs: Tensor) -> Tensor:
        """Where each part is heard in `inputs` (row, token, dim): bool (part, row, token, 1).

        The rows may be those of the text several times over, each repeated in its place, as for
        frames.
        """
        found = self._open()
        return found.repeat_interleave(len(inputs) // found.shape[1], dim=1)[..., None]

    def _open(self) -> Tensor:
        ids = self._backbone.reading
        assert ids is not None, "a gated delta counts only while the backbone reads a text"
        if self._answer is None or self._asked is not ids:
            self._asked, self._answer = ids, self.find(ids)
        return self._answer

    def find(self, ids: Tensor) -> Tensor:
        """Where each part is heard in the text `ids` (row, token): bool (part, row, token)."""
        words = self._tokens.select(ids) > 0
        if self._phrase:
            after = torch.zeros_like(words)
            after[..., 1:] = words[..., :-1]
            # Where one word follows another its own part alone is heard.
            words = words | (after & ~words.any(dim=1, keepdim=True))
        return torch.stack([part.any(dim=1) for part in torch.split(words, self._parts, dim=1)])
