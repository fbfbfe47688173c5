"""What `faults.py` kills: a training, a benchmark and exports, each so small that it takes seconds.

A work knows how it is begun and gone on with (the same call, as a user repeats a command), which of
its files have to be whole at any time, and what of them may differ between two undisturbed runs:
times and memory. Models are read once, when the work is made.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from customvideo.errors import ConfigError
from customvideo.runs import TrainPlan, exporting, learning, making
from customvideo.training.checkpoint import newest_valid
from customvideo.training.progress import StepReport
from tests import tiny
from tests.surroundings import QUICK, contents, write_pair

__all__ = ["WORKS", "Work"]

TIMED = ("seconds", "train_seconds", "sample_seconds", "peak_memory_mb")
"""What no two runs have in common."""

_LEVELS = {
    "down_block_types": ["CrossAttnDownBlock3D", "DownBlock3D"],
    "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D"],
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
}
"""Of a denoiser that is quicker still than the tests' tiny one."""

OnStep = Callable[[int], object]


class Work(ABC):
    """Something that is done in a folder, and gone on with by the same call."""

    name: str
    may_lose = 0
    """Training steps that a kill may cost."""

    @abstractmethod
    def run(self, folder: Path, on_step: OnStep) -> None:
        """Do it, or what is left of it; `on_step` hears of finished training steps."""

    def saved(self, _folder: Path) -> int:
        """Training steps that the folder holds."""
        return 0

    def canonical(self, folder: Path) -> dict[str, bytes]:
        """Every file below the folder, hidden ones too, without what no two runs have in common."""
        return {name: _untimed(name, data) for name, data in contents(folder).items()}

    def look(self, folder: Path, whole: dict[str, bytes]) -> list[str]:
        """What is wrong with the visible files after a kill: each is the undisturbed run's, or one
        of those that grow, and then can be read whole."""
        faults = []
        for name, data in contents(folder).items() if folder.is_dir() else ():
            if any(part.startswith(".") for part in Path(name).parts) or self.grows(name):
                continue
            if _untimed(name, data) != whole.get(name):
                faults.append(f"'{name}' is not whole")
        return faults + [f"'{name}' cannot be read" for name in self._unreadable(folder)]

    def grows(self, _name: str) -> bool:
        """Whether the file is another one in the middle of a run."""
        return False

    def _unreadable(self, folder: Path) -> list[str]:
        bad = []
        for path in folder.rglob("*.json*") if folder.is_dir() else ():
            if path.name.startswith("."):
                continue
            try:
                for line in path.read_text("utf-8").splitlines() if path.suffix == ".jsonl" else ():
                    json.loads(line)
                if path.suffix == ".json":
                    json.loads(path.read_text("utf-8"))
            except ValueError:
                bad.append(path.name)
        return bad


class Training(Work):
    """`customvideo train`, with previews, a report and the best checkpoint kept."""

    name, may_lose = "training", 2

    def __init__(self, given: Path) -> None:
        from customvideo.backbones.base import load_backbone

        self._model = _model(given / "model")
        self._subjects = write_pair(given / "photos")[1::2]
        backbone = load_backbone(self._model, device="cpu")
        learning.load_backbone = lambda *_: backbone  # type: ignore[attr-defined]
        logging.getLogger("customvideo").setLevel(logging.ERROR)

    def run(self, folder: Path, on_step: OnStep) -> None:
        keys = QUICK | {
            "steps": "7",
            "preview_every": "3",
            "keep_checkpoints": "1",
            "sampling.num_steps": "1",
        }
        resume = (folder / "adapter.safetensors").is_file() or newest_valid(
            folder / "checkpoints"
        ).newest is not None
        told = learning.Trainer

        class Told(told):  # type: ignore[valid-type, misc]
            def __init__(self, *arguments: Any, on_step: Any = None, **options: Any) -> None:
                def both(report: StepReport) -> None:
                    on_step(report)
                    hear(report.step)

                super().__init__(*arguments, on_step=both, console=_quiet(), **options)

        hear = on_step
        learning.Trainer = Told  # type: ignore[misc]
        sets = [f"{key}={value}" for key, value in keys.items()]
        choices = {"backbone": str(self._model)}
        anew = TrainPlan(folder, self._subjects, None, sets, choices, False, "cpu")
        on = TrainPlan(folder, [], None, [], {}, True, "cpu")
        try:
            learning.train(on if resume else anew, lambda _: None)
        except ConfigError as error:
            # Killed while a checkpoint was exchanged: what is whole was brought back just now.
            if resume or "add --resume" not in str(error):
                raise
            learning.train(on, lambda _: None)

    def saved(self, folder: Path) -> int:
        newest = newest_valid(folder / "checkpoints").newest
        return newest.step if newest else 0

    def grows(self, name: str) -> bool:
        return name.startswith("checkpoints/") or name == "losses.jsonl"

    def look(self, folder: Path, whole: dict[str, bytes]) -> list[str]:
        return super().look(folder, whole) + list(newest_valid(folder / "checkpoints").broken)


class Grid(Work):
    """`customvideo bench run` of the base model and one method on a pair."""

    name = "grid"

    def __init__(self, given: Path) -> None:
        from customvideo.benchmark import commands
        from customvideo.benchmark.editions import load_edition
        from customvideo.benchmark.kit import Kit
        from tests.benchmark.small import QUICK as LITTLE
        from tests.benchmark.small import plan_of, write_edition

        edition = write_edition(given)
        changes = {**LITTLE, "steps": 5, "checkpoint_every": 2}
        self._plan = plan_of(edition, "customvideo", prompts=2, changes=changes)
        self._commands = commands
        kit = Kit(load_edition(str(edition)), "cpu")
        kit.judges(kit.backbone("toybox"))
        commands.Kit = lambda *_: kit  # type: ignore[misc, assignment]

    def run(self, folder: Path, _on_step: OnStep) -> None:
        ended = self._commands.run(self._plan, folder, say=lambda _: None)
        assert not ended.failed, ended.failed

    def grows(self, name: str) -> bool:
        return (
            "/training/" in name
            or name in ("rows.csv",)
            or name.endswith("costs.json")
            or (Path(name).name.startswith("claim-"))
        )

    def look(self, folder: Path, whole: dict[str, bytes]) -> list[str]:
        faults = super().look(folder, whole)
        for checkpoints in folder.glob("jobs/*/training/checkpoints"):
            faults += newest_valid(checkpoints).broken
        return faults


class Export(Work):
    """`customvideo export` for three programs, and `remove`."""

    name = "export"

    def __init__(self, given: Path) -> None:
        from customvideo.backbones.base import load_backbone
        from tests.exports.conftest import learned

        model = _model(given / "model")
        backbone = load_backbone(model, device="cpu")
        self._adapter = given / "adapter.safetensors"
        learned(backbone).save(self._adapter)
        self._model = str(model)
        making.load_backbone = lambda *_: backbone  # type: ignore[attr-defined]

    def run(self, folder: Path, _on_step: OnStep) -> None:
        from customvideo.runs.merging import RemovePlan, remove

        for target in ("diffusers", "merged-folder", "textual-inversion"):
            out = folder / target
            if not out.exists():
                words = target == "textual-inversion"
                exporting.export(
                    exporting.ExportPlan(self._adapter, target, out, self._model, words_only=words),
                    lambda _: None,
                )
        less = folder / "less.safetensors"
        if not less.exists():
            remove(RemovePlan("tom", self._adapter, less), lambda _: None)


def _model(folder: Path) -> Path:
    usual, tiny.UNET_CONFIG = tiny.UNET_CONFIG, tiny.UNET_CONFIG | _LEVELS
    try:
        return tiny.build_tiny_zeroscope(folder)
    finally:
        tiny.UNET_CONFIG = usual


def _quiet() -> Any:
    from rich.console import Console

    return Console(quiet=True)


def _untimed(name: str, data: bytes) -> bytes:
    if name.endswith("losses.jsonl"):
        return "".join(_line(json.loads(line)) for line in data.decode().splitlines()).encode()
    if name.endswith("costs.json"):
        return _line(json.loads(data)).encode()
    if name.endswith("rows.csv"):
        records = list(csv.DictReader(io.StringIO(data.decode())))
        return "".join(_line(record) for record in records).encode()
    return data


def _line(told: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in told.items() if key not in TIMED}) + "\n"


WORKS: dict[str, Callable[[Path], Work]] = {
    "training": Training,
    "grid": Grid,
    "export": Export,
}
