"""Five gates that a method passes or not, whatever its averages are, from rows alone.

They are those that a survey of personalized video (2026) proposes; what is measured for each, and
where its limit lies, is a line of `GATES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from customvideo.benchmark.board import Board
from customvideo.benchmark.plan import BASE, CEILING
from customvideo.benchmark.rows import ResultRow
from customvideo.benchmark.statistics import Estimate, Unit, estimate

__all__ = ["GATES", "Gate", "Standing", "judge"]

_PRESENT, _BOUND, _FAILED = 0.90, 0.95, 0.05
_STILL, _LOSS = 0.5, 0.05
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Standing:
    """How a method stands at a gate: the number, how it reads, and whether it passes."""

    value: Estimate
    text: str
    passed: bool


@dataclass(frozen=True)
class Gate:
    """One gate: `limit` says in words what passes it, `judge` decides; None if nobody can tell."""

    name: str
    limit: str
    judge: Callable[[Board, str], Standing | None]


def judge(board: Board, method: str) -> list[Standing | None]:
    """How `method` stands at each of `GATES`."""
    return [gate.judge(board, method) for gate in GATES]


def _presence(board: Board, method: str) -> Standing | None:
    found = board.estimate(method, "present")
    return None if found is None else _share(found, found.mean >= _PRESENT - _ROUNDING)


def _binding(board: Board, method: str) -> Standing | None:
    scores = _bound_where_seen(board, method)
    if not scores:
        return None
    found = estimate(scores)
    return _share(found, found.mean >= _BOUND - _ROUNDING)


def _hard_failures(board: Board, method: str) -> Standing | None:
    scores = _means(board, method, _failed)
    if not scores:
        return None
    found = estimate(scores)
    return _share(found, found.mean <= _FAILED + _ROUNDING)


def _motion(board: Board, method: str) -> Standing | None:
    found = board.estimate(method, "freeze")
    if found is None or BASE not in board.references:
        return None
    return _share(found, found.mean <= _STILL + _ROUNDING)


def _leakage(board: Board, method: str) -> Standing | None:
    found, more = board.estimate(method, "copy"), board.compare(method, CEILING, "copy")
    return None if found is None or more is None else _share(found, more.mean <= _ROUNDING)


def _retention(board: Board, method: str) -> Standing | None:
    found = board.estimate(method, "retention")
    if found is None:
        return None
    points = 100 * found.mean
    return Standing(found, f"{points:+.1f} pts", found.mean >= -_LOSS - _ROUNDING)


GATES = (
    Gate("Presence", "at least 90 % of the expected subjects and frames", _presence),
    Gate("Binding", "margin above 0 in at least 95 % of the frames with the subject", _binding),
    Gate("Hard failures", "at most 5 % blended or dropped", _hard_failures),
    Gate("Motion", "at most half of the videos stiller than 80 % of the base model's", _motion),
    Gate("Leakage", "no more copies than in true footage", _leakage),
    Gate("Retention", "at most 5 points of text match lost without learned words", _retention),
)
"""In the survey's order; binding and hard failures are the two halves of one gate."""


def _share(found: Estimate, passed: bool) -> Standing:
    return Standing(found, f"{100 * found.mean:.1f} %", passed)


def _bound_where_seen(board: Board, method: str) -> dict[Unit, float]:
    """Video -> share of the frames with a subject in which it is bound rightly."""
    seen = _means(board, method, lambda row: row.present if row.subjects > 1 else None)
    bound = _means(board, method, lambda row: row.correct)
    return {unit: bound[unit] / share for unit, share in seen.items() if share > 0}


def _failed(row: ResultRow) -> float | None:
    """1 if the subject is blended or dropped, 0 if neither."""
    return max((one for one in (row.blend, row.drop) if one is not None), default=None)


def _means(
    board: Board, method: str, value: Callable[[ResultRow], float | None]
) -> dict[Unit, float]:
    """Video -> mean of a value over its subjects that have one."""
    found: dict[Unit, list[float]] = {}
    for row in board.of(method):
        if (one := value(row)) is not None:
            found.setdefault(Unit(row.combination, row.prompt, row.seed), []).append(one)
    return {unit: math.fsum(values) / len(values) for unit, values in found.items()}
