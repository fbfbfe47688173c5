"""What a benchmark run is asked for: an edition, entries to compare, and how much of everything.

A plan is TOML, or flags, or both; what it leaves out is the whole edition with the packaged
entries (`entries.toml`). Nothing is loaded or run here.

    edition = "toybox"
    pairs = 12                                # and all other settings of `BenchPlan`
    [changes]                                 # for every entry
    steps = 100
    [entries]                                 # label = what it changes of its packaged recipe
    customvideo = {}
    words = { method = "words-only" }
    mine = { recipe = "mine.toml", nu = 0.1 } # or of a recipe, found from this file's folder
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import Field

from customvideo.config import Recipe, compose_recipe
from customvideo.errors import ConfigError
from customvideo.files import is_file
from customvideo.records import parse_toml
from customvideo.settings import Settings, suggest, validated

__all__ = ["BASE", "CEILING", "BenchPlan", "Entry", "compose_plan", "packaged_entries", "resolve"]

BASE, CEILING = "base", "ceiling"
"""The labels of what stands beside the entries: the model that learned nothing, and true footage
of the subjects themselves."""

_LABEL = re.compile(r"[a-z0-9][a-z0-9_.+@-]*")
_RECIPE = "recipe"


class BenchPlan(Settings):
    """What a run does; where its results go, and on how many machines, is none of its business."""

    edition: str = "toybox"
    """A row of `customvideo.benchmark.editions.EDITIONS`, or a folder of one's own."""
    entries: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Label -> keys of the recipe that it changes; empty for the packaged ones."""
    changes: dict[str, Any] = Field(default_factory=dict)
    """Keys of the recipe changed for all entries; what an entry itself changes comes after."""
    pairs: int | None = Field(default=None, ge=1)
    """That many pairs and nothing larger, spread evenly over the edition's; None for no limit."""
    only: list[str] = Field(default_factory=list)
    """Which combinations: names, sizes such as "2", "same-category" or "different-category"."""
    prompts: int | None = Field(default=None, ge=1)
    """Of each combination's prompts, the first so many; None for all."""
    seeds: int = Field(default=2, ge=1)
    """Videos of each prompt from each training."""
    trainings: int = Field(default=1, ge=1)
    """Trainings of each entry on each combination, from different seeds; the first makes videos of
    the seeds 0, 1 …, the next goes on counting, so that a video's seed says whose it is."""
    base: bool = True
    """Whether the base model is asked, too, with bare categories."""
    ceiling: bool = True
    """Whether true footage is scored, too, where the edition has it."""
    threads: int = Field(default=0, ge=0)
    """Processor threads for a job; 0 leaves it to torch, and is 1 on Ray. Results are the same to
    the last digit only with the same number."""
    device: str = "auto"

    def seeds_of(self, training: int) -> range:
        """The seeds of the videos that the training counted from 0 makes."""
        return range(training * self.seeds, (training + 1) * self.seeds)


@dataclass(frozen=True)
class Entry:
    """One thing to compare: its label, and its recipe without subjects."""

    label: str
    recipe: Recipe


def compose_plan(
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    picks: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> BenchPlan:
    """The plan in `file`, with `flags` (settings by name), entries picked and recipe keys changed.

    A pick is the label of one of the plan's entries, of a packaged one, or `LABEL=RECIPE`, with a
    recipe's file or name. What neither file nor flags say is as in `defaults`.

    Raises:
        ConfigError: the file cannot be read, a setting is unknown or does not fit, or a picked
            label is unknown.
    """
    values = {} if file is None else _read(file)
    plan = validated(BenchPlan, {**(defaults or {}), **values, **(flags or {})})
    known = plan.entries or packaged_entries()
    chosen = dict(_picked(pick, known) for pick in picks) if picks else known
    update = {"entries": chosen, "changes": {**plan.changes, **(changes or {})}}
    return validated(BenchPlan, {**plan.model_dump(), **update})


def resolve(plan: BenchPlan, default_backbone: str | None) -> tuple[Entry, list[Entry]]:
    """The base model's entry, and all others, with complete recipes.

    Of the packaged list, entries that repeat an earlier one on this base model are left out.

    Raises:
        ConfigError: a label or recipe cannot be used, nobody names a backbone, or two entries come
            out as the same recipe.
    """
    backbone = plan.changes.get("backbone", default_backbone)
    if backbone is None:
        raise ConfigError(
            f"The edition '{plan.edition}' works with any base model and none is named; name one "
            "with --set backbone=zeroscope."
        )
    plan_changes, default = list(plan.changes.items()), [("backbone", str(backbone))]
    base = Entry(BASE, compose_recipe([*default, *plan_changes]))
    entries = []
    for label, changes in plan.entries.items():
        _check_label(label)
        # A recipe file says itself what it is for, unless the plan does.
        first = [] if is_file(Path(str(changes.get(_RECIPE) or ""))) else default
        entries.append(Entry(label, _recipe(label, changes, [*first, *plan_changes])))
    if plan.entries == packaged_entries():
        entries = _without_repeats(entries)
    _require_different(entries)
    return base, entries


def packaged_entries() -> dict[str, dict[str, Any]]:
    """Label -> changes, from the package's own list."""
    source: Traversable = files("customvideo") / "benchmark" / "entries.toml"
    return parse_toml(source.read_text(encoding="utf-8"))


def _read(file: Path) -> dict[str, Any]:
    try:
        values = parse_toml(file.read_text(encoding="utf-8"))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(
            f"The plan '{file}' cannot be read ({reason}); check the path."
        ) from error
    except ValueError as error:
        raise ConfigError(f"The plan '{file}' is not valid TOML: {error}.") from error
    entries = values.get("entries")
    for changes in entries.values() if isinstance(entries, dict) else ():
        own = changes.get(_RECIPE) if isinstance(changes, dict) else None
        # Else it is the name of a packaged recipe, or a mistake to be named as it was made.
        if isinstance(own, str) and is_file(file.parent / own):
            changes[_RECIPE] = str(file.parent / own)
    return values


def _picked(pick: str, known: Mapping[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    label, equals, recipe = pick.partition("=")
    if equals:
        return label, {_RECIPE: recipe}
    if label not in known and label in (packaged := packaged_entries()):
        return label, packaged[label]
    if label not in known:
        raise ConfigError(
            f"There is no entry '{label}'{suggest(label, sorted(known))} A recipe of your own is "
            "--entry LABEL=RECIPE.toml."
        )
    return label, known[label]


def _check_label(label: str) -> None:
    if not _LABEL.fullmatch(label) or label in (BASE, CEILING):
        raise ConfigError(
            f"'{label}' cannot be the label of an entry; use lower-case letters, digits, '-', '_', "
            f"'+', '@' and '.', and neither '{BASE}' nor '{CEILING}'."
        )


def _recipe(label: str, changes: Mapping[str, Any], common: Sequence[tuple[str, Any]]) -> Recipe:
    own = dict(changes)
    source = own.pop(_RECIPE, None)
    try:
        recipe = compose_recipe([*common, *own.items()], source)
    except ConfigError as error:
        raise ConfigError(f"In the entry '{label}': {error}") from error
    # The subjects are the edition's.
    return recipe.model_copy(update={"subjects": {}})


def _without_repeats(entries: Sequence[Entry]) -> list[Entry]:
    """The first entry of each recipe: what is an ablation on one base model need not be on all."""
    kept: list[Entry] = []
    for entry in entries:
        if all(entry.recipe != other.recipe for other in kept):
            kept.append(entry)
    return kept


def _require_different(entries: Sequence[Entry]) -> None:
    seen: list[Entry] = []
    for entry in entries:
        for other in seen:
            if other.recipe == entry.recipe:
                raise ConfigError(
                    f"The entries '{other.label}' and '{entry.label}' come out as the same recipe; "
                    "change one, or leave it out."
                )
        seen.append(entry)
    if not entries:
        raise ConfigError("There is no entry to compare; add one to the plan's [entries].")
