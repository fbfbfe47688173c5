"""The page people look at: verdicts, plots, tables, and everybody's videos side by side.

It is one HTML file that loads nothing by itself. Videos are put into it as far as its size may
grow; the rest are links to the files beside it. What the numbers are is decided in
`customvideo.benchmark.sheets` and `customvideo.benchmark.plots`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from customvideo import __version__
from customvideo.benchmark.board import Board
from customvideo.benchmark.cells import Sheet
from customvideo.benchmark.gallery import Card, Gallery
from customvideo.benchmark.plots import make_plots
from customvideo.benchmark.sheets import brief, contests
from customvideo.benchmark.statistics import FEWEST_SETS
from customvideo.files import write_text

__all__ = ["Verdict", "verdicts", "write_page"]

_FIRST = ("headline", "dino_i_crop", "bleed", "clip_t")
"""The scores to say first: identity, binding, and the text that both are easily bought with."""


@dataclass(frozen=True)
class Verdict:
    """One number that stands for much: ours, and how it stands to the best other.

    `tone` is "better" or "worse" where that is certain; `told` says it in words.
    """

    title: str
    value: str
    told: str
    aside: str
    tone: str


def verdicts(board: Board) -> list[Verdict]:
    """The few comparisons to say first, what speaks against the method included."""
    against = {shown.name: (shown, rival, lead) for shown, rival, lead in contests(board)}
    known = [name for name in _FIRST if name in against] or [m.name for m in brief(board)]
    found = []
    for name in [name for name in known if name in against][: len(_FIRST)]:
        shown, rival, lead = against[name]
        ours = board.estimate(board.ours, name)
        change = shown.format_change(lead.mean)
        if lead.relative is not None and shown.kind == "score":
            change = f"{100 * lead.relative:+.1f} %"
        aside = "too few subject sets for an interval"
        if lead.low is not None and lead.high is not None:
            aside = f"difference {shown.format_interval(lead.low, lead.high, signed=True)}"
            aside += "" if lead.clear else ": not settled"
        better = "better" if lead.mean * shown.better > 0 else "worse"
        found.append(
            Verdict(
                title=f"{shown.title} {shown.arrow}",
                value=shown.format(ours.mean) if ours else "",
                told=f"{change} against {rival}",
                aside=aside,
                tone=better if lead.clear else "",
            )
        )
    return found


def write_page(
    path: Path,
    title: str,
    board: Board,
    *,
    sheets: Sequence[Sheet],
    gallery: Gallery,
    facts: Mapping[str, str],
) -> Path:
    """Write the page, all or nothing, and return its path; every text is escaped.

    `facts` are what the numbers were made of, in words: "Videos" -> "128". Pictures and videos
    get what room the rest of the page leaves of the gallery's megabytes.

    Raises:
        StorageError: the place cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("customvideo", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("bench.html.j2")
    context = {**_context(board), "sheets": sheets, "title": title, "facts": facts}

    def render(spent: float) -> str:
        cards = gallery.cards(board, path.parent, spent)
        return template.render(context | _shown(cards, gallery.max_mb))

    bare = render(math.inf)
    write_text(path, render(len(bare.encode())))
    return path


def _shown(cards: Sequence[Card], max_mb: float) -> dict[str, Any]:
    """What the template has to know of the videos."""
    groups: dict[str, list[Card]] = {}
    for card in cards:
        groups.setdefault(card.group, []).append(card)
    linked = any(film.link for card in cards for film in card.films)
    linked = linked or any(card.more for card in cards)
    return {"groups": groups, "linked": linked, "left_out": _left_out(cards, max_mb)}


def _left_out(cards: Sequence[Card], max_mb: float) -> str:
    """What had no room on the page, in a sentence; "" if nothing."""
    films, photos = (sum(card.left_out[index] for card in cards) for index in (0, 1))
    every = sum(len(card.films) + len(card.attention) for card in cards)
    said = [f"{films} of {every} videos are links"] if films else []
    said += [f"{photos} photo{'' if photos == 1 else 's'} left out"] if photos else []
    return f"To keep this page within {max_mb:g} MB, {' and '.join(said)}." if said else ""


def _context(board: Board) -> dict[str, Any]:
    return {
        "version": __version__,
        "ours": board.ours,
        "lead": _lead(board),
        "verdicts": verdicts(board.common),
        "plots": make_plots(board),
        "measures": board.measures,
        "fewest": FEWEST_SETS,
    }


def _lead(board: Board) -> str:
    sets = len({row.combination for row in board.rows})
    videos = len({row.key[:4] for row in board.rows})
    labels = [*board.methods, *board.ablations, *board.references]
    return (
        f"{len(labels)} entries on {sets} subject sets, {videos} videos. All were asked for "
        "the same prompts with the same starting noise."
    )
