"""Several processes training one adapter: who does which rows, and how they stay one run.

Every process holds the whole adapter and the frozen base, and does its part of a step's rows, which
are addressed by number (`customvideo.training.batch`): so many processes do what one does with so
many times the accumulation. Gradients are added up once a step, after all passes, in one piece:
what trains is small, a pass that only one process does cannot make the others wait, and a parameter
that no process has a gradient for is left alone everywhere, as in one process.

Processes come from `customvideo train --processes`, torchrun or `accelerate launch`; this file
starts none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from customvideo.errors import ConfigError

__all__ = ["Ranks", "asked_processes", "is_main"]


def asked_processes() -> int:
    """How many processes whoever started this one says there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this is the one process that writes and speaks, among those started together."""
    return int(os.environ.get("RANK", "0")) == 0


@dataclass(frozen=True)
class Ranks:
    """The processes of a run: how many, and which of them this is."""

    count: int = 1
    index: int = 0
    lockstep: bool = False
    """Whether all must run the same forwards in the same order, since they share the base."""

    @classmethod
    def found(cls) -> Ranks:
        """The processes there are, once they are connected.

        Raises:
            ConfigError: there are not as many as were asked for.
        """
        there = dist.is_available() and dist.is_initialized()
        ranks = cls(dist.get_world_size(), dist.get_rank()) if there else cls()
        if ranks.count != asked_processes():
            raise ConfigError(
                f"{asked_processes()} processes were started and {ranks.count} found each other; "
                "start them with --processes or with torchrun."
            )
        return ranks

    @property
    def main(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.index == 0

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process do the block before the others: they find what it made."""
        if not self.main:
            self.wait()
        yield
        if self.main:
            self.wait()

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            dist.barrier()

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process."""
        return bool(self.most(int(flag), device))

    def most(self, number: int, device: torch.device) -> int:
        """The largest of all processes' numbers."""
        if self.count == 1:
            return number
        told = torch.tensor(number, device=device)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return int(told)

    def total(self, values: Mapping[str, float], device: torch.device) -> dict[str, float]:
        """The sums of named numbers over all processes, which may not all know each name."""
        if self.count == 1:
            return dict(values)
        told = self._gathered(json.dumps(dict(values)).encode(), device)
        every = [json.loads(text) for text in told]
        names = dict.fromkeys(name for one in every for name in one)
        return {name: sum(one.get(name, 0.0) for one in every) for name in names}

    def _gathered(self, text: bytes, device: torch.device) -> list[bytes]:
        """What every process says, in their order; as numbers, since nothing is pickled here."""
        own = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(device)
        size = torch.tensor([len(own)], device=device)
        sizes = [torch.zeros_like(size) for _ in range(self.count)]
        dist.all_gather(sizes, size)
        longest = int(max(sizes))
        padded = torch.cat([own, own.new_zeros(longest - len(own))])
        found = [torch.zeros_like(padded) for _ in range(self.count)]
        dist.all_gather(found, padded)
        return [
            bytes(one[: int(length)].cpu().tolist())
            for one, length in zip(found, sizes, strict=True)
        ]

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Make every gradient the sum over all processes; none where no process has one."""
        if self.count == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        if not trained:
            return
        here = torch.tensor([one.grad is not None for one in trained], device=trained[0].device)
        anywhere = here.int()
        dist.all_reduce(anywhere, dist.ReduceOp.MAX)
        fed = [one for one, there in zip(trained, anywhere.tolist(), strict=True) if there]
        if not fed:
            return
        flat = torch.cat([_gradient(one).flatten() for one in fed])
        dist.all_reduce(flat)
        parts = torch.split(flat, [one.numel() for one in fed])
        for one, part in zip(fed, parts, strict=True):
            one.grad = part.view_as(one).clone()

    def require_equal(self, parameters: Iterable[Tensor]) -> None:
        """Check that all processes hold the same numbers.

        Raises:
            ConfigError: they do not, and training them together would mean nothing.
        """
        if self.count == 1:
            return
        sums = torch.stack([one.detach().double().sum() for one in parameters])
        least, most = sums.clone(), sums.clone()
        dist.all_reduce(least, dist.ReduceOp.MIN)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        if not torch.equal(least, most):
            raise ConfigError(
                "The processes do not hold the same adapter; give all of them the same recipe, "
                "photos, output folder and version of this program."
            )


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
