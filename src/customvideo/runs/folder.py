"""The folder of one run: what its files are called, and who may write there.

    recipe.toml            everything the run was made of
    environment.json       versions, device, git state and photos it was made with
    masks/                 every mask drawn over its photo, and coverage.json
    checkpoints/<step>/    to go on from
    losses.jsonl           one line a step
    previews/<step>.mp4    if the recipe asks for previews; <step>-attention.png, where words look
    replay/<name>/         pictures of subjects learned earlier, drawn for want of their photos
    adapter.safetensors    what was learned
    report.html            all of it to look at

Nothing is trained here. The checkpoints and the loss log are written by `customvideo.training`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from customvideo.adapters.adapter import Adapter
from customvideo.claims import TakenOver
from customvideo.errors import ConfigError, StorageError
from customvideo.files import ensure_dir, hidden_beside, locked, storage_error, sweep
from customvideo.training.checkpoint import newest_valid, recover
from customvideo.training.interrupt import Interrupted
from customvideo.training.progress import read_losses

__all__ = [
    "ADAPTER",
    "CHECKPOINTS",
    "ENVIRONMENT",
    "LOSSES",
    "MASKS",
    "PREVIEWS",
    "RECIPE",
    "REPLAY",
    "REPORT",
    "Say",
    "alone_in",
    "claim",
    "held",
    "loss_curves",
    "require_new_file",
    "require_writable",
    "save_adapter",
    "undone_on_error",
]

Say = Callable[[str], None]
"""Where a line of progress goes."""

ADAPTER, RECIPE, REPORT = "adapter.safetensors", "recipe.toml", "report.html"
ENVIRONMENT = "environment.json"
CHECKPOINTS, MASKS, PREVIEWS, REPLAY = "checkpoints", "masks", "previews", "replay"
LOSSES = "losses.jsonl"
_BEGUN = (RECIPE, ENVIRONMENT, MASKS, CHECKPOINTS, REPLAY, LOSSES, "tensorboard", "wandb")
"""What a run that never came to its first checkpoint may have left: nothing to be missed."""
_PROBE_SIZE = 1 << 16


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Keep other processes out of the folder `out` for the block; it vanishes again if it was made
    for nothing.

    Raises:
        StorageError: another process is at work there, or it is a file.
    """
    _refuse_file(out)
    missing = _missing(out)
    try:
        with locked(ensure_dir(out)):
            yield
    finally:
        _remove_empty(missing)


@contextmanager
def held(out: Path, *, resume: bool) -> Iterator[None]:
    """Claim the folder of a run and keep other processes out of it for the block.

    A checkpoint that a killed process left whole is brought back first, and what else it left is
    removed.

    Raises:
        ConfigError, StorageError: as `claim`, or another process is at work there.
    """
    with alone_in(out):
        recover(out / CHECKPOINTS)
        claim(out, resume)
        sweep(out)
        yield


def claim(out: Path, resume: bool) -> None:
    """Check that `out` is free for a new run, or holds one to resume; it changes nothing.

    Raises:
        ConfigError: there is a run to protect, none to resume, or something else in the folder.
        StorageError: `out` is a file.
    """
    begun = newest_valid(out / CHECKPOINTS).newest is not None
    if not begun and (out / ADAPTER).is_file():
        raise ConfigError(
            f"'{out}' already holds a run, finished and without checkpoints; choose another --out."
        )
    if resume:
        if not begun:
            raise ConfigError(
                f"There is nothing to resume in '{out}', which holds no whole checkpoint; leave "
                "out --resume to start anew."
            )
        return
    _refuse_file(out)
    found = {path.name for path in out.glob("[!.]*")}
    if begun:
        raise ConfigError(
            f"'{out}' already holds a run; add --resume to go on with it, or choose another --out."
        )
    if found - set(_BEGUN):
        raise ConfigError(f"The folder '{out}' is not empty; choose a new one with --out.")


def require_writable(out: Path) -> None:
    """Write a small file to `out` and remove it: better now than after long work.

    Raises:
        StorageError: it cannot be written.
    """
    missing = _missing(out)
    try:
        ensure_dir(out)
        probe = hidden_beside(out / RECIPE)
        try:
            probe.write_bytes(bytes(_PROBE_SIZE))
        except OSError as error:
            raise storage_error(error, out) from error
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)
    finally:
        _remove_empty(missing)


@contextmanager
def undone_on_error(out: Path) -> Iterator[None]:
    """Remove what a run wrote to `out` if it ends in an error before its first checkpoint.

    A run that is stopped from outside, or taken over, made no error: what it began stays.
    """
    found, missing = _contents(out), _missing(out)
    try:
        yield
    except (Interrupted, TakenOver):
        raise
    except Exception:
        if newest_valid(out / CHECKPOINTS).newest is None:
            _clear(out, spared=found)
            _remove_empty(missing)
        raise


def loss_curves(out: Path) -> dict[str, list[tuple[int, float]]]:
    """The losses of the run in `out`, by part: (step, value) pairs."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in read_losses(out / LOSSES):
        for name, value in {"loss": line["loss"], **line["parts"]}.items():
            curves.setdefault(name, []).append((line["step"], value))
    return curves


def save_adapter(adapter: Adapter, out: Path) -> None:
    """Write what was learned into the folder of its run.

    Raises:
        StorageError: it cannot be written; the message says where it is kept.
    """
    try:
        adapter.save(out / ADAPTER)
    except StorageError as error:
        if not (out / CHECKPOINTS).is_dir():
            raise
        raise StorageError(
            f"{error} All steps are done and kept in '{out / CHECKPOINTS}': --resume writes the "
            "adapter."
        ) from error


def _refuse_file(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise StorageError(f"'{out}' is a file, not a folder for a run; choose another --out.")


def _contents(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()} if out.is_dir() else set()


def _missing(out: Path) -> list[Path]:
    """`out` and the folders above it that do not exist yet, the deepest first."""
    return [folder for folder in (out, *out.parents) if not folder.exists()]


def _clear(out: Path, spared: Collection[str]) -> None:
    for name in set(_BEGUN) - set(spared):
        path = out / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def require_new_file(out: Path) -> None:
    """Refuse a place where an adapter cannot be written, or would replace something.

    Raises:
        ConfigError: its name is no adapter's.
        StorageError: there is something already, or nothing can be written.
    """
    suffix = Path(ADAPTER).suffix
    if out.suffix != suffix:
        raise ConfigError(f"'{out}' would be no adapter file; end its name with {suffix}.")
    if out.exists():
        raise StorageError(f"There is a file '{out}' already; choose another --out.")
    require_writable(out.parent)
