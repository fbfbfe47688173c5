"""A backbone's model as the stock pipeline that other programs know, in a copy of its own.

For those who compare with it or save it: what is done to the copy, the backbone does not feel.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import diffusers

from customvideo.quiet import without_warnings

__all__ = ["HasStock", "assembled", "copied"]


@runtime_checkable
class HasStock(Protocol):
    """A `Backbone` whose model is that of a stock pipeline."""

    def stock(self) -> Any:
        """The stock pipeline with copies of the same weights, in their types and places."""
        ...


def copied(pipeline: Any) -> Any:
    """A copy of a whole pipeline."""
    with without_warnings("diffusers"):
        return copy.deepcopy(pipeline)


def assembled(
    kind: str, unet: Any, parts: Mapping[str, Any], scheduler_config: Mapping[str, Any]
) -> Any:
    """A pipeline of class `kind` with copies of a denoiser and of `parts`, by their names in it.

    The denoiser is built anew, as its class does it, since `unet` may have been fitted out for a
    forward pass of our own.
    """
    denoiser = type(unet).from_config(unet.config)
    denoiser.load_state_dict(unet.state_dict())
    weight = unet.conv_in.weight
    solver = getattr(diffusers, str(scheduler_config.get("_class_name", "DDIMScheduler")))
    with without_warnings("diffusers"):
        return getattr(diffusers, kind)(
            unet=denoiser.to(weight.device, weight.dtype).requires_grad_(False).eval(),
            scheduler=solver.from_config(dict(scheduler_config)),
            **{name: copy.deepcopy(part) for name, part in parts.items()},
        )
