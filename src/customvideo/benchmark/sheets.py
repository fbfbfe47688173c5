"""Which tables there are, and what stands in their cells: values, intervals, who is surely best.

Every method and every score found in the results gets its place here without being named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from customvideo.benchmark.board import REFERENCES, Board
from customvideo.benchmark.cells import MISSING, Block, Cell, Line, Sheet
from customvideo.benchmark.gates import GATES, judge
from customvideo.benchmark.statistics import FEWEST_SETS, Difference, Estimate
from customvideo.evaluation.measures import Group, Measure

__all__ = ["BRIEF", "brief", "contests", "make_sheets"]

BRIEF = ("headline", "clip_t", "dino_i", "dino_i_crop", "co_occurrence", "bleed", "rank1")
"""What is shown where a table has room for little."""

_GROUPS: dict[Group, tuple[str, str]] = {
    "main": ("Main results", "The published scores, and identity subject by subject."),
    "bound": ("Each subject by itself", "What averages over whole frames can hide."),
    "motion": ("Motion", "Read with consistency over time: what stands still is consistent."),
    "failure": ("Failures", "How often a video fails in a way that averages hide."),
    "cost": ("Cost", "Times depend on the machine and on what else it was doing."),
    "other": ("Other scores", ""),
}
_ABLATED: dict[Group, str] = {
    "main": "Ablations",
    "bound": "Ablations, each subject by itself",
    "motion": "Ablations, motion",
}


def make_sheets(board: Board) -> list[Sheet]:
    """Every table there is something to show in.

    Sizes of sets that not everybody has are compared in the table by number of subjects alone.
    """
    fair = board.common
    tables = {group: _by_group(fair, group, *words) for group, words in _GROUPS.items()}
    if tables["main"] is not None and fair is not board:
        tables["main"] = replace(tables["main"], intro=f"{tables['main'].intro} {_only(fair)}")
    ordered = [
        tables["main"],
        _against(fair),
        tables["bound"],
        _gates(fair),
        *_ablations(fair),
        _scaling(board),
        _same_category(fair),
        _small(fair),
        tables["motion"],
        tables["failure"],
        tables["cost"],
        tables["other"],
    ]
    return [sheet for sheet in ordered if sheet is not None]


def brief(board: Board) -> list[Measure]:
    """The few scores to show where there is little room."""
    measures = board.measures
    return [one for name in BRIEF for one in measures if one.name == name] or measures[:6]


def contests(board: Board) -> list[tuple[Measure, str, Difference]]:
    """For each score with a better direction: the best rival, and how far ours is from it."""
    found: list[tuple[Measure, str, Difference]] = []
    for shown in board.measures:
        ranked = board.ranked(board.rivals, shown)
        difference = board.compare(board.ours, ranked[0], shown.name) if ranked else None
        if difference is not None and shown.group != "cost":
            found.append((shown, ranked[0], difference))
    return found


def _by_group(board: Board, group: Group, title: str, intro: str) -> Sheet | None:
    measures = [shown for shown in board.measures if shown.group == group]
    return _values(group, title, intro, measures, [("", board)])


def _only(board: Board) -> str:
    """Which sizes of sets are compared, where there are others, too."""
    sizes = " and ".join(map(str, board.sizes))
    return f"Sets of {sizes} subjects alone here and below: not everybody has the others."


def _against(board: Board) -> Sheet | None:
    lines = []
    for shown, rival, difference in contests(board):
        ours, theirs = (board.estimate(method, shown.name) for method in (board.ours, rival))
        cells = (
            _value(ours, shown),
            Cell(_value(theirs, shown).text, rival, number=theirs),
            _change(difference, shown),
            _share_of(difference),
            Cell(MISSING if difference.p is None else _p(difference.p)),
            Cell(str(difference.sets)),
        )
        note = shown.short if shown.short != shown.title else ""
        lines.append(Line(f"{shown.title} {shown.arrow}".strip(), cells, note))
    if not lines:
        return None
    return Sheet(
        "against",
        f"{board.ours} against the best other",
        "For each score the other method with the best mean, on the same prompts and starting "
        "noises. The relative difference is a share of the other's mean; p is the sign-flip test "
        "over subject sets. Each score is judged by itself: of twenty, one may seem clear by "
        "chance.",
        "Score",
        (board.ours, "best other", "difference", "relative", "p", "sets"),
        (Block("", tuple(lines)),),
    )


def _gates(board: Board) -> Sheet | None:
    """Who passes what a method has to pass before its averages are worth a look."""
    lines = []
    for method in [*board.methods, *board.ablations, *board.references]:
        cells = tuple(
            Cell()
            if found is None
            else Cell(
                found.text,
                "passes" if found.passed else "fails",
                tone="better" if found.passed else "worse",
                number=found.value,
            )
            for found in judge(board, method)
        )
        kind = "ours" if method == board.ours else "reference" if method in REFERENCES else ""
        lines.append(Line(method, cells, REFERENCES.get(method, ""), kind))
    if not any(cell.number for line in lines for cell in line.cells):
        return None
    limits = "; ".join(f"{gate.name}: {gate.limit}" for gate in GATES)
    return Sheet(
        "gates",
        "Gates",
        "What a method has to pass, whatever its averages say; binding and hard failures are two "
        f"halves of one. {limits}. The means decide, not their intervals.",
        "Method",
        tuple(gate.name for gate in GATES),
        (Block("", tuple(lines), _few_sets(board)),),
    )


def _ablations(board: Board) -> list[Sheet]:
    """What is lost when a part is left out: values of the whole, then differences from it."""
    tables = (_ablated(board, group, title) for group, title in _ABLATED.items())
    return [sheet for sheet in tables if sheet is not None]


def _ablated(board: Board, group: Group, title: str) -> Sheet | None:
    measures = [shown for shown in board.measures if shown.group == group]
    whole = tuple(_value(board.estimate(board.ours, m.name), m) for m in measures)
    lines = [
        Line(
            label.removeprefix(f"{board.ours}-").replace("-", " "),
            tuple(_change(board.compare(label, board.ours, m.name), m) for m in measures),
            label,
        )
        for label in board.ablations
    ]
    if not any(cell.number for line in lines for cell in line.cells):
        return None
    return Sheet(
        "ablations" if group == "main" else f"ablations-{group}",
        title,
        "The complete method, then what changes when one thing is left out or replaced, on the "
        "same prompts and starting noises; coloured where the difference is clear of 0.",
        "Variant",
        _heads(measures),
        (Block("", (Line(board.ours, whole, "complete", "ours"), *lines), _few_sets(board)),),
    )


def _scaling(board: Board) -> Sheet | None:
    if len(board.sizes) < 2:
        return None
    blocks = [(_counted(size, "subject"), _having(board, subjects=size)) for size in board.sizes]
    return _values(
        "scaling",
        "By number of subjects",
        "The same methods on sets of every size.",
        brief(board),
        blocks,
    )


def _same_category(board: Board) -> Sheet | None:
    alike = _having(board, same_category=True, subjects=2)
    apart = _having(board, same_category=False, subjects=2)
    return _values(
        "same-category",
        "Pairs of one category",
        "Two cats are harder than a cat and a dog: only the learned words tell them apart.",
        brief(board),
        [("Both of one category", alike), ("Of two categories", apart)] if alike.rows else [],
    )


def _small(board: Board) -> Sheet | None:
    small, rest = (_having(board, small=small) for small in (True, False))
    return _values(
        "small",
        "Small subjects",
        "The lower third by the share of the photos that the masks cover. Scores of whole videos "
        "count once for each group that a subject of theirs is in.",
        brief(board),
        [("Small", small), ("All others", rest)] if small.rows else [],
    )


def _having(board: Board, **wanted: object) -> Board:
    return board.where(lambda row: all(getattr(row, k) == value for k, value in wanted.items()))


def _values(
    key: str,
    title: str,
    intro: str,
    measures: Sequence[Measure],
    parts: Sequence[tuple[str, Board]],
) -> Sheet | None:
    """Methods by scores, a block for each titled part; None if nothing is there to show."""
    blocks = tuple(
        _block(name, board, measures) for name, board in parts if measures and board.rows
    )
    if not any(cell.number for block in blocks for line in block.lines for cell in line.cells):
        return None
    return Sheet(key, title, intro, "Method", _heads(measures), blocks)


def _block(title: str, board: Board, measures: Sequence[Measure]) -> Block:
    leaders, remarks = {}, []
    for shown in measures:
        ranked = board.ranked(board.methods, shown)
        lead = board.compare(ranked[0], ranked[1], shown.name) if len(ranked) > 1 else None
        if lead is not None and lead.clear:
            leaders[shown.name] = ranked[0]
        elif lead is not None and lead.low is not None:
            remarks.append(_unsettled(shown, ranked, lead))
    lines = [
        _method_line(board, method, measures, leaders)
        for method in [*board.methods, *board.references]
    ]
    open_ones = (f"Not settled: {'; '.join(remarks)}.",) if remarks else ()
    return Block(title, tuple(lines), (*open_ones, *_few_sets(board)))


def _method_line(
    board: Board, method: str, measures: Sequence[Measure], leaders: dict[str, str]
) -> Line:
    cells = tuple(
        _value(board.estimate(method, m.name), m, leaders.get(m.name) == method) for m in measures
    )
    numbers = [cell.number for cell in cells if isinstance(cell.number, Estimate)]
    sets = max((number.sets for number in numbers), default=0)
    videos = max((number.videos for number in numbers), default=0)
    kind = "ours" if method == board.ours else "reference" if method in REFERENCES else ""
    note = REFERENCES.get(method, "")
    counted = f"{_counted(sets, 'set')}, {_counted(videos, 'video')}"
    return Line(method, cells, f"{note}; {counted}" if note else counted, kind)


def _unsettled(shown: Measure, ranked: Sequence[str], lead: Difference) -> str:
    assert lead.low is not None and lead.high is not None
    interval = shown.format_interval(lead.low, lead.high, signed=True)
    change = shown.format_change(lead.mean)
    return f"{shown.short}, {ranked[0]} against {ranked[1]}: {change} {interval}"


def _few_sets(board: Board) -> tuple[str, ...]:
    sets = len({row.combination for row in board.rows})
    if sets >= FEWEST_SETS:
        return ()
    return (
        f"{_counted(sets, 'subject set')} only: fewer than {FEWEST_SETS} allow no interval, and "
        "nobody is called best.",
    )


def _heads(measures: Sequence[Measure]) -> tuple[str, ...]:
    return tuple(f"{shown.short} {shown.arrow}".strip() for shown in measures)


def _value(found: Estimate | None, shown: Measure, best: bool = False) -> Cell:
    if found is None:
        return Cell()
    aside = ""
    if found.low is not None and found.high is not None and found.low < found.high:
        aside = shown.format_interval(found.low, found.high)
    return Cell(shown.format(found.mean), aside, best, number=found)


def _change(found: Difference | None, shown: Measure) -> Cell:
    if found is None:
        return Cell()
    aside = ""
    if found.low is not None and found.high is not None:
        aside = shown.format_interval(found.low, found.high, signed=True)
    tone = ""
    if found.clear and shown.better:
        tone = "better" if found.mean * shown.better > 0 else "worse"
    return Cell(shown.format_change(found.mean), aside, tone=tone, number=found)


def _share_of(found: Difference) -> Cell:
    if found.relative is None:
        return Cell()
    aside = ""
    if found.relative_low is not None and found.relative_high is not None:
        aside = f"[{100 * found.relative_low:+.1f}, {100 * found.relative_high:+.1f} %]"
    return Cell(f"{100 * found.relative:+.1f} %", aside)


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
