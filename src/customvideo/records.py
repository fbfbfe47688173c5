"""Plain texts of names and values: JSON and TOML from anywhere, and records of what was done.

Whoever wrote such a file may be a stranger, so reading has one way to fail, whatever is wrong.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from customvideo.files import write_text

__all__ = ["parse_json", "parse_toml", "read_record", "write_record"]

_TOO_DEEP, _DEEPEST = "it is nested too deeply", 100
_MOST_DOTS = 1_000  # of a line of TOML: its parser's time grows with the square of a key's parts


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is no JSON, is nested deeper than anything of use, or holds half a character,
            which no file can hold.
    """
    return _parsed(json.loads, text)


def parse_toml(text: str) -> dict[str, Any]:
    """What a TOML text says; raises as `parse_json`."""
    if any(line.count(".") > _MOST_DOTS for line in text.splitlines()):
        raise ValueError("a line of it has too many dots")
    table: dict[str, Any] = _parsed(tomllib.loads, text)
    return table


def _parsed(parse: Callable[[Any], Any], text: str | bytes) -> Any:
    try:
        level = [value := parse(text)]
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    for _ in range(_DEEPEST):
        for one in level:
            if isinstance(one, str):
                one.encode()
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return value
    raise ValueError(_TOO_DEEP)


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []


def read_record(path: Path | str) -> dict[str, Any]:
    """The JSON object in a file; nothing of a file that is missing or damaged, whose owner makes it
    anew."""
    try:
        told = parse_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def write_record(path: Path | str, record: Mapping[str, Any] | list[Any]) -> None:
    """Write a JSON object or list, for people to read too; raises as `write_text`."""
    write_text(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
