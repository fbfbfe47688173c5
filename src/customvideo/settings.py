"""Settings as typed, closed records, and one clear sentence about a setting that is wrong.

The small settings classes live beside their owners (`training`, `methods`, …) and are built on
`Settings`; `customvideo.config` composes them into a recipe. This file knows no single setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from customvideo.errors import ConfigError

__all__ = ["FROM_LIST", "LARGEST_SEED", "Settings", "known_keys", "suggest", "validated"]

Model = TypeVar("Model", bound=BaseModel)

LARGEST_SEED = 2**63 - 1
"""The largest seed that torch, numpy and TOML all take."""

FROM_LIST = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
"""For a setting that is a tuple: TOML and JSON know lists only."""

_LONGEST_SHOWN = 60
_PREFIXES = ("Input should be ", "Value error, ")


class Settings(BaseModel):
    """A closed record: an unknown key, a wrong type or a later change is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def validated(
    cls: type[Model],
    values: Mapping[str, Any],
    *,
    prefix: str = "",
    extra_keys: Iterable[str] = (),
) -> Model:
    """Make a `cls` from `values`.

    `prefix` is the dotted name of the table they stand in, with its dot; `extra_keys` are further
    names that a misspelt key is compared with.

    Raises:
        ConfigError: an unknown key, a missing one, or a value that does not fit.
    """
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        known = [f"{prefix}{key}" for key in known_keys(cls)]
        message = _explain(error.errors()[0], prefix, [*known, *extra_keys])
        raise ConfigError(message) from error


def known_keys(cls: type[BaseModel]) -> list[str]:
    """The dotted names of all settings of `cls`, tables followed by their own settings."""
    keys: list[str] = []
    for name, field in cls.model_fields.items():
        keys.append(name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += [f"{name}.{inner}" for inner in known_keys(field.annotation)]
    return keys


def suggest(key: str, known: Iterable[str]) -> str:
    """The rest of a sentence about the unknown `key`: the nearest known name, else all of them."""
    names, key = list(known), key.lower()
    # The table a key stands in is never what was meant by the key.
    inner = [name for name in names if not key.startswith(f"{name}.")]
    # A key may be right but for its table: compare the last parts, too.
    leaves = {name.rpartition(".")[2]: name for name in reversed(inner)}
    leaf = key.rpartition(".")[2]
    if key not in names and leaf in leaves:
        return f"; did you mean '{leaves[leaf]}'?"
    if close := get_close_matches(key, inner, n=1):
        return f"; did you mean '{close[0]}'?"
    if close := get_close_matches(leaf, leaves, n=1):
        return f"; did you mean '{leaves[close[0]]}'?"
    return f"; known are {', '.join(names)}."


def _explain(problem: ErrorDetails, prefix: str, known: list[str]) -> str:
    key = prefix + ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"There is no setting '{key}'{suggest(key, known)}"
    if problem["type"] == "missing":
        return f"The setting '{key}' is missing; add it."
    wanted = problem["msg"]
    for prefix in _PREFIXES:
        wanted = wanted.removeprefix(prefix)
    if problem["type"] == "too_short":
        wanted = f"a list of {problem['ctx']['min_length']} or more"
    elif problem["type"] == "tuple_type":
        wanted = "a list"
    shown = repr(problem["input"])
    value = shown if len(shown) <= _LONGEST_SHOWN else "what it is"
    return f"The setting '{key}' cannot be {value}: it should be {wanted}."
