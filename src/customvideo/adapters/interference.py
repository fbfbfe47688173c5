"""What merged adapters lose: what layers make of each subject's prompts, beside its own adapter's.

Also where text states come from that such comparisons, and merging, are made on: the inputs of the
layers that make keys and values of text, as prompts reach them. Nothing is merged here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.deltas import FullDelta, LowRankDelta, RoutedDelta
from customvideo.adapters.gates import Gate
from customvideo.adapters.tokens import LearnedTokens
from customvideo.backbones.base import Backbone, TextStates
from customvideo.backbones.reading import TellsReading
from customvideo.errors import AdapterError, BackboneError
from customvideo.subjects.prompt import LearnedWord, Prompt, list_subjects

__all__ = [
    "Interference",
    "TextInputs",
    "measure",
    "prompts_of",
    "read_inputs",
    "said_by",
    "spoken",
]

_TEMPLATES = (
    "{subjects} on the grass",
    "a video of {subjects}",
    "{subjects} walking on the beach",
    "the street with {subjects}",
)
"""None of them is one that merging is done on."""

_TOGETHER = 16
_SHORTEST_SIDE = 64
_TIMES = 1000


@dataclass(frozen=True)
class Interference:
    """How far one subject's keys and values are from those of its own adapter.

    Attributes:
        of_change: the difference in shares of what its own adapter changes: 0 keeps all it learned,
            1 is as far off as the base model.
        of_output: in shares of the keys and values themselves.
    """

    of_change: float
    of_output: float


@dataclass(frozen=True, eq=False)
class TextInputs:
    """What the layers that make keys and values of text are given for some texts.

    Attributes:
        states: path of a layer -> its inputs (row, token, dim), float64 on the CPU; one tensor for
            all layers that read the same.
        ids: (row, token), the texts' tokens.
        read: bool (row, token), which of them the model reads: all, or all but padding.
    """

    states: Mapping[str, Tensor]
    ids: Tensor
    read: Tensor


def prompts_of(words: Sequence[LearnedWord], templates: Sequence[str]) -> list[Prompt]:
    """Each of `words` alone in each of `templates`, and, if there are several, all of them."""
    groups = [[word] for word in words] + ([list(words)] if len(words) > 1 else [])
    return [
        Prompt(text.format(subjects=list_subjects(group)), tuple(words))
        for group in groups
        for text in templates
    ]


def spoken(backbone: Backbone, templates: Sequence[str]) -> list[str]:
    """Those of `templates` whose words the model knows; all if it knows none of them whole."""
    known = backbone.known_words
    found = [
        text
        for text in templates
        if known is None or known.issuperset(re.sub(r"{\w+}", "", text).split())
    ]
    return found or list(templates)


@torch.no_grad()
def read_inputs(backbone: Backbone, texts: Sequence[str]) -> TextInputs:
    """What the base model's text layers are given for `texts`, whose words are attached.

    Raises:
        AdapterError: the model mixes text and video before its layers read text, so that no text
            alone says what they are given.
    """
    sites = backbone.sites(1, *backbone.size)
    if any(site.kind == "joint" for site in sites):
        raise AdapterError(
            f"In '{backbone.name}' text is mixed with the video on its way, so there are no states "
            "of text alone to reconcile adapters on; merge with --how sum."
        )
    found = [
        _inputs(backbone, texts[start : start + _TOGETHER])
        for start in range(0, len(texts), _TOGETHER)
    ]
    states: dict[str, Tensor] = {}
    whole: dict[tuple[int, ...], Tensor] = {}
    for path in found[0].states:
        parts = [one.states[path] for one in found]
        key = tuple(map(id, parts))
        whole.setdefault(key, torch.cat(_padded(parts, 0.0)))
        states[path] = whole[key]
    ids = torch.cat(_padded([one.ids for one in found], -1))
    return TextInputs(states, ids, torch.cat(_padded([one.read for one in found], False)))


def said_by(
    backbone: Backbone, adapter: Adapter, tokens: LearnedTokens, inputs: TextInputs, path: str
) -> Tensor:
    """What `adapter` adds at `path` to the layer's outputs for `inputs`, (row, token, out) float64.

    `tokens` are the attached words that `inputs` were read with, the adapter's own among them; a
    layer that the adapter leaves alone gets zeros.
    """
    states = inputs.states[path]
    delta = adapter.deltas.get(path)
    if delta is None:
        layer = backbone.layer(path)
        assert isinstance(layer, nn.Linear)
        return states.new_zeros(*states.shape[:2], layer.out_features)
    if adapter.header.gate == "none":
        return states @ matrix(delta).T
    counts = adapter.header.parts or (len(adapter.words),)
    assert isinstance(backbone, TellsReading), "it took a gated adapter"
    # The words of others open nothing: each of its own is found where it stands among all.
    gate = Gate(backbone, tokens, adapter.header.gate, [1] * len(tokens.words))
    opened = gate.find(inputs.ids)
    added = states.new_zeros(*states.shape[:2], delta.shape[0])
    names = [word.name for word in adapter.words]
    parts = delta.parts if isinstance(delta, RoutedDelta) else [delta]
    for part, count in zip(parts, counts, strict=True):
        own = {names.pop(0) for _ in range(count)}
        chosen = [index for index, word in enumerate(tokens.words) if word.name in own]
        heard = opened[chosen].any(dim=0)[..., None]
        added = torch.where(heard, added + states @ matrix(part).T, added)
    return added


def matrix(delta: nn.Module) -> Tensor:
    """A linear delta as one (out, in) matrix, float64 on the CPU."""
    assert isinstance(delta, FullDelta | LowRankDelta), "it has been checked"
    return delta.merged().detach().double().cpu()


@torch.no_grad()
def measure(
    backbone: Backbone, adapters: Sequence[Adapter], merged: Mapping[str, Adapter]
) -> dict[str, dict[str, Interference]]:
    """Subject's name -> name of a merged adapter -> what the subject suffers there.

    Measured on prompts of each subject that no way of merging sees, over all positions that the
    model reads and all layers that make keys and values of text. `merged` have the words of all
    `adapters`, in their order and with their rows.

    Raises:
        AdapterError: as `read_inputs`.
    """
    rows = torch.cat([adapter.tokens.value.detach().cpu() for adapter in adapters])
    words = [word for adapter in adapters for word in adapter.words]
    space = adapters[0].header.space
    tokens = LearnedTokens(words, rows.shape[-1], rows, space).to(backbone.device)
    found: dict[str, dict[str, Interference]] = {}
    with tokens.attach(backbone.tables()[0]):
        for own in adapters:
            for word in own.words:
                templates = spoken(backbone, _TEMPLATES)
                texts = [prompt.encoded for prompt in prompts_of([word], templates)]
                inputs = read_inputs(backbone, texts)
                found[word.name] = {
                    name: _compare(backbone, (own, other), tokens, inputs)
                    for name, other in merged.items()
                }
    return found


def _compare(
    backbone: Backbone,
    pair: tuple[Adapter, Adapter],
    tokens: LearnedTokens,
    inputs: TextInputs,
) -> Interference:
    """The second of the pair beside the first."""
    wrong, changed, output = 0.0, 0.0, 0.0
    for path in inputs.states:
        own, other = (
            said_by(backbone, adapter, tokens, inputs, path)[inputs.read] for adapter in pair
        )
        layer = backbone.layer(path)
        assert isinstance(layer, nn.Linear)
        plain = inputs.states[path][inputs.read] @ layer.weight.detach().double().cpu().T
        if layer.bias is not None:
            plain = plain + layer.bias.detach().double().cpu()
        wrong += float((other - own).square().sum())
        changed += float(own.square().sum())
        output += float((plain + own).square().sum())
    return Interference(_root(wrong, changed), _root(wrong, output))


def _root(part: float, whole: float) -> float:
    return float((part / max(whole, 1e-30)) ** 0.5)


def _inputs(backbone: Backbone, texts: Sequence[str]) -> TextInputs:
    text = backbone.encode_prompt(texts)
    seen: dict[str, Tensor] = {}
    copies: dict[int, Tensor] = {}
    kept: list[Tensor] = []
    paths = backbone.layers("text_kv")

    def note(path: str, given: Tensor) -> None:
        if id(given) not in copies:
            # Kept, so that no later tensor has the same id.
            kept.append(given)
            copies[id(given)] = given.detach().double().cpu()
        seen[path] = copies[id(given)]

    hooks = [
        backbone.layer(path).register_forward_pre_hook(
            lambda _module, args, path=path: note(path, args[0])
        )
        for path in paths
    ]
    try:
        # Of several networks each has its own times, and the first and the last are not one's.
        for place in (0, -1):
            if len(seen) < len(paths):
                _ask(backbone, text, backbone.noise.spread_times(_TIMES)[place])
    finally:
        for hook in hooks:
            hook.remove()
    assert len(seen) == len(paths), "each layer that reads text was asked"
    real = torch.ones_like(text.ids, dtype=torch.bool) if text.real is None else text.real
    return TextInputs(seen, text.ids.cpu(), real.bool().cpu())


def _ask(backbone: Backbone, text: TextStates, time: Tensor) -> None:
    """One prediction of the smallest picture, at `time` ()."""
    latents = torch.zeros((text.rows, *_smallest(backbone)), device=backbone.device)
    backbone.predict(latents, time.to(backbone.device).expand(text.rows), text)


def _smallest(backbone: Backbone) -> tuple[int, int, int, int]:
    """Latents of one frame, halved as long as the model takes them: of text they say nothing."""
    height, width = backbone.size
    shape = backbone.latent_shape(1, height, width)
    while min(height, width) // 2 >= _SHORTEST_SIDE:
        height, width = height // 2, width // 2
        try:
            shape = backbone.latent_shape(1, height, width)
        except BackboneError:
            break
    return shape


def _padded(parts: Sequence[Tensor], value: float) -> list[Tensor]:
    """All of `parts` (row, token, …) as long as the longest."""
    longest = max(part.shape[1] for part in parts)
    padded = []
    for part in parts:
        more = part.new_full((len(part), longest - part.shape[1], *part.shape[2:]), value)
        padded.append(torch.cat([part, more], dim=1))
    return padded
