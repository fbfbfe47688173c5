"""Whose votes count: the rules of `study.toml`, applied to everybody alike, each with its reason.

What is excluded stays in the database and in the file of raw votes.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from customvideo.userstudy.design import Shown
from customvideo.userstudy.items import SPOILED
from customvideo.userstudy.plan import Exclusion
from customvideo.userstudy.store import Ballot

__all__ = ["reasons"]


def reasons(ballots: Sequence[Ballot], rules: Exclusion) -> list[str]:
    """Why one rater is left out, given all their ballots; empty if they are not."""
    real = [one for one in ballots if one.shown.kind == "pair"]
    found = []
    wrong, asked = _wrong(ballots)
    if _more(wrong, asked, rules.wrong_checks):
        found.append(f"{wrong} of {asked} answers to obvious checks wrong")
    changed, asked = _changed(ballots)
    if _more(changed, asked, rules.changed_repeats):
        found.append(f"{changed} of {asked} answers changed when asked again")
    if real and (middle := median(one.seconds for one in real)) < rules.seconds:
        found.append(f"median time {middle:.1f} s, below {rules.seconds:g} s")
    if len(real) < rules.fewest:
        found.append(f"{_counted(len(real), 'comparison')} answered, fewer than {rules.fewest}")
    left = sum(side == "left" for one in real for side in one.answers.values())
    asked = sum(len(one.answers) for one in real)
    if _more(max(left, asked - left), asked, rules.one_side):
        side = "left" if 2 * left > asked else "right"
        found.append(f"{max(left, asked - left)} of {asked} answers on the {side}")
    return found


def _more(part: int, whole: int, share: float) -> bool:
    return whole > 0 and part > share * whole


def _wrong(ballots: Sequence[Ballot]) -> tuple[int, int]:
    """How many answers to obvious checks chose the mosaic, and of how many."""
    checks = [one for one in ballots if one.shown.kind == "obvious"]
    sides = [(side, one.shown) for one in checks for side in one.answers.values()]
    return sum(_chosen(shown, side) == SPOILED for side, shown in sides), len(sides)


def _changed(ballots: Sequence[Ballot]) -> tuple[int, int]:
    """How many repeated questions were answered otherwise, and of how many."""
    first = {_key(one.shown): one for one in ballots if one.shown.kind == "pair"}
    changed = asked = 0
    for again in ballots:
        before = first.get(_key(again.shown)) if again.shown.kind == "repeat" else None
        if before is None:
            continue
        for question, side in again.answers.items():
            earlier = _chosen(before.shown, before.answers[question])
            changed += earlier != _chosen(again.shown, side)
            asked += 1
    return changed, asked


def _key(shown: Shown) -> tuple[str, frozenset[str]]:
    return shown.item, frozenset((shown.left, shown.right))


def _chosen(shown: Shown, side: str) -> str:
    return shown.left if side == "left" else shown.right


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
