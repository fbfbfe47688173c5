"""What a training will take on this machine, before it begins: `runs.preflight` for a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from customvideo.workspace.workspace import Workspace

__all__ = ["Estimate", "estimate"]


@dataclass(frozen=True)
class Estimate:
    """How long and how much.

    Attributes:
        seconds: of training; None where nothing is trained.
        prior_seconds: to draw the class prior first, unless it was drawn before.
        memory: bytes at the peak, on the `device`.
        available: bytes that this machine has for it; None where that is unknown.
        download: bytes that have to be fetched first.
        disk: bytes that the run will leave.
        device: "cpu" or "gpu".
        licence: of the model, "" if it states none.
        lines: all of it in words, one a line, as `customvideo train --dry-run` says it.
    """

    seconds: float | None
    prior_seconds: float
    memory: int
    available: int | None
    download: int
    disk: int
    device: str
    licence: str
    lines: tuple[str, ...]


def estimate(workspace: Workspace, project: str, settings: Mapping[str, Any]) -> Estimate:
    """Estimate the training of `project` with settings as for `TrainRequest`; takes seconds.

    Raises:
        UserError: the settings or the subjects cannot work, as training would.
    """
    raise NotImplementedError
