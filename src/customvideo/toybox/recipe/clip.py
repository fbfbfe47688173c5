"""The CLIP judge: contrastive towers that must read who has which colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPModel, CLIPTokenizer

from customvideo.toybox.captions import CATEGORY_NOUNS, PLURALS
from customvideo.toybox.models import tokenize
from customvideo.toybox.recipe.course import Losses
from customvideo.toybox.recipe.dataset import Shelf
from customvideo.toybox.recipe.draw import Draw, judge_view, unit
from customvideo.toybox.world import COLOURS

__all__ = ["ClipStage", "confused", "swap_colours"]

_NOUNS = (*CATEGORY_NOUNS.values(), *PLURALS.values())


class ClipStage:
    """Contrastive picture-text learning (Radford et al. 2021) with captions wrong by little.

    Those are negatives for their own picture. With colours in another order, they teach which word
    belongs to which subject, not only which words occur; with one noun replaced, they teach what
    the subjects are: colours and ground alone tell most pictures of a batch apart. Three batches in
    four show one place only, or nobody would look at the subjects at all.
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
        swapped = [confused(text, draw.numpy) for text in texts]
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
        # A caption that stayed as it was is no negative.
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


def confused(text: str, rng: np.random.Generator) -> str:
    """`text` made wrong by little: its colours in another order, or one noun of another category.

    A text without two colours always gets a wrong noun; one without nouns stays as it is.
    """
    if rng.random() < 0.5 and (swapped := swap_colours(text, rng)) != text:
        return swapped
    words = text.split()
    places = [index for index, word in enumerate(words) if word.strip(",") in _NOUNS]
    if not places:
        return text
    place = places[int(rng.integers(len(places)))]
    old = words[place].strip(",")
    kinds = [noun for noun in _NOUNS if noun != old and noun.endswith("s") == old.endswith("s")]
    words[place] = words[place].replace(old, kinds[int(rng.integers(len(kinds)))])
    return " ".join(words)


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
