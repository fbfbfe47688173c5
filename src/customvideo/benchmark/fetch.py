"""Fetching an edition's photos from where their authors keep them.

The folder that comes out is an edition itself: subject folders, the manifest, and the checksum of
every file at its first fetch, by which later changes are noticed. Files that are there already are
not fetched again. Of an archive only the wanted members are read, if its server can send parts of
a file. How one file comes is `customvideo.benchmark.download`'s business.
"""

from __future__ import annotations

import io
import os
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from customvideo.benchmark.download import (
    Patience,
    RangeFile,
    Rangeless,
    Unreachable,
    download,
    part_of,
)
from customvideo.benchmark.editions import Edition, OwnFolder, load_edition
from customvideo.benchmark.folder import key_of, read_checksums, sha256, write_checksums
from customvideo.benchmark.manifest import (
    MANIFEST,
    FileEntry,
    Source,
    SubjectEntry,
    read_manifest,
)
from customvideo.errors import BenchmarkError, SubjectError, UserError
from customvideo.files import ensure_dir, storage_error, write_bytes, write_text
from customvideo.subjects.pictures import read_picture

__all__ = ["Patience", "fetch"]

Say = Callable[[str], None]

_READ_AHEAD = 4 << 20
"""Bytes asked of an archive at a time: a photo or two."""
_LARGEST = 100 << 20
"""No photo has more bytes; an archive that says so would fill the memory."""
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, IndexError),
    *(NotImplementedError, OverflowError, RuntimeError),
)
"""What reading a zip file raises where it is damaged, locked, or of a kind that is not known."""
_SAY_EVERY = 2.0
_ARCHIVES = ".archives"


@dataclass(frozen=True)
class _Wanted:
    """One file that is still to come."""

    target: Path
    key: str
    file: FileEntry


@dataclass
class _Progress:
    """How much has come, told every few seconds; files finish in any thread."""

    say: Say
    total: int
    done: int = 0
    size: int = 0
    sums: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    told: float = 0.0

    def bytes_came(self, count: int) -> None:
        with self.lock:
            self.size += count
            now = time.monotonic()
            if now - self.told > _SAY_EVERY:
                self.told = now
                self.say(f"{self.done} of {self.total} files, {self.size / 1e6:.1f} MB")

    def finished(self, wanted: _Wanted, checksum: str) -> None:
        with self.lock:
            self.done += 1
            self.sums[wanted.key] = checksum

    def failed(self, fault: UserError) -> None:
        with self.lock:
            self.faults.append(str(fault))


def fetch(
    edition: str | Path | Edition,
    out: Path | None = None,
    *,
    names: Sequence[str] | None = None,
    patience: Patience = Patience(),  # noqa: B008 - it cannot change
    say: Say = lambda _: None,
) -> Path:
    """Fetch the photos of an edition, or of its subjects `names`, and return their folder.

    A stopped fetch goes on when it is called again. An edition whose photos are drawn has them
    drawn. `out` None is the folder where `load_edition` looks.

    Raises:
        BenchmarkError: unknown subjects, another edition in `out`, no connection, or files that
            are not to be had or are not what the manifest or an earlier fetch knows; all others
            are fetched first.
        StorageError: `out` cannot be written.
    """
    if not isinstance(edition, Edition):
        edition = load_edition(edition, out)
    root = ensure_dir(out or edition.root)
    chosen = edition.subjects if names is None else names
    entries = [edition.manifest.subject(name) for name in chosen]
    _write_manifest(root / MANIFEST, edition)
    edition.source.prepare(chosen, root)
    sums = read_checksums(root)
    wanted = [one for entry in entries for one in _missing(root, entry, sums)]
    progress = _Progress(say, len(wanted), sums=sums)
    try:
        _fetch_all(wanted, edition.manifest.sources, root, patience, progress)
    finally:
        if sums:
            write_checksums(root, sums)
    if progress.faults:
        more = len(progress.faults) - 1
        rest = f" ({more} more files could not be fetched, either.)" if more else ""
        raise BenchmarkError(progress.faults[0] + rest)
    say(f"'{edition.name}' is in '{root}': {len(entries)} subjects, {len(wanted)} files fetched.")
    return root


def _write_manifest(path: Path, edition: Edition) -> None:
    """Make the folder an edition; what its owner wrote there stays, and nothing is added to it."""
    source, sources = edition.source, edition.manifest.sources
    if path.is_file() and (other := read_manifest(path).name) != edition.name:
        raise BenchmarkError(
            f"'{path.parent}' holds the edition '{other}' already; choose another folder for "
            f"'{edition.name}'."
        )
    own = isinstance(source, OwnFolder) and path.parent.samefile(source.home)
    if not own or (sources and not path.is_file()):
        write_text(path, edition.manifest.dump())


def _missing(root: Path, entry: SubjectEntry, sums: dict[str, str]) -> Iterator[_Wanted]:
    """The subject's files that have a source and are not here; those that are get recorded."""
    for file in entry.files:
        wanted = _Wanted(_below(root, entry, file), key_of(entry, file), file)
        if not file.source:
            continue
        if not wanted.target.is_file():
            yield wanted
        elif wanted.key not in sums:
            # A file is only ever here whole: it was renamed into place, or the user put it there.
            _require_known(wanted.target, sha256(wanted.target), file.sha256)
            sums[wanted.key] = sha256(wanted.target)


def _below(root: Path, entry: SubjectEntry, file: FileEntry) -> Path:
    """Where a file goes; never outside `root`, whatever a manifest from elsewhere says."""
    place = Path(entry.place)
    if place.is_absolute() or ".." in place.parts:
        raise BenchmarkError(
            f"Subject '{entry.name}' lies in '{entry.place}', outside the edition's folder; "
            "nothing is fetched there."
        )
    return root / place / file.file


def _fetch_all(
    wanted: Sequence[_Wanted],
    sources: dict[str, Source],
    root: Path,
    patience: Patience,
    progress: _Progress,
) -> None:
    single = [one for one in wanted if not sources[one.file.source].archive]
    with _threads(patience.jobs) as pool:
        tasks = [
            pool.submit(_fetch_one, one, sources[one.file.source], patience, progress)
            for one in single
        ]
        for task in as_completed(tasks):
            task.result()
    for name, source in sources.items():
        members = [one for one in wanted if one.file.source == name and source.archive]
        if members:
            _fetch_members(members, source, root / _ARCHIVES / f"{name}.zip", patience, progress)


@contextmanager
def _threads(jobs: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that are not given new work once something went wrong for all of them."""
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="fetch")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _fetch_one(one: _Wanted, source: Source, patience: Patience, progress: _Progress) -> None:
    """Fetch one file; only what concerns all others is raised."""
    addresses = [address + one.file.path for address in source.addresses]
    try:
        _accept(download(addresses, one.target, patience, progress.bytes_came), one, progress)
    except Unreachable:
        raise
    except BenchmarkError as fault:
        progress.failed(fault)


def _accept(part: Path, one: _Wanted, progress: _Progress) -> None:
    """Put a whole file in its place if it is a picture, and the one that is known."""
    try:
        checksum = sha256(part)
        _require_known(one.target, checksum, one.file.sha256 or progress.sums.get(one.key, ""))
        _require_picture(part, one.target)
        os.replace(part, one.target)
    except OSError as error:
        raise storage_error(error, one.target) from error
    finally:
        # Going on from what is wrong as a whole would be wrong, too.
        part.unlink(missing_ok=True)
    progress.finished(one, checksum)


def _require_picture(part: Path, target: Path) -> None:
    try:
        read_picture(part)
    except SubjectError as error:
        raise BenchmarkError(
            f"What was sent as '{target}' is no picture that can be used; if a login page of the "
            "network answers in its place, sign in and fetch again."
        ) from error


def _require_known(path: Path, checksum: str, known: str) -> None:
    if known and checksum != known:
        raise BenchmarkError(
            f"'{path}' should have the SHA-256 {known[:12]}…, not {checksum[:12]}…: its source "
            "has changed or something on the way altered it; fetch again or from elsewhere."
        )


def _fetch_members(
    members: Sequence[_Wanted],
    source: Source,
    whole: Path,
    patience: Patience,
    progress: _Progress,
) -> None:
    """Read the wanted members of an archive, by parts of it if its server sends parts."""
    try:
        with _remote(source, patience, progress) as archive:
            _extract(archive, members, progress)
    except Rangeless:
        progress.say("The server sends the archive as a whole only; this takes longer.")
        if not whole.is_file():
            os.replace(download(source.addresses, whole, patience, progress.bytes_came), whole)
        left = [one for one in members if not one.target.is_file()]
        try:
            with whole.open("rb") as file, _archive(file, source) as archive:
                _extract(archive, left, progress)
        except BenchmarkError:
            whole.unlink()
            raise
        whole.unlink()


@contextmanager
def _remote(source: Source, patience: Patience, progress: _Progress) -> Iterator[zipfile.ZipFile]:
    """The archive at the first address that answers."""
    for address in source.addresses[:-1]:
        try:
            file = RangeFile(address, patience, progress.bytes_came)
            break
        except BenchmarkError:
            continue
    else:
        file = RangeFile(source.addresses[-1], patience, progress.bytes_came)
    with _archive(io.BufferedReader(file, _READ_AHEAD), source) as archive:
        yield archive


@contextmanager
def _archive(file: IO[bytes] | io.BufferedReader, source: Source) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(file)
    except BenchmarkError:
        raise
    except _DAMAGED as error:
        raise BenchmarkError(
            f"'{source.addresses[0]}' is no zip archive or is damaged ({error}); fetch again."
        ) from error
    with archive:
        yield archive


def _extract(archive: zipfile.ZipFile, members: Sequence[_Wanted], progress: _Progress) -> None:
    """Copy members to their targets; their own names never become paths."""
    for one in members:
        try:
            _extract_one(archive, one, progress)
        except Unreachable:
            raise
        except BenchmarkError as fault:
            progress.failed(fault)


def _extract_one(archive: zipfile.ZipFile, one: _Wanted, progress: _Progress) -> None:
    data = _member(archive, one.file)
    part = part_of(one.target)
    write_bytes(part, data)
    _accept(part, one, progress)


def _member(archive: zipfile.ZipFile, file: FileEntry) -> bytes:
    """The content of one file of an archive, as large as a photo may be.

    Raises:
        BenchmarkError: it is not there, too large, locked or damaged.
    """
    name = f"'{file.path}' of the archive of '{file.source}'"
    try:
        if archive.getinfo(file.path).file_size > _LARGEST:
            raise BenchmarkError(f"{name} is over {_LARGEST >> 20} MB large, which is no photo.")
        return archive.read(file.path)
    except BenchmarkError:
        raise
    except KeyError as error:
        raise BenchmarkError(f"{name} is not there; correct the manifest.") from error
    except _DAMAGED as error:
        raise BenchmarkError(f"{name} is damaged ({error}); fetch again.") from error
