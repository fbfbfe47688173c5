"""Adapters of subjects trained apart, made one without training.

Three ways: their deltas added up; Custom Diffusion's closed form (Kumari et al., arXiv 2212.04488,
and the authors' `composenW.py`), by which each subject's keys and values stay exactly what they
were and ordinary captions change least; and gradient fusion (Mix-of-Show, Gu et al., arXiv
2305.18292), by which they stay on the subjects' own prompts as near as one matrix can. Gated
adapters lie side by side, each heard at its own words, and lose nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.deltas import (
    Delta,
    FullDelta,
    LowRankDelta,
    RoutedDelta,
    WeightDelta,
)
from customvideo.adapters.header import AdapterHeader
from customvideo.adapters.interference import TextInputs, matrix, prompts_of, read_inputs, spoken
from customvideo.adapters.tokens import LearnedTokens
from customvideo.backbones.base import Backbone
from customvideo.errors import AdapterError, PromptError
from customvideo.subjects.prompt import TEMPLATES, LearnedWord

__all__ = ["WAYS", "Way", "merge_adapters", "refuse_unlike"]

Way = Literal["sum", "closed-form", "gradient"]
WAYS: tuple[Way, ...] = ("sum", "closed-form", "gradient")

_NAMING = ("{subjects}", "a photo of {subjects}")
"""What the closed form keeps."""

# Of the states' mean square: few texts do not span them.
_RIDGE = 1e-6

# The same of gradient fusion, where it is all that holds to the base model, and lets prompts that
# it does not know fare as those that it does.
_PULL = 1e-2

_OWN = (
    *TEMPLATES,
    *("{subjects} running", "{subjects} in the snow", "{subjects} by the lake"),
    *("the forest with {subjects}", "{subjects} jumping on the street"),
    "{subjects} at night in the city",
)
"""Prompts that gradient fusion keeps, of which the model's own words are taken."""

# Of the largest: what is smaller is rounding.
_RANK = 1e-12


@torch.no_grad()
def merge_adapters(
    adapters: Sequence[Adapter],
    backbone: Backbone,
    *,
    how: Way = "closed-form",
    captions: Sequence[str] = (),
) -> Adapter:
    """One adapter with the words of all `adapters`; they are left as they are.

    - "sum": D = sum_i D_i. Low-rank deltas are stacked, which is exact, up to full rank.
    - "closed-form": with C the text states of the captions, c those that name the subjects, and v
      what the subjects' own deltas D_i make of them,

          D = argmin |D C^T|  so that  D c^T = v,   D = v (d c^T)^-1 d   with   d = c (C^T C)^-1.

      Constrained are the positions from each word to the text's end, in `a <tom> cat` and `a photo
      of a <tom> cat`. Where they contradict each other they are met as well as can be.
    - "gradient": with X_i the text states of the i-th adapter's own prompts,

          D = argmin sum_i |D X_i^T - D_i X_i^T|^2 + l |D|^2,

      which has a closed solution where the paper's code descends to it.

    Of gated adapters each delta stays what it is, heard at its own words.

    Args:
        adapters: two or more of one method, none of whose words is another's.
        backbone: the one they were made for, with none of them attached.
        how: the way.
        captions: for the closed form, texts of ordinary pictures, without learned words (the
            authors take 200).

    Raises:
        AdapterError: they cannot be merged so, or there is no caption.
        PromptError: two words are the same.
    """
    refuse_unlike(adapters)
    for adapter in adapters:
        adapter.check_fits(backbone)
    _require_possible(adapters, how)
    rows = torch.cat([adapter.tokens.value.cpu() for adapter in adapters])
    words = [word for adapter in adapters for word in adapter.words]
    space = adapters[0].header.space
    tokens = LearnedTokens(words, rows.shape[-1], rows, space).to(backbone.device)
    if how == "sum":
        paths = list(dict.fromkeys(path for adapter in adapters for path in adapter.deltas))
        one = _summed if adapters[0].header.gate == "none" else _routed
        deltas = {path: one(adapters, path) for path in paths}
        return Adapter(_header(adapters), tokens.cpu(), deltas)
    _require_readers(adapters, backbone)
    if how == "closed-form" and not captions:
        raise AdapterError("Merging needs captions of ordinary pictures; give some, 200 are many.")
    with tokens.attach(backbone.tables()[0]):
        solve = _ClosedForm if how == "closed-form" else _Gradient
        solver = solve(backbone, tokens, adapters, captions)
    full: dict[str, Delta] = {}
    for path in adapters[0].deltas:
        full[path] = _full(solver([matrix(adapter.deltas[path]) for adapter in adapters], path))
    return Adapter(_header(adapters), tokens.cpu(), full)


def _require_possible(adapters: Sequence[Adapter], how: Way) -> None:
    """Refuse ways that have nothing to reconcile; a sum is possible where anything is."""
    if how == "sum":
        return
    if adapters[0].header.gate != "none":
        raise AdapterError(
            f"Gated adapters are heard at their own words alone, and '{how}' would find nothing to "
            "reconcile; merge them with --how sum, which loses nothing."
        )
    if not all(adapter.words for adapter in adapters):
        raise AdapterError(
            f"Adapters without words of their own say nothing that '{how}' could keep apart; "
            "merge them with --how sum."
        )


def refuse_unlike(adapters: Sequence[Adapter]) -> None:
    """Refuse adapters that cannot stand together, whatever the way.

    Raises:
        AdapterError: they are fewer than two, or differ in what they were made for, in method or
            in gate, or carry more than words and deltas.
        PromptError: two words are the same.
    """
    if len(adapters) < 2:
        raise AdapterError("Merging takes two adapters or more; give another one.")
    first, seen = adapters[0].header, set[str]()
    for adapter in adapters:
        header, names = adapter.header, _names(adapter)
        if header.fingerprint != first.fingerprint:
            raise AdapterError(
                f"The adapter of {names} was made for the backbone '{header.backbone}' and that of "
                f"{_names(adapters[0])} for '{first.backbone}', whose weights differ; merge "
                "adapters of one backbone."
            )
        if header.method != first.method:
            raise AdapterError(
                f"The adapter of {names} was not trained as the first one, by '{header.method}' "
                f"and not by '{first.method}', so they cannot be merged; train both by one method."
            )
        if header.gate != first.gate:
            raise AdapterError(
                f"The adapter of {names} has gate={header.gate} and that of {_names(adapters[0])} "
                f"gate={first.gate}, so no file could hold both; train both with one gate."
            )
        if header.space != first.space:
            raise AdapterError(
                f"The words {names} and {_names(adapters[0])} were learned at different ends of "
                "the text encoder, so no file could hold both; train both with one word_space."
            )
        if adapter.extras:
            raise AdapterError(
                f"The adapter of {names} changes more than words and deltas can say, and cannot "
                "be merged; train both subjects together."
            )
        for word in adapter.words:
            if word.name in seen:
                raise PromptError(
                    f"Two of the adapters share the word '{word.word}'; give that of the later one "
                    f"another name, as in --rename {word.name}={word.name}2."
                )
            seen.add(word.name)


def _names(adapter: Adapter) -> str:
    return ", ".join(word.word for word in adapter.words)


def _require_readers(adapters: Sequence[Adapter], backbone: Backbone) -> None:
    """Refuse what is not a linear delta of one set of layers that read text."""
    readers = set(backbone.layers("text_kv"))
    for adapter in adapters:
        kinds = (isinstance(one, FullDelta | LowRankDelta) for one in adapter.deltas.values())
        if not readers.issuperset(adapter.deltas) or not all(kinds):
            raise AdapterError(
                f"The adapter of {_names(adapter)} changes more than the keys and values of text, "
                "so no way but a sum is known; merge with --how sum, or train both together."
            )
        if set(adapter.deltas) != set(adapters[0].deltas):
            raise AdapterError(
                f"The adapter of {_names(adapter)} was not trained as the first one, but on other "
                "layers; merge with --how sum, or train both on one set of layers."
            )


def _summed(adapters: Sequence[Adapter], path: str) -> Delta:
    """All deltas at `path` in one; exactly their sum."""
    held = [(one, one.deltas[path]) for one in adapters if path in one.deltas]
    deltas = [delta for _, delta in held]
    linear = [delta for delta in deltas if isinstance(delta, FullDelta | LowRankDelta)]
    if len(linear) == len(deltas):
        low = [delta for delta in linear if isinstance(delta, LowRankDelta)]
        ranks = sum(len(delta.down) for delta in low)
        if len(low) == len(linear) and ranks < min(linear[0].shape):
            return _stacked(low)
        return _full(torch.stack([matrix(delta) for delta in linear]).sum(dim=0))
    weights = [delta for delta in deltas if isinstance(delta, WeightDelta)]
    if len(weights) == len(deltas):
        total = WeightDelta(weights[0].added_weight, weights[0].added_bias)
        for name, value in total.named_parameters():
            value.copy_(torch.stack([one.get_parameter(name).cpu() for one in weights]).sum(dim=0))
        return total
    if len(deltas) == 1:
        return deltas[0]
    kinds = " and ".join(f"a {type(delta).__name__} of {_names(one)}" for one, delta in held)
    raise AdapterError(
        f"At '{path}' stand {kinds}, which no one delta equals; train the subjects together."
    )


def _routed(adapters: Sequence[Adapter], path: str) -> Delta:
    """All deltas at `path` side by side, in the order of the words."""
    shape = next(one.deltas[path].shape for one in adapters if path in one.deltas)
    parts: list[FullDelta | LowRankDelta] = []
    for adapter in adapters:
        delta = adapter.deltas.get(path)
        if isinstance(delta, RoutedDelta):
            found = list(delta.parts)
        elif isinstance(delta, FullDelta | LowRankDelta):
            found = [delta]
        else:
            assert delta is None, "only linear deltas are gated"
            found = [LowRankDelta(shape[0], shape[1], 1) for _ in _counts(adapter)]
        # Each file has one scale for all, so none is left to it.
        parts += [_stacked([one]) if isinstance(one, LowRankDelta) else one for one in found]
    return RoutedDelta(parts)


def _counts(adapter: Adapter) -> tuple[int, ...]:
    """How many words each part of its deltas belongs to."""
    return adapter.header.parts or (len(adapter.words),)


def _stacked(deltas: Sequence[LowRankDelta]) -> LowRankDelta:
    """Their sum, with a scale of 1."""
    out_features, in_features = deltas[0].shape
    total = LowRankDelta(out_features, in_features, sum(len(one.down) for one in deltas))
    total.down.copy_(torch.cat([one.down.cpu() for one in deltas]))
    total.up.copy_(torch.cat([one.up.cpu() * one.scale for one in deltas], dim=1))
    return total


def _full(weight: Tensor) -> FullDelta:
    delta = FullDelta(*weight.shape)
    delta.weight.copy_(weight)
    return delta


class _ClosedForm:
    """Custom Diffusion's merge, layer by layer."""

    def __init__(
        self,
        backbone: Backbone,
        tokens: LearnedTokens,
        adapters: Sequence[Adapter],
        captions: Sequence[str],
    ) -> None:
        self._end = backbone.tables()[0].tokenizer.eos_token_id
        self._begin = backbone.tables()[0].tokenizer.bos_token_id
        self._tokens = tokens
        self._ordinary = read_inputs(backbone, captions)
        self._named = [self._naming(backbone, adapter.words) for adapter in adapters]
        self._lifts: dict[int, tuple[list[Tensor], Tensor]] = {}

    def __call__(self, matrices: Sequence[Tensor], path: str) -> Tensor:
        named, lift = self._prepared(path)
        said = [states @ own.T for states, own in zip(named, matrices, strict=True)]
        return torch.cat(said).T @ lift

    def _prepared(self, path: str) -> tuple[list[Tensor], Tensor]:
        # Most models give all layers the same states.
        key = id(self._ordinary.states[path])
        if key not in self._lifts:
            ids = self._ordinary.ids
            # What begins every text means nothing; T5's begin with nothing of the kind.
            begun = torch.zeros_like(ids) if self._begin is None else (ids == self._begin)
            first = begun.any(dim=1).long()
            ordinary = self._spans(self._ordinary, path, first.tolist())
            named = [
                torch.cat([self._spans(found, path, starts) for found, starts in group])
                for group in self._named
            ]
            self._lifts[key] = named, _lift(ordinary, torch.cat(named))
        return self._lifts[key]

    def _naming(
        self, backbone: Backbone, words: Sequence[LearnedWord]
    ) -> list[tuple[TextInputs, list[int]]]:
        """Inputs that name each of `words`, and where the word stands in each text."""
        found = []
        for word in words:
            texts = [prompt.encoded for prompt in prompts_of([word], _NAMING)]
            inputs = read_inputs(backbone, texts)
            standing = self._tokens.select(inputs.ids)[:, self._tokens.words.index(word)] > 0
            found.append((inputs, standing.int().argmax(dim=1).tolist()))
        return found

    def _spans(self, inputs: TextInputs, path: str, starts: Sequence[int]) -> Tensor:
        """States (position, dim) from each text's start to its end, which counts."""
        ends = (inputs.ids == self._end).int().argmax(dim=1)
        last = inputs.read.sum(dim=1) - 1
        ends = torch.where((inputs.ids == self._end).any(dim=1), ends, last)
        rows = zip(inputs.states[path], starts, ends.tolist(), strict=True)
        return torch.cat([row[a : b + 1] for row, a, b in rows])


class _Gradient:
    """Gradient fusion, layer by layer."""

    def __init__(
        self,
        backbone: Backbone,
        tokens: LearnedTokens,
        adapters: Sequence[Adapter],
        captions: Sequence[str],
    ) -> None:
        templates = spoken(backbone, _OWN)
        self._own = [
            read_inputs(backbone, [one.encoded for one in prompts_of(adapter.words, templates)])
            for adapter in adapters
        ]
        self._squares: dict[int, tuple[list[Tensor], Tensor]] = {}

    def __call__(self, matrices: Sequence[Tensor], path: str) -> Tensor:
        squares, inverse = self._prepared(path)
        said = [own @ square for own, square in zip(matrices, squares, strict=True)]
        return torch.stack(said).sum(dim=0) @ inverse

    def _prepared(self, path: str) -> tuple[list[Tensor], Tensor]:
        key = id(self._own[0].states[path])
        if key not in self._squares:
            states = [inputs.states[path][inputs.read] for inputs in self._own]
            squares = [found.T @ found for found in states]
            whole = _ridged(torch.stack(squares).sum(dim=0), _PULL)
            self._squares[key] = squares, torch.linalg.inv(whole)
        return self._squares[key]


def _ridged(square: Tensor, share: float) -> Tensor:
    return square + share * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype)


def _lift(ordinary: Tensor, named: Tensor) -> Tensor:
    """(d c^T)^-1 d of (position, dim) states each: what a layer's `said` is multiplied with."""
    square = _ridged(ordinary.T @ ordinary, _RIDGE)
    direction: Tensor = torch.linalg.solve(square, named.T).T
    between = direction @ named.T
    # Positions that coincide leave no inverse; what is asked of them is averaged.
    inverse: Tensor = torch.linalg.pinv((between + between.T) / 2, rtol=_RANK, hermitian=True)
    return inverse @ direction


def _header(adapters: Sequence[Adapter]) -> AdapterHeader:
    first, *others = (adapter.header for adapter in adapters)
    agreed = {
        key: value
        for key, value in first.settings.items()
        if all(other.settings.get(key) == value for other in others)
    }
    words = [word for adapter in adapters for word in adapter.header.words]
    present = {word.name for word in words}
    update = {
        "format_version": AdapterHeader.model_fields["format_version"].default,
        "words": tuple(words),
        "photos": {name: digest for one in adapters for name, digest in one.header.photos.items()},
        "alpha": None,
        "settings": agreed,
        "parts": ()
        if first.gate == "none"
        else tuple(count for adapter in adapters for count in _counts(adapter)),
        "removed": tuple(
            dict.fromkeys(
                name for one in adapters for name in one.header.removed if name not in present
            )
        ),
    }
    return first.model_copy(update=update)
