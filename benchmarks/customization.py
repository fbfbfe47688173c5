"""How well two individuals are learned together, on pairs kept apart from the benchmark's.

    python benchmarks/customization.py                                  # the packaged recipe
    python benchmarks/customization.py --set steps=60 --set attention_weight=0
    python benchmarks/customization.py --pairs 2 --sheet sheet.png      # fewer, and look at them

Six pairs (two of one category), three prompts, two seeds each; every video is made before (bare
categories) and after (learned words), and the toys are rendered in the same scenes as the ceiling.
Prints one JSON object: the scores' means, the gain (after - before) / (ceiling - before), the rank
of the right individual within its category and among CustomStudio's 63 and the twelve, and times.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from customvideo import generate
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.config import Recipe, compose_recipe, parse_set
from customvideo.evaluation.crops import Crops
from customvideo.evaluation.evaluate import Encoders, Scores, evaluate
from customvideo.evaluation.metrics import dino_i_gain
from customvideo.methods.base import load_method
from customvideo.runs.scoring import encoders_for, finder_for
from customvideo.subjects.prompt import Prompt
from customvideo.subjects.subject import Subject, load_subjects
from customvideo.toybox.captions import PLACE_PHRASES
from customvideo.toybox.customstudio import StudioSubject, group_verb, studio, write_subject
from customvideo.toybox.development import development_pairs
from customvideo.toybox.render import render
from customvideo.toybox.world import sample_world
from customvideo.training.trainer import Trainer
from customvideo.video import Video

ASKED = (("beach", "walk"), ("snow", "jump"), ("forest", "run"))
"""Place and action of the three prompts."""


@dataclass
class Trial:
    """One pair's videos and what they cost."""

    subjects: Sequence[Subject]
    plain: list[Prompt]
    asked: list[Prompt]
    before: list[Video]
    after: list[Video]
    true: list[Video]
    train_seconds: float
    video_seconds: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sheet", type=Path, help="first frames: before, after, true, row by row")
    options = parser.parse_args()
    recipe = compose_recipe(parse_set(text) for text in options.sets)
    backbone = load_backbone(recipe.backbone, device=options.device)
    with TemporaryDirectory() as folder:
        everybody = gallery(Path(folder), backbone)
        trials = [
            attempt(pair, everybody, recipe, backbone, options.seeds)
            for pair in development_pairs()[-options.pairs :]
        ]
    report = {"sets": options.sets, "pairs": options.pairs, "threads": torch.get_num_threads()}
    print(json.dumps(report | figures(trials, everybody, backbone), indent=2))
    if options.sheet:
        save_sheet(trials, options.sheet)


def gallery(folder: Path, backbone: Backbone) -> dict[str, Subject]:
    """Photos of the twelve and of the 63, with their true masks, loaded as any user's are."""
    people = [one for pair in development_pairs() for one in pair] + list(studio().subjects)
    for one in people:
        write_subject(folder / one.name, one.individual, one.name, masks=True)
    return {one.name: one for one in load_subjects(folder, known_nouns=backbone.known_nouns)}


def attempt(
    pair: tuple[StudioSubject, StudioSubject],
    everybody: dict[str, Subject],
    recipe: Recipe,
    backbone: Backbone,
    seeds: int,
) -> Trial:
    """Learn one pair, and make its videos before and after."""
    subjects = [everybody[one.name] for one in pair]
    began = time.perf_counter()
    method = load_method(recipe.method, recipe.method_options)
    adapter = Trainer(recipe, None).fit(backbone, method, subjects)
    trial = Trial(subjects, [], [], [], [], [], time.perf_counter() - began)
    for place, action in ASKED:
        doing = group_verb([one.category for one in pair], action)
        text = f"a {pair[0].phrase} and a {pair[1].phrase} {doing} {PLACE_PHRASES[place][0]}"
        prompt = Prompt(text, adapter.words)
        for seed in range(seeds):
            trial.asked.append(prompt)
            trial.plain.append(Prompt(prompt.plain))
            made = {"seed": seed, "options": recipe.sampling}
            trial.before.append(generate(backbone, None, prompt.plain, **made))
            began = time.perf_counter()
            trial.after.append(generate(backbone, adapter, prompt.text, **made))
            trial.video_seconds.append(time.perf_counter() - began)
            trial.true.append(footage(pair, place, action, seed, trial.after[-1]))
    return trial


def footage(
    pair: Sequence[StudioSubject], place: str, action: str, seed: int, like: Video
) -> Video:
    """The toys themselves in that scene; no photo shows it."""
    rng = np.random.default_rng([seed, *place.encode()])
    toys = [one.individual for one in pair]
    world = sample_world(rng, individuals=toys, place=place, action=action)
    clip = render(world, frames=len(like), height=like.size[0], width=like.size[1])
    return Video(clip.frames.numpy(), like.fps)


def figures(
    trials: Sequence[Trial], everybody: dict[str, Subject], backbone: Backbone
) -> dict[str, Any]:
    """Means over all trials, and each side's scores."""
    encoders, finder = encoders_for(backbone), finder_for(backbone)
    assert finder is not None
    judge = (encoders, Crops(finder, tuple(everybody.values())))
    sides: dict[str, list[dict[str, float | None]]] = {"before": [], "after": [], "true": []}
    within = []
    for trial in trials:
        for side, found in sides.items():
            prompts = trial.plain if side == "before" else trial.asked
            found.append(score(getattr(trial, side), prompts, trial.subjects, judge).summary())
        kinds = {subject.category for subject in trial.subjects}
        rivals = tuple(one for one in everybody.values() if one.category in kinds)
        close = score(trial.after, trial.asked, trial.subjects, (encoders, Crops(finder, rivals)))
        within.append(close.summary()["rank1"])
    report: dict[str, Any] = {side: means(found) for side, found in sides.items()}
    report["after"]["rank1_within_category"] = mean(within)
    gains = [
        dino_i_gain(before["dino_i_crop"] or 0, after["dino_i_crop"] or 0, true["dino_i_crop"] or 0)
        for before, after, true in zip(*sides.values(), strict=True)
    ]
    report["dino_i_gain"] = {"mean": mean(gains), "pairs": [round(gain or 0, 3) for gain in gains]}
    report["motion_ratio"] = mean(
        [
            (after["frame_change"] or 0) / max(before["frame_change"] or 0, 1e-6)
            for before, after in zip(sides["before"], sides["after"], strict=True)
        ]
    )
    report["train_seconds"] = mean([trial.train_seconds for trial in trials])
    report["video_seconds"] = mean([s for trial in trials for s in trial.video_seconds])
    return report


def score(
    videos: Sequence[Video],
    prompts: Sequence[Prompt],
    subjects: Sequence[Subject],
    judge: tuple[Encoders, Crops],
) -> Scores:
    return evaluate(videos, prompts, subjects, judge[0], segmenter=judge[1])


def means(found: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    return {name: mean([one[name] for one in found]) for name in found[0]}


def mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), 4) if known else None


def save_sheet(trials: Sequence[Trial], path: Path) -> None:
    """A row of before, a row of after, a row of true footage for each pair."""
    rows = [side for trial in trials for side in (trial.before, trial.after, trial.true)]
    stills = np.stack([video.frames[len(video) // 2] for row in rows for video in row])
    Video(Video(stills).sheet(len(rows[0]))[None], 1.0).save(path)


if __name__ == "__main__":
    main()
