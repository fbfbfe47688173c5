"""What a batch is asked for: runs, each a customization and its videos.

    each = "customers"          # every folder in it is a run, every folder in that a subject
    prompts = ["{subjects} on the beach"]   # and all other settings of `BatchPlan`
    seeds = [0, 1]
    [changes]                   # keys of the recipe, for every run
    steps = 100
    [runs.pets]                 # or runs one by one
    subjects = { tom = "photos/tom", rex = "photos/rex" }
    [runs.toys]
    recipe = "toys.toml"        # found from this file's folder, as every path here
    prompts = ["a <bo> robot dancing"]

Nothing is loaded or run here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from customvideo.config import Recipe, SubjectEntry, compose_recipe, whole_recipe
from customvideo.errors import FleetError
from customvideo.files import expanded, is_dir, is_file
from customvideo.records import parse_toml
from customvideo.settings import Settings, validated
from customvideo.subjects.prompt import check_name
from customvideo.training.config import FREE_ON_RESUME

__all__ = ["BatchPlan", "Run", "load_plan", "run_of"]

SUBJECTS = "{subjects}"
"""What a prompt says for "a <tom> cat and a <rex> dog", whoever the run's subjects are."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_OWN = ("recipe", "prompts", "seeds")
_DIGITS = 20


class BatchPlan(Settings):
    """What a batch does; where its results go, and on how many machines, is none of its
    business."""

    runs: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Name -> keys of the recipe; `recipe`, `prompts` and `seeds` are the run's own."""
    each: str = ""
    """A folder of folders: the name of each is a run's, those inside it are the subjects'."""
    changes: dict[str, Any] = Field(default_factory=dict)
    """Keys of the recipe for every run; what a run itself says comes after."""
    prompts: list[str] = Field(default_factory=lambda: [SUBJECTS])
    """What every run's videos show."""
    seeds: list[int] = Field(default_factory=lambda: [0])
    """Videos of each prompt."""


@dataclass(frozen=True)
class Run:
    """One customization and its videos; a piece of work as `customvideo.fleet` hands it around."""

    title: str
    recipe: Recipe
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]

    kind = "run"

    @property
    def digest(self) -> str:
        """Of all that the results depend on."""
        return _sha([self.learned, list(self.prompts), list(self.seeds)])

    @property
    def learned(self) -> str:
        """Of what the adapter depends on, and how videos are drawn.

        A setting at its default is left out, so that one that comes later changes nothing; photos
        are told by names and sizes of their files, wherever the folder lies.
        """
        told = self.recipe.model_dump(mode="json", exclude_defaults=True)
        kept = {key: told[key] for key in told if key not in FREE_ON_RESUME or key == "steps"}
        kept["subjects"] = {
            name: [entry.category, _contents(Path(entry.folder))]
            for name, entry in self.recipe.subjects.items()
        }
        kept["groups"] = {
            label: _contents(Path(folder)) for label, folder in self.recipe.groups.items()
        }
        return _sha(kept)

    def to_dict(self) -> dict[str, Any]:
        """The run as `run_of` reads it, ready for JSON."""
        return {
            "title": self.title,
            "recipe": self.recipe.model_dump(mode="json"),
            "prompts": list(self.prompts),
            "seeds": list(self.seeds),
        }


def run_of(told: Mapping[str, Any]) -> Run:
    """The run that `Run.to_dict` told of."""
    recipe = whole_recipe(told["recipe"])
    return Run(told["title"], recipe, tuple(told["prompts"]), tuple(told["seeds"]))


def load_plan(file: Path, sets: Sequence[tuple[str, Any]] = ()) -> list[Run]:
    """The runs that a plan's file asks for, in its order, those of `each` last; `sets` are keys of
    the recipe for all of them.

    Raises:
        FleetError: the file cannot be read, asks for nothing, or for a run that cannot be.
        ConfigError: an unknown setting, or a value that does not fit.
    """
    plan = validated(BatchPlan, _read(file))
    home = file.absolute().parent
    asked = {**plan.runs, **(_each(home / plan.each) if plan.each else {})}
    if not asked:
        raise FleetError(
            f"The plan '{file}' asks for nothing; give it [runs.NAME] tables, or 'each', a folder "
            "of folders."
        )
    return [_run(name, keys, plan, home, sets) for name, keys in asked.items()]


def _contents(folder: Path) -> list[list[Any]]:
    """Names and sizes of the files in a folder of photos; none of one that is not there."""
    if not is_dir(folder):
        return []
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [[path.relative_to(folder).as_posix(), path.stat().st_size] for path in files]


def _sha(told: Any) -> str:
    text = json.dumps(told, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _run(
    name: str,
    keys: Mapping[str, Any],
    plan: BatchPlan,
    home: Path,
    sets: Sequence[tuple[str, Any]],
) -> Run:
    if not _NAME.fullmatch(name):
        raise FleetError(
            f"'{name}' cannot name a run, whose folder is called so; use letters, digits, '_', '.' "
            "and '-'."
        )
    own = {key: value for key, value in keys.items() if key not in _OWN}
    changes = [*plan.changes.items(), *own.items(), *sets]
    source = keys.get("recipe")
    if isinstance(source, str) and is_file(home / source):
        source = home / source
    recipe = _found_from(home, compose_recipe(changes, source))
    if not recipe.subjects:
        raise FleetError(f"The run '{name}' has no subjects; give it some, or a recipe with some.")
    looks = {key: keys[key] for key in ("prompts", "seeds") if key in keys}
    shown = validated(BatchPlan, {**plan.model_dump(), **looks})
    return Run(name, recipe, tuple(shown.prompts), tuple(shown.seeds))


def _found_from(home: Path, recipe: Recipe) -> Recipe:
    """The recipe with its folders and files found from anywhere."""
    subjects = {
        name: SubjectEntry(folder=_there(home, entry.folder), category=entry.category)
        for name, entry in recipe.subjects.items()
    }
    groups = {label: _there(home, folder) for label, folder in recipe.groups.items()}
    start = recipe.start_from and _there(home, recipe.start_from)
    backbone = _there(home, recipe.backbone)
    # What is no folder here is a name of a model.
    own = {"backbone": backbone} if is_dir(Path(backbone)) else {}
    return recipe.model_copy(
        update={"subjects": subjects, "groups": groups, "start_from": start, **own}
    )


def _there(home: Path, place: str) -> str:
    return str(home / expanded(place))


def _each(folder: Path) -> dict[str, dict[str, Any]]:
    if not is_dir(folder):
        raise FleetError(f"There is no folder '{folder}' of customizations; check 'each'.")
    return {run.name: {"subjects": _subjects(run)} for run in _folders(folder)}


def _subjects(run: Path) -> dict[str, str]:
    found = {folder.name: str(folder) for folder in _folders(run)}
    for name in found:
        check_name(name)
    return found


def _folders(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.glob("[!.]*") if path.is_dir())


def _read(file: Path) -> dict[str, Any]:
    try:
        return parse_toml(file.read_text(encoding="utf-8"))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise FleetError(f"The plan '{file}' cannot be read ({reason}); check the path.") from error
    except ValueError as error:
        raise FleetError(f"The plan '{file}' is not valid TOML: {error}.") from error
