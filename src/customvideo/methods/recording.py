"""Predictions that leave their attention maps behind, and words that keep to their own places.

Two subjects of one category are told apart by their learned words alone, and a place of the picture
that belongs to one of them reads the other's word, too. `Recorder` sees where each word is read and
can let every place read the prompt without the words of those who are elsewhere. It stands before a
backbone in the sampler; what is trained does not know of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from customvideo.adapters.together import Learned
from customvideo.attention.site import AttentionSite, intermediate
from customvideo.attention.tape import Tape, watch
from customvideo.backbones.base import Backbone, TextStates, guided_inside
from customvideo.backbones.noise import Noise, reached
from customvideo.backbones.regional import regional, require_regional
from customvideo.methods.base import class_columns
from customvideo.methods.layout import Box, Boxes
from customvideo.methods.rendering import Rendering
from customvideo.subjects.prompt import LearnedWord, Prompt

__all__ = ["Recorder", "Regions", "without_others"]

_KEPT = 0.5
"""How much of what is known of a word's place outlasts a step."""


@dataclass(frozen=True)
class Regions:
    """When words keep to their own places.

    Attributes:
        alike: only words of one category keep clear of each other, or else all.
        begin: share of the steps before, in which the picture is laid out.
        layout: word's name -> the box that it keeps to. Where there are boxes they decide alone.
    """

    alike: bool = True
    begin: float = 0.2
    layout: Mapping[str, Box] = field(default_factory=dict)


class Recorder:
    """A backbone for one rendering, whose maps are summed over its steps; see the module.

    It is used once, and only while the adapter is attached.

    Raises:
        ConfigError: regions are asked for and the model has no such thing.
    """

    def __init__(
        self, backbone: Backbone, adapter: Learned, wanted: Rendering, regions: Regions | None
    ) -> None:
        self.backbone = backbone
        self._all_sites = backbone.sites(*wanted.size)
        self._sites = intermediate(self._all_sites)
        self._words = adapter.select(wanted.text.ids).to(backbone.device)
        self._real = wanted.text.real
        self._sums: dict[tuple[str, ...], list[Tensor]] = {}
        self._steps = 0
        self._places: _Places | None = None
        self._boxes: Boxes | None = None
        if regions is not None and regions.layout:
            given = (regions.layout, adapter.words, wanted.prompts, self._all_sites)
            self._boxes = Boxes(backbone, *given)
        elif regions is not None and (told := _told_apart(wanted.prompts, adapter.words, regions)):
            require_regional(backbone, self._all_sites)
            first = round(regions.begin * wanted.steps)
            self._places = _Places(backbone, told, wanted.prompts, self._words, max(first, 1))

    @property
    def apart(self) -> bool:
        """Whether any word keeps to its own place."""
        return self._places is not None or self._boxes is not None

    @property
    def noise(self) -> Noise:
        return self.backbone.noise

    @property
    def guided_inside(self) -> bool:
        return guided_inside(self.backbone)

    def encode_prompt(self, texts: Sequence[str]) -> TextStates:
        return self.backbone.encode_prompt(texts)

    def cached_text(
        self, text: TextStates, negative: TextStates | None = None
    ) -> AbstractContextManager[None]:
        return self.backbone.cached_text(text, negative)

    def predict(self, latents: Tensor, times: Tensor, text: TextStates) -> Tensor:
        with self._recording(times, halves=1):
            return self.backbone.predict(latents, times, text)

    def predict_guided(
        self, latents: Tensor, time: Tensor, text: TextStates, negative: TextStates, guidance: float
    ) -> Tensor:
        with self._recording(time, halves=1 if self.guided_inside else 2):
            return self.backbone.predict_guided(latents, time, text, negative, guidance)

    def average(self) -> Tensor:
        """Mean over steps and sites, (row, word, frame, height, width) on the finest grid."""
        totals = [_together(total) for total in self._sums.values()]
        found = torch.stack(totals).sum(dim=0) / self._steps
        return found if self._boxes is None else self._boxes.limit(found)

    @contextmanager
    def _recording(self, times: Tensor, halves: int) -> Iterator[None]:
        rows, sites = len(self._words), reached(self.noise, self._sites, times.reshape(-1))
        words = self._words if self._places is None else self._places.columns
        # The negative half comes first, and none of its words is asked for.
        asked = torch.cat([torch.zeros_like(words)] * (halves - 1) + [words])
        real = None if self._real is None else self._real.repeat(halves, 1)
        with watch(self.backbone.denoiser, sites, asked, real) as tape, ExitStack() as apart:
            if self._places is not None:
                apart.enter_context(self._places.reading(self._all_sites, self._steps, tape))
            if self._boxes is not None:
                apart.enter_context(self._boxes.reading(tape.paused))
            yield
            maps = [found[-rows:] for found in tape.maps().values()]
        if self._places is not None:
            self._places.see(_together(maps))
            # Each word's own maps, then those of its phrase.
            maps = [found[:, : self._words.shape[1]] for found in maps]
        paths = tuple(site.path for site in sites)
        before = self._sums.get(paths)
        self._sums[paths] = [a + b for a, b in zip(before, maps, strict=True)] if before else maps
        self._steps += 1


class _Places:
    """Who is where, by how much each word and its category are read there."""

    def __init__(
        self,
        backbone: Backbone,
        told: Sequence[Sequence[str]],
        prompts: Sequence[str],
        words: Tensor,
        first: int,
    ) -> None:
        """`told` are the texts read at each word's place (word, row) instead of `prompts` (row),
        from step `first` on; `words` is (row, word, token)."""
        phrases = words + class_columns(words).to(words.device)
        phrases = phrases / phrases.sum(dim=-1, keepdim=True).clamp(min=1)
        self.columns = torch.cat([words, phrases], dim=1)
        self._backbone, self._first = backbone, first
        self._mentioned = (words.sum(dim=-1) > 0)[..., None, None, None]
        # Where nothing else is told nothing is read again, or rounding would show.
        differs = [
            [text != prompt for text, prompt in zip(row, prompts, strict=True)] for row in told
        ]
        self._differs = torch.tensor(differs, device=words.device)[..., None, None]
        states = backbone.encode_prompt([text for row in told for text in row]).states
        self._states = states.reshape(len(told), words.shape[0], *states.shape[1:])
        self._seen: Tensor | None = None

    def see(self, maps: Tensor) -> None:
        """Learn from a step's maps (row, column, frame, height, width), columns as `columns`."""
        words = len(self._states)
        found = maps[:, words:]
        self._seen = found if self._seen is None else _KEPT * self._seen + (1 - _KEPT) * found

    @contextmanager
    def reading(self, sites: Sequence[AttentionSite], step: int, tape: Tape) -> Iterator[None]:
        """Let each place read the text that is told there, if it is time."""
        if self._seen is None or step < self._first:
            yield
            return
        rows, words, frames, height, width = self._seen.shape
        flat = self._seen.reshape(rows * words, frames, height, width)
        smooth = F.avg_pool2d(flat, 3, 1, 1, count_include_pad=False).reshape(self._seen.shape)
        smooth = smooth.masked_fill(~self._mentioned, -1.0)
        owned = torch.zeros_like(smooth).scatter_(1, smooth.argmax(dim=1, keepdim=True), 1.0)

        def inside(site: AttentionSite) -> Tensor:
            grid = owned.reshape(rows * words, 1, *owned.shape[2:])
            sized = F.interpolate(grid, site.grid, mode="trilinear")
            return sized.reshape(rows, words, site.grid[0], -1).transpose(0, 1) * self._differs

        with regional(self._backbone, sites, self._states, inside, quiet=tape.paused):
            yield


def without_others(text: str, word: LearnedWord, words: Sequence[LearnedWord], alike: bool) -> str:
    """`text`, spelt as the text encoder reads it, without the learned words of others, whose
    categories stay: of those of `word`'s category if `alike`, else of all.

    "a <tom> cat and a <kit> cat" is read as "a <tom> cat and a cat" where Tom is.
    """
    for other in words:
        if other.name != word.name and (not alike or other.category == word.category):
            text = text.replace(" ".join(other.tokens) + " ", "")
    return text


def _told_apart(
    prompts: Sequence[str], words: Sequence[LearnedWord], regions: Regions
) -> list[list[str]]:
    """What is read at each word's place (word, row); empty if that is the prompt everywhere."""
    told = []
    for word in words:
        row = []
        for text in prompts:
            mentioned = Prompt(text, tuple(words)).mentioned
            others = mentioned if word.name in {one.name for one in mentioned} else ()
            row.append(without_others(text, word, others, regions.alike))
        told.append(row)
    return told if any(row != list(prompts) for row in told) else []


def _together(maps: Sequence[Tensor]) -> Tensor:
    """Mean over sites, on the finest of their grids."""
    finest = max((found.shape[3:] for found in maps), key=lambda grid: grid[0])
    fine = [F.interpolate(found, (found.shape[2], *finest), mode="trilinear") for found in maps]
    return torch.stack(fine).mean(dim=0)
