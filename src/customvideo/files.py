"""Writing files so that nothing half-written is ever left behind.

Every file the package makes goes through `atomic_path` (or the two shorthands built on it):
the content is written to a hidden neighbour and renamed into place only when complete, so an
earlier result survives a full disk or a killed run. It is NOT a format library: what goes into
a file is its owner's business.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from customvideo.errors import StorageError

__all__ = [
    "atomic_folder",
    "atomic_path",
    "ensure_dir",
    "require_free",
    "storage_error",
    "write_bytes",
    "write_text",
]

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
}


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends well.

    The temporary path has the same suffix, so a codec that chooses its format by suffix can
    write straight to it. It is flushed to the disk before the rename and removed on any error.
    Missing parent folders are made.

    Raises:
        StorageError: the place cannot be written (full, forbidden, read-only, not a folder).
    """
    target = _target(Path(path))
    ensure_dir(target.parent)
    partial = target.with_name(f".{secrets.token_hex(6)}.partial{target.suffix}")
    try:
        yield partial
        _flush(partial)
        os.replace(partial, target)
    except OSError as error:
        if _concerns(error, target.parent):
            raise storage_error(error, target) from error
        raise
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
    partial = ensure_dir(target.parent) / f".{secrets.token_hex(6)}.partial"
    try:
        yield ensure_dir(partial)
        for file in filter(Path.is_file, partial.rglob("*")):
            _flush(file)
        with suppress(OSError):
            # An empty folder is as good as none, but Windows would not rename over it.
            target.rmdir()
        os.rename(partial, target)
    except OSError as error:
        if _concerns(error, target.parent):
            raise storage_error(error, target) from error
        raise
    except StorageError as error:
        # The hidden folder's name would tell nobody anything.
        raise StorageError(str(error).replace(str(partial), str(target))) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


def write_text(path: Path | str, text: str) -> None:
    """Write `text` as UTF-8 with plain newlines, all or nothing; see `atomic_path`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data`, all or nothing; see `atomic_path`."""
    with atomic_path(path) as partial:
        partial.write_bytes(data)


def ensure_dir(path: Path | str) -> Path:
    """Make the folder `path` and its parents if missing, and return it.

    Raises:
        StorageError: the folder cannot be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
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


def _flush(path: Path) -> None:
    # Windows refuses to flush a file opened for reading only.
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _concerns(error: OSError, folder: Path) -> bool:
    """Whether `error` came from writing into `folder`, not from another file read meanwhile."""
    if not isinstance(error.filename, str | os.PathLike):
        return True
    return Path(os.fspath(error.filename)).absolute().is_relative_to(folder.absolute())


def storage_error(error: OSError, path: Path) -> StorageError:
    """What to tell the user about an `error` met in writing `path`: the cause and the way out."""
    reason = (error.strerror or str(error)).rstrip(".").lower()
    cause = _CAUSES.get(error.errno or 0, f"{reason}; choose another place")
    return StorageError(f"Cannot write '{path}': {cause}.")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
