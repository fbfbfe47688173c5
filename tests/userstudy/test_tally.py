"""From votes to tables: whose count, what they say, and that all formats say the same."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from customvideo.userstudy.design import Shown
from customvideo.userstudy.exclusion import reasons
from customvideo.userstudy.items import SPOILED
from customvideo.userstudy.plan import Checks, Exclusion, StudyPlan
from customvideo.userstudy.plots import make_plots
from customvideo.userstudy.results import FILES, write_results
from customvideo.userstudy.sheets import make_sheets
from customvideo.userstudy.store import Ballot, Store
from customvideo.userstudy.study import open_study
from customvideo.userstudy.tally import Tally, tally
from tests.userstudy.studies import (
    METHODS,
    NASTY,
    Chooser,
    make_study,
    plain_items,
    preferring,
    voters,
)

STRENGTHS = {"ours": 1.0, "other": 0.0, "third": -0.6}
ITEMS = plain_items(prompts=8)
PLAN = StudyPlan(per_rater=12, checks=Checks(obvious=2, repeats=2))


def simulated(raters: int = 60, seed: int = 0) -> list[Ballot]:
    rng = np.random.default_rng(seed)
    return voters(ITEMS, PLAN, raters, lambda _: preferring(STRENGTHS, rng))


@pytest.fixture(scope="module")
def found() -> Tally:
    return tally(simulated(), METHODS, PLAN)


def test_voters_of_known_preference_recover_it(found: Tally) -> None:
    for answers in found.answers:
        assert [METHODS[one.method] for one in answers.standings] == ["ours", "other", "third"]
        centre = sum(STRENGTHS.values()) / 3
        for one in answers.standings:
            truth = STRENGTHS[METHODS[one.method]] - centre
            assert one.strength.mean == pytest.approx(truth, abs=0.3)
            assert one.strength.low is not None and one.strength.high is not None
            assert one.strength.low - 0.1 <= truth <= one.strength.high + 0.1
        assert answers.standings[0].worst == 1
        # 1 / (1 + exp(-1)) of the votes prefer the first to the second.
        assert answers.pairs[0, 1].mean == pytest.approx(0.731, abs=0.07)
        assert answers.left is not None and answers.left.mean == pytest.approx(0.5, abs=0.06)
        assert answers.agreement is not None and 0 < answers.agreement.mean < 0.4


def test_votes_are_counted_once(found: Tally) -> None:
    real = [one for one in simulated() if one.shown.kind == "pair"]
    out = {one.rater for one in found.excluded}
    assert found.comparisons == len([one for one in real if one.rater not in out])
    for answers in found.answers:
        assert sum(one.videos for one in answers.pairs.values()) == found.comparisons
        assert sum(one.videos for one in answers.rates if one) == 2 * found.comparisons


def careless(kind: str) -> Chooser:
    attends = preferring(STRENGTHS, np.random.default_rng(3))

    def choose(shown: Shown, question: str) -> str:
        if kind == "left":
            return "left"
        if kind == "blind" and shown.kind == "obvious":
            return "left" if shown.left == SPOILED else "right"
        if kind == "contrary" and shown.kind == "repeat":
            return "left" if shown.right > shown.left else "right"
        if kind == "contrary" and shown.kind == "pair":
            return "left" if shown.left < shown.right else "right"
        return attends(shown, question)

    if kind == "contrary":
        # Prefers the earlier name first, and the later one when asked again.
        return lambda shown, question: (
            attends(shown, question)
            if shown.kind == "obvious"
            else ("left" if (shown.left < shown.right) == (shown.kind == "pair") else "right")
        )
    return choose


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("blind", "8 of 8 answers to obvious checks wrong"),
        ("left", "48 of 48 answers on the left"),
        ("contrary", "8 of 8 answers changed when asked again"),
    ],
)
def test_careless_raters_are_left_out_with_the_reason(kind: str, said: str) -> None:
    ballots = voters(ITEMS, PLAN, 1, lambda _: careless(kind))
    assert any(said in one for one in reasons(ballots, PLAN.exclusion))
    found = tally([*ballots, *(replace(b, rater=b.rater + 1) for b in simulated(8))], METHODS, PLAN)
    assert 1 in {one.rater for one in found.excluded} and found.raters == 9
    assert found.counted == 9 - len(found.excluded)


def test_hasty_and_early_leavers_are_left_out() -> None:
    rng = np.random.default_rng(0)
    hasty = voters(ITEMS, PLAN, 1, lambda _: preferring(STRENGTHS, rng), seconds=0.9)
    assert reasons(hasty, PLAN.exclusion) == ["median time 0.9 s, below 2 s"]
    attentive = simulated(1)
    assert reasons(attentive, PLAN.exclusion) == []
    early = [one for one in attentive if one.shown.kind == "pair"][:1]
    assert "1 comparison answered, fewer than 3" in reasons(early, PLAN.exclusion)


def test_every_rule_can_be_switched_off() -> None:
    off = Exclusion(wrong_checks=1, changed_repeats=1, seconds=0, fewest=0, one_side=1)
    for kind in ("blind", "left", "contrary"):
        assert (
            reasons(voters(ITEMS, PLAN, 1, lambda _, kind=kind: careless(kind), seconds=0), off)
            == []
        )


def test_a_study_without_votes_has_no_tables() -> None:
    empty = tally([], METHODS, PLAN)
    assert make_sheets(empty) == [] and make_plots(empty) == {"preference": [], "ranking": []}


def test_few_raters_get_numbers_without_intervals() -> None:
    found = tally(simulated(3), METHODS, PLAN)
    sheets = make_sheets(found)
    assert not any(
        cell.aside or cell.best
        for sheet in sheets
        if sheet.key in ("preference", "ranking", "pairs")
        for block in sheet.blocks
        for line in block.lines
        for cell in line.cells
    )
    assert "Fewer than 6 raters" in sheets[0].blocks[0].remarks[0]


def test_tables_and_plots_show_every_method(found: Tally) -> None:
    sheets = {sheet.key: sheet for sheet in make_sheets(found)}
    assert list(sheets)[:4] == ["preference", "ranking", "pairs", "agreement"]
    rows = {line.label: line for line in sheets["preference"].blocks[0].lines}
    assert list(rows) == list(METHODS)
    assert [cell.best for cell in rows["ours"].cells] == [True] * 4
    assert not any(cell.best for name in METHODS[1:] for cell in rows[name].cells)
    assert len(sheets["ranking"].blocks) == 4
    pairs = {line.label: line for line in sheets["pairs"].blocks[0].lines}
    assert [cell.tone for cell in pairs["ours over third"].cells] == ["better"] * 4
    plots = make_plots(found)
    assert len(plots["preference"]) == len(plots["ranking"]) == 4
    for plot in [*plots["preference"], *plots["ranking"]]:
        assert {shape.text for shape in plot.shapes} >= set(METHODS)


def test_files_say_the_same_and_nothing_in_them_is_markup(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", (NASTY, "a&b_%"), prompts=6, per_rater=6, raters=8)
    study = open_study(folder)
    with Store(folder) as store:
        study.seal(store)
        for rater in range(8):
            store.join(str(rater), study.design.program, 100)
            while (place := store.place(str(rater))) and place.comparison and place.shown:
                shown = place.shown
                side = "right" if shown.left == SPOILED or shown.right == NASTY else "left"
                answers = dict.fromkeys((one.key for one in study.plan.questions), side)
                store.cast(place.rater, place.comparison, answers, 4000)
        found = write_results(tmp_path / "out", study, store)
    assert not found.excluded and found.answers[0].pairs[0, 1].mean == 1
    texts = {name: (tmp_path / "out" / name).read_text(encoding="utf-8") for name in FILES}
    assert "<img" not in texts["tally.html"] and "&lt;img src=x" in texts["tally.html"]
    assert "<svg" in texts["tally.html"] and "<script" not in texts["tally.html"]
    assert "<img" not in texts["tally.md"] and "100.0 %" in texts["tally.md"]
    assert r"a\&b\_\%" in texts["tally.tex"] and "intervals over raters" in texts["tally.tex"]
    rows = list(csv.DictReader(io.StringIO(texts["votes.csv"])))
    assert len(rows) == 8 * len(study.design.program(0)) * 4
    real = [row for row in rows if row["kind"] == "pair"]
    assert {row["preferred"] for row in real} == {NASTY}
    assert {row["counted"] for row in real} == {"1"} and {row["seconds"] for row in real} == {
        "4.000"
    }
    assert {row["counted"] for row in rows if row["kind"] != "pair"} == {"0"}
