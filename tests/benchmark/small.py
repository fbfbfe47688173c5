"""A benchmark so small that every test can run it: three toys, two of them cats, and no steps to
speak of. It shows that everything fits together and says nothing about how videos look.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from customvideo.benchmark.editions import OwnFolder
from customvideo.benchmark.grid import Job, Made
from customvideo.benchmark.plan import BenchPlan
from customvideo.config import compose_recipe
from customvideo.toybox.customstudio import studio, write_subject
from customvideo.video import Video

CATS = tuple(one.name for one in studio().subjects if one.category == "cat")[:2]
NAMES = (*CATS, "rex")

QUICK: dict[str, Any] = {
    "backbone": "toybox",
    "steps": 2,
    "batch_size": 1,
    "pool": 2,
    "held_out": 1,
    "warmup": 0,
    "prior_weight": 0.0,
    "sampling": {"num_steps": 1, "frames": 2},
}
"""Changes of a CustomVideo recipe, for a job of a second or two."""

TIMED = ("train_seconds", "sample_seconds", "peak_memory_mb")
"""What no two runs have in common."""


def write_edition(folder: Path) -> Path:
    """Photos of the three, two of each, with their true masks; all pairs are its combinations."""
    for name in NAMES:
        individual = studio().subject(name).individual
        write_subject(folder / name, individual, name, count=2, masks=True)
    return folder


@dataclass(frozen=True)
class Filmed(OwnFolder):
    """The same folder, as if somebody had filmed the three."""

    def footage(
        self, combination: str, prompt_index: int, seed: int, frames: int, size: tuple[int, int]
    ) -> Video | None:
        rng = np.random.default_rng([prompt_index, seed, *combination.encode()])
        return Video(rng.integers(0, 255, (frames, *size, 3), np.uint8))


def plan_of(edition: Path, *labels: str, **changes: Any) -> BenchPlan:
    """One prompt, one seed and the first pair, for quick entries of these labels."""
    entries: dict[str, dict[str, Any]] = {
        label: {} if label == "customvideo" else {"attention_weight": 0.0} for label in labels
    }
    asked = {"pairs": 1, "prompts": 1, "seeds": 1, "entries": entries, "changes": QUICK}
    return BenchPlan(edition=str(edition), device="cpu", **{**asked, **changes})


def a_job(**changes: Any) -> Job:
    """A job that is never done."""
    made = Made("fingerprint", "fp32", (("tom", "cat", "1a"), ("rex", "dog", "2b")))
    fields: dict[str, Any] = {
        "kind": "trained",
        "method": "customvideo",
        "combination": "tom+rex",
        "prompts": ("a <tom> cat and a <rex> dog", "a <tom> cat and a <rex> dog running"),
        "samples": ((0, 0), (0, 1)),
        "recipe": compose_recipe(QUICK.items()),
        "made": made,
    }
    return Job(**{**fields, **changes})


def untimed(rows: Path) -> str:
    """A table of rows without what no two runs have in common."""
    with rows.open(encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    kept = [name for name in records[0] if name not in TIMED]
    memory = io.StringIO()
    writer = csv.DictWriter(memory, kept, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return memory.getvalue()


def told(path: Path) -> dict[str, Any]:
    """What a JSON file says."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
