"""Words that keep to boxes somebody drew: outside of a word's box its phrase is not read.

Where a box ends so does the word's attention, from the first step on. What is inside several boxes
reads all their phrases, what is inside none reads the rest of the prompt. This is regional
prompting; it moves no subject by force, and what self-attention carries over the edge stays.
Reading texts by place is `customvideo.backbones.regional`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import product

import torch
from torch import Tensor

from customvideo.attention.site import AttentionSite
from customvideo.backbones.base import Backbone
from customvideo.backbones.regional import regional, require_regional
from customvideo.errors import ConfigError
from customvideo.settings import suggest
from customvideo.subjects.prompt import LearnedWord

__all__ = ["Box", "Boxes", "check_layout", "without_phrase"]

Box = tuple[float, float, float, float]
"""Left, top, right and bottom edge, as shares of the picture's width and height."""

_MOST = 6
"""Boxes at a time: every combination of overlaps has a text of its own."""
# Stands where a phrase was until the words that joined it are gone; no text has it.
_GONE = "\ue000"


def check_layout(layout: Mapping[str, Box], words: Sequence[LearnedWord]) -> None:
    """Refuse boxes that are empty or outside of the picture, or of words nobody learned.

    Raises:
        ConfigError: says which.
    """
    known = [word.name for word in words]
    if len(layout) > _MOST:
        raise ConfigError(f"{len(layout)} boxes are too many; draw {_MOST} at most.")
    for name, (left, top, right, bottom) in layout.items():
        if name not in known:
            raise ConfigError(
                f"There is a box for <{name}>, which nobody learned"
                + (suggest(name, known) if known else "; give the adapter that knows it.")
            )
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise ConfigError(
                f"The box of <{name}> is {left}, {top}, {right}, {bottom}; its left and top edges "
                "must lie before its right and bottom ones, all between 0 and 1."
            )


def without_phrase(text: str, word: LearnedWord) -> str:
    """`text`, spelt as the text encoder reads it, without `word`, its category and its article.

    "a <tom> cat and a <rex> dog on the beach" becomes "a <rex> dog on the beach".
    """
    noun = r"\s+".join(re.escape(part) for part in word.category.split())
    tokens = r"\s+".join(re.escape(token) for token in word.tokens)
    phrase = rf"(?:\b(?:a|an|the)\s+)?{tokens}(?:\s+{noun}s?\b)?"
    text = re.sub(phrase, _GONE, text, flags=re.IGNORECASE)
    text = re.sub(rf"\s*(?:,|\band\b)\s*{_GONE}", "", text)
    text = re.sub(rf"{_GONE}\s*(?:,|\band\b)\s*", "", text)
    return " ".join(text.replace(_GONE, " ").split())


class Boxes:
    """The boxes of one rendering, and the texts that are read in and out of them.

    Raises:
        ConfigError: the model's places cannot read texts of their own.
    """

    def __init__(
        self,
        backbone: Backbone,
        layout: Mapping[str, Box],
        words: Sequence[LearnedWord],
        prompts: Sequence[str],
        sites: Sequence[AttentionSite],
    ) -> None:
        """`prompts` (row) are spelt as the text encoder reads them; `words` are the adapter's."""
        require_regional(backbone, sites)
        self._backbone, self._sites = backbone, sites
        self._boxes = [layout.get(word.name) for word in words]
        boxed = [word for word in words if word.name in layout]
        self._drawn = [layout[word.name] for word in boxed]
        # Which boxes a place is in -> what is read there; in all of them that is the prompt.
        self._inside = list(product((True, False), repeat=len(boxed)))[1:]
        told = [[_told(text, boxed, inside) for text in prompts] for inside in self._inside]
        differs = [[a != b for a, b in zip(row, prompts, strict=True)] for row in told]
        self._differs = torch.tensor(differs, device=backbone.device)[..., None, None]
        states = backbone.encode_prompt([text for row in told for text in row]).states
        self._states = states.reshape(len(told), len(prompts), *states.shape[1:])

    def reading(
        self, quiet: Callable[[], AbstractContextManager[None]]
    ) -> AbstractContextManager[None]:
        """Let every place read what its boxes say; `quiet` as `regional` takes it."""
        return regional(self._backbone, self._sites, self._states, self._where, quiet=quiet)

    def limit(self, maps: Tensor) -> Tensor:
        """Maps (row, word, frame, height, width) of the adapter's words, zero out of their boxes:
        there the words are not read, whatever the prompt's own attention was."""
        height, width = maps.shape[-2:]
        masks = [
            torch.ones(height, width) if box is None else _mask(box, height, width)
            for box in self._boxes
        ]
        return maps * torch.stack(masks).to(maps)[:, None]

    def _where(self, site: AttentionSite) -> Tensor:
        """Which positions of `site` are in which combination (region, row, 1, position)."""
        _, height, width = site.grid
        masks = [_mask(box, height, width).flatten() for box in self._drawn]
        parts = []
        for inside in self._inside:
            part = torch.ones(height * width)
            for mask, within in zip(masks, inside, strict=True):
                part = part * (mask if within else 1 - mask)
            parts.append(part)
        where = torch.stack(parts).to(self._states.device)[:, None, None]
        return where * self._differs


def _told(text: str, words: Sequence[LearnedWord], inside: Sequence[bool]) -> str:
    for word, within in zip(words, inside, strict=True):
        text = text if within else without_phrase(text, word)
    return text


def _mask(box: Box, height: int, width: int) -> Tensor:
    """1 where a cell's centre is inside `box`, and in the cell that holds the box's centre."""
    left, top, right, bottom = box
    across = (torch.arange(width) + 0.5) / width
    down = (torch.arange(height) + 0.5) / height
    columns = (across >= left) & (across < right)
    rows = (down >= top) & (down < bottom)
    columns[min(int((left + right) / 2 * width), width - 1)] = True
    rows[min(int((top + bottom) / 2 * height), height - 1)] = True
    return (rows[:, None] & columns).float()
