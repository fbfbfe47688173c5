"""Compiling what of the frozen network nobody listens at, for as long as it trains.

Deltas and the attention's tape are hooks, which come and go with every pass: a network that was
compiled whole would break off at each of them. So the parts of its blocks that carry none (self
attention, feed-forward, convolutions) are compiled in place, each by itself, and the rest runs as
ever.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from torch import nn
from torch._dynamo import config as dynamo
from torch.distributed.tensor import DTensor

from customvideo.backbones.base import Backbone
from customvideo.backbones.modules import weighted
from customvideo.errors import ConfigError

__all__ = ["compiled", "untouched"]

_BACKEND = "inductor"
_VARIANTS = 8
"""Shapes and modes that each part may be compiled for anew: dynamo's usual bound."""
_COMPILERS = ("g++", "clang++", "c++", "clang", "gcc")


@contextmanager
def compiled(backbone: Backbone, touched: Iterable[str], wanted: bool) -> Iterator[None]:
    """Inside, if `wanted`, the `untouched` parts of the denoiser are compiled (torch.compile); the
    first steps take as long as that takes.

    `touched` are paths of layers where an adapter is attached; the backbone's attention sites count
    as such, too.

    Raises:
        ConfigError: there is no compiler here, no part to compile, or the base is shared out.
    """
    if not wanted:
        yield
        return
    _require_compiler(backbone.device)
    if any(isinstance(one, DTensor) for one in backbone.denoiser.parameters()):
        raise ConfigError("A base that is shared out is not compiled; set compile=false.")
    sites = backbone.sites(1, *backbone.size)
    heard = [path for site in sites for path in (site.path, site.key, site.value, site.norm)]
    parts = untouched(backbone.denoiser, [*touched, *heard])
    if not parts:
        raise ConfigError(
            f"The method changes every block of '{backbone.name}', so that nothing is left to "
            "compile; set compile=false."
        )
    # All parts look like one function to dynamo, and are counted together.
    bound = _VARIANTS * len(parts)
    try:
        for part in parts:
            part.compile(backend=_BACKEND)
        with dynamo.patch(recompile_limit=bound, accumulated_recompile_limit=bound):
            yield
    finally:
        for part in parts:
            part._compiled_call_impl = None


def untouched(denoiser: nn.Module, touched: Iterable[str]) -> list[nn.Module]:
    """The largest parts of the denoiser's blocks with two layers or more and nothing of `touched`
    in them; parts that only hold blocks are none."""
    paths = {path for path in touched if path}
    return [
        part
        for name, child in denoiser.named_children()
        for part in _below(child, name, paths, within=False)
    ]


def _below(module: nn.Module, path: str, touched: set[str], within: bool) -> Iterator[nn.Module]:
    within = within or isinstance(module, nn.ModuleList)
    free = not any(one == path or one.startswith(f"{path}.") for one in touched)
    if within and free and not _holds_blocks(module):
        if len(weighted(module)) > 1:
            yield module
        return
    for name, child in module.named_children():
        yield from _below(child, f"{path}.{name}", touched, within)


def _holds_blocks(module: nn.Module) -> bool:
    """Whether it is, or has, a list of blocks, which whoever runs it may call one by one."""
    lists = [one for one in (module, *module.children()) if isinstance(one, nn.ModuleList)]
    return any(len(weighted(block)) > 1 for one in lists for block in one)


def _require_compiler(device: torch.device) -> None:
    if device.type == "cuda" and find_spec("triton") is None:
        raise ConfigError("compile=true needs the package triton on a GPU; set compile=false.")
    if device.type == "cpu" and not any(map(shutil.which, _COMPILERS)):
        raise ConfigError("compile=true needs a C++ compiler on a CPU; set compile=false.")
