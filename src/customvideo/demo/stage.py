"""One act of the demo from photos to scores: every step a function, none knows another act.

When each is called, and what is said meanwhile, is `play`'s part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from customvideo.adapters.adapter import Adapter
from customvideo.attention.draw import draw_words
from customvideo.config import Recipe, SubjectEntry
from customvideo.demo.acts import Act, Scene
from customvideo.evaluation.evaluate import Encoders, Scores, evaluate
from customvideo.evaluation.instances import InstanceSegmenter
from customvideo.evaluation.metrics import dino_i_gain
from customvideo.generation import generate, generate_with_attention
from customvideo.runs.folder import Say
from customvideo.runs.learning import Job, load_job
from customvideo.runs.making import watchable_scale
from customvideo.subjects.prompt import Prompt, list_subjects
from customvideo.toybox.customstudio import write_subject
from customvideo.toybox.render import render
from customvideo.toybox.world import sample_world
from customvideo.video import Video

__all__ = ["Judges", "Shot", "photograph", "prepare", "save", "score", "shoot", "shoot_plain"]


@dataclass(frozen=True, eq=False)
class Shot:
    """One scene before and after; `maps` is word -> attention (frame, height, width)."""

    scene: Scene
    prompt: Prompt
    before: Video
    after: Video
    maps: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Judges:
    """Who scores videos; without a finder nobody looks at each subject alone."""

    encoders: Encoders
    finder: InstanceSegmenter | None


def photograph(act: Act, folder: Path) -> None:
    """Write each toy's photos as a user would have them."""
    for name, individual in zip(act.names, act.individuals, strict=True):
        write_subject(folder / "subjects" / name, individual, name)


def prepare(act: Act, folder: Path, recipe: Recipe, device: str) -> Job:
    """The act's training, its photos read and their masks made."""
    entries = {name: SubjectEntry(folder=str(folder / "subjects" / name)) for name in act.names}
    return load_job(recipe.model_copy(update={"subjects": entries}), device)


def shoot_plain(act: Act, job: Job, adapter: Adapter, say: Say) -> list[Video]:
    """Every scene by the base model, which knows the toys' categories only."""
    videos = []
    for prompt in _prompts(act, adapter):
        say(f"  {prompt.plain}")
        videos.append(
            generate(
                job.backbone,
                None,
                prompt.plain,
                seed=job.recipe.seed,
                options=job.recipe.sampling,
            )
        )
    return videos


def shoot(act: Act, job: Job, adapter: Adapter, before: Sequence[Video], say: Say) -> list[Shot]:
    """Every scene with the learned words, from the seeds of `before`."""
    shots = []
    for scene, prompt, old in zip(act.scenes, _prompts(act, adapter), before, strict=True):
        say(f"  {prompt.text}")
        new, maps = generate_with_attention(
            job.backbone,
            adapter,
            prompt.text,
            seed=job.recipe.seed,
            options=job.recipe.sampling,
        )
        shots.append(Shot(scene, prompt, old, new, maps))
    return shots


def save(shots: Sequence[Shot], folder: Path) -> None:
    """Write the videos, and where the words looked."""
    for shot in shots:
        scale = watchable_scale(shot.after)
        name = f"{shot.scene.place}.mp4"
        shot.before.save(folder / "videos" / "before" / name, scale=scale)
        shot.after.save(folder / "videos" / "after" / name, scale=scale)
        draw_words(shot.after, shot.maps, scale=scale).save(folder / "attention" / name)


def score(act: Act, job: Job, shots: Sequence[Shot], judges: Judges) -> dict[str, Any]:
    """Scores before and after, and of true footage: what the best of models could reach."""
    seed = job.recipe.seed
    after = [shot.prompt for shot in shots]
    # Before, no word is learned: a plain prompt is scored against every subject.
    before = [Prompt(shot.prompt.plain) for shot in shots]
    sides = {
        "before": ([shot.before for shot in shots], before),
        "after": ([shot.after for shot in shots], after),
    }
    if judges.finder is not None:
        sides["ceiling"] = (_true_footage(act, shots, seed), after)
    scores = {
        side: evaluate(videos, prompts, job.subjects, judges.encoders, segmenter=judges.finder)
        for side, (videos, prompts) in sides.items()
    }
    metrics: dict[str, Any] = {side: found.to_dict() for side, found in scores.items()}
    if judges.finder is not None:
        metrics["after"]["dino_i_gain"] = _gain(scores)
    return {"prompts": [prompt.text for prompt in after], "seed": seed, **metrics}


def _prompts(act: Act, adapter: Adapter) -> list[Prompt]:
    subjects = list_subjects(adapter.words)
    return [Prompt(s.prompt.format(subjects=subjects), adapter.words) for s in act.scenes]


def _gain(scores: Mapping[str, Scores]) -> float | None:
    before, after, ceiling = (
        scores[side].summary()["dino_i_crop"] for side in ("before", "after", "ceiling")
    )
    assert before is not None and after is not None and ceiling is not None
    return dino_i_gain(before, after, ceiling)


def _true_footage(act: Act, shots: Sequence[Shot], seed: int) -> list[Video]:
    """The toys themselves in each scene, as long and as large as its video; no photo shows it."""
    videos = []
    for index, shot in enumerate(shots):
        rng = np.random.default_rng([seed, index])
        place, action = shot.scene.place, shot.scene.action
        world = sample_world(rng, individuals=act.individuals, place=place, action=action)
        height, width = shot.after.size
        clip = render(world, frames=len(shot.after), height=height, width=width)
        videos.append(Video(clip.frames.numpy(), shot.after.fps))
    return videos
