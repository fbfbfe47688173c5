"""The noise process a denoiser was trained under: how data is noised and what is predicted.

`Ddpm` is discrete diffusion in the notation of Ho et al. 2020: z_t = sqrt(a_t) z + sqrt(1 - a_t) e,
with a_t the cumulative product `alphas_cumprod[t]`. `Flow` is rectified flow (Liu et al. 2022;
Esser et al. 2024): z_s = (1 - s) z + s e, with s in [0, 1]. Neither is a solver: taking noise away
is `sampling.py`, which asks here how a solver is to be scheduled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from diffusers import CogVideoXDDIMScheduler, DDIMScheduler
from torch import Tensor

from customvideo.attention.site import AttentionSite
from customvideo.errors import BackboneError

__all__ = ["PREDICTION_TYPES", "Ddpm", "Flow", "FlowRelay", "Noise", "Relay", "reached"]

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


class Noise(Protocol):
    """What training and sampling ask of a noise process.

    Times are whatever the denoiser is told (row,), integers or not; latents are (row, channel,
    frame, height, width).
    """

    @property
    def config(self) -> dict[str, Any]:
        """The config of the scheduler that came with the model."""

    @property
    def solvers(self) -> tuple[str, ...]:
        """The keys of `customvideo.backbones.sampling.SOLVERS` that can undo it, the model's own
        first."""

    @property
    def last(self) -> Tensor:
        """The time () of the most noise."""

    def draw_times(self, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """Random times (row,) as in the model's own training, on the generator's device."""

    def spread_times(self, count: int) -> Tensor:
        """`count` times that cover all of the process evenly."""

    def mix(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """`latents` noised to `times`."""

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What the denoiser should answer to `mix(latents, noise, times)`."""

    def weight(self, times: Tensor) -> Tensor:
        """Loss weight (row,) of the squared error at `times`."""

    def schedule(self, solver: Any, steps: int, latents: Tensor) -> None:
        """Tell a diffusers scheduler which times to visit for `latents` of this size."""


@runtime_checkable
class Relay(Protocol):
    """A `Noise` that several networks take away in turn, each on its own leg of the times.

    Rows of one watched forward must be on one leg, or no network would see them all; the sites of
    such a backbone say which leg they are on (`AttentionSite.leg`).
    """

    @property
    def legs(self) -> int:
        """How many networks there are."""

    def leg_of(self, times: Tensor) -> Tensor:
        """The leg (row,) of each time, counted from 0, the one of the most noise."""

    def draw_times_on(
        self, leg: int, rows: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """As `draw_times`, but all on one leg."""


def reached(noise: Noise, sites: Sequence[AttentionSite], times: Tensor) -> list[AttentionSite]:
    """Those of `sites` that a forward at `times` (row,) comes by: all of them, or those of the
    network whose turn it is."""
    if not isinstance(noise, Relay):
        return list(sites)
    legs = set(noise.leg_of(times).tolist())
    assert len(legs) == 1, "the rows of one watched forward are on one leg"
    return [site for site in sites if site.leg in legs]


class Ddpm:
    """The noise process a diffusers scheduler config describes, whichever scheduler it names.

    `min_snr_gamma` weighs the loss as Hang et al. 2023 (Min-SNR, section 3.4); None weighs all
    times alike. Times are LongTensor (row,), latents (row, channel, frame, height, width).

    Raises:
        BackboneError: the config's prediction type or schedule of betas is unknown.
    """

    def __init__(self, config: Mapping[str, Any], min_snr_gamma: float | None = None) -> None:
        self.config: dict[str, Any] = dict(config)
        self.prediction_type: str = self.config.get("prediction_type", "epsilon")
        if self.prediction_type not in PREDICTION_TYPES:
            raise BackboneError(
                f"The scheduler config's prediction_type '{self.prediction_type}' is not one of "
                f"{', '.join(PREDICTION_TYPES)}; correct scheduler_config.json."
            )
        self._alphas = _alphas_cumprod(self.config)
        self.alphas_cumprod = self._alphas.float()
        self.min_snr_gamma = min_snr_gamma

    @property
    def solvers(self) -> tuple[str, ...]:
        return ("native", "ddim", "dpmsolver++", "unipc")

    @property
    def last(self) -> Tensor:
        return torch.tensor(len(self.alphas_cumprod) - 1)

    def draw_times(self, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """Uniform times (row,), on the generator's device."""
        device = generator.device if generator is not None else torch.device("cpu")
        count = len(self.alphas_cumprod)
        return torch.randint(count, (rows,), generator=generator, device=device)

    def spread_times(self, count: int) -> Tensor:
        return ((torch.arange(count) + 0.5) / count * len(self.alphas_cumprod)).long()

    def mix(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """z_t: `latents` noised to `times` (DDPM eq. 4)."""
        signal, spread = self._scales(times, latents)
        return signal * latents + spread * noise

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What the denoiser should answer to `mix(latents, noise, times)`.

        The velocity is v = sqrt(a) e - sqrt(1 - a) z (Salimans & Ho 2022, appendix D).
        """
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return latents
        signal, spread = self._scales(times, latents)
        return signal * noise - spread * latents

    def weight(self, times: Tensor) -> Tensor:
        """Loss weight (row,) of the squared error at `times`."""
        if self.min_snr_gamma is None:
            return torch.ones(times.shape, device=times.device)
        alphas = self.alphas_cumprod.to(times.device)[times]
        # A zero-SNR schedule ends at a = 0, where the error in e carries no information on z.
        snr = (alphas / (1 - alphas)).clamp(min=1e-8)
        denominator = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}
        return snr.clamp(max=self.min_snr_gamma) / denominator[self.prediction_type]

    def schedule(self, solver: Any, steps: int, latents: Tensor) -> None:
        solver.set_timesteps(steps, device=latents.device)

    @property
    def common_config(self) -> dict[str, Any]:
        """`config` in terms that every solver reads: where its schedule is CogVideoX's alone, the
        betas themselves."""
        if not _is_cogvideox(self.config):
            return self.config
        alphas = self._alphas
        betas = 1 - alphas / torch.cat([torch.ones_like(alphas[:1]), alphas[:-1]])
        return {**self.config, "trained_betas": betas.tolist()}

    def _scales(self, times: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alphas = self.alphas_cumprod.to(like.device)[times.to(like.device)]
        # Roots are taken in float32: near the ends 1 - a is below what half precision resolves.
        shape = (-1,) + (1,) * (like.dim() - 1)
        signal, spread = alphas.sqrt(), (1 - alphas).sqrt()
        return signal.view(shape).to(like.dtype), spread.view(shape).to(like.dtype)


class Flow:
    """Rectified flow between data (s = 0) and noise (s = 1); the denoiser answers e - z.

    The denoiser is told s * `num_train_timesteps`, which is what times are here, as float32.
    Training draws s from a logit-normal, shifted as the model's schedule is (Esser et al. 2024,
    section 3.1 and eq. 23): s <- k s / (1 + (k - 1) s).

    Args:
        config: of the scheduler that came with the model; `flow_shift` or `shift` in it is k.
        shift: k, where the config does not say it.
        times: how a solver is scheduled, if not by a number of steps alone: called with the
            solver, the number of steps and the latents.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        shift: float | None = None,
        times: Callable[[Any, int, Tensor], None] | None = None,
    ) -> None:
        self.config: dict[str, Any] = dict(config)
        said = self.config.get("flow_shift", self.config.get("shift", 1.0))
        self.shift = float(said if shift is None else shift)
        self._count = int(self.config.get("num_train_timesteps", 1000))
        self._times = times

    @property
    def solvers(self) -> tuple[str, ...]:
        return ("native", "euler", "unipc", "dpmsolver++")

    @property
    def last(self) -> Tensor:
        return torch.tensor(float(self._count))

    def draw_times(self, rows: int, generator: torch.Generator | None = None) -> Tensor:
        device = generator.device if generator is not None else torch.device("cpu")
        drawn = torch.randn(rows, generator=generator, device=device).sigmoid()
        return self._shifted(drawn) * self._count

    def spread_times(self, count: int) -> Tensor:
        """Quantiles of what training draws."""
        evenly = (torch.arange(count) + 0.5) / count
        return self._shifted(torch.special.ndtri(evenly).sigmoid()) * self._count

    def mix(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        level = self._level(times, latents)
        return (1 - level) * latents + level * noise

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        return noise - latents

    def weight(self, times: Tensor) -> Tensor:
        return torch.ones(times.shape, device=times.device)

    def schedule(self, solver: Any, steps: int, latents: Tensor) -> None:
        if self._times is not None:
            self._times(solver, steps, latents)
        else:
            solver.set_timesteps(steps, device=latents.device)

    def _shifted(self, level: Tensor) -> Tensor:
        return self.shift * level / (1 + (self.shift - 1) * level)

    def _level(self, times: Tensor, like: Tensor) -> Tensor:
        level = times.to(like.device, torch.float32) / self._count
        return level.view((-1,) + (1,) * (like.dim() - 1)).to(like.dtype)


class FlowRelay(Flow):
    """`Flow` that two networks take away in turn: one down to the time `boundary`, which is still
    its own, the other from there."""

    legs = 2

    def __init__(self, config: Mapping[str, Any], boundary: float) -> None:
        super().__init__(config)
        self.boundary = boundary

    def leg_of(self, times: Tensor) -> Tensor:
        return (times < self.boundary).long()

    def draw_times_on(
        self, leg: int, rows: int, generator: torch.Generator | None = None
    ) -> Tensor:
        device = generator.device if generator is not None else torch.device("cpu")
        drawn = torch.rand(rows, generator=generator, device=device, dtype=torch.float64)
        below = self._share_below()
        evenly = below + drawn * (1 - below) if leg == 0 else drawn * below
        times = (self._shifted(torch.special.ndtri(evenly).sigmoid()) * self._count).float()
        # Rounding may have crossed the boundary.
        boundary = torch.tensor(self.boundary, device=device)
        last = torch.nextafter(boundary, torch.zeros_like(boundary))
        return times.clamp(min=boundary) if leg == 0 else times.clamp(max=last)

    def _share_below(self) -> float:
        """How often `draw_times` draws a time below the boundary."""
        level = self.boundary / self._count
        drawn = torch.tensor(level / (self.shift - (self.shift - 1) * level), dtype=torch.float64)
        return float(torch.special.ndtr(drawn.logit()))


def _is_cogvideox(config: Mapping[str, Any]) -> bool:
    return str(config.get("_class_name", "")).startswith("CogVideoX")


def _alphas_cumprod(config: Mapping[str, Any]) -> Tensor:
    """In float32, or in float64 where diffusers has them so."""
    # CogVideoX's two schedulers shift the signal-to-noise ratio alike, all others not at all.
    kind = CogVideoXDDIMScheduler if _is_cogvideox(config) else DDIMScheduler
    try:
        scheduler = kind.from_config(dict(config))
    except (NotImplementedError, TypeError, ValueError) as error:
        raise BackboneError(
            f"The scheduler config describes no known noise schedule ({error}); "
            "correct scheduler_config.json."
        ) from error
    alphas: Tensor = scheduler.alphas_cumprod
    return alphas
