"""What a phrase says of a subject is read where that subject is: TokenCompose (arXiv 2312.03626).

A model that learns from captions alone finds out last which word belongs to which of two
subjects. The renderer knows, so text attention is taught it along with the picture. This concerns
the base model; customizing has its own attention control, which knows words and not phrases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPTokenizer

from customvideo.toybox.captions import Mention

__all__ = ["grounding_loss", "phrase_tokens"]

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


def grounding_loss(maps: Mapping[str, Tensor], cover: Tensor) -> Tensor:
    """How far phrases are read from their subjects, a scalar: the mean over sites of two terms.

    `maps` is what a tape recorded of `phrase_tokens`, site path -> (row, subject, frame, height,
    width); `cover` (row, frame, subject, h, w) in [0, 1], at the latents' size. First, of what a
    phrase is read, the share read outside its subject, squared (TokenCompose, equation 3, for a
    phrase instead of a word). Second, ours, where a caption has several phrases: cross-entropy of
    whose phrase is read at each cell of a subject.
    """
    return torch.stack([_site_loss(read, cover) for read in maps.values()]).mean()


def _site_loss(read: Tensor, cover: Tensor) -> Tensor:
    down, across = (round(cover.shape[axis] / read.shape[axis]) for axis in (-2, -1))
    covered = F.avg_pool2d(cover.flatten(0, 1), (down, across), ceil_mode=True)
    covered = covered.reshape(*cover.shape[:3], -1).transpose(1, 2).flatten(2)
    read = read.flatten(2)
    # A phrase that is not there is read nowhere.
    spoken_of = (read.detach().sum(2) > 0) & (covered.sum(2) > 0)
    share = (read * covered).sum(2) / read.sum(2).clamp_min(1e-6)
    outside = ((1 - share).square() * spoken_of).sum() / spoken_of.sum().clamp_min(1)
    whose = (read + 1e-6) / (read + 1e-6).sum(1, keepdim=True)
    several = (spoken_of.sum(1) > 1)[:, None, None] * spoken_of[..., None]
    weight = covered * several
    mixed = -(weight * whose.log()).sum() / weight.sum().clamp_min(1)
    total: Tensor = outside + mixed
    return total
