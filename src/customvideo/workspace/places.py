"""Where things lie in a workspace, and the only way from a name to a path.

Ids are made here and nowhere else: whatever comes from outside is either checked to be one, or is
a name for people, which never becomes a path. What lies in the folders is their owners' business.

    projects/<id>/project.json            name, settings, subjects in order
    projects/<id>/subjects/<name>/        photos, masks/, subject.toml: what `load_subjects` takes
    adapters/<id>/                        the folder of a training run
    videos/<id>/                          video.mp4, video.gif, settings.json
    jobs/<id>/                            what is to be done, how far it is, its log
    trash/<id>/                           what was deleted, until the trash is emptied
"""

from __future__ import annotations

import json
import re
import secrets
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from customvideo.errors import StorageError
from customvideo.files import write_text
from customvideo.records import parse_json

__all__ = [
    "ADAPTERS",
    "FORMAT",
    "JOBS",
    "PROJECTS",
    "SUBJECTS",
    "TRASH",
    "VIDEOS",
    "check_id",
    "clean_name",
    "inside",
    "new_id",
    "now",
    "read_json",
    "slug",
    "write_json",
]

FORMAT = 1
"""Of every JSON file in a workspace; a file of a later one is refused."""

PROJECTS, SUBJECTS, ADAPTERS = "projects", "subjects", "adapters"
VIDEOS, JOBS, TRASH = "videos", "jobs", "trash"

_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*-[0-9a-f]{8}")
_LONGEST_ID, _LONGEST_SLUG, _LONGEST_NAME, _LONGEST_PART = 64, 40, 80, 200
_PART = re.compile(r"[A-Za-z0-9._-]*[A-Za-z0-9_-]")
"""A part of a path: nothing that a shell, another system or a browser reads its own way."""
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
_LARGEST = 4 * 2**20


def slug(name: str) -> str:
    """`name` in lower-case letters, digits and hyphens: `toms-cat`; `item` if none is left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_LONGEST_SLUG].strip("-") or "item"


def new_id(name: str) -> str:
    """A new id that begins with the slug of `name` and never comes twice."""
    return f"{slug(name)}-{secrets.token_hex(4)}"


def check_id(text: str) -> str:
    """Return `text` if it can be an id made by `new_id`.

    Raises:
        StorageError: it cannot be.
    """
    if not isinstance(text, str) or len(text) > _LONGEST_ID or not _ID.fullmatch(text):
        raise StorageError(f"{_shown(text)} is no id of this workspace; choose one from its lists.")
    return text


def clean_name(name: str, what: str) -> str:
    """`name` for people, on one line and without invisible characters.

    Raises:
        StorageError: nothing is left of it, or it is too long.
    """
    kept = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in str(name))
    text = " ".join(kept.split())
    if not text or len(text) > _LONGEST_NAME:
        raise StorageError(f"Give the {what} a name of 1 to {_LONGEST_NAME} characters.")
    return text


def inside(root: Path, *parts: str) -> Path:
    """The path `parts` below `root`, each part one plain name; it need not exist.

    Raises:
        StorageError: a part leads elsewhere (`..`, a slash, an absolute path, a reserved name), or
            something on the way is a symbolic link.
    """
    path = Path(root)
    if not parts:
        raise StorageError("No place in the workspace was named; choose one from its lists.")
    for part in parts:
        plain = isinstance(part, str) and len(part) <= _LONGEST_PART and _PART.fullmatch(part)
        if not plain or _RESERVED.fullmatch(part):
            raise StorageError(
                f"{_shown(part)} is no place in the workspace; choose one from its lists."
            )
        path = path / part
        if path.is_symlink():
            raise StorageError(
                f"'{path}' is a link, and a workspace follows none; put the files themselves there."
            )
    return path


def now() -> str:
    """The time as text: ISO 8601, UTC, to the millisecond, so that it sorts."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` and the format's version, all or nothing."""
    text = json.dumps({"format": FORMAT, **values}, indent=2, ensure_ascii=False)
    write_text(path, text + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote to `path`, without the version.

    Raises:
        StorageError: it is missing, damaged, huge, or of a later version of this program.
    """
    if path.is_symlink() or not path.is_file():
        raise StorageError(f"There is no '{path}'; it was deleted or never finished.")
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("too large")
        values = parse_json(path.read_text(encoding="utf-8"))
        version = values.pop("format")
    except OSError as error:
        raise StorageError(f"'{path}' cannot be read ({error.strerror or error}).") from error
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise StorageError(f"'{path}' is damaged; delete it or restore a copy.") from error
    if not isinstance(version, int) or version > FORMAT:
        raise StorageError(f"'{path}' is of a later version of customvideo; update customvideo.")
    found: dict[str, Any] = values
    return found


def _shown(text: object) -> str:
    shown = str(text)
    return repr(shown if len(shown) <= _LONGEST_NAME else f"{shown[:_LONGEST_NAME]}…")
