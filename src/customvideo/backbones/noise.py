"""The discrete diffusion a denoiser was trained under: how data is noised and what is predicted.

Notation of Ho et al. 2020 (DDPM): z_t = sqrt(a_t) z + sqrt(1 - a_t) e, with a_t the cumulative
product `alphas_cumprod[t]`. It is NOT a solver: taking noise away is `sampling.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from customvideo.errors import BackboneError

__all__ = ["PREDICTION_TYPES", "Ddpm"]

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


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
        self.alphas_cumprod = _alphas_cumprod(self.config)
        self.min_snr_gamma = min_snr_gamma

    @property
    def num_times(self) -> int:
        return len(self.alphas_cumprod)

    def draw_times(self, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """Uniform times (row,), on the generator's device."""
        device = generator.device if generator is not None else torch.device("cpu")
        return torch.randint(self.num_times, (rows,), generator=generator, device=device)

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

    def _scales(self, times: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alphas = self.alphas_cumprod.to(like.device)[times.to(like.device)]
        # Roots are taken in float32: near the ends 1 - a is below what half precision resolves.
        shape = (-1,) + (1,) * (like.dim() - 1)
        signal, spread = alphas.sqrt(), (1 - alphas).sqrt()
        return signal.view(shape).to(like.dtype), spread.view(shape).to(like.dtype)


def _alphas_cumprod(config: Mapping[str, Any]) -> Tensor:
    try:
        scheduler = DDIMScheduler.from_config(dict(config))
    except (NotImplementedError, TypeError, ValueError) as error:
        raise BackboneError(
            f"The scheduler config describes no known noise schedule ({error}); "
            "correct scheduler_config.json."
        ) from error
    alphas: Tensor = scheduler.alphas_cumprod.float()
    return alphas
