"""One runner at a time: who holds a folder, told by a file in it that its holder keeps touching.

A claim is made by creating a file that must not exist, which one of several runners can do, on any
file system they share. A holder that was killed leaves its claim behind; it counts no more once
nobody has touched it for a while, or at once if its process is seen to be gone. What is done in the
folder is nobody's business here.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from customvideo.files import ensure_dir, storage_error
from customvideo.processes import here, is_running
from customvideo.records import read_record

__all__ = ["EXPIRY", "Claim", "TakenOver", "claimed", "forget_expired"]

EXPIRY = 120.0
"""Seconds after which a claim that nobody has touched is nobody's."""

_BEAT = EXPIRY / 12
_PREFIX = "claim-"


class TakenOver(Exception):
    """Another runner has taken the folder from this one, which had seemed dead."""


class Claim:
    """A folder held by this runner; `lost` once another has taken it over.

    That happens to a process that was suspended for longer than `EXPIRY`.
    """

    def __init__(self, path: Path, token: str) -> None:
        self._path, self._token = path, token
        self._over = threading.Event()
        self.lost = False
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    def require(self) -> None:
        """Check that the folder is still this runner's.

        Raises:
            TakenOver: it is not.
        """
        if self.lost:
            raise TakenOver

    def release(self) -> None:
        """Let others have the folder."""
        self._over.set()
        self._heart.join()
        if self._is_ours():
            self._path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._over.wait(_BEAT):
            if not self._is_ours():
                self.lost = True
                return
            with suppress(OSError):
                os.utime(self._path)

    def _is_ours(self) -> bool:
        try:
            return self._token in self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return False
        except OSError:
            # A hiccup of a shared file system is no takeover.
            return True


@contextmanager
def claimed(folder: Path) -> Iterator[Claim | None]:
    """Hold `folder` for the block; None if another runner holds it.

    Raises:
        StorageError: the folder cannot be written.
    """
    claim = _take(folder)
    try:
        yield claim
    finally:
        if claim is not None:
            claim.release()


def _take(folder: Path) -> Claim | None:
    standing = _standing(ensure_dir(folder))
    if standing and _counts(standing[-1]):
        return None
    # Numbered, so that of several who find the same claim expired one alone can make the next.
    number = _number(standing[-1]) + 1 if standing else 0
    path, token = folder / f"{_PREFIX}{number}", secrets.token_hex(8)
    told = json.dumps({"token": token, "where": here(), "process": os.getpid()})
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return None
    except OSError as error:
        raise storage_error(error, path) from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(told)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise storage_error(error, path) from error
    for expired in standing:
        expired.unlink(missing_ok=True)
    return Claim(path, token)


def forget_expired(folder: Path) -> None:
    """Remove the claims on `folder` of holders that are gone."""
    for claim in _standing(folder):
        if not _counts(claim):
            claim.unlink(missing_ok=True)


def _standing(folder: Path) -> list[Path]:
    """All claims on the folder, the one that may count last."""
    found = [path for path in folder.glob(f"{_PREFIX}*") if path.name[len(_PREFIX) :].isdecimal()]
    return sorted(found, key=_number)


def _number(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


def _counts(path: Path) -> bool:
    """Whether the holder of the claim at `path` is still there, as far as can be told."""
    try:
        silent = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return False
    if silent > EXPIRY:
        return False
    told = read_record(path)
    process = told.get("process")
    # One that is just being written says nothing yet.
    return told.get("where") != here() or not isinstance(process, int) or is_running(process)
