"""Checkpoints that are either whole or not there.

    DIR/checkpoints/
        100/  adapter.safetensors  optimizer.safetensors  rng.safetensors  state.json  COMPLETE
        150/  …
        BEST  {"step": 100, "score": 0.31}

A checkpoint is written to a hidden neighbour, flushed, and renamed into place; `COMPLETE`, written
last, holds the SHA-256 of every other file. One that a kill left whole under its hidden name is
brought back by `recover`. Nothing in it is pickled. What is in the files is decided by the trainer;
this file only keeps them safe.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from customvideo.errors import ConfigError, StorageError
from customvideo.files import (
    ensure_dir,
    hidden_beside,
    require_free,
    storage_error,
    sync_folder,
    write_bytes,
    write_text,
)
from customvideo.processes import is_left_behind
from customvideo.records import parse_json, write_record

__all__ = [
    "Checkpoint",
    "Search",
    "best_checkpoint",
    "check_same_run",
    "clear",
    "newest_valid",
    "prune",
    "recover",
    "save_checkpoint",
    "whole_checkpoints",
]

ADAPTER, OPTIMIZER, RNG, STATE = (
    "adapter.safetensors",
    "optimizer.safetensors",
    "rng.safetensors",
    "state.json",
)
_COMPLETE = "COMPLETE"
_BEST = "BEST"
_SAVING, _REPLACED, _REMOVED = ".saving", ".replaced", ".removed"
"""Ends of hidden names: being written; making room for a newer one of its step; being removed."""
_FORMAT = 1
_NAMED_DIFFERENCES = 3


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on disk."""

    path: Path
    step: int

    @property
    def adapter(self) -> Path:
        """The adapter file, an ordinary one: `generate` reads it, too."""
        return self.path / ADAPTER

    @property
    def state(self) -> dict[str, Any]:
        """What `state.json` holds; ConfigError if that is nothing of ours."""
        try:
            state = parse_json((self.path / STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self._unreadable(STATE) from error
        if not isinstance(state, dict):
            raise self._unreadable(STATE)
        return state

    def optimizer(self) -> dict[str, Tensor]:
        """The optimizer's tensors; ConfigError if there are none."""
        return self._tensors(OPTIMIZER)

    def rng(self) -> dict[str, Tensor]:
        """The random generators' states; ConfigError if there are none."""
        return self._tensors(RNG)

    def _tensors(self, name: str) -> dict[str, Tensor]:
        try:
            tensors: dict[str, Tensor] = load_file(self.path / name)
        except (OSError, SafetensorError) as error:
            raise self._unreadable(name) from error
        return tensors

    def _unreadable(self, name: str) -> ConfigError:
        return ConfigError(
            f"'{self.path / name}' was not written by this program; remove the checkpoint "
            f"'{self.path}', and an earlier one is taken."
        )


@dataclass(frozen=True)
class Search:
    """What a look through a folder of checkpoints found."""

    newest: Checkpoint | None
    broken: tuple[str, ...]
    """One sentence for every checkpoint that cannot be used."""


def save_checkpoint(
    folder: Path,
    step: int,
    *,
    save_adapter: Callable[[Path], object],
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
) -> Checkpoint:
    """Write the checkpoint of `step` into `folder`, replacing one of the same step.

    Args:
        folder: the folder of all checkpoints.
        step: optimizer steps done.
        save_adapter: writes the adapter to the path it is given.
        tensors: the content of `OPTIMIZER` and `RNG` by file name.
        state: JSON-ready facts; `step` and the format version are added.

    Raises:
        StorageError: the place is full or cannot be written; earlier checkpoints stay as they were.
    """
    recover(folder)
    encoded = {name: save(dict(content)) for name, content in tensors.items()}
    # Half as much again for the adapter, which is smaller than its two AdamW moments.
    require_free(folder, sum(len(data) for data in encoded.values()) * 3 // 2)
    target = folder / str(step)
    with _new_folder(target) as partial:
        save_adapter(partial / ADAPTER)
        for name, data in encoded.items():
            write_bytes(partial / name, data)
        facts = {"format": _FORMAT, "step": step, **state}
        write_text(partial / STATE, json.dumps(facts, indent=2, sort_keys=True) + "\n")
        sums = {file.name: _sha256(file) for file in sorted(partial.iterdir())}
        write_record(partial / _COMPLETE, sums)
    return Checkpoint(target, step)


def recover(folder: Path) -> None:
    """Bring back what a killed process left whole under a hidden name, and remove its other
    leftovers.

    A kill between the two renames that replace a checkpoint leaves none of its step in sight: the
    new one is put in its place, or the old one where the new one never became whole.
    """
    if not folder.is_dir():
        return
    for kind in (_SAVING, _REPLACED, _REMOVED, ".partial-"):
        hidden = sorted(path for path in folder.glob(".*") if kind in path.name)
        for left in filter(is_left_behind, hidden):
            if kind in (_SAVING, _REPLACED) and _fault(left) is None:
                _bring_back(left)
            shutil.rmtree(left, ignore_errors=True)


def _bring_back(left: Path) -> None:
    """Put the whole checkpoint at `left` in its place, unless there is a whole one."""
    target = left.with_name(str(Checkpoint(left, 0).state["step"]))
    if _fault(target) is None:
        return
    broken = _make_way(target)
    left.rename(target)
    sync_folder(target.parent)
    if broken is not None:
        shutil.rmtree(broken, ignore_errors=True)


def newest_valid(folder: Path) -> Search:
    """Find the newest whole checkpoint, and say what is wrong with the newer ones.

    Raises:
        ConfigError: it was made by a newer version of this program.
    """
    broken: list[str] = []
    for checkpoint in sorted(_all(folder), key=lambda found: found.step, reverse=True):
        fault = _fault(checkpoint.path)
        if fault is None:
            _require_known(checkpoint)
            return Search(checkpoint, tuple(broken))
        broken.append(f"Checkpoint '{checkpoint.path}' is skipped: {fault}.")
    return Search(None, tuple(broken))


def whole_checkpoints(folder: Path) -> list[Checkpoint]:
    """All whole checkpoints, the oldest first."""
    found = sorted(_all(folder), key=lambda found: found.step)
    return [checkpoint for checkpoint in found if _fault(checkpoint.path) is None]


def best_checkpoint(folder: Path) -> tuple[Checkpoint, float] | None:
    """The checkpoint with the lowest held-out score and that score, if one is marked and whole."""
    try:
        best = parse_json((folder / _BEST).read_text(encoding="utf-8"))
        checkpoint, score = Checkpoint(folder / str(best["step"]), best["step"]), best["score"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if _fault(checkpoint.path) else (checkpoint, float(score))


def prune(folder: Path, keep: int, latest: Checkpoint, score: float | None) -> None:
    """Mark `latest` as the best if its `score` is, then remove all but the newest `keep` and it.

    Call it after `latest` is complete, never before: what it removes is gone. Called again, as a
    resumed run does whose predecessor may have been killed in here, it changes nothing more.
    """
    best = best_checkpoint(folder)
    if score is not None and math.isfinite(score) and (best is None or score < best[1]):
        write_text(folder / _BEST, json.dumps({"step": latest.step, "score": score}) + "\n")
        best = latest, score
    kept = {found.step for found in sorted(_all(folder), key=lambda found: found.step)[-keep:]}
    kept |= {latest.step} | ({best[0].step} if best else set())
    for found in _all(folder):
        if found.step not in kept:
            _remove(found.path)


def clear(folder: Path, keep: Checkpoint) -> None:
    """Remove every checkpoint but `keep`, and the best's mark: a new run took the folder over."""
    (folder / _BEST).unlink(missing_ok=True)
    for found in _all(folder):
        if found.step != keep.step:
            _remove(found.path)


def check_same_run(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that two descriptions of a run, nested dicts of plain values, are equal.

    Raises:
        ConfigError: they differ; the message says in what.
    """
    old, new = _flat(json.loads(json.dumps(earlier))), _flat(json.loads(json.dumps(now)))
    differing = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    if not differing:
        return
    named = [_difference(key, old, new) for key in differing[:_NAMED_DIFFERENCES]]
    if len(differing) > len(named):
        named.append(f"{len(differing) - len(named)} more")
    raise ConfigError(
        f"Cannot resume, because the run was started differently: {'; '.join(named)}. "
        "Give what it was started with, or start a new run instead of resuming."
    )


def _difference(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    group, _, rest = key.partition(".")
    if group == "photos":
        return f"the photos, masks or captions of '{rest}' are others"
    was, now = old.get(key, "absent"), new.get(key, "absent")
    return f"{rest or key} was {_brief(was)} and is {_brief(now)}"


def _brief(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) > 40 else text


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A hidden folder that becomes `target` when the block ends well, and vanishes otherwise."""
    parent = ensure_dir(target.parent)
    partial = hidden_beside(target, _SAVING)
    replaced: Path | None = None
    try:
        yield ensure_dir(partial)
        sync_folder(partial)
        replaced = _make_way(target)
        partial.rename(target)
        sync_folder(parent)
    except OSError as error:
        raise _unsaved(target, storage_error(error, target)) from error
    except StorageError as error:
        # The hidden folder's name would tell nobody anything.
        raise _unsaved(target, str(error).replace(str(partial), str(target))) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if replaced is not None:
            if not target.exists():
                # If even that fails, `recover` does it later.
                with suppress(OSError):
                    replaced.rename(target)
            if target.exists():
                shutil.rmtree(replaced, ignore_errors=True)


def _unsaved(target: Path, reason: object) -> StorageError:
    return StorageError(
        f"The checkpoint '{target}' could not be saved, earlier ones are untouched: {reason}"
    )


def _make_way(target: Path) -> Path | None:
    """Move what is at `target` aside; where it is now, if there was anything."""
    if not target.exists():
        return None
    aside = hidden_beside(target, _REPLACED)
    target.rename(aside)
    return aside


def _require_known(checkpoint: Checkpoint) -> None:
    version = checkpoint.state.get("format")
    if version != _FORMAT:
        raise ConfigError(
            f"The checkpoint '{checkpoint.path}' has format {version}, made by a newer customvideo "
            f"than this one, which knows format {_FORMAT}; update customvideo."
        )


def _all(folder: Path) -> list[Checkpoint]:
    if not folder.is_dir():
        return []
    return [Checkpoint(path, int(path.name)) for path in folder.iterdir() if path.name.isdecimal()]


def _remove(path: Path) -> None:
    # Renamed first: a removal cut short must not leave something that looks like a checkpoint.
    doomed = hidden_beside(path, _REMOVED)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _fault(path: Path) -> str | None:
    """Why the checkpoint at `path` cannot be used, or None if it is whole."""
    try:
        sums = parse_json((path / _COMPLETE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "it is incomplete"
    except (OSError, ValueError):
        return "its marker of completeness is damaged"
    needed = {ADAPTER, OPTIMIZER, RNG, STATE}
    if not isinstance(sums, dict) or not needed <= sums.keys():
        return "its marker of completeness is damaged"
    for name, digest in sums.items():
        try:
            if not (path / name).is_file():
                return f"'{name}' is missing"
            if _sha256(path / name) != digest:
                return f"'{name}' is damaged"
        except OSError as error:
            return f"'{name[:80]}' cannot be read ({error.strerror})"
    return None


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
