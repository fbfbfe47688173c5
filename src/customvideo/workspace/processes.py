"""Processes that outlive whoever started them, and how to know that one is still the same.

A process that works on something holds a lock on it, which ends with the process however that
ends: who holds the lock is alive. A number in a file serves only to end it, and is believed only if
the process of that number began when the file says.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from customvideo.errors import StorageError
from customvideo.workspace.places import read_json, write_json

__all__ = ["end", "held", "own_identity", "start_detached", "started_at"]

_SAME_START = 2.0
"""Seconds by which two readings of a start may differ: the clock may have been set meanwhile."""
_GRACE = 10.0
_LOOK = 0.02


def held(lock: Path) -> bool:
    """Whether a living process holds the lock file."""
    if not lock.exists():
        return False
    try:
        # Longer than another look takes, which holds it too.
        with FileLock(lock, timeout=_LOOK, poll_interval=_LOOK / 4):
            return False
    except Timeout:
        return True


def own_identity(file: Path) -> None:
    """Write down who this process is."""
    write_json(file, {"pid": os.getpid(), "started": psutil.Process().create_time()})


def started_at(file: Path) -> psutil.Process | None:
    """The process that wrote `file`, if it is still that one."""
    try:
        told = read_json(file)
        process = psutil.Process(int(told["pid"]))
        same = abs(process.create_time() - float(told["started"])) < _SAME_START
    except (StorageError, psutil.Error, KeyError, TypeError, ValueError):
        return None
    return process if same and process.status() != psutil.STATUS_ZOMBIE else None


def end(file: Path) -> None:
    """End the process that wrote `file`, with all that it started; nothing if it is gone."""
    process = started_at(file)
    if process is None:
        return
    try:
        family = [*process.children(recursive=True), process]
    except psutil.Error:
        family = [process]
    for one in family:
        _signal(one, "terminate")
    _, alive = psutil.wait_procs(family, timeout=_GRACE)
    for one in alive:
        _signal(one, "kill")
    psutil.wait_procs(alive, timeout=_GRACE)


def start_detached(module: str, arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start `python -m module` so that it stays when this process, or its terminal, ends.

    What it says is added to `log`.
    """
    apart: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS
        apart = {"creationflags": flags}
    with log.open("ab") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            cwd=log.parent,
            env={**os.environ, **_findable()},
            **apart,
        )


def _findable() -> dict[str, str]:
    """The surroundings in which another folder's python finds this very package."""
    root = str(Path(__file__).parents[2])
    known = os.environ.get("PYTHONPATH", "")
    # First, in case another version is installed.
    return {"PYTHONPATH": os.pathsep.join([root, known]) if known else root}


def _signal(process: psutil.Process, what: str) -> None:
    try:
        getattr(process, what)()
    except psutil.Error:
        return
