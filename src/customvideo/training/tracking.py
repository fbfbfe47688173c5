"""Where a run's losses are shown besides its own folder: TensorBoard, Weights & Biases, trackio.

Accelerate talks to them, and only in the main process. What the run is goes along as its settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from customvideo.training.config import TrainerConfig

__all__ = ["start_tracking"]

_PROJECT = "customvideo"
_PLAIN = (bool, int, float, str)


def start_tracking(accelerator: Accelerator, config: TrainerConfig, out: Path) -> None:
    """Begin to track the run in `out`, by its folder's name, elsewhere with all its settings.

    Weights & Biases keeps its own files in the run's folder, TensorBoard everything; trackio keeps
    all runs of this computer together. Settings that are lists are told as text.
    """
    # TensorBoard has no projects, its folder in the run's is called so; and settings would be a
    # second set of files there, beside a recipe that says them all.
    local = config.tracker == "tensorboard"
    accelerator.init_trackers(
        config.tracker if local else _PROJECT,
        config=None if local else _flat(config.model_dump(mode="json")),
        init_kwargs={
            "wandb": {"name": out.name, "dir": str(out)},
            "trackio": {"name": out.name, "resume": "allow"},
        },
    )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            found[f"{prefix}{key}"] = value if isinstance(value, _PLAIN) else str(value)
    return found
