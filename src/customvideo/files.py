"""Writing files so that nothing half-written is ever left behind.

Every file the package makes goes through `atomic_path` (or the two shorthands built on it):
the content is written to a hidden neighbour, flushed to the disk, and renamed into place only when
complete, so an earlier result survives a full disk, a killed run and a power cut. What a killed
process left is removed by the next one that writes there. It is NOT a format library: what goes
into a file is its owner's business; plain ones are `records.py`.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from customvideo.errors import StorageError
from customvideo.processes import is_left_behind, stamp

__all__ = [
    "atomic_folder",
    "atomic_path",
    "discard",
    "ensure_dir",
    "expanded",
    "hidden_beside",
    "is_dir",
    "is_explained",
    "is_file",
    "locked",
    "put",
    "require_free",
    "storage_error",
    "sweep",
    "sync_folder",
    "write_bytes",
    "write_text",
]

LOCK = ".lock"
_PARTIAL = ".partial"

_CAUSES = {
    errno.ENOSPC: "the disk is full; free some space or choose another place",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another place",
    errno.EACCES: "permission is denied; choose a folder you may write to",
    errno.EPERM: "permission is denied; choose a folder you may write to",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another path",
    errno.EEXIST: "a file stands where a folder is needed; choose another path",
    errno.EISDIR: "a folder of that name exists; choose another file name",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EFBIG: "the file is too large for this file system; choose another place",
    errno.EIO: "the disk reports an error; check it, or choose another place",
}
_UNSYNCABLE = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM)
"""What file systems answer that keep no folders to be flushed."""


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends well.

    The temporary path has the same suffix, so a codec that chooses its format by suffix can
    write straight to it. It is flushed to the disk before the rename, the folder after it, and it
    is removed on any error. Missing parent folders are made.

    Raises:
        StorageError: the place cannot be written (full, forbidden, read-only, not a folder).
    """
    target = _target(Path(path))
    _sweep_once(ensure_dir(target.parent))
    partial = hidden_beside(target)
    with _told(target, partial):
        try:
            yield partial
            put(partial, target)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty hidden folder beside `path` that becomes it when the block ends well.

    It vanishes on any error, and with it the parent folders made for it.

    Raises:
        StorageError: there is something at `path` already, or the place cannot be written.
    """
    target = Path(path)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise StorageError(f"There is something at '{path}' already; choose another place.")
    missing = [folder for folder in target.parents if not folder.exists()]
    _sweep_once(ensure_dir(target.parent))
    partial = hidden_beside(target)
    try:
        with _told(target, partial):
            yield ensure_dir(partial)
            _flush_all(partial)
            with suppress(OSError):
                # An empty folder is as good as none, but Windows would not rename over it.
                target.rmdir()
            os.rename(partial, target)
            sync_folder(target.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


def expanded(place: str | os.PathLike[str]) -> Path:
    """`place` with a leading `~` made the home folder; as it is where nobody knows that home,
    which `Path.expanduser` answers with an error."""
    return Path(os.path.expanduser(place))


def is_file(path: Path) -> bool:
    """Whether there is such a file; no name is too long or too strange to be asked for."""
    with suppress(OSError, ValueError):
        return path.is_file()
    return False


def is_dir(path: Path) -> bool:
    """Whether there is such a folder, as `is_file`."""
    with suppress(OSError, ValueError):
        return path.is_dir()
    return False


def put(partial: Path, target: Path) -> None:
    """Move the whole file `partial` to `target`, in the same folder, and make both last."""
    _flush(partial)
    os.replace(partial, target)
    sync_folder(target.parent)


def hidden_beside(target: Path, kind: str = _PARTIAL) -> Path:
    """A new hidden name beside `target`, with its suffix: what `sweep` removes once this process
    is gone, unless it is of another `kind`."""
    return target.with_name(f".{stamp()}{kind}{target.suffix}")


def discard(folder: Path) -> None:
    """Remove a folder, if it is there, so that no half of it is ever seen."""
    doomed = hidden_beside(folder)
    with suppress(OSError):
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def sweep(folder: Path) -> list[Path]:
    """Remove what killed processes left half-written in `folder` and below, and return it.

    What a process that still runs is writing stays.
    """
    return _sweep(folder.rglob(f".*{_PARTIAL}*")) if folder.is_dir() else []


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder`, which is there, against other processes for the block.

    The lock dies with its process, whatever kills it.

    Raises:
        StorageError: another process holds it, or the folder cannot be written.
    """
    import filelock

    lock = filelock.FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise StorageError(
            f"Another process is at work in '{folder}'; wait until it ends, or choose another "
            "place."
        ) from None
    except OSError as error:
        raise storage_error(error, folder) from error
    try:
        yield
    finally:
        with suppress(OSError):
            # While it is held: whoever waits for it sees that it is gone, and makes a new one.
            os.unlink(folder / LOCK)
        lock.release()


def write_text(path: Path | str, text: str) -> None:
    """Write `text` as UTF-8 with plain newlines, all or nothing; see `atomic_path`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data`, all or nothing; see `atomic_path`."""
    with atomic_path(path) as partial:
        with open(partial, "wb") as file:
            file.write(data)
        if partial.stat().st_size != len(data):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(partial))


def ensure_dir(path: Path | str) -> Path:
    """Make the folder `path` and its parents if missing, and return it.

    Raises:
        StorageError: the folder cannot be made.
    """
    folder = Path(path)
    missing = [one for one in (folder, *folder.parents) if not os.path.exists(one)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for made in missing:
            sync_folder(made.parent)
    except OSError as error:
        raise storage_error(error, folder) from error
    return folder


def require_free(path: Path | str, size: int) -> None:
    """Check that the disk under `path` (which need not exist yet) has `size` bytes free.

    Raises:
        StorageError: there is less.
    """
    place = Path(path).absolute()
    while not os.path.exists(place):
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < size:
        raise StorageError(
            f"'{path}' needs {_megabytes(size)} but its disk has only {_megabytes(free)} free; "
            "free some space or choose another place."
        )


def _target(path: Path) -> Path:
    # A link keeps pointing where it did: its destination is what gets replaced.
    target = Path(os.path.realpath(path)) if os.path.islink(path) else path
    if os.path.isdir(target):
        raise StorageError(f"Cannot write '{path}': {_CAUSES[errno.EISDIR]}.")
    if os.path.exists(target) and not os.path.isfile(target):
        # Renaming over a device such as /dev/null would destroy it.
        raise StorageError(f"Cannot write '{path}': it is a device; choose an ordinary file name.")
    return target


@cache
def _sweep_once(folder: Path) -> None:
    """Sweep the folder itself, the first time that this process writes there."""
    _sweep(folder.glob(f".*{_PARTIAL}*"))


def _sweep(found: Iterator[Path]) -> list[Path]:
    left = [path for path in found if is_left_behind(path)]
    for path in left:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()
    return left


def _flush(path: Path) -> None:
    # Windows refuses to flush a file opened for reading only.
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_all(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _flush(path)
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, where folders can be opened: not on Windows."""
    if os.name == "nt":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _UNSYNCABLE:
            raise


@contextmanager
def _told(target: Path, partial: Path) -> Iterator[None]:
    """Turn what a disk says about writing `target` into a sentence for people."""
    try:
        yield
    except OSError as error:
        if _concerns(error, target.parent):
            raise storage_error(error, target) from error
        raise
    except StorageError as error:
        # The hidden name would tell nobody anything.
        raise StorageError(str(error).replace(str(partial), str(target))) from error
    except Exception as error:
        # Libraries in Rust, safetensors among them, name a disk's error in their text alone.
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None or int(found[1]) not in _CAUSES:
            raise
        raise storage_error(OSError(int(found[1]), ""), target) from error


def _concerns(error: OSError, folder: Path) -> bool:
    """Whether `error` came from writing into `folder`, not from another file read meanwhile."""
    if not isinstance(error.filename, str | os.PathLike):
        return True
    return Path(os.fspath(error.filename)).absolute().is_relative_to(folder.absolute())


def is_explained(error: OSError) -> bool:
    """Whether `storage_error` has words of its own for it."""
    return error.errno in _CAUSES


def storage_error(error: OSError, path: Path, act: str = "write") -> StorageError:
    """What to tell the user about an `error` met where somebody would `act` on `path`: the cause
    and the way out."""
    reason = (error.strerror or str(error)).rstrip(".").lower()
    cause = _CAUSES.get(error.errno or 0, f"{reason}; choose another place")
    return StorageError(f"Cannot {act} '{path}': {cause}.")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
