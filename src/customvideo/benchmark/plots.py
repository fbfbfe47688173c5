"""The plots beside the tables, where a person would rather look than read.

Each series has one style in all plots: `ours`, `s0` … `s7` for the rivals, `reference`. The page's
style gives it a colour that colour-blind eyes tell apart, in light and in dark; its mark's shape
and a label say the same once more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from customvideo.benchmark.board import Board
from customvideo.benchmark.drawing import Axis, Drawing, keep_apart, outline
from customvideo.benchmark.sheets import brief
from customvideo.benchmark.statistics import Estimate
from customvideo.benchmark.whiskers import Series, round_number, shortened, titled, told, whiskers
from customvideo.evaluation.measures import Measure

__all__ = ["make_plots"]

_WIDTH = 420.0
_LEFT, _RIGHT, _TOP = 132.0, 18.0, 14.0
_HEIGHT, _MARGIN, _BASE = 290.0, 62.0, 44.0
_GAP = 15.0
_STYLES = 8
_SCALED = ("dino_i_crop", "co_occurrence", "bleed")


def make_plots(board: Board) -> dict[str, list[Drawing]]:
    """The plots there are numbers for, by the key of the sheet they belong to."""
    shown = {measure.name: measure for measure in board.measures}
    alike = board.where(lambda row: row.same_category and row.subjects == 2)
    identity = shown.get("dino_i_crop") or shown.get("dino_i")
    text, bleed = shown.get("clip_t"), shown.get("bleed")
    several = len(board.sizes) > 1
    scaled = [shown[name] for name in _SCALED if name in shown] if several else []
    styles, fair = _styles(board), board.common
    plots = {
        "main": [
            _scatter(fair, text, identity, styles) if text and identity else None,
            *(_intervals(fair, measure, styles) for measure in brief(fair)),
        ],
        "same-category": [_intervals(alike, bleed, styles) if bleed else None],
        "scaling": [_scaling(board, measure, styles) for measure in scaled],
    }
    return {key: [plot for plot in found if plot is not None] for key, found in plots.items()}


def _styles(board: Board) -> dict[str, str]:
    """The style of each label, the method under test first."""
    ours = {board.ours: "ours"} if board.ours in board.methods else {}
    rivals = {label: f"s{index % _STYLES}" for index, label in enumerate(board.rivals)}
    return {**ours, **rivals, **dict.fromkeys(board.references, "reference")}


def _found(board: Board, name: str, styles: Mapping[str, str]) -> Series:
    estimates = ((label, board.estimate(label, name)) for label in styles)
    return {label: found for label, found in estimates if found is not None}


def _intervals(board: Board, shown: Measure, styles: Mapping[str, str]) -> Drawing | None:
    """A mark and a whisker for each method."""
    return whiskers(shown, _found(board, shown.name, styles), styles)


def _scatter(
    board: Board, across: Measure, up: Measure, styles: Mapping[str, str]
) -> Drawing | None:
    """Each method's `up` over its `across`, with both intervals."""
    found_x, found_y = (_found(board, shown.name, styles) for shown in (across, up))
    labels = [label for label in found_x if label in found_y]
    if len(labels) < 2:
        return None
    summary = f"{told(across, found_x)} {told(up, found_y)}"
    drawing = Drawing(f"{up.title} against {_lowered(across)}", summary, _WIDTH, _HEIGHT)
    x_axis = Axis.around(found_x.values(), across, _MARGIN, _WIDTH - _RIGHT)
    y_axis = Axis.around(found_y.values(), up, _HEIGHT - _BASE, _TOP)
    _ruled(drawing, y_axis, up)
    for mark in x_axis.marks():
        drawing.write(round_number(across, mark), (x_axis.at(mark), _HEIGHT - _BASE + 18), "middle")
    middle = (_MARGIN + _WIDTH - _RIGHT) / 2
    drawing.write(titled(across), (middle, _HEIGHT - 6), "middle", style="title")
    places = [(x_axis.at(found_x[label].mean), y_axis.at(found_y[label].mean)) for label in labels]
    for label in labels:
        _cross(drawing, styles[label], (found_x[label], x_axis), (found_y[label], y_axis))
    _name(drawing, labels, places, styles)
    # Above all whiskers and names.
    for label, (x, y) in zip(labels, places, strict=True):
        drawing.path(f"mark {styles[label]}", outline(styles[label], x, y))
    return drawing


def _scaling(board: Board, shown: Measure, styles: Mapping[str, str]) -> Drawing | None:
    """A line for each method over the number of subjects, named where it ends."""
    found = {size: _found(part, shown.name, styles) for size, part in _by_size(board).items()}
    sizes = [size for size, series in found.items() if series]
    labels = [label for label in styles if sum(label in found[size] for size in sizes) > 1]
    if not labels:
        return None
    lines = {label: [(n, found[n][label]) for n in sizes if label in found[n]] for label in labels}
    summary = "; ".join(
        f"{label}: {', '.join(f'{shown.format(value.mean)} for {n}' for n, value in line)}"
        for label, line in lines.items()
    )
    drawing = Drawing(f"{titled(shown)}, by number of subjects", summary, _WIDTH, _HEIGHT)
    end = _WIDTH - _LEFT - 8
    values = [value for line in lines.values() for _, value in line]
    axis = Axis.around(values, shown, _HEIGHT - _BASE, _TOP)
    _ruled(drawing, axis, shown, end + 12)
    across = Axis(sizes[0], sizes[-1], _MARGIN + 16, end - 4)
    for size in sizes:
        drawing.write(str(size), (across.at(size), _HEIGHT - _BASE + 18), "middle")
    drawing.write("subjects", ((_MARGIN + end) / 2, _HEIGHT - 6), "middle", style="title")
    for index, (label, line) in enumerate(lines.items()):
        # Beside each other, or whiskers would hide whiskers.
        aside = 4.0 * (index - (len(lines) - 1) / 2)
        _trend(drawing, styles[label], axis, [(across.at(n) + aside, v) for n, v in line])
    ends = [(end + 6, axis.at(line[-1][1].mean)) for line in lines.values()]
    _name(drawing, labels, ends, styles)
    return drawing


def _trend(
    drawing: Drawing, style: str, axis: Axis, line: Sequence[tuple[float, Estimate]]
) -> None:
    drawing.path(f"trend {style}", [(x, axis.at(v.mean)) for x, v in line], closed=False)
    for x, value in line:
        if value.low is not None and value.high is not None:
            drawing.line(f"whisker {style}", (x, axis.at(value.low)), (x, axis.at(value.high)))
        drawing.path(f"mark {style}", outline(style, x, axis.at(value.mean)))


def _by_size(board: Board) -> dict[int, Board]:
    rows = {size: [row for row in board.rows if row.subjects == size] for size in board.sizes}
    return {size: Board(found, board.ours) for size, found in rows.items()}


def _ruled(drawing: Drawing, axis: Axis, shown: Measure, end: float = _WIDTH - _RIGHT) -> None:
    """Lines across at round values of an upright axis."""
    for mark in axis.marks():
        drawing.line("axis", (_MARGIN, axis.at(mark)), (end, axis.at(mark)))
        drawing.write(round_number(shown, mark), (_MARGIN - 8, axis.at(mark) + 4), "end")


def _cross(
    drawing: Drawing, style: str, across: tuple[Estimate, Axis], up: tuple[Estimate, Axis]
) -> None:
    """Both intervals of one value."""
    (found_x, x_axis), (found_y, y_axis) = across, up
    x, y = x_axis.at(found_x.mean), y_axis.at(found_y.mean)
    if found_x.low is not None and found_x.high is not None:
        ends = (x_axis.at(found_x.low), y), (x_axis.at(found_x.high), y)
        drawing.line(f"whisker faint {style}", *ends)
    if found_y.low is not None and found_y.high is not None:
        ends = (x, y_axis.at(found_y.low)), (x, y_axis.at(found_y.high))
        drawing.line(f"whisker faint {style}", *ends)


def _name(
    drawing: Drawing,
    labels: Sequence[str],
    places: Sequence[tuple[float, float]],
    styles: Mapping[str, str],
) -> None:
    """Write each label beside its place, none over another; those at the right edge before it."""
    heights = keep_apart([y for _, y in places], _GAP, _TOP + 4, _HEIGHT - _BASE - 4)
    for label, (x, _), y in zip(labels, places, heights, strict=True):
        room = _WIDTH - x - 10 > 6.6 * len(shortened(label))
        at, anchor = ((x + 10, y + 4), "start") if room else ((x - 10, y + 4), "end")
        drawing.write(shortened(label), at, anchor, style=f"label {styles[label]}")


def _lowered(shown: Measure) -> str:
    return shown.title[:1].lower() + shown.title[1:]
