"""The tables of a study, as finished text: preferences, pairs, ranking, agreement, who is left out.

They are made of `customvideo.benchmark.cells`, so that Markdown, LaTeX and HTML say the same.
"""

from __future__ import annotations

from customvideo.benchmark.cells import MISSING, Block, Cell, Line, Sheet
from customvideo.benchmark.statistics import FEWEST_SETS, Estimate
from customvideo.evaluation.measures import Measure
from customvideo.userstudy.ranking import Standing
from customvideo.userstudy.tally import Answers, Tally

__all__ = ["RATE", "STRENGTH", "make_sheets"]

RATE = Measure("rate", "Preference", "Preference", kind="share")
STRENGTH = Measure("strength", "Strength", "Strength")
_ALPHA = Measure("alpha", "Krippendorff's alpha", "alpha")
_SHARE = Measure("share", "Share", "Share", kind="share", better=0)


def make_sheets(found: Tally) -> list[Sheet]:
    """Every table there is something to show in."""
    asked = [one for one in found.answers if one.standings]
    sheets = [
        _preferences(found, asked),
        _ranking(found, asked),
        _pairs(found, asked),
        _agreement(asked),
    ]
    shown = [sheet for sheet in sheets if sheet.blocks and sheet.blocks[0].lines] if asked else []
    return [*shown, *([_left_out(found)] if found.excluded else [])]


def _preferences(found: Tally, asked: list[Answers]) -> Sheet:
    lines = [
        Line(name, tuple(_rate(one.rates[index], _leads(one, index)) for one in asked))
        for index, name in enumerate(found.methods)
    ]
    return Sheet(
        "preference",
        "How often each method was preferred",
        f"The share of its comparisons that a method won, of {_said(found)}. Bold where it is "
        "surely the best: its lead in the ranking is clear of 0.",
        "Method",
        tuple(f"{one.question.title} {RATE.arrow}" for one in asked),
        (Block("", tuple(lines), _few(found)),),
    )


def _ranking(found: Tally, asked: list[Answers]) -> Sheet:
    blocks = tuple(
        Block(
            one.question.title,
            tuple(_stands(found, one, place) for place in one.standings),
            _few(found) if one is asked[-1] else (),
        )
        for one in asked
    )
    return Sheet(
        "ranking",
        "Ranking",
        "Strengths by Bradley and Terry, which add up to 0: a method one higher is preferred in "
        "73 % of the comparisons, two higher in 88 %. Intervals by drawing raters again; the "
        "ranks beside them are those the votes leave possible.",
        "Method",
        ("rank", f"{STRENGTH.short} {STRENGTH.arrow}", "possible ranks", "votes"),
        blocks,
    )


def _stands(found: Tally, answers: Answers, place: Standing) -> Line:
    rank = answers.standings.index(place) + 1
    possible = MISSING
    if place.best is not None and place.worst is not None:
        possible = f"{place.best}" if place.best == place.worst else f"{place.best}–{place.worst}"
    strength = place.strength
    aside = _interval(STRENGTH, strength, signed=True)
    sign = STRENGTH.format_change(strength.mean)
    best = _leads(answers, place.method)
    cells = (
        Cell(str(rank)),
        Cell(sign, aside, best, number=strength),
        Cell(possible),
        Cell(str(strength.videos)),
    )
    return Line(found.methods[place.method], cells)


def _pairs(found: Tally, asked: list[Answers]) -> Sheet:
    keys = sorted({key for one in asked for key in one.pairs})
    lines = [
        Line(
            f"{found.methods[one]} over {found.methods[two]}",
            tuple(_against(answers.pairs.get((one, two))) for answers in asked),
            _votes(asked, one, two),
        )
        for one, two in keys
    ]
    return Sheet(
        "pairs",
        "Pair by pair",
        "The share of votes for the first of the two; coloured where the interval keeps clear "
        "of 50 %.",
        "Pair",
        tuple(one.question.title for one in asked),
        (Block("", tuple(lines), _few(found)),),
    )


def _agreement(asked: list[Answers]) -> Sheet:
    lines = []
    for one in asked:
        alpha, left = one.agreement, one.left
        lines.append(
            Line(
                one.question.title,
                (
                    Cell()
                    if alpha is None
                    else Cell(_ALPHA.format(alpha.mean), _interval(_ALPHA, alpha), number=alpha),
                    Cell(MISSING if alpha is None else str(alpha.sets)),
                    _rate(left, shown=_SHARE),
                ),
            )
        )
    return Sheet(
        "agreement",
        "Do raters agree?",
        "Krippendorff's alpha: 1 if all raters prefer the same video, 0 if they agree as often as "
        "by chance; low values are common where two methods are alike. The last column says how "
        "often the left video was taken: sides are balanced, so it should be half.",
        "Question",
        (f"{_ALPHA.short} {_ALPHA.arrow}", "comparisons seen twice or more", "left"),
        (Block("", tuple(lines)),),
    )


def _left_out(found: Tally) -> Sheet:
    lines = [Line(f"Rater {one.rater}", (Cell("; ".join(one.reasons)),)) for one in found.excluded]
    return Sheet(
        "excluded",
        "Who is left out",
        f"{len(found.excluded)} of {found.raters} raters, by rules fixed before the first vote.",
        "Rater",
        ("reason",),
        (Block("", tuple(lines)),),
    )


def _leads(answers: Answers, method: int) -> bool:
    """Whether the method is surely the best."""
    first = answers.standings[0]
    return first.method == method and first.worst == 1


def _rate(found: Estimate | None, best: bool = False, shown: Measure = RATE) -> Cell:
    if found is None:
        return Cell()
    return Cell(shown.format(found.mean), _interval(shown, found), best, number=found)


def _against(found: Estimate | None) -> Cell:
    cell = _rate(found)
    if found is None or found.low is None or found.high is None:
        return cell
    tone = "better" if found.low > 0.5 else "worse" if found.high < 0.5 else ""
    return Cell(cell.text, cell.aside, tone=tone, number=found)


def _interval(shown: Measure, found: Estimate, *, signed: bool = False) -> str:
    if found.low is None or found.high is None:
        return ""
    return shown.format_interval(found.low, found.high, signed=signed)


def _votes(asked: list[Answers], one: int, two: int) -> str:
    votes = [answers.pairs[one, two].videos for answers in asked if (one, two) in answers.pairs]
    return f"{max(votes)} votes"


def _said(found: Tally) -> str:
    return f"{found.comparisons} comparisons by {found.counted} raters"


def _few(found: Tally) -> tuple[str, ...]:
    if found.counted >= FEWEST_SETS:
        return ()
    return (f"Fewer than {FEWEST_SETS} raters allow no interval, and nobody is called best.",)
