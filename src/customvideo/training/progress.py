"""What a run shows while it trains: a bar or plain lines, and a log of every step on disk."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from customvideo.files import write_text
from customvideo.records import parse_json

__all__ = ["LossLog", "ProgressView", "StepReport", "read_losses"]

_LINES_PER_RUN = 20
_RECORDED = {"step", "loss", "parts"}

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepReport:
    """One finished optimizer step.

    Attributes:
        step: its number, from 1.
        steps: how many the run has.
        loss: the minimised loss.
        parts: its weighted parts by name; they sum to `loss`.
        grad_norm: gradient norm before clipping.
        seconds: how long the step took.
        measured: what is not minimised: the error "inside" and "outside" the masks of the training
            pictures, before any weighing by them, and the share "covered" by masks.
    """

    step: int
    steps: int
    loss: float
    parts: dict[str, float]
    grad_norm: float
    seconds: float
    measured: dict[str, float] = field(default_factory=dict)


class ProgressView:
    """A progress bar with the loss parts and the time left; on no terminal, a line now and then."""

    def __init__(self, console: Console, done: int, steps: int) -> None:
        self._console = console
        self._every = max(1, steps // _LINES_PER_RUN)
        self._began = time.monotonic()
        self._first = done
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("training", total=steps, completed=done, losses="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self, report: StepReport) -> None:
        """Advance to `report`."""
        losses = "  ".join(f"{name} {value:.4f}" for name, value in report.parts.items())
        self._bar.update(self._task, completed=report.step, losses=losses)
        last = report.step == report.steps
        if not self._console.is_terminal and (report.step % self._every == 0 or last):
            self.say(f"step {report.step}/{report.steps}  {losses}  {self._left(report)} left")

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _left(self, report: StepReport) -> str:
        pace = (time.monotonic() - self._began) / max(1, report.step - self._first)
        seconds = round(pace * (report.steps - report.step))
        return f"{seconds // 60}:{seconds % 60:02d}"


class LossLog:
    """`losses.jsonl`: one line a step, written whole whenever a checkpoint is.

    Between checkpoints the lines wait in memory: those after the last checkpoint would be dropped
    by a resumed run anyway, which repeats their steps.
    """

    def __init__(self, path: Path | None, done: int) -> None:
        self._path = path
        self._lines = [line for line in read_losses(path) if line["step"] <= done] if path else []

    def add(self, report: StepReport) -> None:
        """Note a step."""
        self._lines.append({key: value for key, value in asdict(report).items() if key != "steps"})

    def write(self) -> None:
        """Write all lines, all or nothing.

        Raises:
            StorageError: the place is full or cannot be written.
        """
        if self._path is not None:
            write_text(self._path, "".join(f"{json.dumps(line)}\n" for line in self._lines))


def read_losses(path: Path) -> list[dict[str, Any]]:
    """The lines of a `losses.jsonl`, keys as in `StepReport`; empty if there is no such file.

    It is a record only: what cannot be read of it is left out and warned of."""
    if not path.is_file():
        return []
    try:
        told = [parse_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if all(isinstance(line, dict) and line.keys() >= _RECORDED for line in told):
            return told
    except (OSError, ValueError):
        pass
    _LOG.warning("'%s' is damaged, so the losses in it are not shown; training goes on.", path)
    return []
