"""What a training will take on this machine, before it begins: `runs.preflight` for a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from customvideo.settings import validated
from customvideo.workspace.records import TrainRequest
from customvideo.workspace.requests import chosen_subjects, recipe_for

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
    from customvideo.config import SubjectEntry
    from customvideo.runs.estimate import assemble
    from customvideo.runs.fitting import Sizing
    from customvideo.runs.preflight import lines, report

    request = validated(TrainRequest, settings)
    subjects = chosen_subjects(workspace, project, request)
    entries = {
        one.name: SubjectEntry(folder=str(one.folder), category=one.category) for one in subjects
    }
    recipe = recipe_for(request).model_copy(update={"subjects": entries})
    case = assemble(recipe, request.device)
    if case.adapter is None:
        said = (f"The method '{recipe.method}' trains nothing: its adapter is made at once.",)
        return Estimate(None, 0, 0, None, 0, 0, "cpu", case.backbone.licence or "", said)
    found = report(Sizing(case))
    return Estimate(
        seconds=found.work["seconds"],
        prior_seconds=found.work["prior_seconds"],
        memory=found.memory["total" if found.device == "gpu" else "host"],
        available=_available(found.device),
        download=found.disk["download"],
        disk=found.disk["adapter"] + found.disk["checkpoints"],
        device=found.device,
        licence=found.backbone["licence"] or "",
        lines=tuple(lines(found)),
    )


def _available(device: str) -> int | None:
    """Bytes that are free for it."""
    if device == "cpu":
        return int(psutil.virtual_memory().available)
    import torch

    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else None
