"""What executors hand around: a piece of work, how it is done, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from customvideo.claims import Claim, TakenOver, claimed
from customvideo.errors import StorageError
from customvideo.training.interrupt import Interrupted

__all__ = ["Ended", "Note", "Outcome", "Piece", "Work", "do_alone", "failed"]

Note = Callable[[str], None]
"""Where a word about what is being done goes: "learning 12/250"."""

Ended = Literal["done", "failed", "taken"]


class Piece(Protocol):
    """A piece of work, as far as executors and views care."""

    @property
    def title(self) -> str:
        """What people call it."""

    @property
    def kind(self) -> str:
        """Pieces of one kind take about as long."""

    @property
    def digest(self) -> str:
        """What tells it from others."""

    def to_dict(self) -> dict[str, Any]:
        """The piece as plain data, for a worker elsewhere."""


P = TypeVar("P", bound=Piece)


@dataclass(frozen=True)
class Outcome(Generic[P]):
    """How a piece of work ended: done, failed with a message, or taken by another runner."""

    job: P
    ended: Ended
    seconds: float = 0.0
    message: str = ""


class Work(Protocol):
    """A worker's side of it: pieces come as plain data, and what became of them goes back."""

    def do(self, told: Mapping[str, Any]) -> Outcome[Any]:
        """Do the piece that was told of.

        Raises:
            StorageError: the results cannot be written.
        """

    def give_up(self, told: Mapping[str, Any], message: str) -> None:
        """Keep that the piece came to nothing, because whoever did it died each time."""


def do_alone(
    piece: P, folder: Path, do: Callable[[Claim], None], fail: Callable[[Exception], None]
) -> Outcome[P]:
    """Let `do` work on `piece` in `folder`, unless another runner does; an error of the piece's own
    goes to `fail`, to be kept.

    Raises:
        StorageError: the results cannot be written.
        Interrupted: stopped from outside, after saving.
    """
    began = time.monotonic()
    with claimed(folder) as claim:
        if claim is None:
            return Outcome(piece, "taken")
        try:
            do(claim)
        except TakenOver:
            return Outcome(piece, "taken")
        except Interrupted as error:
            place = str(error).partition(";")[0]
            raise Interrupted(f"{place}; run the same command again to go on.") from None
        except StorageError:
            raise
        except Exception as error:
            fail(error)
            message = str(error) or type(error).__name__
            return Outcome(piece, "failed", time.monotonic() - began, message)
    return Outcome(piece, "done", time.monotonic() - began)


def failed(outcomes: list[Outcome[P]]) -> list[Outcome[P]]:
    """Those that came to nothing."""
    return [outcome for outcome in outcomes if outcome.ended == "failed"]
