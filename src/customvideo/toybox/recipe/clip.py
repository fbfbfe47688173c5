"""The CLIP judge: contrastive towers that must read who has which colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPModel, CLIPTokenizer

from customvideo.toybox.models import tokenize
from customvideo.toybox.recipe.course import Losses
from customvideo.toybox.recipe.dataset import Shelf
from customvideo.toybox.recipe.draw import Draw, judge_view, unit
from customvideo.toybox.world import COLOURS

__all__ = ["ClipStage", "swap_colours"]


class ClipStage:
    """Contrastive picture-text learning (Radford et al. 2021), colour-swapped captions added.

    The swapped captions are negatives for their own picture: without them the towers learn which
    words occur and not which word belongs to which subject. Three batches in four show one place
    only: otherwise the ground alone tells the pictures of a batch apart, and the subjects are
    never looked at.
    """

    def __init__(
        self,
        clip: CLIPModel,
        tokenizer: CLIPTokenizer,
        shelves: Sequence[Shelf],
        seed: int,
        batch: int = 1,
    ) -> None:
        self.clip, self.tokenizer, self.seed = clip, tokenizer, seed
        self.count = 96 * batch
        self.shelves = shelves
        self.places = [_by_place(shelf) for shelf in shelves]
        self.device = next(clip.parameters()).device

    def __call__(self, step: int) -> Losses:
        draw = Draw(self.seed, 2, step)
        source = step % len(self.shelves)
        shelf = self.shelves[source]
        chosen = draw.indices(len(shelf.worlds), self.count)
        if draw.chance(1, 0.75)[0]:
            alike = self.places[source][shelf.worlds[chosen[0]].place]
            chosen = [alike[index] for index in draw.indices(len(alike), self.count)]
        texts = shelf.captions(chosen, draw.numpy)
        swapped = [swap_colours(text, draw.numpy) for text in texts]
        frame = int(draw.numpy.integers(shelf.frames.shape[1]))
        pictures = judge_view(unit(shelf.frames[chosen, frame].to(self.device)))
        if draw.chance(1, 0.5)[0]:
            pictures = pictures.flip(-1)
        tokens = tokenize(self.tokenizer, texts + swapped).to(self.device)
        out = self.clip(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            pixel_values=pictures,
        )
        logits = out.logits_per_image
        # A caption with fewer than two colours is its own swap: no negative.
        same = torch.tensor([one == other for one, other in zip(texts, swapped, strict=True)])
        blocked = torch.cat([torch.zeros(len(texts), len(texts)), torch.diag(same * -1e4)], dim=1)
        target = torch.arange(len(texts), device=self.device)
        return {
            "to_text": 0.5 * F.cross_entropy(logits + blocked.to(self.device), target),
            "to_picture": 0.5 * F.cross_entropy(logits.T[: len(texts)], target),
        }


def _by_place(shelf: Shelf) -> dict[str, list[int]]:
    """Place -> indices of the worlds there."""
    places: dict[str, list[int]] = {}
    for index, world in enumerate(shelf.worlds):
        places.setdefault(world.place, []).append(index)
    return places


def swap_colours(text: str, rng: np.random.Generator) -> str:
    """`text` with its colour words in another order; unchanged if it has fewer than two."""
    words = text.split()
    places = [i for i, word in enumerate(words) if word.strip(",") in COLOURS]
    names = [words[i].strip(",") for i in places]
    if len(set(names)) < 2:
        return text
    shuffled = list(names)
    while shuffled == names:
        rng.shuffle(shuffled)
    for place, old, new in zip(places, names, shuffled, strict=True):
        words[place] = words[place].replace(old, new)
    return " ".join(words)
