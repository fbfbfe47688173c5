"""A disk that fails: what the operating system may answer to whoever writes, injected where
`customvideo.files` asks it. Permissions would not do: root ignores them.
"""

from __future__ import annotations

import builtins
import errno
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from customvideo import files

FAULTS = ("full", "broken", "short", "rename", "flush")
"""ENOSPC and EIO on writing, a write of which a half arrives without a word, and EIO on renaming
and on flushing."""


@dataclass
class Disk:
    """Fails once, at its operation number `at`, counted from 0."""

    fault: str
    at: int = 0
    done: int = field(default=0, init=False)

    @property
    def failed(self) -> bool:
        """Whether the fault has happened."""
        return self.done > self.at

    def next(self) -> bool:
        """Count an operation; whether it fails."""
        self.done += 1
        return self.done == self.at + 1

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put this disk under `customvideo.files` and everything that renames."""
        if self.fault in ("full", "broken", "short"):
            patch.setattr(files, "open", self._open, raising=False)
        elif self.fault == "rename":
            patch.setattr(os, "replace", self._failing(os.replace))
            patch.setattr(os, "rename", self._failing(os.rename))
        else:
            patch.setattr(os, "fsync", self._failing(os.fsync))

    def _open(self, path: Path, mode: str) -> Any:
        file = builtins.open(path, mode)  # noqa: SIM115 - its user closes it
        return _File(self, file, path) if self.next() else file

    def _failing(self, act: Any) -> Any:
        def maybe(*arguments: Any, **options: Any) -> Any:
            if self.next():
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return act(*arguments, **options)

        return maybe


class _File:
    """An open file on a disk that fails."""

    def __init__(self, disk: Disk, file: Any, path: Path) -> None:
        self._disk, self._file, self._path = disk, file, path

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        self._file.write(data[: len(data) // 2])
        if self._disk.fault == "short":
            return len(data)
        number = errno.ENOSPC if self._disk.fault == "full" else errno.EIO
        raise OSError(number, os.strerror(number), str(self._path))
