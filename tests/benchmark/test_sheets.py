"""What stands in the tables, and who is called best."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pytest

from customvideo.benchmark.board import Board
from customvideo.benchmark.cells import Cell, Line, Sheet
from customvideo.benchmark.rows import ResultRow
from customvideo.benchmark.sheets import contests, make_sheets
from tests.benchmark.scoreboard import make_rows, with_method


@dataclass(frozen=True)
class RicherRow(ResultRow):
    """A row of tomorrow, with one score more."""

    inner_glow: float | None = None


@pytest.fixture(scope="module")
def board() -> Board:
    return Board(make_rows())


@pytest.fixture(scope="module")
def sheets(board: Board) -> dict[str, Sheet]:
    return {sheet.key: sheet for sheet in make_sheets(board)}


def lines(sheet: Sheet, block: int = 0) -> dict[str, Line]:
    return {line.label: line for line in sheet.blocks[block].lines}


def cell(sheet: Sheet, label: str, head: str, block: int = 0) -> Cell:
    (place,) = [i for i, found in enumerate(sheet.heads) if found.split(" ↑")[0] == head]
    return lines(sheet, block)[label].cells[place]


def best(sheet: Sheet, block: int = 0) -> set[tuple[str, str]]:
    return {
        (line.label, head)
        for line in sheet.blocks[block].lines
        for head, found in zip(sheet.heads, line.cells, strict=True)
        if found.best
    }


def test_labels_have_their_parts(board: Board) -> None:
    assert board.methods == ["custom_diffusion", "dreambooth", "dreamvideo", "customvideo"]
    assert board.ablations == ["customvideo-no-control", "customvideo-no-prior"]
    assert board.references == ["base", "ceiling"]


def test_a_videos_score_is_the_mean_of_its_subjects_and_a_mean_is_over_videos() -> None:
    rows = make_rows(["customvideo"], pairs=8, larger=8, prompts=1)
    videos: dict[str, list[float]] = {}
    for row in rows:
        assert row.dino_i is not None
        videos.setdefault(row.combination, []).append(row.dino_i)
    expected = sum(sum(v) / len(v) for v in videos.values()) / len(videos)
    found = Board(rows).estimate("customvideo", "dino_i")
    assert found is not None and found.mean == pytest.approx(expected, abs=1e-12)
    assert (found.sets, found.videos) == (24, 24)


def test_every_table_is_there(sheets: dict[str, Sheet]) -> None:
    assert list(sheets) == [
        *("main", "against", "bound", "gates", "ablations", "ablations-bound", "ablations-motion"),
        *("scaling", "same-category", "small", "motion", "failure", "cost"),
    ]


def test_a_certain_lead_is_bold_and_an_uncertain_one_is_told(sheets: dict[str, Sheet]) -> None:
    winners = best(sheets["main"])
    assert ("customvideo", "DINO-I crop ↑") in winners
    assert not [one for one in winners if one[1] == "CLIP-T ↑"]
    (remark,) = sheets["main"].blocks[0].remarks
    assert "CLIP-T" in remark and "DINO-I crop" not in remark


def test_the_lead_is_judged_on_differences(sheets: dict[str, Sheet]) -> None:
    """Sets differ in difficulty, so intervals overlap; the difference is certain all the same."""
    ours = cell(sheets["main"], "customvideo", "DINO-I crop").number
    theirs = cell(sheets["main"], "dreamvideo", "DINO-I crop").number
    assert ours is not None and theirs is not None
    assert ours.low is not None and theirs.high is not None and ours.low < theirs.high


def test_references_never_win(sheets: dict[str, Sheet]) -> None:
    ceiling = cell(sheets["main"], "ceiling", "DINO-I crop")
    ours = cell(sheets["main"], "customvideo", "DINO-I crop")
    assert ceiling.number is not None and ours.number is not None
    assert ceiling.number.mean > ours.number.mean and not ceiling.best and ours.best
    assert [line.kind for line in sheets["main"].blocks[0].lines][-3:] == [
        *("ours", "reference", "reference"),
    ]


def test_two_equal_methods_have_no_best() -> None:
    rows = make_rows(["customvideo"])
    twins = [*rows, *with_method(rows, "twin")]
    sheets = make_sheets(Board(twins))
    assert not any(best(sheet, i) for sheet in sheets for i in range(len(sheet.blocks)))


def test_ours_stands_against_the_best_other(board: Board, sheets: dict[str, Sheet]) -> None:
    rivals = {shown.name: (rival, lead) for shown, rival, lead in contests(board)}
    rival, lead = rivals["dino_i_crop"]
    assert rival == "dreamvideo" and lead.clear and lead.relative is not None
    assert lead.relative == pytest.approx(0.118, abs=0.001)
    line = lines(sheets["against"])["Identity match, each cut out ↑"]
    assert [found.text for found in line.cells[2:4]] == ["+0.057", "+11.8 %"]
    assert line.cells[2].tone == "better" and line.cells[4].text == "<0.001"
    # Less bleeding is better, and says so; cost is no contest.
    mixed = lines(sheets["against"])["Mixed up ↓"]
    assert mixed.cells[2].text.startswith("-") and mixed.cells[2].tone == "better"
    assert not {"train_seconds", "frame_change"} & set(rivals)


def test_ablations_are_differences_from_the_whole(sheets: dict[str, Sheet]) -> None:
    table = sheets["ablations"]
    assert list(lines(table)) == ["customvideo", "no control", "no prior"]
    control = cell(table, "no control", "DINO-I crop")
    assert control.text == "-0.076" and control.tone == "worse"
    assert cell(table, "no prior", "DINO-I crop").tone == ""


def test_who_tried_larger_sets_looks_no_worse_for_it() -> None:
    rivals = ("custom_diffusion", "dreambooth", "base", "ceiling")
    pairs = [row for row in make_rows() if row.subjects == 2]
    larger = [row for row in make_rows() if row.subjects > 2 and row.method not in rivals[:2]]
    alone, both = (
        {one.key: one for one in make_sheets(Board(rows))} for rows in (pairs, pairs + larger)
    )
    for key in ("main", "against", "bound", "gates", "ablations", "small"):
        assert both[key].blocks == alone[key].blocks
    assert "Sets of 2 subjects alone" in both["main"].intro
    assert "alone here" not in alone["main"].intro
    assert "scaling" not in alone and len(both["scaling"].blocks) == 3


def test_sizes_and_pairs_of_one_category_stand_by_themselves(sheets: dict[str, Sheet]) -> None:
    assert [block.title for block in sheets["scaling"].blocks] == [
        *("2 subjects", "3 subjects", "4 subjects"),
    ]
    same, different = (cell(sheets["same-category"], "base", "Mixed up ↓", i) for i in (0, 1))
    assert same.number is not None and different.number is not None
    assert same.number.sets == different.number.sets == 8
    assert same.number.mean > different.number.mean + 0.1
    small, rest = (cell(sheets["small"], "base", "DINO-I crop", i).number for i in (0, 1))
    assert small is not None and rest is not None and small.sets <= 30 and rest.sets == 30


def test_few_sets_have_no_interval_and_no_best() -> None:
    sheets = make_sheets(Board(make_rows(pairs=4, larger=0)))
    for sheet in sheets:
        for index, block in enumerate(sheet.blocks):
            assert not best(sheet, index)
            if sheet.key != "against":
                assert any("fewer than 6" in remark for remark in block.remarks)
    (main,) = [sheet for sheet in sheets if sheet.key == "main"]
    assert not any(found.aside for line in main.blocks[0].lines for found in line.cells)


def test_new_methods_and_scores_appear_by_themselves() -> None:
    rows = [RicherRow(**vars(row), inner_glow=0.5) for row in make_rows(["customvideo", "new-one"])]
    sheets = {sheet.key: sheet for sheet in make_sheets(Board(rows))}
    assert list(lines(sheets["main"])) == ["new-one", "customvideo"]
    assert sheets["other"].heads == ("inner glow",)
    assert cell(sheets["other"], "new-one", "inner glow").text == "0.500"


def test_what_nobody_measured_has_no_table() -> None:
    bare = [replace(row, **dict.fromkeys(UNSEEN)) for row in make_rows(["customvideo"])]
    keys = {sheet.key for sheet in make_sheets(Board(bare))}
    assert keys == {"main", "scaling", "same-category", "small"}


def test_without_our_method_the_others_are_still_compared() -> None:
    sheets = {s.key: s for s in make_sheets(Board(make_rows(["dreambooth", "dreamvideo"])))}
    assert "against" not in sheets and "ablations" not in sheets
    assert ("dreamvideo", "DINO-I crop ↑") in best(sheets["main"])


UNSEEN: Iterable[str] = (
    *("co_occurrence", "bleed", "binding_margin", "rank1", "dynamic_degree", "frame_change"),
    *("drop", "blend", "freeze", "train_seconds", "sample_seconds", "trained_parameters"),
    *("peak_memory_mb", "adapter_bytes"),
)
