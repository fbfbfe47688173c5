"""What a phrase says of a subject is read where that subject is: TokenCompose (arXiv 2312.03626).

A model that learns from captions alone finds out last which word belongs to which of two
subjects. The renderer knows, so text attention is taught it along with the picture. This concerns
the base model; customizing has its own attention control, which knows words and not phrases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTokenizer

from customvideo.backbones.unet3d_forward import FrameFolding
from customvideo.toybox.captions import Mention

__all__ = ["Grounding", "phrase_tokens"]

_SUBJECTS = 4


def phrase_tokens(
    tokenizer: CLIPTokenizer, texts: Sequence[str], mentions: Sequence[Sequence[Mention]]
) -> Tensor:
    """Which tokens (row, subject, token) say something of one subject alone; 0 or 1."""
    offsets = tokenizer(
        list(texts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_offsets_mapping=True,
        return_tensors="pt",
    )["offset_mapping"]
    start, stop = offsets[..., 0], offsets[..., 1]
    told = torch.zeros(len(texts), _SUBJECTS, offsets.shape[1])
    for row, found in enumerate(mentions):
        for mention in found:
            if len(mention.subjects) == 1:
                inside = (start[row] >= mention.start) & (stop[row] <= mention.stop)
                told[row, mention.subjects[0]] = (inside & (stop[row] > start[row])).float()
    return told


class _Recording(FrameFolding):
    """Attention to the text with its probabilities written out and kept."""

    def __init__(self) -> None:
        super().__init__()
        self.probabilities: Tensor | None = None

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        assert encoder_hidden_states is not None
        rows = len(encoder_hidden_states)
        folded = hidden_states.reshape(rows, -1, hidden_states.shape[-1])
        query, key, value = (
            projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for projected in (
                attn.to_q(folded),
                attn.to_k(encoder_hidden_states),
                attn.to_v(encoder_hidden_states),
            )
        )
        scores = query @ key.transpose(-1, -2) * attn.scale
        probabilities = scores.float().softmax(-1)
        self.probabilities = probabilities.mean(1)
        read = (probabilities.to(value.dtype) @ value).transpose(1, 2).flatten(2)
        output: Tensor = attn.to_out[1](attn.to_out[0](read))
        return output.reshape(hidden_states.shape)


class Grounding:
    """Watches a denoiser's text attention, and says how far phrases are from their subjects."""

    def __init__(self, denoiser: nn.Module, sites: Sequence[str]) -> None:
        self.processors = [_Recording() for _ in sites]
        for path, processor in zip(sites, self.processors, strict=True):
            denoiser.get_submodule(path).set_processor(processor)  # type: ignore[operator]

    def loss(self, told: Tensor, cover: Tensor) -> Tensor:
        """The mean over sites of two terms, after a pass of as many rows as `told`.

        `told` (row, subject, token) comes from `phrase_tokens`; `cover` (row, frame, subject, h,
        w) in [0, 1]. First, of what a phrase is read, the share read outside its subject, squared
        (TokenCompose, equation 3, for a phrase instead of a word). Second, ours, where a caption
        has several phrases: cross-entropy of whose phrase is read at each cell of a subject.
        """
        terms = []
        for processor in self.processors:
            assert processor.probabilities is not None, "nothing has passed since the last loss"
            terms.append(_site_loss(processor.probabilities, told, cover))
            processor.probabilities = None
        return torch.stack(terms).mean()


def _site_loss(probabilities: Tensor, told: Tensor, cover: Tensor) -> Tensor:
    rows, frames, subjects, height, width = cover.shape
    cells = probabilities.shape[1] // frames
    scale = round((height * width / cells) ** 0.5)
    covered = F.avg_pool2d(cover.flatten(0, 1), scale, ceil_mode=True)
    # (row, subject, frame * position), as the queries are folded.
    covered = covered.reshape(rows, frames, subjects, cells).transpose(1, 2).flatten(2)
    read = told @ probabilities.transpose(1, 2)
    spoken_of = (told.sum(2) > 0) & (covered.sum(2) > 0)
    share = (read * covered).sum(2) / read.sum(2).clamp_min(1e-6)
    outside = ((1 - share).square() * spoken_of).sum() / spoken_of.sum().clamp_min(1)
    whose = (read + 1e-6) / (read + 1e-6).sum(1, keepdim=True)
    several = (spoken_of.sum(1) > 1)[:, None, None] * spoken_of[..., None]
    weight = covered * several
    mixed = -(weight * whose.log()).sum() / weight.sum().clamp_min(1)
    return outside + mixed
