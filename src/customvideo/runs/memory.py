"""When memory runs out: one sentence that names what to turn, instead of a trace.

How much a run will need before it begins is `customvideo.runs.preflight`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from customvideo.errors import ConfigError

__all__ = ["enough_memory"]

_CPU = ("not enough memory", "can't allocate memory")
"""How torch says it on a CPU."""


@contextmanager
def enough_memory(doing: str, knobs: Sequence[str], last: str = "") -> Iterator[None]:
    """Say what to turn if memory runs out inside; every other error passes.

    Args:
        doing: what was being done, as in "training on 'wan-1.3b'".
        knobs: what can be turned to need less, the first to try first.
        last: a further way out, a clause, as in "--fit auto chooses".

    Raises:
        ConfigError: memory ran out.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _ran_out(error):
            raise
        gpu = isinstance(error, torch.OutOfMemoryError)
        first, *others = knobs
        more = f", and if that is not enough {', then '.join(others)}" if others else ""
        further = f"; {last}" if last else ""
        raise ConfigError(
            f"The {'GPU' if gpu else 'computer'} ran out of memory while {doing}: try {first}"
            f"{more}{further}."
        ) from error


def _ran_out(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _CPU)
