"""One training course of the toybox recipe: Muon, cosine rate, weight average, log, resume.

Knows nothing of what is learned: a stage passes modules and a function from the step number to
losses. This is the recipe's own small loop; customizing a model is `customvideo.training`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from customvideo.files import ensure_dir, write_bytes
from customvideo.toybox.recipe.muon import Muon

Losses = dict[str, Tensor]
Stage = Callable[[int], Losses]
"""What is minimised: from the step's number to the parts of the loss."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """How long and how fast one stage learns."""

    name: str
    steps: int
    learning_rate: float
    warmup: int = 100
    """Steps of linear warm-up; the rate then falls to zero along a cosine."""
    ema: float = 0.998
    """Decay of the weight average; the average is what a stage leaves behind."""
    save_minutes: float = 5.0
    log_every: int = 25

    def rate(self, step: int) -> float:
        """Learning rate at `step`, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class Runner:
    """State of one course; `run` brings it to its last step, from wherever it was stopped."""

    def __init__(self, course: Course, modules: nn.ModuleDict, folder: Path) -> None:
        self.course, self.modules, self.folder = course, modules, folder
        self.step = 0
        self.parameters = dict(modules.named_parameters())
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.on_gpu = next(modules.parameters()).is_cuda
        self.optimizer = Muon(modules, lr=course.learning_rate)
        ensure_dir(folder)

    @property
    def state_path(self) -> Path:
        """Where a stopped course keeps weights, averages and optimizer state."""
        return self.folder / f"{self.course.name}-state.safetensors"

    @property
    def result_path(self) -> Path:
        """Where a finished course leaves its averaged weights."""
        return self.folder / f"{self.course.name}.safetensors"

    def run(self, make_stage: Callable[[], Stage], progress: Callable[[str], None]) -> None:
        """Train to the end, or do nothing if the result is already there; then load the average.

        `make_stage` is called only if there is something left to learn: it may load the data, and
        give the modules their first weights.
        """
        if not self.result_path.exists():
            stage = make_stage()
            self._start()
            self._train(stage, progress)
            write_bytes(self.result_path, _packed(self.average))
            self.state_path.unlink(missing_ok=True)
        self.modules.load_state_dict(load_file(self.result_path), strict=False)

    def _train(self, losses: Stage, progress: Callable[[str], None]) -> None:
        began, saved = time.monotonic(), time.monotonic()
        first = self.step
        sums: dict[str, float] = {}
        while self.step < self.course.steps:
            parts = self._one_step(losses)
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + float(value)
            if self.step % self.course.log_every == 0:
                seconds = (time.monotonic() - began) / (self.step - first)
                self._log(sums, seconds, progress)
                sums = {}
            if time.monotonic() - saved > 60 * self.course.save_minutes:
                self._save()
                saved = time.monotonic()

    def _one_step(self, losses: Stage) -> Losses:
        for group in self.optimizer.param_groups:
            group["lr"] = self.course.rate(self.step)
        # On a CPU bfloat16 is emulated, a hundred times slower than float32.
        with torch.autocast("cuda", torch.bfloat16, enabled=self.on_gpu):
            parts = losses(self.step)
            total = torch.stack(list(parts.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimizer.step()
        self.step += 1
        self._average()
        return {name: value.detach() for name, value in parts.items()}

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.course.ema, (1 + self.step) / (10 + self.step))
        averages = list(self.average.values())
        current: list[Tensor] = list(self.parameters.values())
        torch._foreach_lerp_(averages, current, 1 - decay)

    def _log(self, sums: dict[str, float], seconds: float, progress: Callable[[str], None]) -> None:
        means = {name: round(value / self.course.log_every, 6) for name, value in sums.items()}
        row = {"course": self.course.name, "step": self.step, "seconds_per_step": round(seconds, 4)}
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps(row | means) + "\n")
        left = (self.course.steps - self.step) * seconds / 60
        shown = " ".join(f"{name} {value:.4f}" for name, value in means.items())
        progress(
            f"{self.course.name} {self.step}/{self.course.steps} {shown} ({left:.1f} min left)"
        )

    def _save(self) -> None:
        state: dict[str, Tensor] = {"step": torch.tensor(self.step)}
        for index, (name, parameter) in enumerate(self.parameters.items()):
            state[f"model.{name}"] = parameter.detach()
            state[f"average.{name}"] = self.average[name]
            for key, value in self.optimizer.state[parameter].items():
                state[f"optimizer.{index}.{key}"] = value
        write_bytes(self.state_path, _packed(state))

    def _start(self) -> None:
        """From the saved state if there is one, else from the modules' weights as they are."""
        if not self.state_path.exists():
            for name, parameter in self.parameters.items():
                self.average[name].copy_(parameter.detach())
            return
        state = load_file(self.state_path)
        self.step = int(state["step"])
        with torch.no_grad():
            for index, (name, parameter) in enumerate(self.parameters.items()):
                parameter.copy_(state[f"model.{name}"])
                self.average[name].copy_(state[f"average.{name}"])
                prefix = f"optimizer.{index}."
                keys = [key for key in state if key.startswith(prefix)]
                self.optimizer.state[parameter] = {
                    key.removeprefix(prefix): state[key] for key in keys
                }


def learned(
    course: Course,
    modules: dict[str, nn.Module],
    folder: Path,
    make_stage: Callable[[], Stage],
    progress: Callable[[str], None],
) -> dict[str, nn.Module]:
    """Bring a course to its end, or load what it left; the modules come back frozen."""
    Runner(course, nn.ModuleDict(modules), folder).run(make_stage, progress)
    for module in modules.values():
        module.eval().requires_grad_(False)
    return modules


def _packed(tensors: dict[str, Tensor]) -> bytes:
    data: bytes = save({name: tensor.contiguous().clone() for name, tensor in tensors.items()})
    return data
