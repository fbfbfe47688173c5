"""From what a page asks for to a job that can be done later: checked as far as it can be now.

Whoever submits a job is told at once what is wrong with it, not when its turn comes. Nothing is
loaded; what only a model can tell is told by the job itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from customvideo.errors import AdapterError, ConfigError, SubjectError
from customvideo.settings import suggest, validated
from customvideo.subjects.prompt import check_name
from customvideo.workspace.places import new_id
from customvideo.workspace.records import (
    REQUESTS,
    EvaluateRequest,
    ExportRequest,
    GenerateRequest,
    Kind,
    MergeRequest,
    StoredSubject,
    TrainRequest,
)

if TYPE_CHECKING:
    from customvideo.config import Recipe
    from customvideo.workspace.workspace import Workspace

__all__ = [
    "MOST_VIDEOS",
    "chosen_subjects",
    "plan_job",
    "recipe_for",
    "require_model",
    "specs",
]

MOST_VIDEOS = 256
"""Of one job."""
_PREVIEWS = 5
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PATH = re.compile(r"^\s*[/~]|\.\.|\\|^\s*[A-Za-z]:")
_NOT_HERE = (
    "subjects",
    "groups",
    "fit",
    "backbone",
    "method",
    "masks",
    "start_from",
    "prior_cache",
    "tracker",
)
"""Settings that name places on this machine, or that a request has fields for."""
_SHOWN = 60


def plan_job(
    workspace: Workspace, kind: Kind, project: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What the job's file says: kind, project, title, settings, and the ids of what it makes.

    Raises:
        UserError: it cannot work.
    """
    if kind not in REQUESTS:
        raise ConfigError(f"There is no kind of job '{kind}'{suggest(str(kind), REQUESTS)}")
    request: Any = validated(REQUESTS[kind], settings)
    if project:
        workspace.projects.get(project)
    made = _PLANS[kind](workspace, project, request)
    plain = request.model_dump(mode="json")
    return {"kind": kind, "project": project, "settings": plain, **made}


def chosen_subjects(
    workspace: Workspace, project: str, request: TrainRequest
) -> list[StoredSubject]:
    """The subjects to learn, each with photos and masks.

    Raises:
        SubjectError: there are none, one is unknown, or one is not ready.
    """
    there = {one.name: one for one in workspace.shelf(project).list()}
    names = list(dict.fromkeys(request.subjects)) or list(there)
    if not names:
        raise SubjectError("The project has no subject yet; add one, and three to six photos.")
    for name in names:
        if name not in there:
            raise SubjectError(f"There is no <{name}> in this project{suggest(name, there)}")
    for name in names:
        _require_ready(there[name])
    return [there[name] for name in names]


def specs(subjects: Sequence[StoredSubject]) -> list[str]:
    """The subjects as `customvideo train --subject` takes them."""
    return [f"{one.name}:{one.category}={one.folder}" for one in subjects]


def recipe_for(request: TrainRequest) -> Recipe:
    """The whole recipe of a training, but for its subjects.

    Raises:
        ConfigError: a setting is unknown or wrong.
    """
    from customvideo.config import compose_recipe

    changes: dict[str, Any] = {
        "backbone": request.backbone,
        **({"method": request.method} if not request.recipe else {}),
        "seed": request.seed,
        **request.options,
    }
    if request.steps is not None:
        changes["steps"] = request.steps
    recipe = compose_recipe(list(changes.items()), request.recipe or None)
    every = request.preview_every
    if every is None:
        every = max(1, recipe.steps // _PREVIEWS)
    return recipe.model_copy(update={"preview_every": every})


def _train(workspace: Workspace, project: str, request: TrainRequest) -> dict[str, Any]:
    if not project:
        raise SubjectError("A training needs a project, whose subjects it learns; choose one.")
    for key in request.options:
        if key.partition(".")[0] in _NOT_HERE:
            raise ConfigError(f"The setting '{key}' cannot be chosen here; leave it out.")
    _refuse_paths(request.options)
    require_model(workspace, request.backbone)
    if request.recipe:
        _require_packaged(request.recipe)
    subjects = chosen_subjects(workspace, project, request)
    recipe_for(request)
    cast = " and ".join(one.word for one in subjects)
    named = request.name or " and ".join(one.name.capitalize() for one in subjects)
    return {"title": f"Learn {cast}", "adapter": new_id(named), "name": named}


def require_model(workspace: Workspace, name: str) -> None:
    """Refuse a folder that the machine's owner has not allowed; an empty name is the usual one.

    Raises:
        ConfigError: it is neither a known model, nor an id of the hub, nor an allowed folder.
    """
    from customvideo.backbones.base import backbone_rows

    rows = backbone_rows()
    if name and name not in rows and name not in workspace.models and not _HUB.fullmatch(name):
        raise ConfigError(
            f"There is no model '{name}' here{suggest(name, sorted(rows))} A folder has to be "
            "allowed by whoever runs this machine."
        )


def _refuse_paths(value: Any) -> None:
    """Refuse whatever could be a place on this machine, in settings that come from a page."""
    if isinstance(value, Mapping):
        for inner in value.values():
            _refuse_paths(inner)
    elif isinstance(value, list):
        for inner in value:
            _refuse_paths(inner)
    elif isinstance(value, str) and _PATH.search(value):
        raise ConfigError(f"The setting {value[:80]!r} looks like a path, which is no option here.")


def _require_packaged(name: str) -> None:
    """A page names recipes, never files."""
    from customvideo.config import recipe_names

    known = set(recipe_names()) | {one.rpartition("-")[0] for one in recipe_names()}
    if name not in known:
        raise ConfigError(f"There is no recipe '{name}'{suggest(name, sorted(known))}")


def _require_ready(subject: StoredSubject) -> None:
    if not subject.photos:
        raise SubjectError(f"{subject.word} has no photo yet; add three to six.")
    bare = [photo.file.name for photo in subject.photos if photo.mask is None]
    if bare:
        raise SubjectError(
            f"'{bare[0]}' of {subject.word} has no mask; paint one, or remove the photo."
        )


def _generate(workspace: Workspace, project: str, request: GenerateRequest) -> dict[str, Any]:
    entries = [workspace.library.adapter(id) for id in dict.fromkeys(request.adapters) if id]
    known = {name for entry in entries for name, _ in entry.words}
    for name, (left, top, right, bottom) in request.layout.items():
        check_name(name)
        if name not in known:
            raise ConfigError(f"No chosen adapter knows <{name}>{suggest(name, sorted(known))}")
        if not (left < right and top < bottom):
            raise ConfigError(f"The box of <{name}> is empty; draw it again.")
    require_model(workspace, request.backbone)
    work = list(product(request.prompts, request.adapters, request.seeds))
    if len(work) > MOST_VIDEOS:
        raise ConfigError(f"{len(work)} videos are too many for one job; ask for {MOST_VIDEOS}.")
    shown = request.prompts[0]
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
    count = "a video" if len(work) == 1 else f"{len(work)} videos"
    return {
        "title": f"Draw {count}: {shown}",
        "videos": [new_id(prompt[:24]) for prompt, _, _ in work],
    }


def _export(workspace: Workspace, _: str, request: ExportRequest) -> dict[str, Any]:
    from customvideo.exports.order import DTYPES
    from customvideo.exports.targets import check_target

    entry = workspace.library.adapter(request.adapter)
    check_target(request.target)
    if request.dtype not in DTYPES:
        raise ConfigError(f"There is no type '{request.dtype}'{suggest(request.dtype, DTYPES)}")
    return {"title": f"Export {entry.name} for {request.target}"}


def _merge(workspace: Workspace, _: str, request: MergeRequest) -> dict[str, Any]:
    entries = [workspace.library.adapter(id) for id in request.adapters]
    if len({entry.id for entry in entries}) != len(entries):
        raise AdapterError("The same adapter was chosen twice; choose different ones.")
    words = [name for entry in entries for name, _ in entry.words]
    renamed = {text.partition("=")[0].strip(" <>") for text in request.rename}
    for name in words:
        if words.count(name) > 1 and name not in renamed:
            raise AdapterError(
                f"Several of these know <{name}>; give the later one's another name, as in "
                f"{name}={name}2."
            )
    named = request.name or " + ".join(entry.name for entry in entries)
    title = f"Merge {' and '.join(entry.name for entry in entries)}"
    return {"title": title, "adapter": new_id(named), "name": named[:80]}


def _evaluate(workspace: Workspace, project: str, request: EvaluateRequest) -> dict[str, Any]:
    entry = workspace.library.adapter(request.adapter)
    if not entry.words:
        raise AdapterError(f"'{entry.name}' has no learned words, so there is nobody to look for.")
    there = {one.name: one for one in workspace.shelf(project or entry.project).list()}
    for name, _ in entry.words:
        if name not in there:
            raise SubjectError(f"The photos of <{name}> are not in this project; add them to it.")
        _require_ready(there[name])
    return {"title": f"Score {entry.name}"}


_PLANS: dict[Kind, Callable[..., dict[str, Any]]] = {
    "train": _train,
    "generate": _generate,
    "export": _export,
    "merge": _merge,
    "evaluate": _evaluate,
}
