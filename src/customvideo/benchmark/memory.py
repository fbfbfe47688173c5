"""How much memory a stretch of work took at most, where that can be told."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

__all__ = ["PeakMemory"]

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MEGABYTE = 1e6


class PeakMemory:
    """Begins to look when it is made: at a GPU's own memory, else at the whole process's."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device if device.type == "cuda" else None
        self._can_tell = True
        if self._gpu is not None:
            torch.cuda.reset_peak_memory_stats(self._gpu)
            return
        try:
            # Linux begins a new maximum when a 5 is written here.
            _RESET.write_text("5")
        except OSError:
            # Without it the maximum would be an earlier job's.
            self._can_tell = False

    @property
    def megabytes(self) -> float | None:
        """The most that was used since, in units of a million bytes; None if nobody can tell."""
        if self._gpu is not None:
            return torch.cuda.max_memory_allocated(self._gpu) / _MEGABYTE
        if self._can_tell:
            with suppress(OSError, StopIteration, ValueError, IndexError):
                lines = _STATUS.read_text(encoding="ascii").splitlines()
                line = next(line for line in lines if line.startswith("VmHWM:"))
                return int(line.split()[1]) * 1024 / _MEGABYTE
        return None
