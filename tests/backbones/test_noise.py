"""The noise process against diffusers' own arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from customvideo.backbones.noise import Ddpm
from customvideo.errors import BackboneError
from tests.tiny import SCHEDULER_CONFIG

TIMES = torch.tensor([0, 500, 999])
LATENTS = torch.linspace(-2, 2, 3 * 4 * 2 * 3 * 5).reshape(3, 4, 2, 3, 5)
NOISE = LATENTS.flip(-1).roll(1, 0) + 0.25


def make(**changes: Any) -> tuple[Ddpm, DDIMScheduler]:
    config = SCHEDULER_CONFIG | changes
    return Ddpm(config), DDIMScheduler(**config)


def test_mix_is_diffusers_add_noise() -> None:
    noise, scheduler = make()
    expected = scheduler.add_noise(LATENTS, NOISE, TIMES)
    torch.testing.assert_close(noise.mix(LATENTS, NOISE, TIMES), expected, atol=1e-6, rtol=0)


def test_velocity_is_diffusers_get_velocity() -> None:
    noise, scheduler = make(prediction_type="v_prediction")
    expected = scheduler.get_velocity(LATENTS, NOISE, TIMES)
    torch.testing.assert_close(noise.target(LATENTS, NOISE, TIMES), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("kind", "expected"), [("epsilon", NOISE), ("sample", LATENTS)])
def test_target_of_the_other_prediction_types(kind: str, expected: torch.Tensor) -> None:
    noise, _ = make(prediction_type=kind)
    assert torch.equal(noise.target(LATENTS, NOISE, TIMES), expected)


def test_epsilon_is_the_default_target() -> None:
    assert Ddpm(SCHEDULER_CONFIG).prediction_type == "epsilon"


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_schedules_of_betas(schedule: str) -> None:
    noise, scheduler = make(beta_schedule=schedule)
    assert torch.equal(noise.alphas_cumprod, scheduler.alphas_cumprod)


def test_zero_terminal_snr_is_honoured() -> None:
    noise, _ = make(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    plain, _ = make()
    last = torch.tensor([999])
    assert noise.alphas_cumprod[-1] < 1e-6 < 1e-3 < plain.alphas_cumprod[-1]
    mixed = noise.mix(LATENTS[:1], NOISE[:1], last)
    torch.testing.assert_close(mixed, NOISE[:1], atol=1e-3, rtol=0)
    assert noise.weight(last).isfinite().all()


def test_times_cover_the_range_and_follow_the_generator() -> None:
    noise, _ = make()
    times = noise.draw_times(20_000, torch.Generator().manual_seed(3))
    assert times.min() == 0 and times.max() == 999
    assert torch.equal(times, noise.draw_times(20_000, torch.Generator().manual_seed(3)))
    assert not torch.equal(times, noise.draw_times(20_000, torch.Generator().manual_seed(4)))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weighs_the_same_error_in_the_clean_latents(kind: str) -> None:
    """Whatever is predicted, the weight of an error in z must be min(SNR, gamma)."""
    noise = Ddpm(SCHEDULER_CONFIG | {"prediction_type": kind}, min_snr_gamma=5.0)
    alphas = noise.alphas_cumprod[TIMES]
    snr = alphas / (1 - alphas)
    error_from_clean = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones(3)}[kind]
    expected = snr.clamp(max=5.0)
    torch.testing.assert_close(noise.weight(TIMES) * error_from_clean, expected)


def test_all_times_weigh_alike_by_default() -> None:
    noise, _ = make()
    assert noise.weight(TIMES).tolist() == [1, 1, 1]


def test_half_precision_keeps_its_type() -> None:
    noise, _ = make(prediction_type="v_prediction")
    half = LATENTS.to(torch.bfloat16)
    assert noise.mix(half, half, TIMES).dtype == torch.bfloat16
    assert noise.target(half, half, TIMES).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "change", [{"prediction_type": "flow"}, {"beta_schedule": "sudden"}, {"beta_start": "low"}]
)
def test_an_unknown_schedule_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BackboneError, match=r"scheduler_config\.json"):
        Ddpm(SCHEDULER_CONFIG | change)
