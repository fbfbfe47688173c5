"""The demo: two toys from photos into one video, offline, on any computer.

It plays the user: photo folders are written, and from there on everything is what a user's own
photos would go through. Before and after are the same prompts and seeds, once with the bare
categories and once with the learned words.

    subjects/<name>/      photos          videos/{before,after}/<place>.mp4
    adapter.safetensors   what is learned attention/<place>.mp4  where the words looked
    metrics.json          the scores      report.html            all of it to look at
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from customvideo import __version__
from customvideo.adapters.adapter import Adapter
from customvideo.attention.draw import COLOURS, draw_words, overlay
from customvideo.config import Recipe, SubjectEntry, default_recipe, dump_toml
from customvideo.errors import ConfigError
from customvideo.evaluation.evaluate import Encoders, Scores, evaluate
from customvideo.evaluation.metrics import dino_i_gain
from customvideo.files import ensure_dir, write_text
from customvideo.generation import generate, generate_with_attention
from customvideo.report import AttentionView, Comparison, ReportData, render_report
from customvideo.runs.folder import ADAPTER, CHECKPOINTS, REPORT, Say, loss_curves
from customvideo.runs.learning import Job, facts, fit, load_job, sample_scenes
from customvideo.runs.making import watchable_scale
from customvideo.runs.scoring import encoders_for, finder_for
from customvideo.subjects.prompt import Prompt, list_subjects
from customvideo.toybox.customstudio import studio, write_subject
from customvideo.toybox.render import render
from customvideo.toybox.world import sample_world
from customvideo.training.checkpoint import newest_valid
from customvideo.training.interrupt import Interrupted
from customvideo.video import Video

__all__ = ["run"]

NAMES = ("ida", "rex")
"""Whom the demo is about: subjects of the toybox's CustomStudio."""

SCENES = {
    "beach": "{subjects} walking on the beach",
    "snow": "{subjects} jumping in the snow",
    "forest": "{subjects} running in the forest",
}
"""File name -> prompt."""

_ACTIONS = {"beach": "walk", "snow": "jump", "forest": "run"}
"""What the toys do in each scene, in the toybox's words; the places are called as the files."""

METRICS = "metrics.json"
_MARK = "demo.json"
_STAGES = {
    "Photographing two toys": 5,
    "Finding them in their photos": 10,
    "Learning them": 110,
    "Making videos before": 15,
    "Making videos after": 18,
    "Scoring and reporting": 8,
}
"""What happens, and about how many seconds it takes on two processor cores."""


@dataclass(frozen=True, eq=False)
class Shot:
    """One scene before and after; `maps` is word -> attention (frame, height, width)."""

    place: str
    prompt: Prompt
    before: Video
    after: Video
    maps: Mapping[str, Any]


def run(
    out: Path,
    *,
    say: Say,
    seed: int = 0,
    device: str = "auto",
    recipe: Recipe | None = None,
    encoders: Encoders | None = None,
) -> Path:
    """Run the whole demo in the folder `out` and return the report's path.

    An earlier demo there is replaced file by file; one that was stopped while learning goes on.
    `recipe` None means the packaged one for the toybox, `encoders` None the toybox's own.

    Raises:
        ConfigError: `out` holds something that is no demo.
        Interrupted: stopped from outside; the message says how to go on.
    """
    recipe = (recipe or default_recipe()).model_copy(update={"seed": seed})
    recipe = recipe.model_copy(update={"subjects": _entries(out)})
    resume = _claim(out, recipe)
    stages = _Stages(say)
    with stages.next():
        for name in NAMES:
            write_subject(out / "subjects" / name, studio().subject(name).individual, name)
    with stages.next():
        job = load_job(recipe, device)
    with stages.next():
        adapter = _learn(job, out, resume=resume, say=say)
    shots = _shoot(job, adapter, stages, say)
    with stages.next():
        _save(shots, out)
        metrics = _score(job, shots, encoders or encoders_for(job.backbone))
        write_text(out / METRICS, json.dumps(metrics, indent=2) + "\n")
        _report(job, adapter, shots, metrics, out)
    say(f"Done in {_clock(stages.elapsed)}. Open {out / REPORT}")
    return out / REPORT


def _entries(out: Path) -> dict[str, SubjectEntry]:
    return {name: SubjectEntry(folder=str(out / "subjects" / name)) for name in NAMES}


def _claim(out: Path, recipe: Recipe) -> bool:
    """Take `out` over if it is new or holds a demo; whether its learning is to be gone on with."""
    mark = out / _MARK
    if not mark.is_file() and out.exists() and (out.is_file() or any(out.iterdir())):
        raise ConfigError(f"'{out}' holds something that is no demo; choose another --out.")
    now = {"version": __version__, "recipe": dump_toml(recipe), "learning": True}
    ensure_dir(out)
    unfinished = mark.is_file() and mark.read_text(encoding="utf-8") == json.dumps(now)
    write_text(mark, json.dumps(now))
    return unfinished and newest_valid(out / CHECKPOINTS).newest is not None


def _learn(job: Job, out: Path, *, resume: bool, say: Say) -> Adapter:
    try:
        adapter = fit(job, out, resume=resume, say=say)
    except Interrupted as error:
        place = str(error).partition(";")[0]
        raise Interrupted(f"{place}; run the demo again to go on.") from None
    write_text(out / _MARK, json.dumps({"version": __version__, "learning": False}))
    return adapter


def _shoot(job: Job, adapter: Adapter, stages: _Stages, say: Say) -> list[Shot]:
    """Every scene with the base model, then with the adapter, from the same seed."""
    subjects = list_subjects(adapter.words)
    prompts = [Prompt(text.format(subjects=subjects), adapter.words) for text in SCENES.values()]
    options, seed = job.recipe.sampling, job.recipe.seed
    with stages.next():
        before = []
        for prompt in prompts:
            say(f"  {prompt.plain}")
            before.append(generate(job.backbone, None, prompt.plain, seed=seed, options=options))
    with stages.next():
        after = []
        for prompt in prompts:
            say(f"  {prompt.text}")
            after.append(
                generate_with_attention(
                    job.backbone, adapter, prompt.text, seed=seed, options=options
                )
            )
    return [
        Shot(place, prompt, old, new, maps)
        for place, prompt, old, (new, maps) in zip(SCENES, prompts, before, after, strict=True)
    ]


def _save(shots: Sequence[Shot], out: Path) -> None:
    for shot in shots:
        scale = watchable_scale(shot.after)
        name = f"{shot.place}.mp4"
        shot.before.save(out / "videos" / "before" / name, scale=scale)
        shot.after.save(out / "videos" / "after" / name, scale=scale)
        draw_words(shot.after, shot.maps, scale=scale).save(out / "attention" / name)


def _score(job: Job, shots: Sequence[Shot], encoders: Encoders) -> dict[str, Any]:
    """Scores before and after, and of true footage: what the best of models could reach."""
    finder = finder_for(job.backbone)
    after = [shot.prompt for shot in shots]
    # Before, no word is learned: a plain prompt is scored against every subject.
    before = [Prompt(shot.prompt.plain) for shot in shots]
    sides = {
        "before": ([s.before for s in shots], before),
        "after": ([s.after for s in shots], after),
    }
    if finder is not None:
        sides["ceiling"] = (_true_footage(shots, job.recipe.seed), after)
    scores = {
        side: evaluate(videos, prompts, job.subjects, encoders, segmenter=finder)
        for side, (videos, prompts) in sides.items()
    }
    metrics: dict[str, Any] = {side: found.to_dict() for side, found in scores.items()}
    if finder is not None:
        metrics["after"]["dino_i_gain"] = _gain(scores)
    return {"prompts": [prompt.text for prompt in after], "seed": job.recipe.seed, **metrics}


def _gain(scores: Mapping[str, Scores]) -> float | None:
    before, after, ceiling = (
        scores[side].summary()["dino_i_crop"] for side in ("before", "after", "ceiling")
    )
    assert before is not None and after is not None and ceiling is not None
    return dino_i_gain(before, after, ceiling)


def _true_footage(shots: Sequence[Shot], seed: int) -> list[Video]:
    """The toys themselves in each scene, as long and as large as its video; no photo shows it."""
    toys = [studio().subject(name).individual for name in NAMES]
    videos = []
    for index, shot in enumerate(shots):
        rng = np.random.default_rng([seed, index])
        world = sample_world(rng, individuals=toys, place=shot.place, action=_ACTIONS[shot.place])
        height, width = shot.after.size
        clip = render(world, frames=len(shot.after), height=height, width=width)
        videos.append(Video(clip.frames.numpy(), shot.after.fps))
    return videos


def _report(
    job: Job, adapter: Adapter, shots: Sequence[Shot], metrics: Mapping[str, Any], out: Path
) -> None:
    subjects = list_subjects(adapter.words)
    data = ReportData(
        title=f"{subjects[0].upper()}{subjects[1:]}",
        intro=(
            "Two toys were photographed, found in their photos, and learned by a small "
            "text-to-video model that had never seen them. Before and after: same prompts, same "
            "seeds."
        ),
        subjects=job.subjects,
        scenes=sample_scenes(job),
        losses=loss_curves(out),
        comparisons=[
            Comparison(shot.prompt.text, shot.before, shot.after, shot.prompt.plain)
            for shot in shots
        ],
        attention=[_view(shot) for shot in shots],
        metrics={"before": metrics["before"], "after": metrics["after"]},
        made=facts(job, adapter),
        commands=[
            f"customvideo demo --seed {job.recipe.seed}",
            f'customvideo generate "{subjects} in the desert" --adapter {out / ADAPTER} '
            "--out desert.mp4",
        ],
    )
    render_report(out / REPORT, data)


def _view(shot: Shot) -> AttentionView:
    words = {
        word: overlay(shot.after, maps, COLOURS[index % len(COLOURS)])
        for index, (word, maps) in enumerate(shot.maps.items())
    }
    return AttentionView(shot.prompt.text, words)


class _Stages:
    """Announces what comes next and about how long the rest will take on this computer."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._began = time.monotonic()
        self._done = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    @contextmanager
    def next(self) -> Iterator[None]:
        """The next stage of `_STAGES`, as a block."""
        names, seconds = list(_STAGES), list(_STAGES.values())
        gone, left = sum(seconds[: self._done]), sum(seconds[self._done :])
        # Once something is done, the estimate follows this computer's pace.
        pace = self.elapsed / gone if gone else 1.0
        label = f"[{self._done + 1}/{len(names)}] {names[self._done]}"
        self._say(f"{label} (about {_clock(left * pace)} left)")
        yield
        self._done += 1


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
