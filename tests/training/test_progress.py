"""What a run shows: a bar on a terminal, lines elsewhere, and a log that follows checkpoints."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console

from customvideo.training.progress import LossLog, ProgressView, StepReport, read_losses


def report(step: int, steps: int = 40) -> StepReport:
    parts = {"reconstruction": 0.25, "attention": 0.125}
    return StepReport(step, steps, 0.375, parts, grad_norm=1.0, seconds=0.5)


def test_a_terminal_gets_a_bar_with_losses_and_time_left() -> None:
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with ProgressView(console, 0, 40) as view:
        view.show(report(1))
        view.show(report(40))
    text = screen.getvalue()
    assert "reconstruction 0.2500  attention 0.1250" in text
    assert "40/40" in text
    assert "step 40/40" not in text


def test_elsewhere_a_line_comes_now_and_then() -> None:
    screen = StringIO()
    with ProgressView(Console(file=screen, width=40), 0, 40) as view:
        for step in range(1, 41):
            view.show(report(step))
    lines = screen.getvalue().splitlines()
    assert len(lines) == 20
    assert lines[-1] == "step 40/40  reconstruction 0.2500  attention 0.1250  0:00 left"


def test_the_log_forgets_what_lies_beyond_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "losses.jsonl"
    log = LossLog(path, done=0)
    for step in (1, 2, 3):
        log.add(report(step))
    assert not path.exists()
    log.write()
    assert [line["step"] for line in read_losses(path)] == [1, 2, 3]
    resumed = LossLog(path, done=2)
    resumed.add(report(3))
    resumed.write()
    assert [line["step"] for line in read_losses(path)] == [1, 2, 3]
    LossLog(path, done=0).write()
    assert read_losses(path) == []
    assert read_losses(tmp_path / "none") == []


def test_without_a_place_nothing_is_written() -> None:
    log = LossLog(None, done=0)
    log.add(report(1))
    log.write()
