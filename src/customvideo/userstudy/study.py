"""A study as a whole: its folder, read and checked, and the seal that keeps it as it was."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from customvideo.errors import StudyError
from customvideo.userstudy.design import Design
from customvideo.userstudy.items import Items, read_items
from customvideo.userstudy.plan import PLAN, StudyPlan, read_plan
from customvideo.userstudy.store import Store, now

__all__ = ["Study", "close", "open_study"]

_DIGEST, _CLOSED = "digest", "closed"


@dataclass(frozen=True, eq=False)
class Study:
    """What is asked about which videos, and who sees what."""

    folder: Path
    plan: StudyPlan
    items: Items
    design: Design

    @property
    def digest(self) -> str:
        """Of everything that must not change once somebody has voted; the end of voting may."""
        plan = self.plan.model_copy(update={"closes": None})
        return hashlib.sha256(f"{plan.digest} {self.items.digest}".encode()).hexdigest()

    def seal(self, store: Store) -> None:
        """Write the digest into the database, or check that it is the one the raters saw.

        Raises:
            StudyError: the study was changed after the first rater came.
        """
        known = store.fact(_DIGEST)
        if known == self.digest:
            return
        if known is not None and store.progress().raters:
            raise StudyError(
                f"'{self.folder / PLAN}' or the videos' list was changed after somebody had voted; "
                "put it back as it was, or make a new study."
            )
        store.note(_DIGEST, self.digest)

    def open_in(self, store: Store) -> bool:
        """Whether votes are still taken."""
        closes = self.plan.closes
        if closes is not None and closes.astimezone(UTC) <= datetime.now(UTC):
            return False
        return store.fact(_CLOSED) is None


def open_study(folder: Path) -> Study:
    """The study in `folder`.

    Raises:
        StudyError, ConfigError: there is none, or something about it is wrong.
    """
    plan = read_plan(folder)
    items = read_items(folder)
    return Study(folder, plan, items, Design(items, plan))


def close(store: Store) -> None:
    """End the voting, for good; running servers take it in at once."""
    if store.fact(_CLOSED) is None:
        store.note(_CLOSED, str(now()))
