"""AdamW over an adapter: two groups of parameters, warm-up, and its state as plain tensors."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from customvideo.adapters.adapter import Adapter
from customvideo.errors import ConfigError, StorageError
from customvideo.training.config import TrainerConfig

__all__ = ["build_optimizer", "read_state", "set_rates", "write_state"]


def build_optimizer(adapter: Adapter, config: TrainerConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101) with learned words apart from all else.

    Words get no decay: they are embeddings, for which zero means nothing, while zero for a delta
    means the base model. With `adamw8bit` moments of large parameters have 8 bits, in blocks
    (Dettmers et al., arXiv 2110.02861).

    Raises:
        ConfigError: 8 bits are asked for and bitsandbytes is not installed.
    """
    words, *weights = adapter.parameter_groups(config.word_learning_rate, config.learning_rate)
    groups = [words | {"weight_decay": 0.0}]
    groups += [group | {"weight_decay": config.weight_decay} for group in weights]
    for group in groups:
        group["rate"] = group["lr"]
    kind: type[torch.optim.Optimizer] = torch.optim.AdamW
    if config.optimizer == "adamw8bit":
        kind = _eight_bits()
    optimizer = kind(groups)  # type: ignore[call-arg]
    set_rates(optimizer, step=1, warmup=config.warmup)
    return optimizer


def _eight_bits() -> Any:
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            "optimizer=adamw8bit needs the package bitsandbytes, which is not installed: pip "
            "install 'customvideo[eightbit]', or set optimizer=adamw."
        )
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit


def set_rates(optimizer: torch.optim.Optimizer, step: int, warmup: int) -> float:
    """Set every group's rate for `step` (counted from 1), and return the factor applied."""
    factor = min(1.0, step / warmup) if warmup else 1.0
    for group in optimizer.param_groups:
        group["lr"] = group["rate"] * factor
    return factor


def write_state(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state as tensors named "<parameter of module>/<entry>"."""
    return {
        # A tensor of its own: entries that several parameters share no file can hold.
        f"{name}/{entry}": torch.as_tensor(value).detach().cpu().contiguous().clone()
        for name, state in _states(optimizer, module)
        for entry, value in state.items()
    }


def read_state(
    optimizer: torch.optim.Optimizer, module: nn.Module, tensors: dict[str, Tensor]
) -> None:
    """Put what `write_state` returned back, exactly.

    Raises:
        StorageError: the tensors belong to another set of parameters.
    """
    parameters = dict(module.named_parameters())
    for key, value in tensors.items():
        name, _, entry = key.rpartition("/")
        if name not in parameters:
            raise StorageError(
                f"The optimizer state speaks of '{name}', which is not trained now; "
                "start anew without resuming."
            )
        optimizer.state[parameters[name]][entry] = _kept(entry, value, parameters[name])


def _kept(entry: str, value: Tensor, parameter: Tensor) -> Tensor | int:
    """An entry as the optimizer keeps it."""
    if entry == "step":
        # AdamW keeps its count on the CPU wherever the parameter lies, bitsandbytes as a number.
        return value.clone() if value.is_floating_point() else int(value)
    if value.shape == parameter.shape and value.dtype == parameter.dtype:
        # In the parameter's own memory layout, which no file keeps.
        return torch.empty_like(parameter.detach()).copy_(value)
    return value.to(parameter.device, copy=True)


def _states(
    optimizer: torch.optim.Optimizer, module: nn.Module
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    for name, parameter in module.named_parameters():
        if parameter in optimizer.state:
            yield name, optimizer.state[parameter]
