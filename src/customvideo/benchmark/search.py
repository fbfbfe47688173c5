"""Searching settings: the same few trials for every method, on pairs that no table is about.

A search is a benchmark run whose labels are `method@setting`. What is tried unless a plan says
otherwise is each method's packaged recipe with its rates times a few factors; what wins is decided
by the headline score alone. All trials are logged, the ones that lost as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from customvideo.benchmark.board import Board
from customvideo.benchmark.editions import open_source
from customvideo.benchmark.plan import BenchPlan, compose_plan, resolve
from customvideo.benchmark.rows import read_rows
from customvideo.benchmark.statistics import Difference, Estimate
from customvideo.benchmark.store import ROWS, Store
from customvideo.config import Recipe, compose_recipe
from customvideo.errors import ConfigError
from customvideo.evaluation.measures import measure
from customvideo.files import write_bytes, write_text
from customvideo.methods.base import ENTRY_POINTS, METHODS, TuningFree, load_method
from customvideo.tables import all_rows

__all__ = ["FACTORS", "Trial", "compose_search", "grid", "log", "trials"]

FACTORS = (1 / 3, 1.0, 3.0)
"""What the rates of a packaged recipe are multiplied by, one after the other."""

_DEFAULTS = {
    **{"edition": "toybox-development", "prompts": 2, "seeds": 1},
    **{"base": False, "ceiling": False},
}
_RATES = ("learning_rate", "word_learning_rate")
_JUDGE = "headline"
_SHOWN = ("clip_t", "dino_i_crop", "co_occurrence", "bleed", "train_seconds")
_FOLDER, _TABLE = "search", "search.md"
_AT = "@"


@dataclass(frozen=True)
class Trial:
    """One setting of a method, and how it did.

    Attributes:
        method, setting: the two parts of its label.
        recipe: of its jobs, whatever the seed.
        score: the headline; None if no video has one.
        lead: over the best other complete trial of the method; None if there is no other.
        complete: whether it has every video that any trial of the method has.
        won: whether it is the method's best complete one.
    """

    method: str
    setting: str
    recipe: Recipe
    score: Estimate | None
    lead: Difference | None
    complete: bool
    won: bool

    @property
    def label(self) -> str:
        """Its entry's."""
        return f"{self.method}{_AT}{self.setting}"


def compose_search(
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    methods: Sequence[str] = (),
    factors: Sequence[float] = (),
    changes: Mapping[str, Any] | None = None,
) -> BenchPlan:
    """The plan in `file`, or the grid of `methods` (None named: all that train) and `factors`.

    Raises:
        ConfigError: as `compose_plan`; a label is not `method@setting`, or of another method than
            its entry; or both a plan and methods or factors are given.
    """
    if file is not None:
        if methods or factors:
            raise ConfigError("A plan says itself what is tried; give no --method and no --factor.")
        return _labelled(compose_plan(file, flags, changes=changes, defaults=_DEFAULTS))
    plan = compose_plan(None, flags, changes=changes, defaults=_DEFAULTS)
    tried = grid(plan, methods or [name for name in _known() if _trains(name)], factors or FACTORS)
    return plan.model_copy(update={"entries": tried})


def grid(
    plan: BenchPlan, methods: Sequence[str], factors: Sequence[float]
) -> dict[str, dict[str, Any]]:
    """Label -> changes: each method's rates on the plan's base model times each of the factors.

    Raises:
        ConfigError: there is no such method or it trains nothing, or a factor is not above 0, or
            two share a label.
    """
    if wrong := [factor for factor in factors if not 0 < factor < math.inf]:
        raise ConfigError(
            f"The rates cannot be multiplied by {wrong[0]:g}; give a finite factor above 0."
        )
    settings: dict[str, float] = {}
    for factor in sorted(factors):
        other = settings.setdefault(f"x{factor:.3g}", factor)
        if other != factor:
            raise ConfigError(
                f"The factors {other:.9g} and {factor:.9g} are too close to be told apart; leave "
                "one out."
            )
    if idle := [method for method in methods if not _trains(method)]:
        raise ConfigError(
            f"The method '{idle[0]}' trains nothing and has no rates to search; leave it out, or "
            "try its other settings by a plan."
        )
    usual = open_source(plan.edition).default_backbone
    default = [] if usual is None else [("backbone", usual)]
    entries: dict[str, dict[str, Any]] = {}
    for method in dict.fromkeys(methods):
        recipe = compose_recipe([*default, *plan.changes.items(), ("method", method)])
        for setting, factor in settings.items():
            rates = {name: float(f"{getattr(recipe, name) * factor:.4g}") for name in _RATES}
            entries[f"{method}{_AT}{setting}"] = {"method": method, **rates}
    return entries


def trials(results: Path) -> list[Trial]:
    """Every trial in a folder of results, method by method, lower rates first."""
    board = Board(read_rows(results / ROWS))
    recipes = {job.method: job.recipe for job, _ in Store(results).found() if _AT in job.method}
    by_method: dict[str, list[str]] = {}
    for label in sorted(recipes, key=lambda label: _order(label, recipes[label])):
        by_method.setdefault(label.partition(_AT)[0], []).append(label)
    return [trial for labels in by_method.values() for trial in _compared(board, labels, recipes)]


def log(results: Path, found: Sequence[Trial]) -> Path:
    """Write the trials `found` in `results` into `results/search`, rows and a table; its path.

    Raises:
        StorageError: it cannot be written, or there are no rows.
    """
    folder = results / _FOLDER
    write_bytes(folder / ROWS, (results / ROWS).read_bytes())
    write_text(folder / _TABLE, _markdown(results, found))
    return folder / _TABLE


def _known() -> dict[str, str]:
    """All methods, those of installed packages too."""
    return all_rows(METHODS, ENTRY_POINTS)


def _trains(method: str) -> bool:
    return not isinstance(load_method(method), TuningFree)


def _labelled(plan: BenchPlan) -> BenchPlan:
    """The plan with each entry of the method that its label says."""
    entries: dict[str, dict[str, Any]] = {}
    for label, changes in plan.entries.items():
        method, at, setting = label.partition(_AT)
        if not (method and at and setting):
            raise ConfigError(
                f"The entry '{label}' of a search has to say whose setting it is; call it "
                f"'{label.strip(_AT)}{_AT}SETTING'."
            )
        said = {"method", "recipe"} & changes.keys() or "method" in plan.changes
        if method not in _known() and not said:
            raise ConfigError(
                f"The entry '{label}' says of no method that it is a setting of it; begin its "
                "label with the method's name, or give it a method or a recipe."
            )
        entries[label] = dict(changes) if said else {"method": method, **changes}
    plan = plan.model_copy(update={"entries": entries})
    for entry in resolve(plan, open_source(plan.edition).default_backbone)[1]:
        method, found = entry.label.partition(_AT)[0], entry.recipe.method
        if method in _known() and method != found:
            raise ConfigError(
                f"The entry '{entry.label}' is a setting of {found}; call it "
                f"'{found}{_AT}{entry.label.partition(_AT)[2]}', or change its method."
            )
    return plan


def _order(label: str, recipe: Recipe) -> tuple[str, float, float, str]:
    rates = (getattr(recipe, name) for name in _RATES)
    return label.partition(_AT)[0], *rates, label


def _compared(board: Board, labels: Sequence[str], recipes: Mapping[str, Recipe]) -> list[Trial]:
    """The trials of one method, judged against each other."""
    videos = {label: set(board.scores(label, _JUDGE)) for label in labels}
    every = set().union(*videos.values())
    complete = [label for label in labels if every and videos[label] == every]
    ranked = board.ranked(complete, measure(_JUDGE))
    found = []
    for label in labels:
        method, _, setting = label.partition(_AT)
        others = [other for other in ranked if other != label]
        found.append(
            Trial(
                method,
                setting,
                recipes[label],
                board.estimate(label, _JUDGE),
                board.compare(label, others[0], _JUDGE) if others else None,
                label in complete,
                label == ranked[0] if ranked else False,
            )
        )
    return found


def _markdown(results: Path, found: Sequence[Trial]) -> str:
    board = Board(read_rows(results / ROWS))
    shown = [measure(name) for name in _SHOWN]
    rows = [row for row in board.rows if _AT in row.method]
    sets = len({row.combination for row in rows})
    videos = max((len(board.scores(trial.label, _JUDGE)) for trial in found), default=0)
    counts = sorted({sum(one.method == name for one in found) for name in _methods(found)})
    each = " or ".join(map(str, counts)) or "0"
    heads = ["method", "setting", "rate", "word rate", "steps", "Headline ↑", "lead"]
    heads += [f"{one.short} {one.arrow}" for one in shown]
    lines = [
        "# Search",
        "",
        f"{each} settings of each method, the same {sets} subject sets of the edition "
        f"'{Path(Store(results).edition).name}' and the same {videos} videos for each. The best "
        "headline wins, in bold; the lead is over the best other of the method on the same videos, "
        "with its 95 % interval. All rows are in `rows.csv`.",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
    ]
    for trial in found:
        cells = [trial.method, trial.setting, *_settings(trial.recipe), *_scores(trial)]
        for one in shown:
            value = board.estimate(trial.label, one.name)
            cells.append("–" if value is None else one.format(value.mean))
        if trial.won:
            cells[1:2] = [f"**{trial.setting}**"]
        lines.append(f"| {' | '.join(cells)} |")
    edges = _at_the_edge(found)
    if edges:
        lines += ["", f"At the edge of what was tried, so look further: {', '.join(edges)}."]
    if left := [trial.label for trial in found if not trial.complete]:
        lines += ["", f"Without all videos, so they cannot win: {', '.join(left)}."]
    return "\n".join([*lines, ""])


def _methods(found: Sequence[Trial]) -> list[str]:
    return list(dict.fromkeys(trial.method for trial in found))


def _settings(recipe: Recipe) -> list[str]:
    return [*(f"{getattr(recipe, name):.3g}" for name in _RATES), str(recipe.steps)]


def _scores(trial: Trial) -> tuple[str, str]:
    shown = measure(_JUDGE)
    score = "–" if trial.score is None else shown.format(trial.score.mean)
    lead = "–"
    if trial.lead is not None:
        lead = shown.format_change(trial.lead.mean)
        if trial.lead.low is not None and trial.lead.high is not None:
            lead += " " + shown.format_interval(trial.lead.low, trial.lead.high, signed=True)
    return (f"**{score}**" if trial.won else score), lead


def _at_the_edge(found: Sequence[Trial]) -> list[str]:
    """Winners with the highest or the lowest rate of several that their method was tried with."""
    edges: list[str] = []
    for method in _methods(found):
        own = [trial for trial in found if trial.method == method]
        rates = {trial.recipe.learning_rate for trial in own}
        ends = {min(rates), max(rates)} if len(rates) > 1 else set()
        edges += [one.label for one in own if one.won and one.recipe.learning_rate in ends]
    return edges
