"""What a run was made with and of, beside its recipe: enough to make it again and see what differs.

    environment.json    versions, device, git state, photos

It names no person and no path but the code's own state: a run's folder can be handed on.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import customvideo
from customvideo.backbones.base import Backbone
from customvideo.records import read_record, write_record
from customvideo.runs.folder import ENVIRONMENT
from customvideo.subjects.subject import Subject
from customvideo.training.ranks import asked_processes

__all__ = ["differences", "keep_environment", "surroundings"]

_PACKAGES = ("accelerate", "diffusers", "numpy", "safetensors", "torch", "transformers")
_MOVING = ("customvideo", "packages", "device", "threads", "processes", "backbone", "photos")
"""What may move a result's last digits, or the result."""


def surroundings(backbone: Backbone, subjects: Sequence[Subject]) -> dict[str, Any]:
    """What a run here and now would be made with and of, ready for JSON."""
    device = backbone.device
    return {
        "customvideo": customvideo.__version__,
        "git": _git(Path(customvideo.__file__).parent),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "processes": asked_processes(),
        "backbone": backbone.fingerprint,
        "photos": {subject.name: subject.digest for subject in subjects},
    }


def keep_environment(out: Path, found: Mapping[str, Any]) -> None:
    """Write `found` into the run's folder."""
    write_record(out / ENVIRONMENT, found)


def differences(run: Path, again: Path) -> list[str]:
    """In what the run in the folder `again` was made otherwise than the one in `run`; nothing where
    one of them does not say what it was made with."""
    was, now = (_flat(read_record(folder / ENVIRONMENT)) for folder in (run, again))
    if not was or not now:
        return []
    every = was | now
    return [_said(key, was.get(key), now.get(key)) for key in every if was.get(key) != now.get(key)]


def _said(key: str, was: object, now: object) -> str:
    group, _, name = key.partition(".")
    if group == "photos":
        return f"the photos or masks of '{name}' are others"
    if group == "backbone":
        return "the base model's weights are others"
    return f"{name or key} was {was or 'missing'} and is {now or 'missing'}"


def _flat(told: Mapping[str, Any]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key in filter(told.__contains__, _MOVING):
        value = told[key]
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            flat[key] = value
    return flat


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(folder: Path) -> str:
    """The commit this program's code is at, with "+" where files differ from it; empty where it is
    installed and not checked out, be it into a folder of somebody's own repository."""
    try:
        _asked("git", "ls-files", "--error-unmatch", "--", "__init__.py", folder=folder)
        commit = _asked("git", "rev-parse", "HEAD", folder=folder)
        changed = _asked("git", "status", "--porcelain", "--", ".", folder=folder)
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("+" if changed else "")


def _asked(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        arguments, cwd=folder, check=True, capture_output=True, text=True, timeout=10
    )
    return done.stdout.strip()
