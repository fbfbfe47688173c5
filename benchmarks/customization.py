"""How well two individuals are learned together, on pairs kept apart from the benchmark's.

    python benchmarks/customization.py                                  # the packaged recipe
    python benchmarks/customization.py --set steps=60 --set attention_weight=0
    python benchmarks/customization.py --pairs 2 --sheet sheet.png      # fewer, and look at them
    python benchmarks/customization.py --variant "no control: attention_weight=0" \\
        --variant "two vectors: vectors=2" --json study.jsonl            # a study, row by row

Six pairs (two of one category), three prompts, two seeds each; every video is made before (bare
categories) and after (learned words), and the toys are rendered in the same scenes as the ceiling.
Prints one JSON object a variant: the scores' means, the gain (after - before) / (ceiling - before),
the rank of the right individual within its category and among CustomStudio's 63 and the twelve,
and times. What is made before, and the ceiling, is made once for all variants.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from customvideo import generate
from customvideo.adapters.adapter import Adapter
from customvideo.attention.losses import attention_share
from customvideo.attention.tape import watch
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.config import Recipe, compose_recipe, parse_set
from customvideo.evaluation.crops import Crops
from customvideo.evaluation.evaluate import Encoders, Scores, evaluate
from customvideo.evaluation.metrics import dino_i_gain
from customvideo.methods.base import Method, load_method
from customvideo.runs.scoring import encoders_for, finder_for
from customvideo.subjects.folders import load_subjects
from customvideo.subjects.prompt import Prompt
from customvideo.subjects.subject import Subject
from customvideo.toybox.captions import PLACE_PHRASES
from customvideo.toybox.customstudio import StudioSubject, group_verb, studio, write_subject
from customvideo.toybox.development import development_pairs
from customvideo.toybox.render import render
from customvideo.toybox.world import sample_world
from customvideo.training.batch import Batches, ScenePool, WordFinder, Workshop
from customvideo.training.trainer import Trainer
from customvideo.video import Video

ASKED = (("beach", "walk"), ("snow", "jump"), ("forest", "run"))
"""Place and action of the three prompts."""


@dataclass
class Scene:
    """One pair's prompts, and what needs no learning: the base model's videos and true footage."""

    pair: tuple[StudioSubject, StudioSubject]
    texts: list[tuple[str, int]] = field(default_factory=list)
    before: list[Video] = field(default_factory=list)
    true: list[Video] = field(default_factory=list)


@dataclass
class Trial:
    """One pair learned: its videos and what they cost."""

    scene: Scene
    subjects: Sequence[Subject]
    asked: list[Prompt]
    after: list[Video]
    train_seconds: float
    attention: dict[str, float] = field(default_factory=dict)
    video_seconds: list[float] = field(default_factory=list)

    @property
    def plain(self) -> list[Prompt]:
        """The same prompts without learned words."""
        return [Prompt(prompt.plain) for prompt in self.asked]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--recipe", type=Path, help="a recipe file instead of the packaged one")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--variant",
        dest="variants",
        action="append",
        metavar="NAME: KEY=VALUE KEY=VALUE",
        help="settings to compare, on top of --set; repeat",
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="append each variant's figures to this file")
    parser.add_argument("--sheet", type=Path, help="first frames: before, after, true, row by row")
    options = parser.parse_args()
    # Every mistake is found before anything is learned.
    recipes = {
        name: compose_recipe([parse_set(text) for text in [*options.sets, *sets]], options.recipe)
        for name, sets in map(variant, options.variants or ["default:"])
    }
    first = next(iter(recipes.values()))
    backbone = load_backbone(first.backbone, device=options.device)
    with TemporaryDirectory() as folder:
        everybody = gallery(Path(folder), backbone)
    pairs = development_pairs()[-options.pairs :]
    scenes = [prepared(pair, first, backbone, options.seeds) for pair in pairs]
    for name, recipe in recipes.items():
        trials = [attempt(scene, everybody, recipe, backbone) for scene in scenes]
        report = {"variant": name, "sets": options.sets, "pairs": len(pairs)}
        report |= {"seeds": options.seeds, "threads": torch.get_num_threads()}
        report |= figures(trials, everybody, backbone)
        print(json.dumps(report, indent=2), flush=True)
        if options.json:
            with open(options.json, "a", encoding="utf-8") as file:
                file.write(json.dumps(report) + "\n")
        if options.sheet:
            few = len(recipes) == 1
            save_sheet(trials, options.sheet if few else options.sheet.with_stem(name))


def variant(text: str) -> tuple[str, list[str]]:
    """`NAME: KEY=VALUE KEY=VALUE` taken apart."""
    name, _, sets = text.partition(":")
    return name.strip(), sets.split()


def gallery(folder: Path, backbone: Backbone) -> dict[str, Subject]:
    """Photos of the twelve and of the 63, with their true masks, loaded as any user's are."""
    people = [one for pair in development_pairs() for one in pair] + list(studio().subjects)
    for one in people:
        write_subject(folder / one.name, one.individual, one.name, masks=True)
    return {one.name: one for one in load_subjects(folder, known_nouns=backbone.known_nouns)}


def prepared(
    pair: tuple[StudioSubject, StudioSubject], recipe: Recipe, backbone: Backbone, seeds: int
) -> Scene:
    """The pair's prompts, their videos without learned words, and the truth."""
    scene = Scene(pair)
    for place, action in ASKED:
        doing = group_verb([one.category for one in pair], action)
        text = f"a {pair[0].phrase} and a {pair[1].phrase} {doing} {PLACE_PHRASES[place][0]}"
        plain = re.sub(r"<\w+> ", "", text)
        for seed in range(seeds):
            scene.texts.append((text, seed))
            made = generate(backbone, None, plain, seed=seed, options=recipe.sampling)
            scene.before.append(made)
            scene.true.append(footage(pair, place, action, seed, made))
    return scene


def attempt(
    scene: Scene, everybody: dict[str, Subject], recipe: Recipe, backbone: Backbone
) -> Trial:
    """Learn one pair, and make its videos."""
    subjects = [everybody[one.name] for one in scene.pair]
    began = time.perf_counter()
    method = load_method(recipe.method, recipe.method_options)
    adapter = Trainer(recipe, None).fit(backbone, method, subjects)
    trial = Trial(scene, subjects, [], [], time.perf_counter() - began)
    trial.attention = attention_shares(backbone, adapter, method, (subjects, recipe))
    for text, seed in scene.texts:
        trial.asked.append(Prompt(text, adapter.words))
        began = time.perf_counter()
        trial.after.append(generate(backbone, adapter, text, seed=seed, options=recipe.sampling))
        trial.video_seconds.append(time.perf_counter() - began)
    return trial


@torch.no_grad()
def attention_shares(
    backbone: Backbone,
    adapter: Adapter,
    method: Method,
    of: tuple[Sequence[Subject], Recipe],
) -> dict[str, float]:
    """Share of a word's attention that falls into its own mask over the mask's area: 1 is chance.

    On scenes that were not trained on, noised to the middle of the process, at the sites that
    attention control watches and at all others.
    """
    subjects, recipe = of
    height, width = recipe.canvas or backbone.size
    workshop = Workshop(backbone, method, subjects, (height, width), recipe.seed)
    config = recipe.model_copy(update={"held_out": 8, "pool": 0})
    with adapter.attach(backbone):
        batches = Batches(ScenePool(workshop, 0), WordFinder(backbone, adapter), None, config)
        batch = batches.held_out().to(backbone.device)
        sites = backbone.sites(workshop.frames, height, width)
        watched = {site.path for site in method.watches(backbone, workshop.frames, height, width)}
        with watch(backbone.denoiser, sites, batch.words) as tape:
            method.score(backbone, batch, None)
            maps = tape.maps()
    groups = {"watched": watched, "unwatched": set(maps) - watched}
    shares = {
        name: attention_share({path: maps[path] for path in paths}, batch.masks)
        for name, paths in groups.items()
        if paths
    }
    return {name: float(share[batch.present].mean()) for name, share in shares.items()}


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
            videos = trial.after if side == "after" else getattr(trial.scene, side)
            found.append(score(videos, prompts, trial.subjects, judge).summary())
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
    report["attention_share"] = {
        name: mean([trial.attention.get(name) for trial in trials])
        for name in ("watched", "unwatched")
    }
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
    rows = [
        side for trial in trials for side in (trial.scene.before, trial.after, trial.scene.true)
    ]
    stills = np.stack([video.frames[len(video) // 2] for row in rows for video in row])
    Video(Video(stills).sheet(len(rows[0]))[None], 1.0).save(path)


if __name__ == "__main__":
    main()
