"""The frozen base shared out: every process keeps a part of each block and borrows the rest.

PyTorch's `fully_shard` (FSDP2) makes the blocks' parameters DTensors, gathers a block's when it is
about to run, forward or backward, and lets them go again. What trains is small and stays whole
everywhere (`customvideo.training.ranks`). Since gathering takes all processes, all have to run the
same forwards in the same order.
"""

from __future__ import annotations

from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from customvideo.backbones.base import Backbone
from customvideo.backbones.transformer import Transformer
from customvideo.errors import ConfigError
from customvideo.training.ranks import Ranks

__all__ = ["shard_base"]


def shard_base(backbone: Backbone, ranks: Ranks) -> int:
    """Share the denoiser's blocks out over all processes, for good; how many blocks there are.

    Raises:
        ConfigError: there is one process, or the denoiser does not run block by block.
    """
    if ranks.count == 1:
        raise ConfigError(
            "There is one process, and nobody to share the base model with; set shard=false, or "
            "start several with --processes."
        )
    blocks = _blocks(backbone.denoiser) if isinstance(backbone, Transformer) else []
    if not blocks:
        # Others' networks are run piece by piece here, and never a block as a whole.
        raise ConfigError(
            f"The base model of '{backbone.name}' cannot be shared out, only diffusion "
            "transformers can; set shard=false."
        )
    mesh = init_device_mesh(backbone.device.type, (ranks.count,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    assert all(isinstance(one, DTensor) for block in blocks for one in block.parameters())
    return len(blocks)


def _blocks(denoiser: nn.Module) -> list[nn.Module]:
    """The parts that must not be split, as diffusers names them."""
    known = [getattr(one, "_no_split_modules", None) or () for one in denoiser.modules()]
    names = {name for some in known for name in some}
    return [
        one
        for one in denoiser.modules()
        if type(one).__name__ in names and next(one.parameters(), None) is not None
    ]
