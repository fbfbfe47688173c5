"""What `customvideo toybox` does: make the weights anew, write photo folders, draw the world.

The verbs' logic without their flags. What is drawn and learned is decided in the toybox's other
files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel

from customvideo.backbones.base import recipes_of
from customvideo.errors import ConfigError
from customvideo.settings import known_keys, suggest, validated
from customvideo.toybox.customstudio import studio as benchmark
from customvideo.toybox.customstudio import write_subject
from customvideo.toybox.recipe.pretrain import PretrainConfig, Pretraining
from customvideo.toybox.recipe.wan import RECIPES, WanConfig, WanPretraining
from customvideo.toybox.render import Clip, render
from customvideo.toybox.world import sample_world
from customvideo.video import Video

__all__ = ["EDITIONS", "pretrain", "sheet", "studio"]

Say = Callable[[str], None]

EDITIONS: dict[str, tuple[Any, Any, Callable[[Path], bool]]] = {
    "unet3d": (
        PretrainConfig,
        Pretraining,
        lambda folder: (folder / "model" / "model_index.json").is_file(),
    ),
    "wan": (WanConfig, WanPretraining, lambda folder: recipes_of(str(folder)) == RECIPES),
}
"""Name -> sizes, recipe, and whether a folder is one of its own exports."""

_TILE = (128, 192)
_COLUMNS = 4


def pretrain(
    work: Path,
    export: Path | None,
    sets: Sequence[str],
    device: str,
    *,
    edition: str = "unet3d",
    say: Say,
) -> None:
    """Run every stage of an edition that `work` does not hold yet, then write to `export`: the
    package's weights ("unet3d"), or a folder of Wan's class ("wan").

    Raises:
        ConfigError: an unknown edition or size, or a folder to export to that holds something
            else.
    """
    if edition not in EDITIONS:
        raise ConfigError(
            f"There is no edition '{edition}' of the toybox{suggest(edition, EDITIONS)}"
        )
    settings, recipe, is_own = EDITIONS[edition]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    changes = _parse(sets, settings)
    validated(settings, changes)
    config = settings.sized_for(device, changes)
    if export is not None:
        _require_replaceable(export, is_own)
    run = recipe(config, work, device, say)
    run.run()
    if export is not None:
        run.export(export)
        say(f"Wrote the weights to '{export}'.")


def studio(out: Path, names: Sequence[str], *, say: Say) -> None:
    """Write one folder of reference photos per subject, all of them if `names` is empty.

    Raises:
        UserError: there is no such subject, or a folder of that name holds something already.
    """
    subjects = [benchmark().subject(name) for name in names] or benchmark().subjects
    for subject in subjects:
        _require_empty(out / subject.name)
    for subject in subjects:
        folder = write_subject(out / subject.name, subject.individual, subject.name)
        say(f"Wrote '{folder}': {subject.phrase}")


def sheet(out: Path, count: int, seed: int, *, say: Say) -> None:
    """Draw `count` random worlds side by side: stills in a picture, clips in a video."""
    rng = np.random.default_rng(seed)
    frames = 1 if out.suffix.lower() == ".png" else 8
    height, width = _TILE
    clips: list[Clip] = []
    for index in range(count):
        clips.append(render(sample_world(rng), frames=frames, height=height, width=width))
        if index % _COLUMNS == _COLUMNS - 1:
            say(f"{index + 1} of {count} drawn")
    pages = [_page(clips, frame) for frame in range(frames)]
    Video(np.stack(pages), clips[0].fps).save(out)
    say(f"Wrote '{out}'.")


def _page(clips: Sequence[Clip], frame: int) -> Any:
    """All clips at one moment, uint8 (height, width, 3)."""
    stills = np.stack([clip.frames[frame].numpy() for clip in clips])
    return Video(stills).sheet(_COLUMNS)


def _parse(sets: Sequence[str], settings: type[BaseModel]) -> dict[str, int]:
    """`key=value` texts as whole numbers."""
    values: dict[str, int] = {}
    for text in sets:
        key, _, value = text.partition("=")
        if key not in settings.model_fields:
            raise ConfigError(f"There is no setting '{key}'{suggest(key, known_keys(settings))}")
        if not value.isdecimal():
            raise ConfigError(f"The setting '{key}' must be a whole number, not '{value}'.")
        values[key] = int(value)
    return values


def _require_replaceable(folder: Path, is_own: Callable[[Path], bool]) -> None:
    """Weights may replace weights, and nothing else: exporting clears the folder first."""
    if folder.exists() and not is_own(folder):
        _require_empty(folder)


def _require_empty(folder: Path) -> None:
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ConfigError(f"'{folder}' exists and would be overwritten; choose another folder.")
