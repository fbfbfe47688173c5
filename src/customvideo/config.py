"""A run's whole description: the recipe, as TOML in and out.

A recipe composes the small settings classes that live beside their owners, and adds nothing but
which method, which backbone and which subjects:

    method = "customvideo"
    backbone = "toybox"
    steps = 200                     # and all other settings of the trainer, at the top level
    [subjects.tom]                  # or: subjects = { tom = "photos/tom" }
    folder = "photos/tom"
    category = "cat"
    [method_options]                # the method's own settings
    [sampling]                      # how videos are generated
    [masks]                         # how missing masks are made
    [groups]                        # "tom+rex" = "photos/together"

What a recipe leaves out comes from the packaged recipe of its method and backbone, tables key by
key. A packaged recipe that is asked for by its own name is whole by itself: what it leaves out are
the settings' defaults. An unknown key is an error with a suggestion. This file knows no setting by
name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tomli_w
from pydantic import BaseModel, BeforeValidator, Field

from customvideo.backbones.base import family_of, recipes_of
from customvideo.errors import ConfigError
from customvideo.files import expanded, is_file
from customvideo.generation import SamplingConfig
from customvideo.methods.base import method_class
from customvideo.records import parse_toml
from customvideo.settings import Settings, known_keys, suggest, validated
from customvideo.subjects.clips import PER_CLIP
from customvideo.subjects.folders import SubjectSpec
from customvideo.subjects.groups import GroupSpec
from customvideo.training.config import TrainerConfig

__all__ = [
    "MasksConfig",
    "Recipe",
    "SubjectEntry",
    "apply_keys",
    "apply_sets",
    "compose_recipe",
    "default_recipe",
    "dump_toml",
    "load_recipe",
    "parse_set",
    "recipe_names",
    "whole_recipe",
]

_FALLBACK = "unet3d"
_SUFFIX = ".toml"
_OPTIONS = "method_options"
_CHOOSING = ("method", "backbone")
"""Keys that say which packaged recipe fills in the rest."""


class MasksConfig(Settings):
    """How masks are made for photos that come without one."""

    segmenter: str = "grabcut"
    """A row of `customvideo.subjects.masks.SEGMENTERS`."""
    model: str = ""
    """The segmenter's weights, a hub id or a folder; empty for its usual ones."""
    per_clip: int = Field(default=PER_CLIP, ge=1, le=64)
    """Frames of each clip that serve as photos."""


class SubjectEntry(Settings):
    """Where one subject's photos lie."""

    folder: str
    category: str = ""
    """Empty leaves it to the folder's `subject.toml`, or to the name itself."""


def _entry(value: object) -> object:
    return {"folder": value} if isinstance(value, str) else value


class Recipe(TrainerConfig):
    """Everything a run is made of; the trainer's settings are its own top-level keys."""

    method: str = "customvideo"
    """A row of `customvideo.methods.base.METHODS`."""
    backbone: str = "toybox"
    """A row of `customvideo.backbones.base.BACKBONES`, a diffusers folder, or a hub id."""
    fit: Literal["auto", 8, 12, 16, 24, 48, 80] | None = None
    """Card in GiB that settings are turned for until the run fits, "auto" for the one that is
    there; nothing is turned if absent."""
    subjects: dict[str, Annotated[SubjectEntry, BeforeValidator(_entry)]] = Field(
        default_factory=dict
    )
    """Name -> photos, in the order of the learned words."""
    groups: dict[str, str] = Field(default_factory=dict)
    """Names joined by "+", such as "tom+rex" -> a folder of photos that show them together."""
    method_options: dict[str, Any] = Field(default_factory=dict)
    """All settings of the method, as its settings class has them."""
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    masks: MasksConfig = Field(default_factory=MasksConfig)

    @property
    def specs(self) -> list[SubjectSpec]:
        """The subjects as `load_subjects` takes them."""
        return [
            SubjectSpec(name, expanded(entry.folder), entry.category or None)
            for name, entry in self.subjects.items()
        ]

    @property
    def group_specs(self) -> list[GroupSpec]:
        """The folders of group photos as `load_subjects` takes them."""
        return [GroupSpec.parse(f"{label}={folder}") for label, folder in self.groups.items()]


def load_recipe(path: Path | str) -> Recipe:
    """Read a recipe file, or a packaged recipe by its name.

    Raises:
        ConfigError: it is missing, is not TOML, or holds an unknown key or a wrong value.
    """
    return compose_recipe((), path)


def recipe_names() -> list[str]:
    """The names of the packaged recipes, sorted: `customvideo-paper-toybox`, …"""
    found = (file.name for file in _recipes().iterdir())
    return sorted(name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX))


def compose_recipe(changes: Iterable[tuple[str, Any]], source: Path | str | None = None) -> Recipe:
    """The recipe `source`, or the packaged one, with `changes` (key, value), as `apply_keys`.

    `source` is a file or, where there is none, the name of a packaged recipe, with its backbone
    (`customvideo-paper-toybox`) or without (`customvideo-paper`). A method or backbone among the
    changes also chooses the packaged recipe that says the rest.

    Raises:
        ConfigError: as `load_recipe` and `apply_keys`.
    """
    changes = list(changes)
    chosen = {key: _native(value) for key, value in changes if key in _CHOOSING}
    if "method" in chosen:
        method_class(str(chosen["method"]))
    if source is None:
        return apply_keys(_complete(chosen), changes)
    file, named = Path(source), _named(str(source), chosen.get("backbone"))
    if named is not None and not is_file(file):
        return apply_keys(_validated({**named, **chosen}), changes)
    values = _read(file)
    try:
        recipe = _complete({**values, **chosen})
    except ConfigError as error:
        raise ConfigError(f"In the recipe '{file}': {error}") from error
    return apply_keys(recipe, changes)


def _read(file: Path) -> dict[str, Any]:
    try:
        return parse_toml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"The recipe '{file}' cannot be read ({(error.strerror or str(error)).lower()}); "
            f"check the path, or name one of {', '.join(recipe_names())}."
        ) from error
    except ValueError as error:
        raise ConfigError(f"The recipe '{file}' is not valid TOML: {error}.") from error


def whole_recipe(values: Mapping[str, Any]) -> Recipe:
    """The recipe that `values` tell completely: what they leave out, because it was not known when
    they were written, has its setting's default, whatever a packaged recipe says.

    Raises:
        ConfigError: an unknown key or a wrong value.
    """
    return _validated(values)


def default_recipe(
    method: str = "customvideo", backbone: str = "toybox", family: str | None = None
) -> Recipe:
    """The packaged recipe of a method on a backbone.

    `family` is that of a backbone whose name does not tell it, such as a folder's.

    Raises:
        ConfigError: there is no such method.
    """
    return _validated(_packaged(method, backbone, family))


def apply_sets(recipe: Recipe, sets: Sequence[str]) -> Recipe:
    """A recipe with `key=value` settings applied, each as on the command line.

    Raises:
        ConfigError: as `parse_set` and `apply_keys`.
    """
    return apply_keys(recipe, map(parse_set, sets))


def parse_set(text: str) -> tuple[str, Any]:
    """Key and value of `key=value`; the value is read as TOML, and as plain text if it is none.

    Raises:
        ConfigError: it has another form.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key:
        raise ConfigError(f"Cannot set '{text}'; write key=value, such as steps=200.")
    try:
        parsed = parse_toml(f"value = {value}")
    except ValueError:
        return key, value
    return key, parsed["value"] if parsed.keys() == {"value"} else value


def apply_keys(recipe: Recipe, changes: Iterable[tuple[str, Any]]) -> Recipe:
    """A recipe with settings changed, each a key and its value, one after the other.

    A key is dotted (`method_options.nu`) or just its last part where that is unambiguous (`nu`);
    a top-level key wins. A table changes the keys it has and leaves the others.

    Raises:
        ConfigError: a key that is unknown or ambiguous, or a value that does not fit.
    """
    values = _plain(recipe)
    for key, value in changes:
        *tables, leaf = _full_key(key, values).split(".")
        table = values
        for name in tables:
            table = _inside(table, name)
        table[leaf] = _merged(table.get(leaf), _native(value))
    return _validated(values)


def dump_toml(recipe: Recipe) -> str:
    """The recipe as TOML, every setting included: equal recipes give equal text."""
    return tomli_w.dumps(_plain(recipe))


def _complete(values: Mapping[str, Any]) -> Recipe:
    """The recipe of `values` over the packaged one of the same method and backbone."""
    method = str(values.get("method", "customvideo"))
    base = _packaged(method, str(values.get("backbone", "toybox")))
    return _validated(_merged(base, values))


def _merged(old: Any, new: Any) -> Any:
    """`new`, or, of two tables, `old` with the keys of `new`."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return new
    return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}


def _inside(table: dict[str, Any], name: str) -> dict[str, Any]:
    """The table called `name` in `table`; one made where there is none."""
    inner = _entry(table.get(name, {}))
    if not isinstance(inner, dict):
        raise ConfigError(f"The setting '{name}' is {inner!r}, and has no settings of its own.")
    table[name] = inner
    return inner


def _native(value: Any) -> Any:
    """A setting given in Python as what TOML knows: no paths, numpy numbers or settings objects."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _native(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_native(inner) for inner in value]
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _validated(values: Mapping[str, Any]) -> Recipe:
    if not isinstance(values, Mapping):
        raise ConfigError(f"A recipe is a table of settings, not {str(values)[:40]!r}; write one.")
    method = method_class(str(values.get("method", "customvideo")))
    options = values.get(_OPTIONS, {})
    # The method's settings are checked with their table's name in front, as users write them.
    known = [f"{_OPTIONS}.{key}" for key in known_keys(method.config_class)]
    recipe = validated(Recipe, values, extra_keys=known)
    checked = validated(method.config_class, options, prefix=f"{_OPTIONS}.")
    return recipe.model_copy(update={_OPTIONS: _plain(checked)})


def _plain(settings: BaseModel) -> dict[str, Any]:
    """Settings as TOML values; one that is None is left out."""
    return settings.model_dump(mode="json", exclude_none=True)


def _packaged(method: str, backbone: str, family: str | None = None) -> dict[str, Any]:
    """The values of the packaged recipe that comes nearest, for this very backbone."""
    return {**(_nearest(method, backbone, family) or {}), "method": method, "backbone": backbone}


def _named(name: str, backbone: str | None) -> dict[str, Any] | None:
    """The values of the packaged recipe called `name`, or None if there is none.

    A name without a backbone means the recipe for `backbone`, None for the usual one.
    """
    if name in recipe_names():
        return _values(name)
    usual = str(Recipe.model_fields["backbone"].default)
    values = _nearest(name, backbone or usual)
    return values if values is None else {**values, "backbone": backbone or usual}


def _nearest(stem: str, backbone: str, family: str | None = None) -> dict[str, Any] | None:
    """The values of `<stem>-<backbone>.toml` or its likeliest stand-in, or None if all lack."""
    known = recipe_names()
    own = recipes_of(str(backbone))
    for kind in (backbone, own, family or family_of(str(backbone)), _FALLBACK):
        name = f"{stem}-{kind}"
        if name in known:
            return _values(name)
    return None


def _values(name: str) -> dict[str, Any]:
    return parse_toml((_recipes() / f"{name}{_SUFFIX}").read_text(encoding="utf-8"))


def _recipes() -> Traversable:
    return files("customvideo") / "recipes"


def _full_key(key: str, values: Mapping[str, Any]) -> str:
    """The dotted name of the setting that `key` means."""
    options = known_keys(method_class(str(values["method"])).config_class)
    known = [*known_keys(Recipe), *(f"{_OPTIONS}.{option}" for option in options)]
    if key in known or key.startswith("subjects."):
        return key
    meant = [name for name in known if name.rpartition(".")[2] == key]
    if len(meant) > 1:
        raise ConfigError(f"The setting '{key}' is ambiguous; write one of {', '.join(meant)}.")
    if not meant:
        raise ConfigError(f"There is no setting '{key}'{suggest(key, known)}")
    return meant[0]
