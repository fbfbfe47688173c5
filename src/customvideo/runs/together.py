"""One run in several processes of this computer: what `customvideo train --processes` does.

The same command is started once a process, each told which of them it is, in the variables that
torchrun sets too. On several computers torchrun starts them. What they do together is
`customvideo.training.ranks`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any

__all__ = ["start_together"]

_LOOK, _GRACE = 0.1, 20.0
"""Seconds between looks at the processes, and until those that outlive another's error end."""
_APART: dict[str, Any] = {} if sys.platform == "win32" else {"process_group": 0}
"""So that Ctrl-C in a terminal reaches this process alone, as a signal from elsewhere does."""


def start_together(count: int, arguments: Sequence[str]) -> int:
    """Run `customvideo` with `arguments` in `count` processes; the first one's exit code.

    It speaks; of the others only the end of what they said is told, where one of them
    failed and the first did not.
    """
    everybody = dict(os.environ) | {
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": _free_port(),
    }
    # As many threads for all together as there are processors, unless somebody said otherwise.
    everybody.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or count) // count)))
    command = [sys.executable, "-m", "customvideo", *arguments]
    with tempfile.TemporaryDirectory() as folder:
        logs = [(Path(folder) / str(index)).open("wb") for index in range(count)]
        children = [
            subprocess.Popen(
                command,
                env=everybody | {"RANK": str(index), "LOCAL_RANK": str(index)},
                **_APART,
                **({} if index == 0 else _into(logs[index])),
            )
            for index in range(count)
        ]
        with _handing_on(children):
            codes, first = _ended(children)
        for log in logs:
            log.close()
        failed = next((index for index, code in enumerate(codes) if code > 0), None)
        if codes[0] <= 0 and failed is not None:
            lines = Path(logs[failed].name).read_text(errors="replace").strip().splitlines()
            sys.stderr.write(f"{lines[-1] if lines else 'A process ended without a word.'}\n")
            return codes[failed]
    if failed is None and first is not None:
        sys.stderr.write(
            f"Process {first + 1} of {count} was ended by signal {-codes[first]}, perhaps for want "
            "of memory, and so all were; what was saved is whole, go on with --resume.\n"
        )
        return 128 - codes[first]
    return codes[0] if codes[0] >= 0 else 128 - codes[0]


def _into(log: IO[bytes]) -> dict[str, Any]:
    return {"stdout": log, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}


def _ended(children: Sequence[subprocess.Popen[bytes]]) -> tuple[list[int], int | None]:
    """Wait for all; those that outlive another's error for long are ended, since they may wait for
    it for ever. With it which was seen first to have ended badly."""
    until, first = float("inf"), None
    while any(child.poll() is None for child in children):
        bad = [index for index, child in enumerate(children) if child.poll()]
        if bad and first is None:
            until, first = time.monotonic() + _GRACE, bad[0]
        if time.monotonic() > until:
            for child in children:
                child.kill()
        time.sleep(_LOOK)
    codes = [child.wait() for child in children]
    if first is None:
        first = next((index for index, code in enumerate(codes) if code), None)
    return codes, first


@contextmanager
def _handing_on(children: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Hand a request to stop on to the processes, which save and end by themselves; each once."""

    def hand_on(number: int, frame: FrameType | None) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, hand_on),
        signal.SIGINT: signal.signal(signal.SIGINT, hand_on if _APART else _let_be),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _let_be(number: int, frame: FrameType | None) -> None:
    """A terminal has told the processes of its group already."""


def _free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])
