"""Looking up a name in one of the literal tables, and in what other packages add to it.

Every variant (a backbone, a method, an encoder …) is a row `name -> "module:attribute"`. A package
adds rows to a table by entry points; a built-in name cannot be taken over. The tables themselves
live beside the protocol their rows answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from customvideo.errors import UserError
from customvideo.settings import suggest

__all__ = ["all_rows", "import_target", "look_up"]


def all_rows(table: Mapping[str, str], group: str | None = None) -> dict[str, str]:
    """The rows of `table` and those that installed packages add as entry points of `group`."""
    return {**({} if group is None else _added(entry_points, group)), **table}


@cache
def _added(read: Callable[..., Iterable[EntryPoint]], group: str) -> dict[str, str]:
    """The rows of installed packages; `read` goes through the disk, so it is called once."""
    return {row.name: row.value for row in read(group=group)}


def import_target(target: str) -> Any:
    """What `"module:attribute"` names; the module is imported now."""
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


def look_up(name: str, rows: Mapping[str, str], kind: str, error: type[UserError]) -> Any:
    """What the row called `name` points at; `kind` is what messages call a row.

    Raises:
        error: there is no such row; the message has the nearest name, or all of them.
    """
    if name not in rows:
        raise error(f"There is no {kind} '{name}'{suggest(name, sorted(rows))}")
    return import_target(rows[name])
