"""The sampling loop: from noise to clean latents, as one function.

The solvers' arithmetic is diffusers' own, built from the backbone's scheduler config, so a result
equals the stock pipeline's from the same latents. It is NOT generation: prompts, seeds, adapters
and decoding are `customvideo.generation`.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypedDict, Unpack

import diffusers
import torch
from diffusers import (
    CogVideoXDPMScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from customvideo.backbones.base import TextStates, guided_inside
from customvideo.backbones.noise import Ddpm, Flow, Noise
from customvideo.errors import ConfigError

__all__ = ["SOLVERS", "Predictor", "SolverOptions", "denoise"]

SOLVERS: dict[str, Any] = {
    "native": None,
    "ddim": DDIMScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
    "euler": FlowMatchEulerDiscreteScheduler,
}
"""The scheduler that came with the model, DDIM (Song et al. 2021), DPM-Solver++ 2M (Lu et al.
2022), UniPC (Zhao et al. 2023), and Euler steps along a flow. `Noise.solvers` says which of them a
model takes."""


class SolverOptions(TypedDict, total=False):
    """The loop's settings; each has the stock pipeline's default."""

    steps: int
    """Denoiser calls; default 50."""
    guidance: float
    """Classifier-free guidance; 1 or less turns it off; default 9. A network that guides itself is
    told the number, whatever it is."""
    solver: str
    """A key of `SOLVERS`; default "ddim"."""
    clean: Tensor
    """Clean latents to begin with, which are noised as far as `share` says; default none."""
    guidance_every: int
    """The negative half of guidance is asked in every such step, the first included; in between its
    difference from the last time stands in; default 1. Not read where nothing is asked twice."""
    share: float
    """How much of the way from noise is gone, its last part, where `clean` is given; default 1."""


class Predictor(Protocol):
    """The part of a `Backbone` that the loop uses."""

    @property
    def noise(self) -> Noise: ...

    def encode_prompt(self, texts: Sequence[str]) -> TextStates: ...

    def predict(self, latents: Tensor, times: Tensor, text: TextStates) -> Tensor: ...

    def predict_guided(
        self, latents: Tensor, time: Tensor, text: TextStates, negative: TextStates, guidance: float
    ) -> Tensor: ...

    def cached_text(
        self, text: TextStates, negative: TextStates | None = None
    ) -> AbstractContextManager[None]: ...


@torch.no_grad()
def denoise(
    backbone: Predictor,
    latents: Tensor,
    text: TextStates,
    negative: TextStates | None = None,
    *,
    callback: Callable[[int, int, Tensor], None] | None = None,
    **options: Unpack[SolverOptions],
) -> Tensor:
    """Turn unit noise `latents` (row, channel, frame, height, width) into clean latents.

    `text` has one row per row of `latents`; `negative` one row, or as many, and is the empty
    prompt if None; a network that guides itself does not read it. `callback(step, time, latents)`
    is called after every step. The solver works in float32, whatever the denoiser's type, and so is
    the result. What noise a solver adds on its way depends on the row's own `latents` alone.

    Raises:
        ConfigError: an unknown solver, a step count below 1, or a share without a single step.
    """
    guidance = options.get("guidance", 9.0)
    solver = _build_solver(
        backbone.noise, options.get("solver", "ddim"), options.get("steps", 50), latents
    )
    inside = guided_inside(backbone)
    if guidance <= 1 or inside:
        negative = None
    elif negative is None:
        negative = backbone.encode_prompt([""])
    take = _stepper(solver, latents)
    latents, visited = _begin(backbone.noise, solver, latents.float(), options)
    scaled = getattr(solver, "scale_model_input", lambda sample, _time: sample)
    if inside:
        ask = _asking_inside(backbone, text, guidance)
    else:
        ask = _asking(backbone, (text, negative), guidance, options.get("guidance_every", 1))
    with backbone.cached_text(text, negative):
        for step, time in enumerate(visited):
            seen = scaled(latents, time)
            latents = take(ask(step, seen, time.expand(len(seen))), time, latents)
            if callback is not None:
                callback(step, int(time), latents)
    return latents


Ask = Callable[[int, Tensor, Tensor], Tensor]
"""Step, latents and times (row,) to the guided prediction."""


def _asking_inside(backbone: Predictor, text: TextStates, guidance: float) -> Ask:
    return lambda _step, seen, times: backbone.predict_guided(seen, times, text, text, guidance)


def _asking(
    backbone: Predictor, texts: tuple[TextStates, TextStates | None], guidance: float, every: int
) -> Ask:
    """One prediction a step without a negative text, two with one, of which the negative is spared
    but in every `every`-th step."""
    text, negative = texts
    if every < 1:
        raise ConfigError(f"guidance_every={every} asks never: choose 1 or more.")
    kept: Tensor | None = None

    def ask(step: int, seen: Tensor, times: Tensor) -> Tensor:
        nonlocal kept
        if negative is None:
            return backbone.predict(seen, times, text)
        if every == 1:
            return backbone.predict_guided(seen, times, text, negative, guidance)
        if kept is None or step % every == 0:
            # Both at once, n + g (p - n) and p, of which p - n follows.
            scales: Any = torch.tensor([guidance, 1.0], device=seen.device).view(2, 1, 1, 1, 1, 1)
            guided, within = backbone.predict_guided(seen, times, text, negative, scales).unbind(0)
            kept = guided - within
            return guided
        return backbone.predict(seen, times, text) + kept

    return ask


def _begin(
    noise: Noise, solver: Any, start: Tensor, options: SolverOptions
) -> tuple[Tensor, Tensor]:
    """The latents that the loop begins with, of unit noise `start`, and the times it visits."""
    clean = options.get("clean")
    if clean is None:
        # Solvers along a flow start from unit noise and take latents as they are.
        return start * getattr(solver, "init_noise_sigma", 1.0), solver.timesteps
    steps, share = options.get("steps", 50), options.get("share", 1.0)
    taken = int(steps * share)
    if not 0 < taken <= steps:
        raise ConfigError(
            f"{steps} steps with a strength of {share:g} leave {taken} to take: choose a strength "
            "of at most 1, and enough steps for one at least."
        )
    first = (steps - taken) * getattr(solver, "order", 1)
    visited: Tensor = solver.timesteps[first:]
    if hasattr(solver, "set_begin_index"):
        solver.set_begin_index(first)
    if hasattr(solver, "add_noise"):
        return solver.add_noise(clean.float(), start, visited[:1]), visited
    return noise.mix(clean.float(), start, visited[:1]), visited


def _stepper(solver: Any, start: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A function of prediction, time and latents that takes one step from unit noise `start`."""
    if not isinstance(solver, CogVideoXDPMScheduler):
        return lambda prediction, time, latents: solver.step(prediction, time, latents).prev_sample
    # It adds noise, and wants to be told what it found a step before, and when.
    digests = [hashlib.sha256(row.float().cpu().numpy().tobytes()).digest() for row in start]
    noise = [torch.Generator().manual_seed(int.from_bytes(one[:7], "big")) for one in digests]
    clean: Tensor | None = None
    before: Tensor | None = None

    def take(prediction: Tensor, time: Tensor, latents: Tensor) -> Tensor:
        nonlocal clean, before
        latents, clean = solver.step(prediction, clean, time, before, latents, generator=noise)
        before = time
        return latents

    return take


def _build_solver(noise: Noise, name: str, steps: int, latents: Tensor) -> Any:
    if name not in SOLVERS:
        raise ConfigError(f"Unknown solver '{name}': choose one of {', '.join(SOLVERS)}.")
    if name not in noise.solvers:
        raise ConfigError(
            f"The solver '{name}' cannot undo this model's noise: choose one of "
            f"{', '.join(noise.solvers)}."
        )
    if steps < 1:
        raise ConfigError(f"Cannot denoise in {steps} steps: choose at least 1.")
    solver = _solver_class(noise, name).from_config(_told(noise, name))
    with warnings.catch_warnings():
        # diffusers hands tensors to numpy in a way that numpy 2 finds old-fashioned.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        noise.schedule(solver, steps, latents)
    return solver


def _solver_class(noise: Noise, name: str) -> Any:
    if name != "native":
        return SOLVERS[name]
    kind = noise.config.get("_class_name", "")
    found = getattr(diffusers, kind, None) if str(kind).endswith("Scheduler") else None
    if found is None:
        raise ConfigError(
            f"The model's own solver '{kind}' is not known here: choose one of "
            f"{', '.join(noise.solvers[1:])}."
        )
    return found


def _told(noise: Noise, name: str) -> dict[str, Any]:
    """What a solver reads: the model's own config, in the terms of that solver."""
    if isinstance(noise, Ddpm) and name != "native":
        return noise.common_config
    if not isinstance(noise, Flow) or name == "native":
        return noise.config
    if name == "euler":
        return {**noise.config, "shift": noise.shift}
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    return {**noise.config, **flow, "flow_shift": noise.shift}
