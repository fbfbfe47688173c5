"""What a tally looks like: the files that `study tally` writes, and the server's page."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from customvideo import __version__
from customvideo.benchmark.formats import to_latex, to_markdown
from customvideo.files import write_text
from customvideo.userstudy.pages import environment, style
from customvideo.userstudy.plots import make_plots
from customvideo.userstudy.sheets import make_sheets
from customvideo.userstudy.store import Ballot, Store
from customvideo.userstudy.study import Study
from customvideo.userstudy.tally import Tally, tally

__all__ = ["FILES", "Results", "count", "votes_csv", "write_results"]

FILES = {
    "tally.html": "text/html",
    "tally.md": "text/markdown",
    "tally.tex": "application/x-tex",
    "votes.csv": "text/csv",
}
_COLUMNS = (
    *("rater", "position", "kind", "item", "prompt", "question", "left", "right", "choice"),
    *("preferred", "seconds", "time", "counted"),
)


def count(study: Study, store: Store) -> tuple[Tally, list[Ballot]]:
    """Tally what has been voted so far, by the rules the raters voted under.

    Raises:
        StudyError: the study was changed since.
    """
    study.seal(store)
    ballots = store.ballots()
    return tally(ballots, study.items.methods, study.plan), ballots


def write_results(folder: Path, study: Study, store: Store) -> Tally:
    """Write all `FILES` into `folder`, each all or nothing."""
    found, ballots = count(study, store)
    for name, text in _texts(study, found, ballots).items():
        write_text(folder / name, text)
    return found


def votes_csv(study: Study, found: Tally, ballots: Sequence[Ballot]) -> str:
    """Every answer as a line, those of excluded raters and to attention checks included."""
    memory = io.StringIO()
    writer = csv.writer(memory, lineterminator="\n")
    writer.writerow(_COLUMNS)
    prompts = {item.key: item.prompt for item in study.items.items}
    out = {one.rater for one in found.excluded}
    for one in ballots:
        shown, when = one.shown, datetime.fromtimestamp(one.voted / 1000, UTC)
        counted = int(one.rater not in out and shown.kind == "pair")
        for question, choice in one.answers.items():
            place = (one.rater, one.position + 1, shown.kind, shown.item, prompts[shown.item])
            preferred = shown.left if choice == "left" else shown.right
            chosen = (question, shown.left, shown.right, choice, preferred)
            took = (f"{one.seconds:.3f}", when.isoformat(timespec="milliseconds"), counted)
            writer.writerow([*place, *chosen, *took])
    return memory.getvalue()


class Results:
    """The results of a running study, counted anew only when something was voted."""

    def __init__(self, study: Study, store: Store) -> None:
        self._study, self._store = study, store
        self._turn = threading.Lock()
        self._at = -1
        self._found: tuple[Tally, list[Ballot]] | None = None

    def now(self) -> Mapping[str, Any]:
        """What the page of results shows."""
        found, _ = self._count()
        progress = self._store.progress()
        return {**_shown(found), "progress": progress, "open": self._study.open_in(self._store)}

    def file(self, name: str) -> tuple[str, str] | None:
        """One of `FILES` as it would be written now, and what kind of text it is."""
        if name not in FILES:
            return None
        return _texts(self._study, *self._count())[name], FILES[name]

    def _count(self) -> tuple[Tally, list[Ballot]]:
        with self._turn:
            answered = self._store.progress().answered
            if self._found is None or answered != self._at:
                self._found, self._at = count(self._study, self._store), answered
            return self._found


def _shown(found: Tally) -> dict[str, Any]:
    return {"tally": found, "sheets": make_sheets(found), "plots": make_plots(found)}


def _texts(study: Study, found: Tally, ballots: Sequence[Ballot]) -> dict[str, str]:
    sheets = make_sheets(found)
    template = environment().get_template("study/tally.html.j2")
    page = template.render(
        plan=study.plan, items=study.items, version=__version__, css=style(), **_shown(found)
    )
    return {
        "tally.html": page,
        "tally.md": to_markdown(sheets, study.plan.title),
        "tally.tex": to_latex(sheets, "raters"),
        "votes.csv": votes_csv(study, found, ballots),
    }
