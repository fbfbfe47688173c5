"""Names that a process which is no more gave to what it was writing."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from customvideo.files import hidden_beside


def hidden_of_the_dead(target: Path, kind: str = ".partial") -> Path:
    """As `hidden_beside`, in the name of a process that has ended."""
    name = hidden_beside(target, kind).name
    return target.with_name(name.replace(f"-{os.getpid()}-", f"-{_dead()}-"))


@cache
def _dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid
