"""Kill the program at random moments, go on, and compare with what was never killed.

    nice -n 19 python benchmarks/faults.py --out faults.json          # 200 kills, about an hour
    python benchmarks/faults.py --kills 2 --only training             # a look

Each of the works in `works.py` (a training, a benchmark, exports) is done once without a fault.
Then it is started again and again in a new folder, and killed by SIGKILL: half of the times at a
random moment of the run, half of them at a random file operation of it, before the operation or in
the middle of its writing. The next start goes on. After every kill all visible files have to be
whole, and at most the steps since the last checkpoint may be lost; at the end of a run every file,
hidden ones included, has to equal the undisturbed run's, byte for byte, but for times and the
memory used. The exit code is 1 if anything differs.

A run is a fork of this process, which has read the models already: a real process that is really
killed, and starts in no time. So this needs a POSIX system.
"""

from __future__ import annotations

import argparse
import builtins
import json
import mmap
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
os.environ.setdefault("OMP_NUM_THREADS", "1")

from works import WORKS, Work  # noqa: E402

SHARES = {"training": 0.55, "grid": 0.2, "export": 0.25}
OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
"""Events of Python's audit hook that change files; flushing is counted beside them."""


class Board:
    """Numbers that a run and its killer share: file operations begun, and training steps done."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16)

    def _get(self, place: int) -> int:
        found: int = struct.unpack_from("q", self._memory, 8 * place)[0]
        return found

    def _set(self, place: int, value: int) -> None:
        struct.pack_into("q", self._memory, 8 * place, value)

    operations = property(lambda self: self._get(0), lambda self, value: self._set(0, value))
    steps = property(lambda self: self._get(1), lambda self, value: self._set(1, value))


@dataclass(frozen=True)
class Kill:
    """When: after so many seconds, or at the file operation of that number; `torn` in the middle of
    what it writes."""

    after: float | None = None
    operation: int = 0
    torn: bool = False

    @property
    def kind(self) -> str:
        if self.after is not None:
            return "moment"
        return "torn write" if self.torn else "file operation"


@dataclass
class Found:
    """What a campaign has found."""

    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    ended_before_the_kill: int = 0
    left_half: int = 0
    most_steps_lost: int = 0
    faults: list[str] = field(default_factory=list)


class Hook:
    """Counts a run's file operations in one folder, and kills the run at one of them."""

    def __init__(self, board: Board, folder: Path, kill: Kill) -> None:
        self._board, self._folder, self._kill = board, str(folder), kill
        self._torn = False

    def install(self) -> None:
        import customvideo.files as files

        flush = os.fsync

        def counted_flush(handle: int) -> None:
            self._count()
            flush(handle)

        os.fsync = counted_flush
        sys.addaudithook(self._heard)
        # Seen by the one function that writes, and by nobody else.
        files.open = self._open  # type: ignore[attr-defined]

    def _heard(self, event: str, told: tuple[Any, ...]) -> None:
        if event not in OPERATIONS or not self._inside(event, told):
            return
        # open(path, mode, flags): reading changes nothing.
        if event != "open" or (isinstance(told[2], int) and told[2] & (os.O_WRONLY | os.O_RDWR)):
            self._count()

    def _inside(self, event: str, told: tuple[Any, ...]) -> bool:
        if not isinstance(told[0], str | os.PathLike):
            return False
        # Names below an open folder are told with its handle, as when a whole tree is removed.
        below = event != "open" and any(isinstance(one, int) and one > 2 for one in told[1:])
        return below or self._folder in os.fspath(told[0])

    def _count(self) -> None:
        self._board.operations += 1
        if self._board.operations == self._kill.operation:
            if self._kill.torn:
                self._torn = True
            else:
                os.kill(os.getpid(), signal.SIGKILL)

    def _open(self, *arguments: Any, **options: Any) -> Any:
        file = builtins.open(*arguments, **options)  # noqa: SIM115
        return _Torn(file) if self._torn else file


class _Torn:
    """A file of which a half arrives."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __enter__(self) -> _Torn:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        self._file.write(data[: len(data) // 2])
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def run(work: Work, folder: Path, kill: Kill, board: Board) -> bool:
    """Do the work in a process of its own; whether it came to its end.

    Raises:
        RuntimeError: it ended in an error, which is told.
    """
    board.operations = board.steps = 0
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _be_killed(work, folder, Hook(board, folder, kill), writer)
    os.close(writer)
    if kill.after is not None:
        _wait(child, kill.after)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reader, encoding="utf-8") as told:
        error = told.read()
    _, status = os.waitpid(child, 0)
    if error:
        raise RuntimeError(error)
    return os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0


def _wait(child: int, seconds: float) -> None:
    """Until so many seconds are over or the child has ended; it is not reaped."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
            return
        time.sleep(0.002)


def _be_killed(work: Work, folder: Path, hook: Hook, writer: int) -> None:
    try:
        hook.install()
        work.run(folder, lambda step: setattr(hook._board, "steps", step))
    except BaseException:
        os.write(writer, traceback.format_exc().encode())
        os._exit(1)
    os._exit(0)


class Campaign:
    """One work, its undisturbed run, and its disturbed ones."""

    def __init__(self, work: Work, room: Path, rng: random.Random, say: Callable[[str], None]):
        self.work, self._room, self._rng, self._say = work, room, rng, say
        self._folder, self._board = room / "run", Board()
        self.found = Found()
        # Twice: what is read for the first time takes longer.
        for _ in range(2):
            self._renew()
            began = time.monotonic()
            assert run(work, self._folder, Kill(), self._board), "the undisturbed run ends"
            self._seconds = time.monotonic() - began
        self._operations = self._board.operations
        self._whole = work.canonical(self._folder)
        say(f"{work.name}: {self._seconds:.1f} s, {self._operations} file operations")

    def kill(self, times: int, until: float) -> Found:
        """Kill so many times, or `until` then, and compare whatever comes to its end."""
        self._renew()
        found = self.found
        while (more := found.kills.total() < times and time.monotonic() < until) or self._begun:
            last = not more
            kill = Kill() if last else self._choose()
            self._begun = True
            try:
                ended = run(self.work, self._folder, kill, self._board)
            except RuntimeError as error:
                found.faults.append(f"{self.work.name}, {kill}: {error}")
                ended = False
                self._renew()
                continue
            if ended:
                found.ended_before_the_kill += not last
                self._compare(kill)
                self._renew()
            else:
                found.kills[kill.kind] += 1
                self._say(f"{self.work.name}: killed {found.kills.total()} times, {kill}")
                self._look(kill)
        return found

    def _choose(self) -> Kill:
        if self._rng.random() < 0.5:
            return Kill(after=self._rng.uniform(0, self._seconds))
        number = self._rng.randint(1, self._operations)
        return Kill(operation=number, torn=self._rng.random() < 0.4)

    def _look(self, kill: Kill) -> None:
        """After a kill."""
        found, name = self.found, self.work.name
        hidden = (one for one in self._folder.rglob(".*") if one.name != ".lock")
        found.left_half += any(hidden)
        found.faults += [
            f"{name}, {kill}: {one}" for one in self.work.look(self._folder, self._whole)
        ]
        lost = self._board.steps - self.work.saved(self._folder) if self._board.steps else 0
        found.most_steps_lost = max(found.most_steps_lost, lost)
        if lost > self.work.may_lose:
            found.faults.append(f"{name}, {kill}: {lost} steps are lost")

    def _compare(self, kill: Kill) -> None:
        """After a run that came to its end."""
        self.found.runs += 1
        now = self.work.canonical(self._folder)
        for name in sorted(now.keys() | self._whole.keys()):
            if now.get(name) != self._whole.get(name):
                how = "differs" if name in now and name in self._whole else "is there alone"
                self.found.faults.append(f"{self.work.name}, after {kill}: '{name}' {how}")

    def _renew(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._begun = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--only", choices=SHARES, action="append")
    parser.add_argument("--minutes", type=float, default=24 * 60, help="of killing each work")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where the report goes; else standard output")
    options = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    rng, began = random.Random(options.seed), time.monotonic()
    wanted = {name: SHARES[name] for name in options.only or SHARES}
    report: dict[str, Any] = {"seed": options.seed}
    faults: list[str] = []

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        for name, share in wanted.items():
            room = Path(temporary) / name
            campaign = Campaign(WORKS[name](room / "given"), room, rng, say)
            times = round(options.kills * share / sum(wanted.values()))
            found = campaign.kill(times, time.monotonic() + 60 * options.minutes)
            faults += found.faults
            report[name] = {
                "kills": dict(found.kills),
                "runs compared": found.runs,
                "ended before the kill": found.ended_before_the_kill,
                "kills that left something half-written": found.left_half,
                "most steps lost": found.most_steps_lost if campaign.work.may_lose else None,
                "file operations of a run": campaign._operations,
                "seconds of a run": round(campaign._seconds, 1),
            }
            say(f"{name}: {report[name]}, {len(found.faults)} faults")
    report |= {"faults": faults, "minutes": round((time.monotonic() - began) / 60, 1)}
    text = json.dumps(report, indent=2)
    options.out.write_text(text + "\n") if options.out else print(text)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
