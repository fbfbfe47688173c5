"""Losses shown elsewhere: each tracker gets the run's settings and every step."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

from customvideo.training.config import TrainerConfig
from customvideo.training.tracking import start_tracking


class Listening:
    """An accelerator's side of trackers, kept instead of sent."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def init_trackers(self, project: str, config: Any, init_kwargs: Any) -> None:
        self.told.append((project, config, init_kwargs))


@pytest.mark.parametrize(
    ("name", "project"),
    [("tensorboard", "tensorboard"), ("wandb", "customvideo"), ("trackio", "customvideo")],
)
def test_every_tracker_hears_what_the_run_is(name: str, project: str, tmp_path: Path) -> None:
    listening: Any = Listening()
    start_tracking(listening, TrainerConfig(tracker=name, canvas=(64, 96)), tmp_path / "pets")
    ((told, settings, started),) = listening.told
    assert told == project
    if name == "tensorboard":
        assert settings is None
    else:
        assert settings["steps"] == 500 and settings["canvas"] == "[64, 96]"
        assert all(isinstance(value, bool | int | float | str) for value in settings.values())
    assert started["wandb"]["name"] == started["trackio"]["name"] == "pets"


def test_weights_and_biases_keeps_a_run_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    accelerator = Accelerator(cpu=True, log_with="wandb", project_dir=str(tmp_path))
    start_tracking(accelerator, TrainerConfig(tracker="wandb"), tmp_path)
    accelerator.log({"loss": 0.5}, step=1)
    accelerator.end_training()
    (kept,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert kept.stat().st_size > 0


TRACKED = """
import sys
from pathlib import Path
from accelerate import Accelerator
from customvideo.training.config import TrainerConfig
from customvideo.training.tracking import start_tracking
out = Path(sys.argv[1])
accelerator = Accelerator(cpu=True, log_with="trackio", project_dir=str(out))
start_tracking(accelerator, TrainerConfig(tracker="trackio"), out)
accelerator.log({"loss": 0.5}, step=1)
accelerator.end_training()
"""


def test_trackio_keeps_a_run_on_this_computer(tmp_path: Path) -> None:
    """In a process of its own: where it keeps things is decided when it is imported."""
    pytest.importorskip("trackio")
    surroundings = os.environ | {
        "TRACKIO_DIR": str(tmp_path / "store"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
    }
    done = subprocess.run(
        [sys.executable, "-c", TRACKED, str(tmp_path / "pets")],
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(tmp_path / "store" / "customvideo.db")) as kept:
        tables = "select run_name, metrics from metrics"
        ((run, metrics),) = kept.execute(tables).fetchall()
    assert run == "pets" and json.loads(metrics) == {"loss": 0.5}
