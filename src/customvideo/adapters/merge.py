"""Adapters of subjects trained apart, made one without training: Custom Diffusion's merge.

After Kumari et al. (arXiv 2212.04488) and the authors' `composenW.py`: of all keys and values that
say about each subject exactly what its own adapter says, those that change ordinary captions least.
Only full or low-rank deltas of the layers that read text can be merged so.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.deltas import FullDelta, LowRankDelta
from customvideo.adapters.header import AdapterHeader
from customvideo.adapters.tokens import LearnedTokens
from customvideo.backbones.base import Backbone
from customvideo.errors import AdapterError
from customvideo.subjects.prompt import LearnedWord, Prompt, list_subjects

__all__ = ["merge_adapters"]

_TEMPLATES = ("{subjects}", "a photo of {subjects}")
_ENCODED_TOGETHER = 16

# Of the captions' mean square: few captions do not span the text states.
_RIDGE = 1e-6

# Of the largest: what is smaller is rounding.
_RANK = 1e-12


@torch.no_grad()
def merge_adapters(
    adapters: Sequence[Adapter], backbone: Backbone, *, captions: Sequence[str]
) -> Adapter:
    """One adapter with the words of all `adapters`, and full deltas; they are left as they are.

    With C the text states of the captions, c those that name the subjects, and v what the
    subjects' own deltas D_i make of them, the merged delta of a layer is

        D = argmin |D C^T|  so that  D c^T = v,   D = v (d c^T)^-1 d   with   d = c (C^T C)^-1.

    Constrained are the positions from each word to the text's end, in `a <tom> cat` and `a photo
    of a <tom> cat`. Where they contradict each other they are met as well as can be.

    Args:
        adapters: two or more of one method, none of whose words is another's.
        backbone: the one they were made for, with none of them attached.
        captions: texts of ordinary pictures, without learned words (the authors take 200).

    Raises:
        AdapterError: they cannot be merged, or there is no caption.
        PromptError: two words are the same.
    """
    _check(adapters, backbone, captions)
    rows = torch.cat([adapter.tokens.value.cpu() for adapter in adapters])
    words = [word for adapter in adapters for word in adapter.words]
    tokens = LearnedTokens(words, rows.shape[-1], rows).to(backbone.device)
    with tokens.attach(backbone.tables()[0]):
        ordinary = _states(backbone, captions)
        named = [_named(backbone, tokens, adapter.words) for adapter in adapters]
    lift = _lift(ordinary, torch.cat(named))
    deltas = {}
    for path in adapters[0].deltas:
        said = [
            states @ _matrix(adapter, path).T
            for adapter, states in zip(adapters, named, strict=True)
        ]
        matrix = torch.cat(said).T @ lift
        deltas[path] = FullDelta(*matrix.shape)
        deltas[path].weight.copy_(matrix)
    return Adapter(_header(adapters), tokens.cpu(), deltas)


def _check(adapters: Sequence[Adapter], backbone: Backbone, captions: Sequence[str]) -> None:
    if len(adapters) < 2:
        raise AdapterError("Merging takes two adapters or more; give another one.")
    if not captions:
        raise AdapterError("Merging needs captions of ordinary pictures; give some, 200 are many.")
    readers = set(backbone.layers("text_kv"))
    first = adapters[0]
    for adapter in adapters:
        adapter.check_fits(backbone)
        names = ", ".join(word.word for word in adapter.words)
        if adapter.header.method != first.header.method or set(adapter.deltas) != set(first.deltas):
            raise AdapterError(
                f"The adapter of {names} was not trained as the first one, so they cannot be "
                "merged; train both by one method with one set of layers."
            )
        mergeable = all(
            isinstance(one, FullDelta | LowRankDelta) for one in adapter.deltas.values()
        )
        if not mergeable or not readers.issuperset(adapter.deltas) or adapter.extras:
            raise AdapterError(
                f"The adapter of {names} changes more than the keys and values of text, and cannot "
                "be merged; train both subjects together, or by 'custom_diffusion'."
            )


def _states(backbone: Backbone, texts: Sequence[str]) -> Tensor:
    """Text states of `texts` (position, dim), float64 on the CPU, from the second to the end."""
    found = []
    for start in range(0, len(texts), _ENCODED_TOGETHER):
        states, ends, _ = _encoded(backbone, texts[start : start + _ENCODED_TOGETHER])
        # What begins every text means nothing.
        found += [row[1 : end + 1] for row, end in zip(states, ends, strict=True)]
    return torch.cat(found)


def _named(backbone: Backbone, tokens: LearnedTokens, words: Sequence[LearnedWord]) -> Tensor:
    """Text states of `words` (position, dim), from each word itself to the end of the text."""
    found = []
    for word in words:
        prompts = [
            Prompt(text.format(subjects=list_subjects([word])), (word,)) for text in _TEMPLATES
        ]
        states, ends, ids = _encoded(backbone, [prompt.encoded for prompt in prompts])
        standing = tokens.select(ids)[:, tokens.words.index(word)] > 0
        starts = standing.int().argmax(dim=1).tolist()
        found += [row[a : b + 1] for row, a, b in zip(states, starts, ends, strict=True)]
    return torch.cat(found)


def _encoded(backbone: Backbone, texts: Sequence[str]) -> tuple[Tensor, list[int], Tensor]:
    """States (row, token, dim), float64 on the CPU, where each text ends, and its ids."""
    encoded = backbone.encode_prompt(texts)
    ends = encoded.ids == backbone.tables()[0].tokenizer.eos_token_id
    return encoded.states.double().cpu(), ends.int().argmax(dim=1).tolist(), encoded.ids


def _lift(ordinary: Tensor, named: Tensor) -> Tensor:
    """(d c^T)^-1 d of (position, dim) states each: what a layer's `said` is multiplied with."""
    square = ordinary.T @ ordinary
    square += _RIDGE * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype)
    direction: Tensor = torch.linalg.solve(square, named.T).T
    between = direction @ named.T
    # Positions that coincide leave no inverse; what is asked of them is averaged.
    inverse: Tensor = torch.linalg.pinv((between + between.T) / 2, rtol=_RANK, hermitian=True)
    return inverse @ direction


def _matrix(adapter: Adapter, path: str) -> Tensor:
    """The delta at `path` as one (out, in) matrix, float64 on the CPU."""
    delta = adapter.deltas[path]
    assert isinstance(delta, FullDelta | LowRankDelta), "it has been checked"
    return delta.merged().double().cpu()


def _header(adapters: Sequence[Adapter]) -> AdapterHeader:
    first, *others = (adapter.header for adapter in adapters)
    agreed = {
        key: value
        for key, value in first.settings.items()
        if all(other.settings.get(key) == value for other in others)
    }
    words = [word for adapter in adapters for word in adapter.header.words]
    photos = {name: digest for one in adapters for name, digest in one.header.photos.items()}
    update = {"words": tuple(words), "photos": photos, "alpha": None, "settings": agreed}
    return first.model_copy(update=update)
