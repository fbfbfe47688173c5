"""Getting one file over HTTP whole: resumed, retried, never half-written.

An interrupted download goes on from its `.part` file by a range request that names the version
(`If-Range`, RFC 9110 section 13.1.5), so parts of two versions are never joined. Which files are
wanted, and from where, is `customvideo.benchmark.fetch`'s business.
"""

from __future__ import annotations

import http.client
import io
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from customvideo import __version__
from customvideo.errors import BenchmarkError
from customvideo.files import ensure_dir, storage_error

__all__ = ["Patience", "RangeFile", "Rangeless", "Unreachable", "download", "part_of"]

Got = TypeVar("Got")
Tell = Callable[[int], None]
"""Hears of every few bytes that have come, how many."""

_BLOCK = 1 << 16
_GONE = (400, 401, 403, 404, 410, 451)
_PARTIAL, _UNSATISFIABLE = 206, 416
_LONGEST_PAUSE = 60.0


@dataclass(frozen=True)
class Patience:
    """How long to try before giving up.

    Attributes:
        attempts: tries in a row that bring nothing; each goes on where the last one stopped.
        pause: seconds before the second try, doubled each time; a server may ask for more.
        timeout: seconds without a byte that end a try.
        jobs: files fetched at a time.
    """

    attempts: int = 5
    pause: float = 1.0
    timeout: float = 30.0
    jobs: int = 4


class Unreachable(BenchmarkError):
    """There is no connection: other files of this source will not come either."""


class Rangeless(Exception):
    """The server sends whole files only."""


class _Gone(Exception):
    """This address does not have the file, and asking again will not help."""


class _Cut(Exception):
    """The connection ended too early; `progressed` tells whether any byte had come."""

    def __init__(self, progressed: bool) -> None:
        super().__init__("breaks off")
        self.progressed = progressed


def download(
    addresses: Sequence[str], target: Path, patience: Patience, tell: Tell = lambda _: None
) -> Path:
    """Download the first address that has the file beside `target`, and return where it lies.

    The caller looks at it and renames it; `target` is not touched.

    Raises:
        Unreachable: there is no connection to any address.
        BenchmarkError: no address has the file.
        StorageError: the place cannot be written.
    """
    ensure_dir(target.parent)
    part, faults = part_of(target), []
    for address in addresses:
        try:
            _persist(partial(_go_on, address, part, patience, tell), address, patience)
        except (_Gone, Unreachable) as fault:
            faults.append(fault)
        else:
            _etag_of(part).unlink(missing_ok=True)
            return part
    told = "; ".join(str(fault).rstrip(".") for fault in faults)
    if all(isinstance(fault, Unreachable) for fault in faults):
        raise Unreachable(f"{told}.")
    raise BenchmarkError(f"'{target.name}' cannot be fetched: {told}.")


def part_of(target: Path) -> Path:
    """Where a file grows until it is whole."""
    return target.with_name(f"{target.name}.part")


class RangeFile(io.RawIOBase):
    """A file on a server, read piece by piece; wrap it in a buffer of a few megabytes.

    Raises, when made and when read, what `download` raises for one address, and `Rangeless`.
    """

    def __init__(self, address: str, patience: Patience, tell: Tell = lambda _: None) -> None:
        self.address, self.patience, self.notify = address, patience, tell
        self.place = 0
        self.size = 0
        self._read_at(0, 1)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        self.place = start + offset
        return self.place

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self.size - self.place)
        if wanted <= 0:
            return 0
        data = self._read_at(self.place, wanted)
        buffer[: len(data)] = data
        self.place += len(data)
        return len(data)

    def _read_at(self, start: int, count: int) -> bytes:
        try:
            return _persist(lambda: self._ask(start, count), self.address, self.patience)
        except _Gone as fault:
            raise BenchmarkError(f"{fault}.") from fault

    def _ask(self, start: int, count: int) -> bytes:
        asked = {"Range": f"bytes={start}-{start + count - 1}"}
        with _open(self.address, asked, self.patience.timeout) as response:
            size = response.headers.get("Content-Range", "").rpartition("/")[2]
            if response.status != _PARTIAL or not size.isdecimal():
                raise Rangeless
            self.size = int(size)
            data: bytes = response.read()
        if len(data) != count and start + len(data) != self.size:
            raise _Cut(False)
        self.notify(len(data))
        return data


def _persist(action: Callable[[], Got], address: str, patience: Patience) -> Got:
    """What `action` returns, tried again while that can help."""
    left, pause, fault = patience.attempts, patience.pause, "nothing was tried"
    reached = False
    while left > 0:
        left -= 1
        wait = pause
        try:
            return action()
        except urllib.error.HTTPError as error:
            fault = f"'{address}' answers {error.code} ({error.reason})"
            reached, wait = True, max(pause, _asked_pause(error))
            error.close()
            if error.code in _GONE:
                raise _Gone(fault) from error
        except _Cut as cut:
            fault, reached = f"'{address}' breaks off again and again", True
            if cut.progressed:
                left, pause = patience.attempts, patience.pause
                wait = pause
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            fault = f"{_host(address)} cannot be reached ({reason})"
            reached = False
        if left > 0:
            time.sleep(min(wait, _LONGEST_PAUSE))
            pause *= 2
    if reached:
        raise _Gone(fault)
    raise Unreachable(f"{fault}; check the connection and fetch again: what came is kept.")


def _asked_pause(error: urllib.error.HTTPError) -> float:
    """The seconds a busy server asks to wait; a date is not worth reading."""
    text = error.headers.get("Retry-After", "") if error.headers else ""
    return float(text) if text.isdecimal() else 0.0


def _go_on(address: str, part: Path, patience: Patience, tell: Tell) -> None:
    """Fetch what `part` lacks; _Cut if the connection ends before its time."""
    etag = _etag_of(part)
    have = part.stat().st_size if part.is_file() and etag.is_file() else 0
    asked = {"Range": f"bytes={have}-", "If-Range": etag.read_text("utf-8")} if have else {}
    try:
        with _open(address, asked, patience.timeout) as response:
            start = have if response.status == _PARTIAL else 0
            _note_version(part, response.headers.get("ETag", ""))
            length = response.headers.get("Content-Length")
            got = _copy(response, part, start, tell)
    except urllib.error.HTTPError as error:
        if error.code == _UNSATISFIABLE and have:
            # The part is no beginning of what is there now.
            etag.unlink(missing_ok=True)
            raise _Cut(False) from error
        raise
    if length is not None and got != int(length):
        raise _Cut(got > 0)


def _copy(response: Any, part: Path, start: int, tell: Tell) -> int:
    """Write the response behind the first `start` bytes of `part`; how many bytes came."""
    got = 0
    with _writing(part, partial(part.open, "r+b" if start else "wb")) as file:
        file.seek(start)
        file.truncate()
        while True:
            try:
                block = response.read(_BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise _Cut(got > 0) from error
            if not block:
                return got
            _writing(part, partial(file.write, block))
            got += len(block)
            tell(len(block))


def _writing(part: Path, action: Callable[[], Got]) -> Got:
    """A full disk is no reason to try again."""
    try:
        return action()
    except OSError as error:
        raise storage_error(error, part) from error


def _note_version(part: Path, etag: str) -> None:
    """Remember which version `part` begins; without a strong ETag it cannot be gone on with."""
    if etag and not etag.startswith("W/"):
        _writing(part, lambda: _etag_of(part).write_text(etag, "utf-8"))
    else:
        _etag_of(part).unlink(missing_ok=True)


def _etag_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _open(address: str, headers: dict[str, str], timeout: float) -> Any:
    if urllib.parse.urlsplit(address).scheme not in ("http", "https"):
        raise BenchmarkError(f"'{address}' is no web address; write one with https://.")
    known = {"User-Agent": f"customvideo/{__version__}", **headers}
    quoted = urllib.parse.quote(address, safe=":/?&=%~@+,;")
    return urllib.request.urlopen(urllib.request.Request(quoted, headers=known), timeout=timeout)


def _host(address: str) -> str:
    return urllib.parse.urlsplit(address).netloc
