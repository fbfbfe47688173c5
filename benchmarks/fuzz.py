"""Spoiled input by the hundred thousand: no traceback, no hang, no memory without end.

    python benchmarks/fuzz.py --out fuzz.json            # 100,000 inputs
    python benchmarks/fuzz.py --inputs 2000 --only photo
    python benchmarks/fuzz.py --replay DIR/photo-17      # one again, with its traceback

Each door of `doors.py` gets its share, in a process of its own that may take `--memory` MB more
than it has when it starts. An input may be taken, or refused by a `UserError`, within 5 seconds;
whatever else happens is a fault, and the input is kept in `--keep`. The same seed gives the same
inputs. Prints a line a door, then one JSON object; the exit code is 1 if there was a fault.
"""

from __future__ import annotations

import argparse
import json
import logging
import mmap
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
os.environ.setdefault("OMP_NUM_THREADS", "1")

from doors import DOORS, Door, spoiled  # noqa: E402

HANG = 5.0
"""Seconds that an input may take."""
_FORM = "qd"


@dataclass
class Tally:
    """What became of a door's inputs."""

    taken: int = 0
    refused: int = 0
    slowest: float = 0.0
    megabytes: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def inputs(self) -> int:
        return self.taken + self.refused + len(self.faults)

    def add(self, told: dict[str, Any]) -> None:
        self.taken += told["taken"]
        self.refused += told["refused"]
        self.slowest = max(self.slowest, told["slowest"])
        self.megabytes = max(self.megabytes, told["megabytes"])
        self.faults += told["faults"]


def main() -> int:
    options = _options()
    if options.replay is not None:
        return replay(options.replay)
    if options.child is not None:
        return child(options)
    options.keep.mkdir(parents=True, exist_ok=True)
    chosen = [DOORS[name] for name in options.only or DOORS]
    shares = sum(door.share for door in chosen)
    found: dict[str, Tally] = {}
    began = time.monotonic()
    for door in chosen:
        count = round(options.inputs * door.share / shares)
        tally = found[door.name] = campaign(door, count, options)
        print(
            f"{door.name:26} {tally.inputs:7} inputs {tally.taken:7} taken "
            f"{tally.refused:7} refused {tally.slowest:6.2f} s {tally.megabytes:6.0f} MB "
            f"{len(tally.faults):4} faults",
            flush=True,
        )
    result = {
        "seed": options.seed,
        "seconds": round(time.monotonic() - began),
        "inputs": sum(one.inputs for one in found.values()),
        "faults": sum(len(one.faults) for one in found.values()),
        "doors": {name: asdict(one) for name, one in found.items()},
    }
    text = json.dumps(result, indent=2)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    print(text if options.json else json.dumps({key: result[key] for key in list(result)[:4]}))
    return 1 if result["faults"] else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=list(DOORS), metavar="DOOR")
    parser.add_argument("--memory", type=int, default=1_500, help="MB that a door may take")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-faults"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true", help="print everything, not sums")
    parser.add_argument("--replay", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--span", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--board", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def campaign(door: Door, count: int, options: argparse.Namespace) -> Tally:
    """Throw `count` inputs at a door; a process that dies or hangs is followed by another."""
    tally, first = Tally(), 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        board = Path(folder) / "board"
        while first < count:
            board.write_bytes(struct.pack(_FORM, first - 1, time.time() + 60))
            ended, at = _watched(door, (first, count), board, options)
            lines = [line for line in ended.splitlines() if line.startswith("{")]
            for line in lines:
                tally.add(json.loads(line))
            if at is None:
                return tally
            if at < first:
                raise SystemExit(f"The door '{door.name}' does not open:\n{ended}")
            name = f"{door.name}-{options.seed}-{at}".replace(" ", "_")
            (options.keep / name).write_bytes(spoiled(door, options.seed, at))
            how = ended.strip().splitlines()[-1] if ended.strip() else "no word"
            tally.faults.append(f"{name}: its process hung or died ({how[:120]})")
            first = at + 1
    return tally


def _watched(
    door: Door, span: tuple[int, int], board: Path, options: argparse.Namespace
) -> tuple[str, int | None]:
    """What a child said, and at which input it died or hung, if it did."""
    process = subprocess.Popen(
        [
            *(sys.executable, __file__, "--child", door.name, "--span", *map(str, span)),
            *("--seed", str(options.seed), "--memory", str(options.memory)),
            *("--board", str(board), "--keep", str(options.keep)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    hung = False
    while True:
        try:
            said, _ = process.communicate(timeout=0.5)
            break
        except subprocess.TimeoutExpired:
            _, since = struct.unpack(_FORM, board.read_bytes())
            if time.time() - since > HANG:
                hung = True
                process.kill()
    at, _ = struct.unpack(_FORM, board.read_bytes())
    return said, at if hung or process.returncode else None


def child(options: argparse.Namespace) -> int:
    """Do a stretch of inputs in this process; a line of JSON at each thousand and at the end."""
    door = DOORS[options.child]
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with open(options.board, "r+b") as file, tempfile.TemporaryDirectory() as folder:
        memory = mmap.mmap(file.fileno(), struct.calcsize(_FORM))
        home = Path(folder)
        # Whatever is loaded once is loaded now.
        for specimen in door.specimens():
            outcome = _entered(door, home, specimen)
            assert outcome == "taken", f"a whole specimen is not taken: {outcome}"
        _limit(options.memory)
        before, tally = _peak(), Tally()
        for index in range(*options.span):
            data = spoiled(door, options.seed, index)
            struct.pack_into(_FORM, memory, 0, index, time.time())
            began = time.monotonic()
            outcome = _entered(door, home, data)
            tally.slowest = max(tally.slowest, time.monotonic() - began)
            # Making the next input is not the door's time.
            struct.pack_into(_FORM, memory, 0, index, time.time() + 30)
            if outcome in ("taken", "refused"):
                setattr(tally, outcome, getattr(tally, outcome) + 1)
            else:
                name = f"{door.name}-{options.seed}-{index}".replace(" ", "_")
                (options.keep / name).write_bytes(data)
                tally.faults.append(f"{name}: {outcome}")
            if (index + 1) % 500 == 0 or index + 1 == options.span[1]:
                tally.megabytes = _peak() - before
                print(json.dumps(asdict(tally)), flush=True)
                tally = Tally()
    return 0


def _entered(door: Door, home: Path, data: bytes) -> str:
    from customvideo.errors import UserError

    (home / door.file).write_bytes(data)
    try:
        door.enter(home)
    except UserError as error:
        return _judged(error)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in where if "customvideo" in frame.filename] or where
        place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        return f"{type(error).__name__} at {place}: {str(error)[:100]}"
    return "taken"


def _judged(error: Exception) -> str:
    """A refusal is one sentence that can be printed, and not a book."""
    text = str(error)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return f"a message that no terminal prints: {text[:60]!r}"
    if len(text) > 2_000:
        return f"a message of {len(text)} characters: {text[:60]!r}"
    return "refused"


def replay(path: Path) -> int:
    """Let one kept input in again, and see."""
    name = path.name.rsplit("-", 2)[0].replace("_", " ")
    door = DOORS[name]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / door.file).write_bytes(path.read_bytes())
        print(repr(door.enter(Path(folder)))[:500])
    return 0


def _limit(megabytes: int) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    most = used + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    raise SystemExit(main())
