"""What a Ray cluster costs and brings: the same batch of customizations here, with one worker, and
with two.

    python benchmarks/fleet.py --runs 8 --steps 60

One JSON line each: seconds of the whole batch, seconds without starting workers and loading models,
`overhead` of one worker against this process, and `efficiency` of several against one. Run it on an
idle machine: every worker has one processor thread, and so has this process.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from customvideo.batch.plan import Run
from customvideo.batch.work import Worker, open_worker
from customvideo.config import compose_recipe
from customvideo.fleet.executors import Here
from customvideo.fleet.ray import OnRay
from customvideo.fleet.work import Outcome
from customvideo.toybox.commands import studio


def runs_of(photos: Path, count: int, steps: int) -> list[Run]:
    """So many runs of two toys each."""
    pair = {name: str(photos / name) for name in ("ida", "rex")}
    changes = [("steps", steps), ("subjects", pair), ("sampling.num_steps", 10)]
    return [
        Run(f"run-{index}", compose_recipe([*changes, ("seed", index)]), ("{subjects}",), (0,))
        for index in range(count)
    ]


def timed(outcomes: list[Outcome[Run]], began: float, first: float) -> dict[str, float]:
    """Seconds of everything, and of what came after the first run, for each run."""
    ended = time.monotonic()
    assert all(outcome.ended == "done" for outcome in outcomes), outcomes
    return {
        "seconds": round(ended - began, 1),
        "a_run": round((ended - first) / (len(outcomes) - 1), 3),
    }


def here(runs: list[Run], out: Path) -> dict[str, float]:
    """The batch in this process."""
    began, outcomes, first = time.monotonic(), [], 0.0
    for outcome in Here(Worker(out, "cpu").do, threads=1).run(runs, lambda _: None):
        outcomes.append(outcome)
        first = first or time.monotonic()
    return timed(outcomes, began, first)


def on_ray(runs: list[Run], out: Path, workers: int) -> dict[str, float]:
    """The batch on a cluster of so many workers; each does one run before the clock counts."""
    import ray

    began = time.monotonic()
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    outcomes, first = [], 0.0
    with OnRay[Run]("auto", partial(open_worker, str(out), "cpu"), device="cpu") as executor:
        # Models are loaded by a worker's first run.
        outcomes += executor.run(runs[:workers], lambda _: None)
        first = time.monotonic()
        outcomes += executor.run(runs[workers:], lambda _: None)
        ended = time.monotonic()
    ray.shutdown()
    rest = len(runs) - workers
    return {"seconds": round(ended - began, 1), "a_run": round((ended - first) / rest, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--steps", type=int, default=60)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        studio(home / "photos", ["ida", "rex"], say=lambda _: None)
        runs = runs_of(home / "photos", asked.runs, asked.steps)
        serial = here(runs, home / "here")
        print(json.dumps({"where": "here", **serial}), flush=True)
        one = on_ray(runs, home / "one", 1)
        overhead = round(one["a_run"] / serial["a_run"] - 1, 3)
        print(json.dumps({"where": "ray, 1 worker", **one, "overhead": overhead}), flush=True)
        two = on_ray(runs, home / "two", 2)
        efficiency = round(one["a_run"] / (2 * two["a_run"]), 3)
        print(json.dumps({"where": "ray, 2 workers", **two, "efficiency": efficiency}), flush=True)


if __name__ == "__main__":
    main()
