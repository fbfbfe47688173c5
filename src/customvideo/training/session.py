"""One run's moving parts: an optimizer step, a held-out score, and all state a resume needs.

It decides nothing about when: steps, checkpoints, previews and interruptions are the trainer's.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.attention.site import AttentionSite
from customvideo.attention.tape import Tape, watch
from customvideo.backbones.base import Backbone
from customvideo.backbones.noise import Relay, reached
from customvideo.errors import ConfigError
from customvideo.methods.base import Batch, Columned, Method, Stage
from customvideo.methods.denoising import gauged, mask_means
from customvideo.training.batch import Batches, Pass
from customvideo.training.checkpoint import OPTIMIZER, RNG, Checkpoint, save_checkpoint
from customvideo.training.compiling import compiled
from customvideo.training.config import TrainerConfig
from customvideo.training.learner import Learner
from customvideo.training.optimizer import build_optimizer, read_state, set_rates, write_state
from customvideo.training.progress import StepReport
from customvideo.training.ranks import Ranks
from customvideo.training.stages import Schedule

__all__ = ["Session", "Task", "build_accelerator", "resolve_precision"]

_PATIENCE = timedelta(hours=12)
"""How long processes wait for each other: one alone draws prior pictures, previews and scores. That
another has died is seen by whoever started them."""


@dataclass(frozen=True, eq=False)
class Task:
    """What is trained: the model, the method's adapter for it, and where the losses look, in
    pictures and in clips."""

    backbone: Backbone
    method: Method
    adapter: Adapter
    sites: Sequence[AttentionSite]
    clip_sites: Sequence[AttentionSite] = ()


class Session:
    """The state of a run and the ways it changes. The adapter is attached by the caller."""

    def __init__(
        self, task: Task, batches: Batches, config: TrainerConfig, accelerator: Accelerator
    ) -> None:
        self.task = task
        self.step = 0
        self._batches = batches
        self._config = config
        self._accelerator = accelerator
        self._device = task.backbone.device
        task.adapter.to(self._device)
        self.ranks = replace(Ranks.found(), lockstep=config.shard)
        self.ranks.require_equal(task.adapter.parameters())
        self._inner = build_optimizer(task.adapter, config)
        learner = Learner(task.backbone, task.method, task.adapter)
        # For evaluation, which means: for autocast alone. Gradients meet in `Ranks.add_gradients`.
        self._learner = accelerator.prepare_model(
            learner, device_placement=False, evaluation_mode=True
        )
        self._optimizer = accelerator.prepare_optimizer(self._inner, device_placement=False)
        self._schedule = Schedule.of(task.method, task.adapter, config.steps)
        self._stage: Stage | None = None
        self._checked: Stage | None = None
        self._fed: set[str] = set()
        self._looks = 0

    def train_step(self) -> StepReport:
        """Do the next optimizer step.

        Raises:
            ConfigError: the loss is not finite, or a parameter gets no gradient.
        """
        began, step = time.perf_counter(), self.step + 1
        stage, within = self._schedule.at(step)
        if stage is not self._stage:
            self.task.adapter.train_only(words=stage.words, paths=stage.paths)
            self._stage, self._fed, self._looks = stage, set(), 0
        set_rates(self._inner, within, self._config.warmup)
        totals: dict[str, Tensor | float] = defaultdict(float)
        everywhere = self._config.accumulation * self.ranks.count
        with gauged() as gauge:
            for micro in range(self.ranks.index, everywhere, self.ranks.count):
                for part in self._passes(step, micro, everywhere):
                    for name, value in self._backward(part, stage).items():
                        totals[name] += value * part.share
        here = {name: float(value) for name, value in totals.items()}
        parts = self.ranks.total(here, self._device)
        measured = mask_means(self.ranks.total(gauge.sums(), self._device))
        parameters = list(self.task.adapter.parameters())
        self.ranks.add_gradients(parameters)
        self._check(step, stage, parts)
        norm = self._accelerator.clip_grad_norm_(parameters, self._config.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step = step
        seconds = time.perf_counter() - began
        loss = sum(parts.values())
        return StepReport(step, self._config.steps, loss, parts, float(norm), seconds, measured)

    def score(self) -> float | None:
        """How badly the held-out scenes are fitted now; None if none are held out."""
        if not self._config.held_out:
            return None
        stage, _ = self._schedule.at(max(1, self.step))
        total = 0.0
        for part in self._held_out:
            batch = replace(part.batch, stage=stage.name)
            with torch.no_grad(), self._accelerator.autocast(), self._watching(batch) as tape:
                found = self.task.method.score(self.task.backbone, batch, tape)
                total += part.share * float(found)
        return total

    def save(self, folder: Path, state: dict[str, Any]) -> Checkpoint:
        """Write a checkpoint of this moment into `folder`; `state` joins its facts."""
        scaler = self._accelerator.scaler
        return save_checkpoint(
            folder,
            self.step,
            save_adapter=self.task.adapter.save,
            tensors={
                OPTIMIZER: write_state(self._inner, self.task.adapter),
                RNG: _rng_state(self._device),
            },
            state={**state, "scaler": scaler.state_dict() if scaler is not None else None},
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Become the session that wrote `checkpoint`."""
        saved = Adapter.load(checkpoint.adapter)
        self.task.adapter.load_state_dict(saved.state_dict())
        read_state(self._inner, self.task.adapter, checkpoint.optimizer())
        _restore_rng(checkpoint.rng(), self._device)
        scaler = checkpoint.state["scaler"]
        if scaler is not None and self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(scaler)
        self.step = checkpoint.step

    def require_same_place(self) -> None:
        """Check that all processes are after the same step, with the same adapter; raises as
        `Ranks.require_equal`."""
        step = torch.tensor(float(self.step), device=self._device)
        self.ranks.require_equal([step, *self.task.adapter.parameters()])

    def stop_everywhere(self, asked: bool) -> bool:
        """Whether any process was asked to stop; all hear it after the same step."""
        return self.ranks.any(asked, self._device)

    def track(self, report: StepReport) -> None:
        """Send a step to the tracker, if there is one."""
        if self._accelerator.log_with:
            values = {"loss": report.loss, "grad_norm": report.grad_norm, **report.parts}
            values |= {f"masks/{name}": value for name, value in report.measured.items()}
            self._accelerator.log(values, step=report.step)

    def compiled(self) -> AbstractContextManager[None]:
        """Inside, what nothing is attached to is compiled, if the settings say so."""
        task = self.task
        return compiled(task.backbone, task.adapter.deltas, self._config.compile)

    def close(self) -> None:
        """Leave nothing of the adapter frozen."""
        self.task.adapter.train_only()

    def end_tracking(self) -> None:
        """Finish the tracker's files."""
        if self._accelerator.log_with:
            self._accelerator.end_training()

    @cached_property
    def _held_out(self) -> list[Pass]:
        parts = self._batches.held_out()
        return [replace(part, batch=part.batch.to(self._device)) for part in parts]

    def _passes(self, step: int, micro: int, of: int) -> list[Pass]:
        """The forwards of one of this process's turns; as many in every process where they share
        the base, some of them for the others' sake alone."""
        passes = self._batches.passes(step, micro, of)
        if self.ranks.lockstep:
            lacking = self.ranks.most(len(passes), self._device) - len(passes)
            passes += [replace(passes[-1], share=0.0)] * lacking
        return passes

    def _backward(self, part: Pass, stage: Stage) -> dict[str, Tensor]:
        """Add the gradients of one pass, and return its loss parts."""
        batch = replace(part.batch, stage=stage.name).to(self._device)
        # Open through the backward pass, which may repeat the forward.
        with self._watching(batch) as tape:
            loss, parts = self._learner(batch, tape)
            if not loss.requires_grad:
                raise ConfigError(
                    f"The loss of method '{self.task.method.name}' carries no gradient, so it "
                    "would train nothing; compute it from the adapter's parameters."
                )
            self._accelerator.backward(loss * part.share)
        return dict(parts)

    @contextmanager
    def _watching(self, batch: Batch) -> Iterator[Tape | None]:
        """A tape over the method's sites that `batch` comes by, if there are any and a row of it
        has words to find."""
        method, backbone = self.task.method, self.task.backbone
        sites = self.task.clip_sites if batch.moving else self.task.sites
        sites = reached(backbone.noise, sites, batch.times)
        if not sites or bool(batch.prior.all()):
            yield None
            return
        columns = method.columns(batch) if isinstance(method, Columned) else batch.words
        with watch(backbone.denoiser, sites, columns, batch.real) as tape:
            yield tape

    def _check(self, step: int, stage: Stage, parts: dict[str, float]) -> None:
        wrong = [name for name, value in parts.items() if not math.isfinite(value)]
        if wrong:
            raise ConfigError(
                f"The {wrong[0]} loss is {parts[wrong[0]]} at step {step}; lower learning_rate and "
                "word_learning_rate, or train with precision=fp32."
            )
        if self._checked is stage:
            return
        named = dict(self.task.adapter.named_parameters())
        self._fed |= {name for name, parameter in named.items() if parameter.grad is not None}
        self._looks += 1
        noise = self.task.backbone.noise
        # So many steps in a row hold a turn of every network, wherever they begin.
        if self._looks < (2 * noise.legs - 1 if isinstance(noise, Relay) else 1):
            return
        for name, parameter in named.items():
            if parameter.requires_grad and name not in self._fed:
                raise ConfigError(
                    f"No gradient reaches '{name}', so it would never be learned; method "
                    f"'{self.task.method.name}' does not fit backbone '{self.task.backbone.name}'."
                )
        self._checked = stage


def build_accelerator(config: TrainerConfig, backbone: Backbone, out: Path | None) -> Accelerator:
    """Accelerate's side of a run, on the backbone's device.

    Raises:
        ConfigError: a precision or tracker that cannot be had.
    """
    if config.tracker != "none" and out is None:
        raise ConfigError(f"The tracker '{config.tracker}' needs an output folder; give one.")
    precision = resolve_precision(config, backbone)
    # Accelerate keeps one state per process and refuses a second run with another precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        accelerator = Accelerator(
            cpu=backbone.device.type == "cpu",
            device_placement=False,
            mixed_precision="no" if precision == "fp32" else precision,
            log_with=None if config.tracker == "none" else config.tracker,
            project_dir=None if out is None else str(out),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
        )
    except ImportError as error:
        raise ConfigError(
            f"The tracker '{config.tracker}' is not installed; install it or set tracker=none."
        ) from error
    return accelerator


def resolve_precision(config: TrainerConfig, backbone: Backbone) -> str:
    """The precision "auto" means on the backbone's device: "fp32", "bf16" or "fp16"."""
    on_cpu = backbone.device.type == "cpu"
    if config.precision == "auto":
        half = "bf16" if not on_cpu and torch.cuda.is_bf16_supported() else "fp16"
        return "fp32" if on_cpu else half
    if config.precision == "fp16" and on_cpu:
        raise ConfigError("precision=fp16 needs a GPU; use fp32 or bf16 on the CPU.")
    return config.precision


def _rng_state(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _restore_rng(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
