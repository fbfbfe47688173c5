"""What fast videos lose: the development pairs learned once, drawn in several ways, and judged.

    python benchmarks/fast_videos.py                          # six pairs, three prompts, two seeds
    python benchmarks/fast_videos.py --way "8 steps: num_steps=8 guidance_every=2"

Each way is a set of sampling settings over the recipe's own. Scores are compared pair by pair with
the recipe's; the interval is what another seed alone does to them: twice the deviation, over the
pairs, of the difference between the two seeds' scores. Times are those of the processor and hold
against each other alone. Prints one JSON object a way.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import customization as study
import numpy as np

from customvideo import generate
from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import load_backbone
from customvideo.config import compose_recipe, parse_set
from customvideo.evaluation.crops import Crops
from customvideo.generation import SamplingConfig, fast
from customvideo.methods.base import load_method
from customvideo.runs.scoring import encoders_for, finder_for
from customvideo.settings import validated
from customvideo.subjects.prompt import Prompt
from customvideo.toybox.captions import PLACE_PHRASES
from customvideo.toybox.customstudio import group_verb
from customvideo.toybox.development import development_pairs
from customvideo.training.trainer import Trainer

SCORES = ("dino_i_crop", "clip_i_crop", "co_occurrence", "clip_t", "t_cons")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--way", dest="ways", action="append", metavar="NAME: KEY=VALUE …")
    parser.add_argument("--adapters", type=Path, help="where they are kept from run to run")
    parser.add_argument("--json", type=Path, help="append each way's figures to this file")
    options = parser.parse_args()
    recipe = compose_recipe(map(parse_set, options.sets))
    backbone = load_backbone(recipe.backbone, device="cpu")
    usual = recipe.sampling
    ways = {"usual": usual, "fast": fast(usual, backbone)} | {
        name: validated(SamplingConfig, usual.model_dump() | dict(map(parse_set, sets)))
        for name, sets in map(study.variant, options.ways or [])
    }
    with TemporaryDirectory() as folder:
        everybody = study.gallery(Path(folder), backbone)
        place = options.adapters or Path(folder)
        learned = [
            (pair, learn(pair, everybody, recipe, backbone, place))
            for pair in development_pairs()[-options.pairs :]
        ]
    finder = finder_for(backbone)
    assert finder is not None
    judge = (encoders_for(backbone), Crops(finder, tuple(everybody.values())))
    known: dict[str, Any] | None = None
    for name, sampling in ways.items():
        found = drawn(learned, everybody, backbone, sampling, (judge, options.seeds))
        known = known or found
        report = {"way": name, "pairs": options.pairs, "seeds": options.seeds}
        report |= {"steps": sampling.num_steps, "guidance_every": sampling.guidance_every}
        report |= against(found, known)
        print(json.dumps(report), flush=True)
        if options.json:
            with open(options.json, "a", encoding="utf-8") as file:
                file.write(json.dumps(report) + "\n")


def learn(pair: Any, everybody: Any, recipe: Any, backbone: Any, place: Path) -> Adapter:
    """The adapter of a pair, read if it is there."""
    path = place / f"{'-'.join(one.name for one in pair)}.safetensors"
    if not path.is_file():
        method = load_method(recipe.method, recipe.method_options)
        subjects = [everybody[one.name] for one in pair]
        Trainer(recipe, None).fit(backbone, method, subjects).save(path)
    return Adapter.load(path)


def drawn(
    learned: Any, everybody: Any, backbone: Any, sampling: SamplingConfig, how: Any
) -> dict[str, Any]:
    """Scores by pair and seed, and seconds a video."""
    judge, seeds = how
    scores: list[list[dict[str, Any]]] = []
    seconds: list[float] = []
    for pair, adapter in learned:
        row = []
        for seed in range(seeds):
            texts, videos = [], []
            for where, action in study.ASKED:
                doing = group_verb([one.category for one in pair], action)
                names = f"a {pair[0].phrase} and a {pair[1].phrase}"
                texts.append(f"{names} {doing} {PLACE_PHRASES[where][0]}")
                began = time.process_time()
                videos.append(generate(backbone, adapter, texts[-1], seed=seed, options=sampling))
                seconds.append(time.process_time() - began)
            asked = [Prompt(text, adapter.words) for text in texts]
            subjects = [everybody[one.name] for one in pair]
            row.append(study.score(videos, asked, subjects, judge).summary())
        scores.append(row)
    return {"scores": scores, "seconds": statistics.median(seconds)}


def against(found: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Means, what they differ by from the usual way's, and what a seed does to those."""
    report: dict[str, Any] = {
        "seconds": round(found["seconds"], 2),
        "ratio": round(found["seconds"] / known["seconds"], 3),
    }
    for name in SCORES:
        ours, usual = table(found, name), table(known, name)
        if ours.size == 0:
            continue
        report[name] = {
            "mean": round(float(np.nanmean(ours)), 4),
            "difference": round(float(np.nanmean(ours - usual)), 4),
        }
        if usual.shape[1] > 1:
            # The mean of all videos has this deviation from seed to seed.
            apart = np.nanstd(usual[:, 0] - usual[:, 1], ddof=1) / math.sqrt(2)
            report[name]["seeds"] = round(2 * float(apart) / math.sqrt(usual.size), 4)
    return report


def table(found: dict[str, Any], name: str) -> np.ndarray[Any, Any]:
    """(pair, seed), not a number where nothing could be scored."""
    rows = [[one[name] for one in row] for row in found["scores"]]
    return np.array([[math.nan if v is None else v for v in row] for row in rows], dtype=float)


if __name__ == "__main__":
    main()
