"""Making a recipe fit a card: which settings are turned, in which order, and when nothing helps.

The order is that of what each costs: time first, then quality. What a run needs is counted by
`customvideo.runs.estimate`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import psutil
import torch

from customvideo.adapters.deltas import WeightDelta
from customvideo.config import Recipe, apply_keys
from customvideo.errors import BackboneError, ConfigError, UserError
from customvideo.runs.estimate import (
    Case,
    Cost,
    Need,
    assemble,
    changed,
    cost_of_step,
    encoding_bytes,
    need,
    on_gpu,
)
from customvideo.runs.folder import Say

__all__ = ["CARDS", "Choice", "Sizing", "card_bytes", "fitted", "knobs"]

CARDS = (8, 12, 16, 24, 48, 80)
"""Sizes of cards that a recipe can be made to fit, in GiB."""

_GIB = 1 << 30
_USABLE = 0.95
"""Of a card; the rest is lost between the pieces."""
_RANKS = (64, 16)
_CELL = 64
"""Pixels that a smaller canvas is a multiple of, which suits every family."""

Changes = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """Settings that make a recipe fit, and what it needs then."""

    changes: Changes
    recipe: Recipe
    need: Need


@dataclass(eq=False)
class Sizing:
    """What a run needs as it is, and with one setting after the other turned.

    A step is counted once with and once without recomputed activations; of fewer rows and of
    smaller pictures it takes its share of that.
    """

    case: Case
    _costs: dict[tuple[bool, bool], Cost] = field(default_factory=dict)
    _choices: list[Choice] = field(default_factory=list)
    _encoding: int | None = None

    def cost(self, recipe: Recipe) -> Cost:
        """A step of as many rows as the case's, with activations recomputed as `recipe` says."""
        wanted = recipe.gradient_checkpointing
        host = recipe.text_encoder == "host"
        if (wanted, host) not in self._costs:
            case = self.case
            if host and case.recipe.text_encoder != "host":
                case = changed(case, apply_keys(case.recipe, _host(case).items()))
            self._costs[wanted, host] = cost_of_step(case, case.rows, checkpointing=wanted)
        return self._costs[wanted, host]

    def choices(self) -> Iterator[Choice]:
        """The case's own settings, then with more and more of them turned."""
        yield from self._choices
        for index, changes in enumerate(_ladder(self.case)):
            if index >= len(self._choices):
                self._choices.append(self._choice(changes))
                yield self._choices[-1]

    def best(self, room: int) -> Choice | None:
        """What is turned first and brings the need to at most `room` bytes, without what is not
        needed for that; None if nothing is enough."""
        found = next((one for one in self.choices() if one.need.total <= room), None)
        for lever in _levers(self.case):
            if found is None:
                break
            rest = {key: value for key, value in found.changes.items() if key not in lever}
            if len(rest) < len(found.changes):
                without = self._choice(rest)
                found = without if without.need.total <= room else found
        return found

    def smallest(self) -> Choice:
        """The choice that needs least."""
        return min(self.choices(), key=lambda one: one.need.total)

    def _choice(self, changes: Changes) -> Choice:
        recipe = apply_keys(self.case.recipe, changes.items())
        case = changed(self.case, recipe) if changes else self.case
        if self._encoding is None:
            self._encoding = encoding_bytes(self.case)
        share = _pixels(case) / _pixels(self.case)
        cost = self.cost(recipe)
        rows = case.rows / cost.rows
        found = need(case, cost, int(self._encoding * share), rows * share)
        return Choice(changes, recipe, found)


def fitted(recipe: Recipe, device: str, say: Say = lambda _: None) -> Recipe:
    """`recipe` with its `fit` carried out, and none left; untouched if it has none.

    Raises:
        ConfigError: nothing makes it fit; the message names the smallest card that it fits.
    """
    if recipe.fit is None:
        return recipe
    plain = recipe.model_copy(update={"fit": None})
    room = card_bytes(recipe.fit, device)
    case = assemble(plain, "cuda" if recipe.fit != "auto" else device)
    if case.adapter is None:
        return plain
    sizing = Sizing(case)
    choice = sizing.best(room)
    if choice is None:
        raise ConfigError(_refusal(sizing, room))
    turned = ", ".join(f"{key}={value}" for key, value in choice.changes.items()) or "nothing"
    say(f"To fit {_gib(room)}: {turned} changed; about {_gib(choice.need.total)} needed.")
    return choice.recipe


def card_bytes(fit: str | int, device: str) -> int:
    """Bytes that a run may use: of a card of `fit` GiB, or, for "auto", of what `device` is."""
    if fit != "auto":
        return int(int(fit) * _GIB * _USABLE)
    if on_gpu(device) and torch.cuda.is_available():
        where = torch.device("cuda" if device == "auto" else device)
        return int(torch.cuda.get_device_properties(where).total_memory * _USABLE)
    return int(psutil.virtual_memory().total * _USABLE)


def knobs(recipe: Recipe, checkpoints: bool = True) -> list[str]:
    """What can be turned in `recipe` to need less memory, in the order of what it costs.

    `checkpoints` says whether the backbone can recompute activations.
    """
    found = []
    if checkpoints and not recipe.gradient_checkpointing:
        found.append("gradient_checkpointing=true")
    if recipe.batch_size > 1:
        more = recipe.batch_size * recipe.accumulation
        found.append(f"batch_size=1 with accumulation={more}")
    if recipe.text_encoder != "host" and "word_space" in recipe.method_options:
        found.append("text_encoder=host with word_space=output")
    if "rank" in recipe.method_options and not 0 < recipe.method_options["rank"] <= _RANKS[-1]:
        found.append(f"rank={_RANKS[-1]}")
    return [*found, "a smaller canvas=[height, width]"]


def _ladder(case: Case) -> Iterator[Changes]:
    """Nothing, then ever more changes, each with all before it."""
    changes: Changes = {}
    yield changes
    for lever in _levers(case):
        changes = {**changes, **lever}
        yield changes


def _levers(case: Case) -> Iterator[Changes]:
    """The changes one by one, those that cost least first."""
    recipe, options = case.recipe, case.recipe.method_options
    if hasattr(case.backbone, "checkpointed") and not recipe.gradient_checkpointing:
        yield {"gradient_checkpointing": True}
    if recipe.batch_size > 1:
        lever = {"batch_size": 1, "accumulation": recipe.accumulation * recipe.batch_size}
        if case.prior is not None and "prior_rows" in options:
            lever["method_options.prior_rows"] = -(-case.prior.rows // recipe.batch_size)
        yield lever
    yield from _eight_bits(case)
    if lever := _host(case):
        yield lever
    for smaller in _RANKS if "rank" in options else ():
        if options["rank"] == 0 or options["rank"] > smaller:
            yield {"method_options.rank": smaller}
    if canvas := _smaller_canvas(case):
        yield {"canvas": list(canvas)}


def _eight_bits(case: Case) -> Iterator[Changes]:
    """The optimizer's moments and the frozen base in 8 bits, the former where bitsandbytes is."""
    if not case.gpu:
        return
    there = find_spec("bitsandbytes") is not None
    if there and case.recipe.optimizer == "adamw":
        yield {"optimizer": "adamw8bit"}
    deltas = case.adapter.deltas.values() if case.adapter else ()
    # To weights in 8 bits nothing can be added.
    if case.recipe.base == "full" and not any(isinstance(one, WeightDelta) for one in deltas):
        yield {"base": "int8" if there else "fp8"}


def _host(case: Case) -> Changes:
    """Text encoders in main memory, and words learned at their output, so that each prompt is
    encoded once; nothing where that is so or cannot be."""
    recipe, key = case.recipe, "word_space"
    if not case.gpu or recipe.text_encoder == "host" or key not in recipe.method_options:
        return {}
    if not hasattr(case.backbone, "move_text"):
        return {}
    lever = {"text_encoder": "host", f"method_options.{key}": "output"}
    try:
        changed(case, apply_keys(recipe, lever.items()))
    except UserError:
        return {}
    return lever


def _smaller_canvas(case: Case) -> tuple[int, int] | None:
    """Half the sides, or None where the model cannot make that."""
    height, width = (side // 2 // _CELL * _CELL for side in case.canvas)
    try:
        case.backbone.latent_shape(1, height, width)
    except BackboneError:
        return None
    return height, width


def _pixels(case: Case) -> int:
    height, width = case.canvas
    return height * width


def _refusal(sizing: Sizing, room: int) -> str:
    case, least = sizing.case, sizing.smallest()
    weights = sum(least.need.weights.values())
    larger = [card for card in CARDS if card_bytes(card, "cuda") >= least.need.total]
    way = f"the smallest that does is fit={larger[0]}" if larger else "nor does any other card"
    return (
        f"'{case.recipe.backbone}' does not fit {_gib(room)}: with all that can be turned it "
        f"needs about {_gib(least.need.total)}, {_gib(weights)} of them for weights; {way}"
        f"{'.' if larger else f' up to {CARDS[-1]} GB: choose a smaller backbone.'}"
    )


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GB"
