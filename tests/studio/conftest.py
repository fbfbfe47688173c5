"""A studio that really runs, as `customvideo web` starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.browser import browser

_OPEN = re.compile(r"The studio is open at (http://\S+)")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


@dataclass(frozen=True)
class Running:
    """A studio: the address it printed, and the folder it works in."""

    url: str
    workspace: Path


@contextmanager
def running(workspace: Path, *flags: str) -> Iterator[Running]:
    """A studio in a process of its own, ended as Ctrl-C ends it."""
    command = [sys.executable, "-m", "customvideo", "web", "--workspace", str(workspace)]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*command, "--port", "0", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=surroundings,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[str] = []
    drain = threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True)
    drain.start()
    try:
        url = next((m[1] for line in process.stdout if (m := _OPEN.search(line))), None)
        assert url is not None, "".join(said)[-2000:]
        yield Running(url, workspace)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        drain.join(5)
        process.stdout.close()
        process.stderr.close()


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One studio for all tests that do not need a workspace of their own."""
    pytest.importorskip("gradio")
    with running(tmp_path_factory.mktemp("studio") / "workspace") as found:
        yield found
