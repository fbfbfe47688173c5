"""What training on clips does to motion and likeness: clips against their frames alone.

    python benchmarks/clips.py                          # two development pairs, two seeds
    python benchmarks/clips.py --pairs 1 --steps 100    # less
    python benchmarks/clips.py --sheet DIR              # and the videos, to look at

Of each toy two rendered clips with exact masks are the only references. Both arms train the same
number of steps on the same frames; in one `clip_share` of the rows are the clips themselves.
Motion is `customvideo.evaluation.motion`, likeness the toybox judges' crops. The base model's
videos and true footage stand beside them. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from customvideo import generate
from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.config import compose_recipe
from customvideo.evaluation.evaluate import evaluate
from customvideo.evaluation.motion import motion, steps
from customvideo.methods.base import load_method
from customvideo.runs.scoring import encoders_for, finder_for
from customvideo.subjects.clips import Clip, picked, still_name
from customvideo.subjects.prompt import Prompt
from customvideo.subjects.subject import Subject
from customvideo.toybox.captions import PLACE_PHRASES, noun
from customvideo.toybox.customstudio import StudioSubject, group_verb
from customvideo.toybox.development import development_pairs
from customvideo.toybox.render import render
from customvideo.toybox.world import sample_world
from customvideo.training.trainer import Trainer
from customvideo.video import Video

ASKED = (("beach", "run"), ("snow", "jump"))
SHOWN = ("run", "jump")
"""Actions of the reference clips."""
SCORES = ("dino_i_crop", "clip_i_crop", "co_occurrence", "binding_margin", "clip_t", "freeze")
"""Figures of likeness and of what else may suffer."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    backbone = load_backbone("toybox", device="cpu")
    found: dict[str, list[dict[str, float]]] = {}
    for pair in development_pairs()[: options.pairs]:
        cast = [subject_of(one) for one in pair]
        asked = [prompt for prompt in prompts(pair) for _ in range(options.seeds)]
        arms = {"base": None, "frames": 0.0, "clips": options.share}
        for name, share in arms.items():
            began = time.process_time()
            adapter = None if share is None else learned(backbone, cast, options.steps, share)
            seconds = time.process_time() - began
            videos = [
                drawn(backbone, adapter, prompt, index % options.seeds)
                for index, prompt in enumerate(asked)
            ]
            row = scores(backbone, videos, asked, cast) | {"train_seconds": seconds}
            found.setdefault(name, []).append(row)
            print(json.dumps({name: row}), flush=True)
            if options.sheet:
                for index, video in enumerate(videos):
                    video.save(options.sheet / f"{pair[0].name}-{name}-{index}.png")
        found.setdefault("true", []).append({"motion": true_motion(backbone, pair)})
    print(json.dumps({name: means(rows) for name, rows in found.items()}, indent=2))


def subject_of(one: StudioSubject) -> Subject:
    """A toy known from two clips alone."""
    clips = []
    for index, action in enumerate(SHOWN):
        rng = np.random.default_rng([5, index, *one.name.encode()])
        world = sample_world(rng, individuals=[one.individual], action=action)
        clip = render(world, frames=16, height=160, width=256)
        masks = clip.masks[:, 0].numpy().astype(np.uint8) * np.uint8(255)
        clips.append(Clip(clip.frames.numpy(), masks, float(clip.fps), f"{action}.mp4"))
    stills = [(clip, frame) for clip in clips for frame in picked(clip, 4)]
    return Subject(
        one.name,
        f"<{one.name}>",
        noun(one.category),
        images=tuple(clip.frames[frame] for clip, frame in stills),
        masks=tuple(clip.masks[frame] / np.float32(255) for clip, frame in stills),
        files=tuple(still_name(clip, frame) for clip, frame in stills),
        clips=tuple(clips),
    )


def prompts(pair: tuple[StudioSubject, StudioSubject]) -> list[str]:
    return [
        f"a {pair[0].phrase} and a {pair[1].phrase} "
        f"{group_verb([one.category for one in pair], action)} {PLACE_PHRASES[place][0]}"
        for place, action in ASKED
    ]


def learned(backbone: Backbone, cast: Sequence[Subject], count: int, share: float) -> Adapter:
    changes: list[tuple[str, Any]] = [("backbone", "toybox"), ("steps", count), ("held_out", 0)]
    recipe = compose_recipe([*changes, ("clip_share", share)])
    method = load_method(recipe.method, recipe.method_options)
    return Trainer(recipe).fit(backbone, method, cast)


def drawn(backbone: Backbone, adapter: Adapter | None, text: str, seed: int) -> Video:
    options = compose_recipe([("backbone", "toybox")]).sampling
    bare = " ".join(word for word in text.split() if not word.startswith("<"))
    asked = bare if adapter is None else text
    return generate(backbone, adapter, asked, seed=seed, options=options)


def scores(
    backbone: Backbone, videos: Sequence[Video], asked: Sequence[str], cast: Sequence[Subject]
) -> dict[str, float]:
    words = tuple(one.learned for one in cast)
    texts = [Prompt(text, words) for text in asked]
    judges = encoders_for(backbone)
    judged = evaluate(videos, texts, cast, judges, segmenter=finder_for(backbone)).summary()
    moved = [motion(steps(video.frames, video.fps)) or 0.0 for video in videos]
    kept = {name: value for name in SCORES if (value := judged.get(name)) is not None}
    return {"motion": float(np.mean(moved)), **kept}


def true_motion(backbone: Backbone, pair: tuple[StudioSubject, StudioSubject]) -> float:
    moved = []
    for place, action in ASKED:
        rng = np.random.default_rng([9, *action.encode()])
        world = sample_world(
            rng, individuals=[one.individual for one in pair], place=place, action=action
        )
        height, width = backbone.size
        clip = render(world, frames=backbone.frames, height=height, width=width)
        moved.append(motion(steps(clip.frames.numpy(), clip.fps)) or 0.0)
    return float(np.mean(moved))


def means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


if __name__ == "__main__":
    main()
