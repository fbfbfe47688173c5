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

What a recipe leaves out comes from the packaged recipe of its method and backbone. An unknown key
is an error with a suggestion. This file knows no setting by name.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import BaseModel, BeforeValidator, Field

from customvideo.errors import ConfigError
from customvideo.generation import SamplingConfig
from customvideo.methods.base import method_class
from customvideo.settings import Settings, known_keys, suggest, validated
from customvideo.subjects.subject import SubjectSpec
from customvideo.training.config import TrainerConfig

__all__ = [
    "MasksConfig",
    "Recipe",
    "SubjectEntry",
    "apply_sets",
    "default_recipe",
    "dump_toml",
    "load_recipe",
]

_FALLBACK = "unet3d"
_OPTIONS = "method_options"


class MasksConfig(Settings):
    """How masks are made for photos that come without one."""

    segmenter: str = "grabcut"
    """A row of `customvideo.subjects.masks.SEGMENTERS`."""
    model: str = ""
    """The segmenter's weights, a hub id or a folder; empty for its usual ones."""


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
    subjects: dict[str, Annotated[SubjectEntry, BeforeValidator(_entry)]] = Field(
        default_factory=dict
    )
    """Name -> photos, in the order of the learned words."""
    method_options: dict[str, Any] = Field(default_factory=dict)
    """All settings of the method, as its settings class has them."""
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    masks: MasksConfig = Field(default_factory=MasksConfig)

    @property
    def specs(self) -> list[SubjectSpec]:
        """The subjects as `load_subjects` takes them."""
        return [
            SubjectSpec(name, Path(entry.folder).expanduser(), entry.category or None)
            for name, entry in self.subjects.items()
        ]


def load_recipe(path: Path | str) -> Recipe:
    """Read a recipe file.

    Raises:
        ConfigError: it is missing, is not TOML, or holds an unknown key or a wrong value.
    """
    file = Path(path)
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"The recipe '{file}' cannot be read ({(error.strerror or str(error)).lower()}); "
            "check the path."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The recipe '{file}' is not valid TOML: {error}.") from error
    try:
        return _complete(values)
    except ConfigError as error:
        raise ConfigError(f"In the recipe '{file}': {error}") from error


def default_recipe(method: str = "customvideo", backbone: str = "toybox") -> Recipe:
    """The packaged recipe of a method on a backbone.

    Raises:
        ConfigError: there is no such method.
    """
    return _complete({"method": method, "backbone": backbone})


def apply_sets(recipe: Recipe, sets: Sequence[str]) -> Recipe:
    """A recipe with `key=value` settings applied, each as on the command line.

    A key is dotted (`method_options.nu`) or just its last part where that is unambiguous (`nu`);
    a top-level key wins. A value is read as TOML, and as plain text if it is none.

    Raises:
        ConfigError: a key that is unknown or ambiguous, or a value that does not fit.
    """
    values = _plain(recipe)
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"Cannot set '{text}'; write key=value, such as steps=200.")
        *tables, leaf = _full_key(key.strip(), values).split(".")
        table = values
        for name in tables:
            table = table.setdefault(name, {})
        table[leaf] = _parse_value(value.strip())
    return _validated(values)


def dump_toml(recipe: Recipe) -> str:
    """The recipe as TOML, every setting included: equal recipes give equal text."""
    return tomli_w.dumps(_plain(recipe))


def _complete(values: Mapping[str, Any]) -> Recipe:
    """The recipe of `values` over the packaged one of the same method and backbone."""
    method = str(values.get("method", "customvideo"))
    base = _packaged(method, str(values.get("backbone", "toybox")))
    merged: dict[str, Any] = {**base, **values}
    for name, table in base.items():
        if isinstance(table, dict) and isinstance(values.get(name), dict):
            merged[name] = {**table, **values[name]}
    return _validated(merged)


def _validated(values: Mapping[str, Any]) -> Recipe:
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


def _packaged(method: str, backbone: str) -> dict[str, Any]:
    """The values of the packaged recipe that comes nearest, for this very backbone."""
    folder = files("customvideo") / "recipes"
    for name in (backbone, _FALLBACK):
        recipe: Traversable = folder / f"{method}-{name}.toml"
        # A folder or a hub id has no recipe of its own.
        if Path(name).name == name and recipe.is_file():
            values = tomllib.loads(recipe.read_text(encoding="utf-8"))
            return {**values, "method": method, "backbone": backbone}
    return {}


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


def _parse_value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if parsed.keys() == {"value"} else text
