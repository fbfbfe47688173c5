"""What each kind of job does, by the package's own runs: nothing is learned or drawn here.

Each function does a whole job and may be called again for one that was ended: what is there
already is not made twice.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from customvideo.files import ensure_dir, write_bytes
from customvideo.settings import validated
from customvideo.workspace.drawing import draw
from customvideo.workspace.library import ADAPTER
from customvideo.workspace.places import ADAPTERS, inside, slug
from customvideo.workspace.records import (
    EvaluateRequest,
    ExportRequest,
    GenerateRequest,
    Kind,
    MergeRequest,
    TrainRequest,
)
from customvideo.workspace.requests import chosen_subjects, recipe_for, specs

if TYPE_CHECKING:
    from pathlib import Path

    from customvideo.training.progress import StepReport
    from customvideo.workspace.work import Work

__all__ = ["do", "keep"]


def do(work: Work) -> str:
    """Do the job and return a sentence about what came of it, or "".

    Raises:
        UserError: it cannot be done.
        KeyboardInterrupt, Interrupted: somebody wanted it to end; what is made is kept.
    """
    return _WORKS[work.spec["kind"]](work)


def keep(work: Work) -> str:
    """Bring what a job that was stopped has saved into the library, and say so."""
    if work.spec["kind"] != "train" or work.wish != "stop":
        return "Stopped; what is finished is kept."
    from customvideo.training.checkpoint import newest_valid

    newest = newest_valid(_run_folder(work) / "checkpoints").newest
    if newest is None:
        return "Stopped before anything was learned."
    write_bytes(_run_folder(work) / ADAPTER, newest.adapter.read_bytes())
    _note_adapter(work, "stopped", newest.step)
    return f"Stopped after step {newest.step}; what was learned until then is in the library."


def _train(work: Work) -> str:
    from customvideo.config import SubjectEntry
    from customvideo.runs.folder import held, require_writable
    from customvideo.runs.learning import learn
    from customvideo.training.checkpoint import newest_valid, recover

    request = validated(TrainRequest, work.spec["settings"])
    work.phase("loading the model")
    subjects = chosen_subjects(work.workspace, work.spec["project"], request)
    entries = {
        one.name: SubjectEntry(folder=str(one.folder), category=one.category) for one in subjects
    }
    recipe = recipe_for(request).model_copy(update={"subjects": entries})
    out = ensure_dir(_run_folder(work))
    recover(out / "checkpoints")
    resume = newest_valid(out / "checkpoints").newest is not None
    began = False

    def on_step(report: StepReport) -> None:
        nonlocal began
        if not began:
            began = True
            work.phase("training", listens=True)
        work.add_losses(report.step, report.loss, report.parts)
        work.step(report.step, report.steps)
        work.heed()

    with held(out, resume=resume):
        require_writable(out)
        learn(recipe, out, resume=resume, device=request.device, say=work.say, on_step=on_step)
    _note_adapter(work, "trained", recipe.steps)
    return ""


def _note_adapter(work: Work, origin: str, steps: int) -> None:
    settings = work.spec["settings"]
    work.workspace.library.note(
        work.spec["adapter"],
        name=work.spec["name"],
        project=work.spec["project"],
        origin=origin,
        steps=steps,
        backbone=settings.get("backbone", ""),
        job=work.folder.id,
    )


def _run_folder(work: Work) -> Path:
    return inside(work.workspace.root, ADAPTERS, work.spec["adapter"])


def _generate(work: Work) -> str:
    return draw(work, validated(GenerateRequest, work.spec["settings"]))


def _merge(work: Work) -> str:
    from customvideo.runs.merging import MergePlan, merge

    request = validated(MergeRequest, work.spec["settings"])
    library, out = work.workspace.library, ensure_dir(_run_folder(work))
    entries = [library.adapter(id) for id in request.adapters]
    source = library.source(entries[0].id)
    work.phase("merging")
    if not (out / ADAPTER).exists():
        files = [entry.file for entry in entries]
        plan = MergePlan(
            files,
            out / ADAPTER,
            request.how,
            request.rename,
            report=out / "merge.json",
            backbone=source,
            device=request.device,
        )
        merge(plan, work.say)
    facts = {"name": work.spec["name"], "project": work.spec["project"], "origin": "merged"}
    library.note(work.spec["adapter"], backbone=source, job=work.folder.id, **facts)
    return ""


def _export(work: Work) -> str:
    from customvideo.runs.exporting import ExportPlan, export

    request = validated(ExportRequest, work.spec["settings"])
    entry = work.workspace.library.adapter(request.adapter)
    name = f"{slug(entry.name)}-{request.target}"
    folder = work.folder.out / name
    shutil.rmtree(folder, ignore_errors=True)
    work.phase("exporting")
    plan = ExportPlan(
        entry.file,
        request.target,
        folder,
        work.workspace.library.source(entry.id),
        request.rank,
        request.dtype,
        words_only=request.words_only,
        device=request.device,
    )
    export(plan, work.say)
    shutil.make_archive(str(folder), "zip", folder)
    shutil.rmtree(folder, ignore_errors=True)
    return ""


def _evaluate(work: Work) -> str:
    from customvideo.runs.scoring import EvaluatePlan, evaluate

    request = validated(EvaluateRequest, work.spec["settings"])
    library = work.workspace.library
    entry = library.adapter(request.adapter)
    shelf = work.workspace.shelf(work.spec["project"] or entry.project)
    subjects = [shelf.get(name) for name, _ in entry.words]
    work.phase("scoring")
    plan = EvaluatePlan(
        entry.file,
        work.folder.out / "scores.json",
        specs(subjects),
        request.prompts,
        request.seeds,
        library.source(entry.id),
        device=request.device,
    )
    found = evaluate(plan, work.say)
    write_bytes(entry.folder / "scores.json", json.dumps(found, indent=2).encode())
    scores = {key: value for key, value in found.items() if isinstance(value, float | None)}
    library.note(entry.id, scores=scores)
    return ""


_WORKS: dict[Kind, Callable[[Work], str]] = {
    "train": _train,
    "generate": _generate,
    "merge": _merge,
    "export": _export,
    "evaluate": _evaluate,
}
