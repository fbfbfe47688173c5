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
                **({} if index == 0 else _into(logs[index])),
            )
            for index in range(count)
        ]
        with _handing_on(children):
            codes = _ended(children)
        for log in logs:
            log.close()
        failed = next((index for index, code in enumerate(codes) if code > 0), None)
        if codes[0] <= 0 and failed is not None:
            lines = Path(logs[failed].name).read_text(errors="replace").strip().splitlines()
            sys.stderr.write(f"{lines[-1] if lines else 'A process ended without a word.'}\n")
            return codes[failed]
    return codes[0] if codes[0] >= 0 else 128 - codes[0]


def _into(log: IO[bytes]) -> dict[str, Any]:
    return {"stdout": log, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}


def _ended(children: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Wait for all; those that outlive another's error for long are ended, since they may wait for
    it for ever."""
    until = float("inf")
    while any(child.poll() is None for child in children):
        if any(child.poll() for child in children):
            until = min(until, time.monotonic() + _GRACE)
        if time.monotonic() > until:
            for child in children:
                child.kill()
        time.sleep(_LOOK)
    return [child.wait() for child in children]


@contextmanager
def _handing_on(children: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Hand a request to stop on to the processes, which save and end by themselves.

    Ctrl-C in a terminal reaches them anyway; whoever ends this program means them.
    """

    def hand_on(number: int, frame: FrameType | None) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, hand_on),
        signal.SIGINT: signal.signal(signal.SIGINT, lambda number, frame: None),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])
