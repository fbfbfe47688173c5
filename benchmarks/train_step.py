"""What attention control costs: the share of a training step spent on the watch and its loss.

    python benchmarks/train_step.py                       # the toybox
    python benchmarks/train_step.py --backbone FOLDER     # any backbone
    python benchmarks/train_step.py --clock cpu           # on a busy machine, with one thread

Steps with and without it alternate in pairs (which comes first alternates, too), the first pairs
are a warm-up and not counted, and the share is the median over pairs, so that a machine that slows
down meanwhile bears on both alike. Prints one JSON object; the exit code is 1 if the bar is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from customvideo.backbones.base import load_backbone
from customvideo.config import default_recipe
from customvideo.methods.base import load_method
from customvideo.subjects.subject import Subject
from customvideo.training.batch import Batches, ScenePool, WordFinder, Workshop
from customvideo.training.config import TrainerConfig
from customvideo.training.session import Session, Task, build_accelerator

SHARE_BAR = 0.05
WARM_UP = 2
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def make_subject(name: str, category: str, colour: tuple[int, int, int]) -> Subject:
    """A disc on grey: what is drawn does not change the time a step takes."""
    rows, columns = np.mgrid[-1:1:128j, -1:1:128j]
    inside = rows**2 + columns**2 < 0.5
    image = np.where(inside[..., None], colour, 128).astype(np.uint8)
    mask = inside.astype(np.float32)
    return Subject(name, f"<{name}>", category, (image,), (mask,), ("disc.png",))


def prepare(backbone_name: str, device: str) -> tuple[Session, Task]:
    """A session on the backbone's packaged recipe, without the class prior."""
    backbone = load_backbone(backbone_name, device=device)
    recipe = default_recipe(backbone=backbone_name)
    method = load_method(recipe.method, recipe.method_options | {"prior_weight": 0.0})
    config = TrainerConfig(**{name: getattr(recipe, name) for name in TrainerConfig.model_fields})
    canvas = config.canvas or backbone.size
    cast = [make_subject("tom", "cat", (200, 80, 40)), make_subject("rex", "dog", (40, 90, 200))]
    adapter = method.trainable(backbone, cast)
    pool = ScenePool(Workshop(backbone, method, cast, canvas, config.seed), 8)
    task = Task(backbone, method, adapter, method.watches(backbone, 1, *canvas))
    batches = Batches(pool, WordFinder(backbone, adapter), None, config)
    return Session(task, batches, config, build_accelerator(config, backbone, None)), task


def one_step(session: Session, device: torch.device, clock: Callable[[], float]) -> float:
    """Seconds of the session's next step, waiting for the device."""
    began = clock()
    session.train_step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - began


def measure(session: Session, task: Task, options: argparse.Namespace) -> list[tuple[float, float]]:
    """Seconds per step (with, without) attention control, in pairs, after a warm-up."""
    clock = CLOCKS[options.clock]
    variants = (task, replace(task, sites=[]))
    pairs = []
    for index in range(WARM_UP + options.pairs):
        seconds = [0.0, 0.0]
        for which in (0, 1) if index % 2 else (1, 0):
            session.task = variants[which]
            seconds[which] = one_step(session, task.backbone.device, clock)
        pairs.append((seconds[0], seconds[1]))
    return pairs[WARM_UP:]


def main() -> int:
    options = parse_options()
    if options.threads:
        torch.set_num_threads(options.threads)
    session, task = prepare(options.backbone, options.device)
    with task.adapter.attach(task.backbone):
        pairs = measure(session, task, options)
    share = statistics.median(1 - without / watched for watched, without in pairs)
    report = {
        "model": task.backbone.name,
        "device": str(task.backbone.device),
        "threads": torch.get_num_threads(),
        "clock": options.clock,
        "sites": len(task.sites),
        "pairs": len(pairs),
        "seconds_with": round(statistics.median(watched for watched, _ in pairs), 4),
        "seconds_without": round(statistics.median(without for _, without in pairs), 4),
        "attention_control_share": round(share, 4),
        "bar": SHARE_BAR,
        "passed": share <= SHARE_BAR,
    }
    print(json.dumps(report, indent=2))
    return 0 if report["passed"] else 1


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="toybox")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's choice")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
