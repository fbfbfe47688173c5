"""Places of a picture that read texts of their own, where a network reads text at all.

Which places and which texts is the callers' business: DisenStudio has columns, and what keeps alike
subjects apart follows the words' own attention, and people draw boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor

from customvideo.attention.site import AttentionSite
from customvideo.backbones.base import Backbone
from customvideo.errors import ConfigError

__all__ = ["regional", "require_regional"]


def require_regional(backbone: Backbone, sites: Sequence[AttentionSite]) -> None:
    """Refuse a model whose places cannot read texts of their own.

    Raises:
        ConfigError: it reads text and video jointly, or turns texts into something else first.
    """
    if not hasattr(backbone, "site_states") or any(site.kind != "cross" for site in sites):
        raise ConfigError(
            f"In '{backbone.name}' no part of a picture can read a text of its own; set "
            "sampling.regions=off and draw no boxes, or choose another backbone."
        )


@contextmanager
def regional(
    backbone: Backbone,
    sites: Sequence[AttentionSite],
    states: Tensor,
    inside: Callable[[AttentionSite], Tensor],
    *,
    quiet: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[None]:
    """Let places read texts of their own at `sites`, in predictions made inside.

    Everywhere else, and in the negative half of guidance, the prediction's own text is read.
    Activations recomputed after the context has ended would be recomputed without it.

    Args:
        backbone: what predicts.
        sites: where it reads text, for the size that is predicted.
        states: encoded texts, one a region and row (region, row, token, dim).
        inside: how much of each position of a site is in which region, in [0, 1] (region, row,
            frame or 1, position); what a position has in none reads the prediction's own text.
        quiet: opened around what is read besides, for whoever listens at the same sites.

    Raises:
        ConfigError: as `require_regional`.
    """
    require_regional(backbone, sites)
    told: Tensor = cast("Any", backbone).site_states(states)
    with ExitStack() as hooks:
        for site in sites:
            where = inside(site)
            if bool(where.any()):
                hook = _reader(told, where, quiet)
                module = backbone.layer(site.path)
                hooks.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        yield


def _reader(
    states: Tensor, where: Tensor, quiet: Callable[[], AbstractContextManager[None]]
) -> Any:
    """A forward hook that mixes the regions' readings into a text attention's output."""

    def read(
        module: Any, args: tuple[Tensor, ...], kwargs: Mapping[str, Any], output: Tensor
    ) -> Tensor:
        rest = {name: value for name, value in kwargs.items() if name != "encoder_hidden_states"}
        # (row * frame, position, channel); guidance puts the negative half first.
        frames = len(args[0]) // len(kwargs["encoder_hidden_states"])
        rows = states.shape[1] * frames
        others, plain = output[:-rows], output[-rows:]
        mixed = plain
        with quiet():
            for told, part in zip(states, where, strict=True):
                if not bool(part.any()):
                    continue
                here = part.expand(-1, frames, -1).flatten(0, 1)[..., None].to(output.dtype)
                # The attention itself and not this hook; the output's projection is linear, so
                # that choosing after it is choosing before it.
                own = module.forward(args[0][-rows:], told.to(output.dtype), **rest)
                mixed = mixed + here * (own - plain)
        return torch.cat([others, mixed])

    return read
