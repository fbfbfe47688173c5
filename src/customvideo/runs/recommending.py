"""Which checkpoint of a run, and how much of it: what `customvideo evaluate --recommend` does.

Every whole checkpoint and the final adapter draw the same prompts with the same seeds, at every
strength asked for, and are scored alike. What is best is decided by rules that can be read here,
and said with the numbers they were applied to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from customvideo.errors import ConfigError
from customvideo.records import write_record
from customvideo.runs.folder import ADAPTER, CHECKPOINTS, Say
from customvideo.training.checkpoint import whole_checkpoints

__all__ = ["STRENGTHS", "Trial", "Verdict", "candidates", "recommend", "report"]

STRENGTHS = (0.6, 0.8, 1.0)
"""What is tried where nobody says."""

_LIKENESS = ("headline", "dino_i_crop", "dino_i")
"""The first of these that every trial has decides how much the subjects look like themselves."""
_TEXT_LOSS = 0.1
"""Share of the best trial's fit to the text that may be given up for likeness."""
_STILL = 0.5
"""A trial must move at least that share of what the trial that moves most does."""
_SAME = 0.01
"""Likenesses nearer than that are called equal: then the weaker, earlier one is taken, which leaves
more of the base model."""


@dataclass(frozen=True)
class Trial:
    """One adapter at one strength, and its scores' means by name."""

    adapter: Path
    step: int | None
    """None for the final adapter."""
    strength: float
    scores: Mapping[str, float | None]

    @property
    def name(self) -> str:
        """What people call it."""
        place = "the final adapter" if self.step is None else f"step {self.step}"
        return f"{place} at strength {self.strength:g}"


@dataclass(frozen=True)
class Verdict:
    """The trial to use, and why, a sentence each."""

    best: Trial
    reasons: tuple[str, ...]


def candidates(run: Path) -> list[tuple[Path, int | None]]:
    """The adapters of the run in the folder `run`, each with its step, the final one last.

    Raises:
        ConfigError: there is none.
    """
    found: list[tuple[Path, int | None]] = [
        (one.adapter, one.step) for one in whole_checkpoints(run / CHECKPOINTS)
    ]
    if (run / ADAPTER).is_file():
        final = (run / ADAPTER).read_bytes()
        found = [one for one in found if one[0].read_bytes() != final]
        found.append((run / ADAPTER, None))
    if not found:
        raise ConfigError(
            f"'{run}' holds no adapter and no whole checkpoint; give --adapter the folder of a run."
        )
    return found


def recommend(trials: Sequence[Trial]) -> Verdict:
    """The trial to use.

    Of those that keep to the text and do not stand still, the one whose subjects look most like
    themselves; of equals the weaker and the earlier.
    """
    likeness = next(name for name in _LIKENESS if _known(trials, name))
    left, reasons = list(trials), list[str]()
    most = max(_score(trial, "clip_t") for trial in left)
    left, lost = _parted(left, lambda one: _score(one, "clip_t") >= most - _TEXT_LOSS * abs(most))
    reasons += [
        f"{one.name} follows the text less (clip_t {_score(one, 'clip_t'):.3f}, best {most:.3f})"
        for one in lost
    ]
    if _known(left, "motion"):
        most = max(_score(trial, "motion") for trial in left)
        left, lost = _parted(left, lambda one: _score(one, "motion") >= _STILL * most)
        reasons += [
            f"{one.name} moves less (motion {_score(one, 'motion'):.3f}, most {most:.3f})"
            for one in lost
        ]
    most = max(_score(trial, likeness) for trial in left)
    equals = [one for one in left if _score(one, likeness) >= most - _SAME]
    best = min(equals, key=lambda one: (one.strength, _order(one)))
    told = f"{best.name} looks most like the subjects ({likeness} {_score(best, likeness):.3f})"
    if len(equals) > 1:
        told += f", or as much as the best ({most:.3f}), and leaves more of the base model"
    return Verdict(best, (told, *reasons))


def report(trials: Sequence[Trial], verdict: Verdict, out: Path, say: Say) -> None:
    """Write trials and verdict as JSON to `out`, and say the verdict."""
    told: dict[str, Any] = {
        "adapter": str(verdict.best.adapter),
        "step": verdict.best.step,
        "strength": verdict.best.strength,
        "reasons": list(verdict.reasons),
        "trials": [
            {"adapter": str(one.adapter), "step": one.step, "strength": one.strength}
            | {"scores": dict(one.scores)}
            for one in trials
        ],
    }
    write_record(out, told)
    say(f"Recommended: {verdict.best.name}, '{verdict.best.adapter}'")
    for reason in verdict.reasons:
        say(f"  {reason}")


def _parted(trials: Sequence[Trial], kept: Any) -> tuple[list[Trial], list[Trial]]:
    return [one for one in trials if kept(one)], [one for one in trials if not kept(one)]


def _known(trials: Sequence[Trial], name: str) -> bool:
    return all(trial.scores.get(name) is not None for trial in trials)


def _score(trial: Trial, name: str) -> float:
    value = trial.scores[name]
    assert value is not None
    return value


def _order(trial: Trial) -> float:
    return float("inf") if trial.step is None else trial.step
