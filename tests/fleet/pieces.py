"""Pieces of work that are done at once, slowly, or never; it holds no test."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from customvideo.fleet.work import Outcome, Work


@dataclass(frozen=True)
class Piece:
    """`kind` says how it ends: "quick", "slow", "deadly", or "frail", which kills one worker."""

    title: str
    kind: str = "quick"

    @property
    def digest(self) -> str:
        return self.title

    def to_dict(self) -> dict[str, Any]:
        return {"title": self.title, "kind": self.kind}


class Writing:
    """Leaves a file for each piece, which says the process and the machine that did it."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def do(self, told: Mapping[str, Any]) -> Outcome[Piece]:
        import ray

        piece, seen = Piece(**told), self.out / f"{told['title']}.seen"
        if piece.kind == "deadly" or (piece.kind == "frail" and not seen.exists()):
            seen.write_text("")
            os._exit(1)
        if piece.kind == "slow":
            time.sleep(0.4)
        node = ray.get_runtime_context().get_node_id()
        (self.out / piece.title).write_text(f"{os.getpid()} {node}")
        return Outcome(piece, "done", 0.1)

    def give_up(self, told: Mapping[str, Any], message: str) -> None:
        (self.out / f"{told['title']}.failed").write_text(message)


def opens(out: Path) -> partial[Work]:
    """What makes a worker that writes into `out`."""
    return partial(_open, str(out))


def _open(out: str) -> Work:
    return Writing(Path(out))
