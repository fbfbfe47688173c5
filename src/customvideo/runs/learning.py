"""One customization from photos to adapter: what `customvideo train` and `customize` do.

Recipe, subjects, backbone, method and trainer meet here, and their results go to the run's folder
(`customvideo.runs.folder`). How anything is learned is not decided here.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import BACKBONES, Backbone, load_backbone
from customvideo.config import (
    Recipe,
    SubjectEntry,
    compose_recipe,
    dump_toml,
    parse_set,
)
from customvideo.errors import ConfigError, SubjectError
from customvideo.files import ensure_dir, expanded, is_dir, write_text
from customvideo.generation import CustomVideoWarning
from customvideo.methods.base import Method, TuningFree, learned_numbers, load_method
from customvideo.report import Comparison, ReportData, render_report
from customvideo.runs.calling import command
from customvideo.runs.environment import differences, keep_environment, surroundings
from customvideo.runs.fitting import fitted, knobs
from customvideo.runs.folder import (
    ADAPTER,
    CHECKPOINTS,
    MASKS,
    PREVIEWS,
    RECIPE,
    REPORT,
    Say,
    held,
    loss_curves,
    require_writable,
    save_adapter,
    undone_on_error,
)
from customvideo.runs.masking import mask_effect, say_masks
from customvideo.runs.memory import enough_memory
from customvideo.runs.previewing import previewer
from customvideo.subjects.folders import SubjectSpec, read_photos, read_spec
from customvideo.subjects.groups import GroupSpec, read_groups, share_groups
from customvideo.subjects.masks import (
    resolve_segmenter,
    save_overlays,
)
from customvideo.subjects.prompt import list_subjects
from customvideo.subjects.subject import Subject
from customvideo.training.checkpoint import best_checkpoint, newest_valid
from customvideo.training.interrupt import Interrupted
from customvideo.training.progress import StepReport
from customvideo.training.ranks import is_main
from customvideo.training.trainer import OnStep, Trainer
from customvideo.video import Video

__all__ = [
    "Job",
    "TrainPlan",
    "customize",
    "facts",
    "fit",
    "learn",
    "load_job",
    "recipe_of",
    "sample_scenes",
    "train",
]

_SHOWN_SCENES = 6

_LOG = logging.getLogger(__name__)


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
    if not is_main():
        return _follow(plan)
    with held(plan.out, resume=plan.resume):
        recipe = recipe_of(plan, say)
        require_writable(plan.out)
        adapter = learn(recipe, plan.out, resume=plan.resume, device=plan.device, say=say)
    if plan.recipe is not None and plan.recipe.is_dir():
        for line in differences(plan.recipe, plan.out):
            say(f"Not as in '{plan.recipe}': {line}.")
    return adapter


def _follow(plan: TrainPlan) -> Path:
    """Take part in a run that another process writes and speaks for."""
    job = load_job(recipe_of(plan, lambda _: None), plan.device)
    trainer = Trainer(job.recipe, plan.out, preview=lambda *_: None, console=Console(quiet=True))
    trainer.fit(job.backbone, job.method, job.subjects, plan.resume)
    return plan.out / ADAPTER


def learn(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    device: str,
    say: Say,
    on_step: OnStep | None = None,
) -> Path:
    """Do what `recipe` says in the folder `out`, which is held and can be written.

    `on_step` is told of every finished step; a KeyboardInterrupt from it ends the run, saved.
    Returns the adapter's path, and raises as `train`."""
    try:
        with enough_memory(f"loading '{recipe.backbone}'", ["a smaller --backbone"]):
            job = load_job(recipe, device, say)
    except KeyboardInterrupt:
        raise Interrupted(
            "Stopped before training, nothing was made; run the same command again to start."
        ) from None
    turned = knobs(job.recipe, hasattr(job.backbone, "checkpointed"))
    with enough_memory(f"training on '{job.backbone.name}'", turned, "--fit auto chooses"):
        adapter = fit(job, out, resume=resume, say=say, on_step=on_step)
    try:
        _write_report(job, out, adapter)
    except Exception as error:
        # What was learned is there, whatever becomes of the pictures of it.
        kind = type(error).__name__
        _LOG.warning("The report could not be made, all else is there (%s: %s).", kind, error)
        say(f"Wrote '{out / ADAPTER}'. Next:")
    else:
        say(f"Wrote '{out / ADAPTER}' and '{out / REPORT}'. Next:")
    say(f"  {_generate_command(adapter, out)}")
    return out / ADAPTER


def customize(
    backbone: Backbone, subjects: Sequence[Subject], out: Path | str | None = None, **keys: Any
) -> Adapter:
    """Learn `subjects` on `backbone` and return the adapter, not attached.

    Args:
        backbone: a model from `load_backbone`.
        subjects: from `load_subjects`, or made by hand.
        out: a new folder for checkpoints and the adapter; None writes nothing.
        keys: keys of the recipe, such as `steps=100` or `alone=0.2`, or its tables, such as
            `sampling={"num_steps": 30}`; what is not given comes from the packaged recipe of the
            method and the backbone.

    Raises:
        ConfigError: an unknown key, a value that does not fit, or a folder with a run in it.
    Warns:
        CustomVideoWarning: the backbone never learned what a subject is.
    """
    folder = None if out is None else Path(out)
    recipe = compose_recipe([("backbone", backbone.name), *keys.items()])
    if recipe.fit is not None:
        raise ConfigError(
            "The setting 'fit' belongs to `customvideo train`, which loads the backbone itself; "
            "leave it out."
        )
    method = load_method(recipe.method, recipe.method_options)
    _note_unlearned(backbone, [subject.category for subject in subjects])
    if folder is None:
        return Trainer(recipe).fit(backbone, method, subjects)
    with held(folder, resume=False):
        with undone_on_error(folder):
            adapter = Trainer(recipe, folder).fit(backbone, method, subjects)
        save_adapter(adapter, folder)
    return adapter


def load_job(
    recipe: Recipe, device: str, say: Say = lambda _: None, *, backbone: Backbone | None = None
) -> Job:
    """Load everything `recipe` names, what is quick to check before what is slow to make; its
    backbone is not loaded again if it is given.

    The job's recipe says each subject's category, has its `fit` carried out, and works from any
    folder.
    """
    recipe = fitted(recipe, device, say)
    method = load_method(recipe.method, recipe.method_options)
    segmenter = resolve_segmenter(recipe.masks.segmenter, recipe.masks.model or None)
    found = read_photos(recipe.specs)
    groups = read_groups(recipe.group_specs, list(recipe.subjects))
    backbone = backbone or load_backbone(recipe.backbone, device, recipe.base_type)
    categories = [photos.category(backbone.known_nouns) for photos in found]
    _note_unlearned(backbone, categories)
    subjects = []
    for photos, category in zip(found, categories, strict=True):
        for line in photos.work:
            say(line)
        subjects.append(photos.subject(category, segmenter, recipe.masks.per_clip))
    subjects = share_groups(subjects, groups, segmenter)
    return Job(_settled(recipe, subjects), backbone, method, subjects)


def fit(job: Job, out: Path, *, resume: bool, say: Say, on_step: OnStep | None = None) -> Adapter:
    """Train `job` in the folder `out`, save the adapter there and return it."""
    done = newest_valid(out / CHECKPOINTS).newest if resume else None

    def after_step(report: StepReport) -> None:
        # Not before the trainer has agreed that this is the same run.
        if done is not None and report.step == done.step + 1:
            _describe(job, out)
        if on_step is not None:
            on_step(report)

    trainer = Trainer(
        job.recipe, out, on_step=after_step, preview=previewer(job.recipe, job.backbone, out)
    )
    with undone_on_error(out):
        ensure_dir(out)
        if done is None:
            _describe(job, out)
        say_masks(job.method, job.subjects, out, say)
        adapter = trainer.fit(job.backbone, job.method, job.subjects, resume)
    save_adapter(adapter, out)
    if effect := mask_effect(out):
        say(effect)
    best = best_checkpoint(out / CHECKPOINTS)
    if best is not None and best[0].step != job.recipe.steps:
        say(f"The held-out score was best after step {best[0].step}: '{best[0].adapter}'.")
    return adapter


def sample_scenes(job: Job) -> list[NDArray[np.uint8]]:
    """A few of the pictures the method trains on, uint8 (height, width, 3); none if it trains
    nothing."""
    if isinstance(job.method, TuningFree):
        return []
    rng = np.random.default_rng(job.recipe.seed)
    scenes: list[NDArray[np.uint8]] = []
    while len(scenes) < _SHOWN_SCENES:
        examples = job.method.scenes(job.subjects, rng, job.canvas)
        scenes += [example.frames[0] for example in examples]
    return scenes[:_SHOWN_SCENES]


def facts(job: Job, adapter: Adapter) -> dict[str, object]:
    """What a report says about a run."""
    untrained = isinstance(job.method, TuningFree)
    return {
        "Base model": job.backbone.name,
        "Method": job.method.name,
        "Steps": 0 if untrained else job.recipe.steps,
        "Numbers learned": f"{learned_numbers(job.method, adapter):,}",
        "Seed": job.recipe.seed,
    }


def recipe_of(plan: TrainPlan, say: Say) -> Recipe:
    """One recipe: a file's, the resumed run's or the packaged one, then `--set`, then flags."""
    flags = [(key, value) for key, value in plan.choices.items() if value is not None]
    changes = [*map(parse_set, plan.sets), *flags]
    source = _recipe_in(plan.recipe) or (plan.out / RECIPE if plan.resume else None)
    recipe = compose_recipe(changes, source)
    if source is None and "backbone" not in dict(changes):
        say("Base model: toybox, which draws toys; --backbone names one for real videos.")
    specs = [read_spec(text) for text in plan.subjects]
    if not specs:
        return recipe
    groups = {one.label: str(one.folder) for one in specs if isinstance(one, GroupSpec)}
    alone = _entries([one for one in specs if isinstance(one, SubjectSpec)])
    return recipe.model_copy(update={"subjects": alone, "groups": groups})


def _recipe_in(asked: Path | None) -> Path | None:
    """The recipe's file; of a run's folder the one in it."""
    return asked / RECIPE if asked is not None and is_dir(asked) else asked


def _entries(specs: Sequence[SubjectSpec]) -> dict[str, SubjectEntry]:
    entries: dict[str, SubjectEntry] = {}
    for spec in specs:
        if spec.name in entries:
            raise SubjectError(
                f"Two subjects share the word '<{spec.name}>'; give each its own name."
            )
        entries[spec.name] = SubjectEntry(folder=str(spec.folder), category=spec.category or "")
    return entries


def _settled(recipe: Recipe, subjects: Sequence[Subject]) -> Recipe:
    """`recipe` with each subject's category, and with its folders found from anywhere."""
    entries = {
        subject.name: SubjectEntry(
            folder=_absolute(recipe.subjects[subject.name].folder), category=subject.category
        )
        for subject in subjects
    }
    # Of two models, `DETECTOR,SEGMENTER`, each may be a folder.
    model = ",".join(_absolute(part) for part in recipe.masks.model.split(","))
    known, cache, start = recipe.backbone in BACKBONES, recipe.prior_cache, recipe.start_from
    changes = {
        "subjects": entries,
        "groups": {label: _absolute(folder) for label, folder in recipe.groups.items()},
        "backbone": recipe.backbone if known else _absolute(recipe.backbone),
        "masks": recipe.masks.model_copy(update={"model": model}),
        "prior_cache": cache and str(expanded(cache).absolute()),  # may be new
        "start_from": start and str(expanded(start).absolute()),
    }
    return recipe.model_copy(update=changes)


def _absolute(place: str) -> str:
    """`place` as an absolute path if it is a folder; a hub id stays as it is."""
    folder = expanded(place)
    return str(folder.absolute()) if place and folder.is_dir() else place


def _note_unlearned(backbone: Backbone, categories: Iterable[str]) -> None:
    nouns = backbone.known_nouns
    for category in dict.fromkeys(categories):
        if nouns and category.lower() not in nouns:
            # The caller of `train` or `customize`.
            warnings.warn(
                f"The backbone '{backbone.name}' never learned '{category}' and will make little "
                f"of it; it knows {', '.join(sorted(nouns))}.",
                CustomVideoWarning,
                stacklevel=3,
            )


def _describe(job: Job, out: Path) -> None:
    write_text(out / RECIPE, dump_toml(job.recipe))
    keep_environment(out, surroundings(job.backbone, job.subjects))
    save_overlays(job.subjects, out / MASKS)


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
            command("train", "--recipe", out / RECIPE, "--out", "another-folder"),
            _generate_command(adapter, out),
        ],
    )
    render_report(out / REPORT, data)


def _generate_command(adapter: Adapter, out: Path) -> str:
    prompt = list_subjects(adapter.words)
    return command("generate", prompt, "--adapter", out / ADAPTER, "--out", "video.mp4")
