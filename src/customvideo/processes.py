"""Which process something belongs to, and whether it still runs.

What is half-written carries its writer's stamp, so that whoever finds it later can tell work in
progress from what a killed process left behind. Nothing is started, ended or removed here.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
import time
from pathlib import Path

__all__ = ["here", "is_left_behind", "is_running", "stamp"]

_STAMPED = re.compile(r"([0-9a-f]{8})-(\d+)-[0-9a-f]{12}")

_FORGOTTEN = 24 * 3600.0
"""Seconds without a change after which what another machine's process wrote is left behind."""
_CLOCKS_DIFFER = 2.0
"""Seconds by which a file system's clock may be behind the machine's."""


def stamp() -> str:
    """A text for names of files that nobody else makes, telling which process made it."""
    return f"{_machine()}-{os.getpid()}-{secrets.token_hex(6)}"


def is_left_behind(path: Path) -> bool:
    """Whether the process whose stamp is in the name of `path` is gone.

    Of one on another machine, and of a name without a stamp, only time tells: it is when nothing
    was changed there for a day.
    """
    try:
        changed = path.stat().st_mtime
    except OSError:
        return False
    found = _STAMPED.search(path.name)
    if found is None or found[1] != _machine():
        return time.time() - changed > _FORGOTTEN
    return not is_running(int(found[2]), changed)


def is_running(process: int, at: float | None = None) -> bool:
    """Whether the process of that number runs on this machine, and did `at` that time (in seconds
    since the epoch): numbers are given again."""
    import psutil

    try:
        began: float = psutil.Process(process).create_time()
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, OSError):
        return True
    return at is None or began <= at + _CLOCKS_DIFFER


def here() -> str:
    """This machine, as far as numbers of processes mean the same."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}".strip()


def _machine() -> str:
    return hashlib.sha256(here().encode()).hexdigest()[:8]
