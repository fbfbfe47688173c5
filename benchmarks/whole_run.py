"""How long one whole customization takes: from two subjects' photos to an adapter and a video.

    python benchmarks/whole_run.py                                           # the toybox
    python benchmarks/whole_run.py --backbone wan-1.3b --size true --device cuda
    python benchmarks/whole_run.py --backbone wan --size tiny --steps 5      # does it work?
    python benchmarks/whole_run.py --backbone wan-14b --size true --device cuda \\
        --set base=fp8 --set method_options.rank=64

The packaged recipe of the model's family, trained by the public trainer: 500 steps unless told
otherwise, checkpoints and held-out scores included. Prints one JSON object: seconds before the
first step (class prior and scenes, both made anew), of the first step, of a later one (median and
quartiles), of all steps with what lies between them, and of one video; and the most memory. What
random weights learn says nothing; how well a model learns is what `customization.py` asks.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from models import add_model_options, load_model, model_folder, print_line, surroundings
from rich.console import Console
from train_step import make_subject

from customvideo import generate
from customvideo.adapters.adapter import Adapter
from customvideo.config import Recipe, apply_sets, default_recipe
from customvideo.methods.base import load_method
from customvideo.subjects.subject import Subject
from customvideo.training.trainer import StepReport, Trainer

PROMPT = "a <tom> cat and a <rex> dog"


def main() -> None:
    options = parse_options()
    if options.threads:
        torch.set_num_threads(options.threads)
    with model_folder(options) as (folder, make):
        named = options.backbone if options.size == "own" else folder
        recipe = apply_sets(default_recipe(backbone=named), options.sets)
        if options.steps:
            recipe = recipe.model_copy(update={"steps": options.steps})
        if options.dtype == "auto" and recipe.base_type != "auto":
            options.dtype = recipe.base_type
        backbone = load_model(options, folder, make)
        cast = [
            make_subject("tom", "cat", (200, 80, 40)),
            make_subject("rex", "dog", (40, 90, 200)),
        ]
        report, adapter = trained(backbone, recipe, cast)
        began = time.perf_counter()
        generate(backbone, adapter, PROMPT, options=recipe.sampling)
        report["video_seconds"] = round(time.perf_counter() - began, 3)
        clip = recipe.sampling
        report["video"] = [clip.num_steps, clip.frames or backbone.frames]
        report["peak_bytes"] = peak(backbone.device)
        print_line({"run": "customization", **surroundings(options, backbone), **report})


def trained(
    backbone: Any, recipe: Recipe, cast: Sequence[Subject]
) -> tuple[dict[str, Any], Adapter]:
    """What the training of `recipe` took, in seconds, and what came of it."""
    took: list[float] = []
    ends: list[float] = []
    method = load_method(recipe.method, recipe.method_options)

    def note(report: StepReport) -> None:
        took.append(report.seconds)
        ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as out:
        fresh = recipe.model_copy(update={"prior_cache": str(Path(out) / "prior")})
        trainer = Trainer(fresh, Path(out), on_step=note, console=Console(quiet=True))
        began = time.perf_counter()
        adapter = trainer.fit(backbone, method, cast)
        whole = time.perf_counter() - began
    before, later = ends[0] - took[0] - began, took[1:] or took
    low, middle, high = statistics.quantiles(later, n=4) if len(later) > 1 else later * 3
    report = {
        "steps": len(took),
        "rows": recipe.batch_size * recipe.accumulation,
        "before_seconds": round(before, 3),
        "first_step_seconds": round(took[0], 3),
        "step_seconds": round(middle, 4),
        "quartiles": [round(low, 4), round(high, 4)],
        "steps_seconds": round(whole - before, 3),
        "whole_seconds": round(whole, 3),
    }
    return report, adapter


def peak(device: torch.device) -> int:
    """Most bytes so far: of the card's memory, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_model_options(parser)
    parser.add_argument("--steps", type=int, default=500, help="0 for the recipe's own")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
