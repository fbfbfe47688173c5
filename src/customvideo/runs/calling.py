"""Command lines to show people: they work when pasted into the shell this program was called from.

A program in an environment that is not activated is called by its path, and a path may hold
spaces. Running commands is nobody's business here.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

__all__ = ["command"]

_NAME = "customvideo"


def command(*arguments: object) -> str:
    """`customvideo` with these arguments, quoted where a shell needs it."""
    return shlex.join([_program(), *map(str, arguments)])


def _program() -> str:
    """The bare name if the shell finds this very program by it, else the path it was called by."""
    called = Path(sys.argv[0])
    if called.stem != _NAME or not called.is_file():
        return _NAME
    found = shutil.which(_NAME)
    same = found is not None and Path(found).resolve() == called.resolve()
    return _NAME if same else str(called)
