"""CogVideoX's noise schedule, and the solvers that undo it: which equal what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler, DDIMScheduler
from torch import Tensor

from customvideo.backbones.base import TextStates
from customvideo.backbones.noise import Ddpm
from customvideo.backbones.sampling import SOLVERS, denoise
from tests.tiny import SCHEDULER_CONFIG
from tests.tiny_cogvideox import SCHEDULE

TIMES = torch.tensor([0, 500, 999])
LATENTS = torch.linspace(-2, 2, 3 * 4 * 2 * 3 * 5).reshape(3, 4, 2, 3, 5)
NOISE = LATENTS.flip(-1).roll(1, 0) + 0.25
SPREAD = 0.5
KINDS = [CogVideoXDDIMScheduler, CogVideoXDPMScheduler]

# diffusers hands tensors to numpy in a way that numpy 2 finds old-fashioned.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def make(kind: Any = CogVideoXDDIMScheduler, **changes: Any) -> tuple[Ddpm, Any]:
    scheduler = kind(**SCHEDULE | changes)
    # As a folder says it.
    return Ddpm(json.loads(scheduler.to_json_string())), scheduler


class Gaussian:
    """The best prediction for latents drawn from a normal distribution of deviation `SPREAD`.

    Whoever undoes the noise without adding any arrives at `SPREAD` times what it started from.
    """

    def __init__(self, noise: Ddpm) -> None:
        self.noise = noise
        self.alphas = noise.alphas_cumprod

    def encode_prompt(self, texts: Any) -> TextStates:
        raise AssertionError("nobody guides here")

    def predict_guided(self, *_: Any) -> Tensor:
        raise AssertionError("nobody guides here")

    def predict(self, latents: Tensor, times: Tensor, text: TextStates) -> Tensor:
        a = self.alphas[times].view(-1, 1, 1, 1, 1)
        variance = a * SPREAD**2 + 1 - a
        return (a * (1 - a)).sqrt() * (1 - SPREAD**2) * latents / variance

    @contextmanager
    def cached_text(self, text: TextStates, negative: TextStates | None = None) -> Iterator[None]:
        yield


def solve(predictor: Gaussian, start: Tensor, solver: str, steps: int) -> Tensor:
    text = TextStates(torch.zeros(len(start), 1, 1), torch.zeros(len(start), 1))
    return denoise(predictor, start, text, steps=steps, guidance=1.0, solver=solver)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("zero", [True, False])
def test_the_schedule_is_the_schedulers_own(kind: Any, shift: float, zero: bool) -> None:
    noise, scheduler = make(kind, snr_shift_scale=shift, rescale_betas_zero_snr=zero)
    assert torch.equal(noise.alphas_cumprod, scheduler.alphas_cumprod.float())
    assert noise.alphas_cumprod.dtype == torch.float32
    assert (noise.alphas_cumprod[-1] == 0) == zero
    expected = scheduler.add_noise(LATENTS, NOISE, TIMES)
    torch.testing.assert_close(noise.mix(LATENTS, NOISE, TIMES), expected, atol=1e-6, rtol=0)
    expected = scheduler.get_velocity(LATENTS, NOISE, TIMES)
    torch.testing.assert_close(noise.target(LATENTS, NOISE, TIMES), expected, atol=1e-6, rtol=0)
    assert noise.weight(TIMES).isfinite().all()


def test_other_schedulers_read_another_schedule_in_the_same_config() -> None:
    """Why the betas themselves are handed on."""
    noise, scheduler = make()
    misread = DDIMScheduler.from_config(scheduler.config)
    assert (misread.alphas_cumprod - noise.alphas_cumprod).abs().max() > 0.1


@pytest.mark.parametrize("solver", ["ddim", "dpmsolver++", "unipc"])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_solvers_are_told_the_same_schedule(solver: str, shift: float) -> None:
    noise, _ = make(snr_shift_scale=shift)
    told = SOLVERS[solver].from_config(noise.common_config)
    # The solvers that cannot start from nothing but noise begin a hair before.
    torch.testing.assert_close(told.alphas_cumprod, noise.alphas_cumprod, atol=1e-6, rtol=1e-3)


def test_ordinary_schedules_are_told_as_they_are() -> None:
    assert Ddpm(SCHEDULER_CONFIG).common_config == SCHEDULER_CONFIG


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_ddim_is_the_models_own_ddim(shift: float) -> None:
    noise, _ = make(snr_shift_scale=shift)
    native = solve(Gaussian(noise), NOISE, "native", steps=7)
    assert (solve(Gaussian(noise), NOISE, "ddim", steps=7) - native).abs().max() <= 1e-4


@pytest.mark.parametrize("solver", ["native", "ddim", "dpmsolver++", "unipc"])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_solvers_undo_the_noise(solver: str, shift: float) -> None:
    noise, _ = make(snr_shift_scale=shift)
    assert solver in noise.solvers
    found = solve(Gaussian(noise), NOISE, solver, steps=500)
    # With another schedule than the latents' own it would be a tenth off.
    assert (found - SPREAD * NOISE).abs().max() <= 0.03 * SPREAD * NOISE.abs().max()


def test_the_solver_that_adds_noise_undoes_it() -> None:
    """Of one that adds noise the deviation can be foretold, no single value."""
    noise, _ = make(CogVideoXDPMScheduler)
    start = torch.randn(2, 4, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    found = solve(Gaussian(noise), start, "native", steps=250)
    assert found.std().item() == pytest.approx(SPREAD, rel=0.03)
    assert (found - solve(Gaussian(noise), start, "ddim", steps=250)).abs().mean() > 0.1


def test_what_noise_a_solver_adds_depends_on_the_row_alone() -> None:
    noise, _ = make(CogVideoXDPMScheduler)
    both = solve(Gaussian(noise), NOISE[:2], "native", steps=6)
    assert torch.equal(both, solve(Gaussian(noise), NOISE[:2], "native", steps=6))
    assert torch.equal(both[1:], solve(Gaussian(noise), NOISE[1:2], "native", steps=6))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    nudged = solve(Gaussian(noise), NOISE[:2] + 1e-3, "native", steps=6)
    assert (nudged - both).abs().mean() > 0.05
    assert torch.equal(torch.get_rng_state(), state)
