"""AdamW over an adapter: two groups of parameters, warm-up, and its state as plain tensors."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from customvideo.adapters.adapter import Adapter
from customvideo.errors import StorageError
from customvideo.training.config import TrainerConfig

__all__ = ["build_optimizer", "read_state", "set_rates", "write_state"]


def build_optimizer(adapter: Adapter, config: TrainerConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101) with learned words apart from all else.

    Words get no decay: they are embeddings, for which zero means nothing, while zero for a delta
    means the base model.
    """
    words, *weights = adapter.parameter_groups(config.word_learning_rate, config.learning_rate)
    groups = [words | {"weight_decay": 0.0}]
    groups += [group | {"weight_decay": config.weight_decay} for group in weights]
    for group in groups:
        group["rate"] = group["lr"]
    optimizer = torch.optim.AdamW(groups)
    set_rates(optimizer, step=1, warmup=config.warmup)
    return optimizer


def set_rates(optimizer: torch.optim.Optimizer, step: int, warmup: int) -> float:
    """Set every group's rate for `step` (counted from 1), and return the factor applied."""
    factor = min(1.0, step / warmup) if warmup else 1.0
    for group in optimizer.param_groups:
        group["lr"] = group["rate"] * factor
    return factor


def write_state(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state as tensors named "<parameter of module>/<entry>"."""
    return {
        f"{name}/{entry}": value.detach().cpu().contiguous()
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
        # AdamW keeps its step count on the CPU wherever the parameter lies.
        device = "cpu" if entry == "step" else parameters[name].device
        kept = value.to(device, copy=True)
        if entry != "step":
            # In the parameter's own memory layout, which no file keeps.
            kept = torch.empty_like(parameters[name].detach()).copy_(value)
        optimizer.state[parameters[name]][entry] = kept


def _states(
    optimizer: torch.optim.Optimizer, module: nn.Module
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    for name, parameter in module.named_parameters():
        if parameter in optimizer.state:
            yield name, optimizer.state[parameter]
