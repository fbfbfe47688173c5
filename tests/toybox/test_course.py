"""A course that is stopped and taken up again ends where an uninterrupted one does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from customvideo.toybox.course import Course, Runner


def _runner(folder: Path, steps: int = 12) -> Runner:
    torch.manual_seed(0)
    module = nn.ModuleDict({"line": nn.Linear(3, 1)})
    course = Course(name="line", steps=steps, learning_rate=0.1, warmup=2, log_every=4)
    return Runner(course, module, folder)


def _losses(runner: Runner, stop_at: int | None = None):  # type: ignore[no-untyped-def]
    def losses(step: int) -> dict[str, Tensor]:
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        return {"square": (runner.modules["line"](x) - x.sum(-1, keepdim=True)).square().mean()}

    return losses


def test_stopped_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    whole = _runner(tmp_path / "whole")
    whole.run(_losses(whole), lambda line: None)

    stopped = _runner(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        stopped.run(_losses(stopped, stop_at=7), lambda line: None)
    stopped._save()
    again = _runner(tmp_path / "stopped")
    again.run(_losses(again), lambda line: None)

    assert again.step == 12
    for name, value in whole.modules.state_dict().items():
        assert torch.equal(value, again.modules.state_dict()[name]), name


def test_a_finished_course_is_loaded_not_repeated(tmp_path: Path) -> None:
    first = _runner(tmp_path)
    first.run(_losses(first), lambda line: None)
    second = _runner(tmp_path)
    second.run(_losses(second, stop_at=0), lambda line: None)
    assert torch.equal(first.modules["line"].weight, second.modules["line"].weight)


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    course = Course(name="x", steps=100, learning_rate=1.0, warmup=10)
    rates = [course.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] < 1e-3


def test_the_average_lags_behind_and_the_loss_falls(tmp_path: Path) -> None:
    lines: list[str] = []
    runner = _runner(tmp_path, steps=60)
    losses = _losses(runner)
    first = float(losses(0)["square"].detach())
    runner.run(losses, lines.append)
    assert float(losses(0)["square"].detach()) < 0.5 * first
    assert (tmp_path / "log.jsonl").read_text().count("\n") == 15
    assert len(lines) == 15
