"""One customization from photos to adapter: what `customvideo train` and `customize` do.

Recipe, subjects, backbone, method and trainer meet here, and their results go to the run's folder
(`customvideo.runs.folder`). How anything is learned is not decided here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.config import (
    Recipe,
    SubjectEntry,
    apply_sets,
    default_recipe,
    dump_toml,
    load_recipe,
)
from customvideo.errors import SubjectError
from customvideo.files import ensure_dir, write_text
from customvideo.generation import generate
from customvideo.methods.base import Method, load_method
from customvideo.report import Comparison, ReportData, render_report
from customvideo.runs.folder import (
    ADAPTER,
    CHECKPOINTS,
    MASKS,
    PREVIEWS,
    RECIPE,
    REPORT,
    Say,
    claim,
    loss_curves,
    undone_on_error,
)
from customvideo.runs.making import watchable_scale
from customvideo.subjects.masks import coverage, resolve_segmenter, save_overlays
from customvideo.subjects.prompt import list_subjects
from customvideo.subjects.subject import Subject, SubjectSpec, load_subjects
from customvideo.training.checkpoint import best_checkpoint, newest_valid
from customvideo.training.progress import StepReport
from customvideo.training.trainer import Trainer
from customvideo.video import Video

__all__ = ["Job", "TrainPlan", "customize", "facts", "fit", "load_job", "sample_scenes", "train"]

_SHOWN_SCENES = 6


@dataclass(frozen=True)
class TrainPlan:
    """A training run as asked for; `choices` are recipe keys that have flags of their own."""

    out: Path
    subjects: Sequence[str] = ()
    recipe: Path | None = None
    sets: Sequence[str] = ()
    choices: Mapping[str, str | int | None] = field(default_factory=dict)
    resume: bool = False
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class Job:
    """What a training run works with, loaded and checked."""

    recipe: Recipe
    backbone: Backbone
    method: Method
    subjects: Sequence[Subject]

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width of the training pictures."""
        return self.recipe.canvas or self.backbone.size


def train(plan: TrainPlan, say: Say) -> Path:
    """Learn the plan's subjects, fill its folder, and return the adapter's path.

    Raises:
        UserError: something about the plan cannot work; results of earlier runs are untouched.
        Interrupted: stopped from outside, after saving.
    """
    claim(plan.out, plan.resume)
    job = load_job(_recipe(plan, say), plan.device)
    adapter = fit(job, plan.out, resume=plan.resume, say=say)
    _write_report(job, plan.out, adapter)
    say(f"Wrote '{plan.out / ADAPTER}' and '{plan.out / REPORT}'. Next:")
    say(f"  {_generate_command(adapter, plan.out)}")
    return plan.out / ADAPTER


def customize(
    backbone: Backbone, subjects: Sequence[Subject], out: Path | str | None = None, **keys: Any
) -> Adapter:
    """Learn `subjects` on `backbone` and return the adapter, not attached.

    Args:
        backbone: a model from `load_backbone`.
        subjects: from `load_subjects`, or made by hand.
        out: a new folder for checkpoints and the adapter; None writes nothing.
        keys: keys of the recipe, such as `steps=100` or `nu=0.1`; what is not given comes from
            the packaged recipe of the method and the backbone.

    Raises:
        ConfigError: an unknown key, a value that does not fit, or a folder with a run in it.
    """
    folder = None if out is None else Path(out)
    if folder is not None:
        claim(folder, resume=False)
    recipe = default_recipe(str(keys.pop("method", "customvideo")), backbone.name)
    recipe = apply_sets(recipe, [f"{key}={json.dumps(value)}" for key, value in keys.items()])
    method = load_method(recipe.method, recipe.method_options)
    adapter = Trainer(recipe, folder).fit(backbone, method, subjects)
    if folder is not None:
        adapter.save(folder / ADAPTER)
    return adapter


def load_job(recipe: Recipe, device: str) -> Job:
    """Load everything `recipe` names; the job's recipe says each subject's category."""
    method = load_method(recipe.method, recipe.method_options)
    segmenter = resolve_segmenter(recipe.masks.segmenter, recipe.masks.model or None)
    backbone = load_backbone(recipe.backbone, device)
    subjects = load_subjects(recipe.specs, segmenter, backbone.known_nouns)
    entries = {
        subject.name: SubjectEntry(
            folder=recipe.subjects[subject.name].folder, category=subject.category
        )
        for subject in subjects
    }
    return Job(recipe.model_copy(update={"subjects": entries}), backbone, method, subjects)


def fit(job: Job, out: Path, *, resume: bool, say: Say) -> Adapter:
    """Train `job` in the folder `out`, save the adapter there and return it."""
    ensure_dir(out)
    done = newest_valid(out / CHECKPOINTS).newest if resume else None

    def on_step(report: StepReport) -> None:
        # Not before the trainer has agreed that this is the same run.
        if done is not None and report.step == done.step + 1:
            _describe(job, out)

    trainer = Trainer(job.recipe, out, on_step=on_step, preview=_previewer(job, out))
    with undone_on_error(out):
        if done is None:
            _describe(job, out)
        for subject in job.subjects:
            say(_masks_line(subject, out))
        adapter = trainer.fit(job.backbone, job.method, job.subjects, resume)
    adapter.save(out / ADAPTER)
    best = best_checkpoint(out / CHECKPOINTS)
    if best is not None and best[0].step != job.recipe.steps:
        say(f"The held-out score was best after step {best[0].step}: '{best[0].adapter}'.")
    return adapter


def sample_scenes(job: Job) -> list[NDArray[np.uint8]]:
    """A few of the pictures the method trains on, uint8 (height, width, 3)."""
    rng = np.random.default_rng(job.recipe.seed)
    scenes: list[NDArray[np.uint8]] = []
    while len(scenes) < _SHOWN_SCENES:
        examples = job.method.scenes(job.subjects, rng, job.canvas)
        scenes += [example.frames[0] for example in examples]
    return scenes[:_SHOWN_SCENES]


def facts(job: Job, adapter: Adapter) -> dict[str, object]:
    """What a report says about a run."""
    numbers = sum(parameter.numel() for parameter in adapter.parameters())
    return {
        "Base model": job.backbone.name,
        "Method": job.method.name,
        "Steps": job.recipe.steps,
        "Numbers learned": f"{numbers:,}",
        "Seed": job.recipe.seed,
    }


def _recipe(plan: TrainPlan, say: Say) -> Recipe:
    """One recipe: a file's, the resumed run's or the packaged one, then `--set`, then flags."""
    flags = {key: value for key, value in plan.choices.items() if value is not None}
    source = plan.recipe or (plan.out / RECIPE if plan.resume else None)
    if source is not None:
        recipe = load_recipe(source)
    else:
        if "backbone" not in flags:
            say("Base model: toybox, which draws toys; --backbone names one for real videos.")
        named = {key: str(flags[key]) for key in ("method", "backbone") if key in flags}
        recipe = default_recipe(**named)
    sets = [f"{key}={json.dumps(value)}" for key, value in flags.items()]
    recipe = apply_sets(recipe, [*plan.sets, *sets])
    specs = [SubjectSpec.parse(text) for text in plan.subjects]
    return recipe if not specs else recipe.model_copy(update={"subjects": _entries(specs)})


def _entries(specs: Sequence[SubjectSpec]) -> dict[str, SubjectEntry]:
    entries: dict[str, SubjectEntry] = {}
    for spec in specs:
        if spec.name in entries:
            raise SubjectError(
                f"Two subjects share the word '<{spec.name}>'; give each its own name."
            )
        entries[spec.name] = SubjectEntry(folder=str(spec.folder), category=spec.category or "")
    return entries


def _describe(job: Job, out: Path) -> None:
    write_text(out / RECIPE, dump_toml(job.recipe))
    save_overlays(job.subjects, out / MASKS)


def _masks_line(subject: Subject, out: Path) -> str:
    shares = sorted(coverage(mask) for mask in subject.masks)
    return (
        f"{subject.word} {subject.category}: {len(subject.images)} photos, masks cover "
        f"{shares[0]:.0%} to {shares[-1]:.0%}; look at '{out / MASKS / subject.name}'"
    )


def _previewer(job: Job, out: Path) -> Callable[[int, Adapter], None]:
    def preview(step: int, adapter: Adapter) -> None:
        options, seed = job.recipe.sampling, job.recipe.seed
        prompt = list_subjects(adapter.words)
        video = generate(job.backbone, adapter, prompt, seed=seed, options=options)
        video.save(out / PREVIEWS / f"{step:06d}.mp4", scale=watchable_scale(video))

    return preview


def _write_report(job: Job, out: Path, adapter: Adapter) -> None:
    title = f"{' and '.join(word.word for word in adapter.words)}, learned"
    previews = sorted((out / PREVIEWS).glob("*.mp4"))
    data = ReportData(
        title=title,
        intro="Check the masks first: what they miss is not learned, what they add is.",
        subjects=job.subjects,
        scenes=sample_scenes(job),
        losses=loss_curves(out),
        comparisons=[
            Comparison(
                f"{list_subjects(adapter.words)}, step {int(path.stem)}", None, Video.load(path)
            )
            for path in previews
        ],
        made=facts(job, adapter),
        commands=[
            f"customvideo train --recipe {out / RECIPE} --out another-folder",
            _generate_command(adapter, out),
        ],
    )
    render_report(out / REPORT, data)


def _generate_command(adapter: Adapter, out: Path) -> str:
    prompt = list_subjects(adapter.words)
    return f'customvideo generate "{prompt}" --adapter {out / ADAPTER} --out video.mp4'
