"""A course that is stopped and taken up again ends where an uninterrupted one does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from customvideo.errors import StorageError
from customvideo.toybox.recipe.course import Course, Runner
from customvideo.toybox.recipe.muon import Muon, orthogonalized
from tests.faulty_disk import Disk


def _runner(folder: Path, steps: int = 12) -> Runner:
    torch.manual_seed(0)
    module = nn.ModuleDict({"line": nn.Linear(3, 1), "square": nn.Linear(16, 16)})
    course = Course(name="line", steps=steps, learning_rate=0.1, warmup=2, log_every=4)
    return Runner(course, module, folder)


def _losses(runner: Runner, stop_at: int | None = None):  # type: ignore[no-untyped-def]
    def losses(step: int) -> dict[str, Tensor]:
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        wide = runner.modules["square"](x.repeat(1, 6)[:, :16])
        return {
            "square": (runner.modules["line"](x) - x.sum(-1, keepdim=True)).square().mean(),
            "wide": 0.01 * wide.square().mean(),
        }

    return losses


def test_stopped_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    whole = _runner(tmp_path / "whole")
    whole.run(lambda: _losses(whole), lambda line: None)

    stopped = _runner(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        stopped.run(lambda: _losses(stopped, stop_at=7), lambda line: None)
    stopped._save()
    again = _runner(tmp_path / "stopped")
    again.run(lambda: _losses(again), lambda line: None)

    assert again.step == 12
    for name, value in whole.modules.state_dict().items():
        assert torch.equal(value, again.modules.state_dict()[name]), name


def test_a_finished_course_is_loaded_not_repeated(tmp_path: Path) -> None:
    first = _runner(tmp_path)
    first.run(lambda: _losses(first), lambda line: None)
    second = _runner(tmp_path)
    second.run(lambda: _losses(second, stop_at=0), lambda line: None)
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
    runner.run(lambda: losses, lines.append)
    assert float(losses(0)["square"].detach()) < 0.5 * first
    assert (tmp_path / "log.jsonl").read_text().count("\n") == 15
    assert len(lines) == 15


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = _runner(tmp_path)
    Disk("full").install(monkeypatch)
    with pytest.raises(StorageError, match="disk is full"):
        runner._save()


def test_matrices_are_made_orthogonal() -> None:
    torch.manual_seed(0)
    tall = torch.randn(2, 40, 20)
    values = torch.linalg.svdvals(orthogonalized(tall))
    assert values.min() > 0.6 and values.max() < 1.3
    # The same singular vectors: all that changes is how much each counts.
    left, _, right = torch.linalg.svd(tall[0], full_matrices=False)
    inner = left.T @ orthogonalized(tall)[0] @ right.T
    assert (inner - torch.diag(inner.diagonal())).abs().max() < 1e-3


def test_tables_and_vectors_are_not_matrices() -> None:
    modules = nn.ModuleDict({"table": nn.Embedding(64, 32), "line": nn.Linear(32, 32)})
    scales = {
        id(p): group["scale"] for group in Muon(modules, 1e-3).param_groups for p in group["params"]
    }
    assert scales[id(modules["line"].weight)] > 1
    assert scales[id(modules["line"].bias)] == scales[id(modules["table"].weight)] == 1
