"""The sampling loop: from noise to clean latents, as one function.

The solvers' arithmetic is diffusers' own, built from the backbone's scheduler config, so a result
equals the stock pipeline's from the same latents. It is NOT generation: prompts, seeds, adapters
and decoding are `customvideo.generation`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypedDict, Unpack

import diffusers
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from customvideo.backbones.base import TextStates
from customvideo.backbones.noise import Flow, Noise
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
    """Classifier-free guidance; 1 or less turns it off; default 9."""
    solver: str
    """A key of `SOLVERS`; default "ddim"."""


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
    prompt if None. `callback(step, time, latents)` is called after every step. The solver works in
    float32, whatever the denoiser's type, and so is the result.

    Raises:
        ConfigError: an unknown solver or a step count below 1.
    """
    guidance = options.get("guidance", 9.0)
    solver = _build_solver(
        backbone.noise, options.get("solver", "ddim"), options.get("steps", 50), latents
    )
    if guidance <= 1:
        negative = None
    elif negative is None:
        negative = backbone.encode_prompt([""])
    # Solvers along a flow start from unit noise and take latents as they are.
    latents = latents.float() * getattr(solver, "init_noise_sigma", 1.0)
    scaled = getattr(solver, "scale_model_input", lambda sample, _time: sample)
    with backbone.cached_text(text, negative):
        for step, time in enumerate(solver.timesteps):
            seen = scaled(latents, time)
            times = time.expand(len(seen))
            if negative is None:
                prediction = backbone.predict(seen, times, text)
            else:
                prediction = backbone.predict_guided(seen, times, text, negative, guidance)
            latents = solver.step(prediction, time, latents).prev_sample
            if callback is not None:
                callback(step, int(time), latents)
    return latents


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
    if not isinstance(noise, Flow) or name == "native":
        return noise.config
    if name == "euler":
        return {**noise.config, "shift": noise.shift}
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    return {**noise.config, **flow, "flow_shift": noise.shift}
