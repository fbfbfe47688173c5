"""Adapters brought together, and changed: what `customvideo merge`, `add` and `remove` do.

Merging trains nothing and says what it costs each subject; adding is a training run that begins
where another ended; removing is a matter of the file alone. How deltas become one is
`customvideo.adapters.merge`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from customvideo import generation
from customvideo.adapters.adapter import Adapter
from customvideo.adapters.interference import Interference, measure, spoken
from customvideo.adapters.merge import WAYS, merge_adapters, refuse_unlike
from customvideo.adapters.words import renamed, require_word, shares_deltas, without
from customvideo.backbones.base import Backbone
from customvideo.config import Recipe, SubjectEntry, apply_keys, compose_recipe, parse_set
from customvideo.errors import (
    AdapterError,
    ConfigError,
    PromptError,
    SubjectError,
)
from customvideo.files import atomic_path, write_text
from customvideo.methods.base import TuningFree, load_method
from customvideo.runs.folder import (
    REPLAY,
    Say,
    held,
    require_new_file,
    require_writable,
    undone_on_error,
)
from customvideo.runs.learning import TrainPlan, learn, train
from customvideo.runs.making import backbone_for, backbone_name, recipe_beside
from customvideo.subjects.folders import SubjectSpec
from customvideo.subjects.masks import check_mask, resolve_segmenter
from customvideo.subjects.prompt import LearnedWord, article, list_subjects

__all__ = ["AddPlan", "MergePlan", "RemovePlan", "add", "merge", "remove"]

_DRAWN, _TRIED = 5, 10
"""Pictures of an earlier subject that are wanted where its photos are not given, and drawn."""

_CAPTIONS = (
    "a {noun}",
    "a photo of a {noun}",
    "a {noun} on the grass",
    "a video of a {noun} walking on the street",
    "a {noun} running on the beach",
)
_NOUNS = (
    *("cat", "dog", "bear", "duck", "horse", "bird", "man", "woman", "child", "car", "bus", "boat"),
    *("train", "bicycle", "ball", "toy", "chair", "table", "cup", "teapot", "backpack", "shoe"),
    *("hat", "flower", "tree", "house", "bridge", "mountain", "river", "street", "city", "garden"),
    *("kitchen", "room", "window", "book", "lamp", "clock", "cake", "apple"),
)


@dataclass(frozen=True)
class MergePlan:
    """Adapter files to make one of. `how` is a row of `WAYS`, None for the one that loses least;
    `rename` holds `old=new`; `captions` is a file with one a line."""

    adapters: Sequence[Path]
    out: Path
    how: str | None = None
    rename: Sequence[str] = ()
    captions: Path | None = None
    report: Path | None = None
    backbone: str | None = None
    device: str = "auto"


@dataclass(frozen=True)
class AddPlan:
    """New subjects for the adapter `to`. `replay` holds `name=folder` for subjects it has;
    `choices` are recipe keys that have flags of their own."""

    to: Path
    subjects: Sequence[str]
    out: Path
    replay: Sequence[str] = ()
    sets: Sequence[str] = ()
    choices: Mapping[str, str | int | None] = field(default_factory=dict)
    backbone: str | None = None
    resume: bool = False
    device: str = "auto"


@dataclass(frozen=True)
class RemovePlan:
    """A subject's name to take out of the adapter `source`."""

    name: str
    source: Path
    out: Path


def merge(plan: MergePlan, say: Say) -> Path:
    """Make one adapter of the plan's, say what each subject loses by it, and return its path.

    Raises:
        UserError: they cannot be merged, or a file cannot be read or written.
    """
    if plan.how is not None and plan.how not in WAYS:
        raise ConfigError(f"There is no way '{plan.how}' to merge; choose {', '.join(WAYS)}.")
    captions = None if plan.captions is None else _read_captions(plan.captions)
    require_new_file(plan.out)
    if plan.report is not None:
        require_writable(plan.report.parent)
    adapters = _with_names([Adapter.load(path) for path in plan.adapters], plan.rename)
    refuse_unlike(adapters)
    backbone = backbone_for(plan.adapters[0], adapters[0], plan.backbone, plan.device)
    made = _made(adapters, backbone, plan.how, captions or _usual_captions(backbone, adapters))
    try:
        costs = measure(backbone, adapters, made)
    except AdapterError as error:
        say(f"What it costs each subject is not measured: {error}")
        costs = {}
    how = plan.how or _cheapest(costs)
    for line in _table(costs, how):
        say(line)
    made[how].save(plan.out)
    if plan.report is not None:
        write_text(plan.report, _report(how, costs))
    words = made[how].words
    told = list_subjects(words) if words else "it has no words of its own"
    say(f"Wrote '{plan.out}', merged by {how}: {told}")
    return plan.out


def add(plan: AddPlan, say: Say) -> Path:
    """Learn the plan's subjects on top of what the adapter `to` knows, in a folder as `train` fills
    it, and return the new adapter's path.

    Raises:
        UserError: something about the plan cannot work; the earlier adapter is never touched.
        Interrupted: stopped from outside, after saving.
    """
    if plan.resume:
        return train(TrainPlan(plan.out, resume=True, device=plan.device), say)
    with held(plan.out, resume=False):
        return _add(plan, say)


def _add(plan: AddPlan, say: Say) -> Path:
    earlier = Adapter.load(plan.to)
    recipe = _recipe(plan, earlier)
    if isinstance(load_method(recipe.method, recipe.method_options), TuningFree):
        raise ConfigError(
            f"The method '{recipe.method}' trains nothing that could go on; make an adapter of all "
            "subjects anew, with customvideo train."
        )
    new = [SubjectSpec.parse(text) for text in plan.subjects]
    _refuse_known(new, earlier, plan.to)
    folders = {spec.name: spec.folder for spec in map(SubjectSpec.parse, plan.replay)}
    for name in folders:
        require_word(earlier, name)
    require_writable(plan.out)
    with undone_on_error(plan.out):
        missing = [word for word in earlier.words if word.name not in folders]
        if missing:
            backbone = backbone_for(plan.to, earlier, plan.backbone, plan.device)
            for word in missing:
                say(
                    f"No photos of {word.word} were given (--replay {word.name}=FOLDER), so it "
                    "is drawn by what was learned of it."
                )
                folders[word.name] = _drawn(backbone, earlier, word, (plan.out, recipe))
            del backbone
        entries = {
            word.name: SubjectEntry(folder=str(folders[word.name]), category=word.category)
            for word in earlier.words
        } | {
            spec.name: SubjectEntry(folder=str(spec.folder), category=spec.category or "")
            for spec in new
        }
        whole = recipe.model_copy(update={"subjects": entries, "start_from": str(plan.to)})
        return learn(whole, plan.out, device=plan.device, say=say)


def remove(plan: RemovePlan, say: Say) -> Path:
    """Write the adapter without one of its words, and return its path.

    Raises:
        UserError: it has no such word or no other, or a file cannot be read or written.
    """
    require_new_file(plan.out)
    adapter, name = Adapter.load(plan.source), plan.name.strip("<>")
    less = without(adapter, name)
    less.save(plan.out)
    others = ", ".join(word.word for word in less.words)
    if shares_deltas(adapter, name):
        say(
            f"The weights that <{name}> shared stay, so that {others} are exactly what they were; "
            "what they learned from its photos stays in them."
        )
    else:
        say(f"All that was learned of <{name}> is gone; {others} are exactly what they were.")
    say(f"Wrote '{plan.out}'; prompts with <{name}> are refused.")
    return plan.out


def _with_names(adapters: Sequence[Adapter], changes: Sequence[str]) -> list[Adapter]:
    """The adapters after each `old=new`, which the last that has the word takes."""
    found = list(adapters)
    for text in changes:
        old, equals, new = (part.strip().strip("<>") for part in text.partition("="))
        if not (old and equals and new):
            raise ConfigError(f"Cannot rename '{text}'; write old=new, such as tom=tim.")
        having = [place for place, one in enumerate(found) if old in _names(one)]
        if not having:
            known = ", ".join(f"'{name}'" for one in found for name in _names(one))
            raise AdapterError(f"No adapter knows '{old}', to rename it; they know {known}.")
        found[having[-1]] = renamed(found[having[-1]], old, new)
    return found


def _names(adapter: Adapter) -> list[str]:
    return [word.name for word in adapter.words]


def _made(
    adapters: Sequence[Adapter], backbone: Backbone, how: str | None, captions: Sequence[str]
) -> dict[str, Adapter]:
    """The merged adapter of each way that is possible; of the one that was asked for, surely."""
    made: dict[str, Adapter] = {}
    for way in WAYS:
        try:
            made[way] = merge_adapters(adapters, backbone, how=way, captions=captions)
        except AdapterError:
            # A sum is possible where anything is.
            if way in (how, "sum"):
                raise
    return made


Costs = Mapping[str, Mapping[str, Interference]]


def _cheapest(costs: Costs) -> str:
    """The way whose worst-off subject is best off."""
    ways = next(iter(costs.values()), {})
    worst = {way: max(row[way].of_change for row in costs.values()) for way in ways}
    return min(worst, key=lambda way: worst[way], default="sum")


def _table(costs: Costs, how: str) -> list[str]:
    if not costs:
        return []
    width = max(len(way) for way in WAYS)
    told = "0 nothing, 1 as far off as the base model"
    lines = [f"Lost of what each subject's own adapter learned ({told}):"]
    lines.append("  " + " " * width + "".join(f"  {f'<{name}>':>8}" for name in costs))
    for way in WAYS:
        if all(way in row for row in costs.values()):
            cells = "".join(f"  {_number(row[way].of_change):>8}" for row in costs.values())
            lines.append(f"  {way:<{width}}{cells}{'  <- written' if way == how else ''}")
    return lines


def _number(share: float) -> str:
    return "0" if share == 0 else f"{share:.4f}"


def _report(how: str, costs: Costs) -> str:
    values: dict[str, Any] = {
        "how": how,
        "subjects": {
            name: {way: asdict(cost) for way, cost in row.items()} for name, row in costs.items()
        },
    }
    return json.dumps(values, indent=2) + "\n"


def _read_captions(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The captions '{file}' cannot be read; give a text file with one a line."
        ) from error
    captions = [line.strip() for line in lines if line.strip()]
    if not captions:
        raise ConfigError(f"'{file}' holds no caption; give one a line, 200 are many.")
    return captions


def _usual_captions(backbone: Backbone, adapters: Sequence[Adapter]) -> list[str]:
    """Ordinary captions of what the model knows, and of the subjects' categories."""
    categories = [word.category for adapter in adapters for word in adapter.words]
    nouns = dict.fromkeys([*categories, *(sorted(backbone.known_nouns) or _NOUNS)])
    return [
        text.replace("a {noun}", f"{article(noun)} {noun}")
        for noun in nouns
        for text in spoken(backbone, _CAPTIONS)
    ]


def _recipe(plan: AddPlan, earlier: Adapter) -> Recipe:
    """How the earlier adapter was trained, with the plan's changes."""
    flags = [(key, value) for key, value in plan.choices.items() if value is not None]
    name = plan.backbone or backbone_name(plan.to, earlier)
    changes = [("backbone", name), *map(parse_set, plan.sets), *flags]
    beside = recipe_beside(plan.to)
    if beside is not None:
        return apply_keys(beside, changes)
    header = earlier.header
    made = [("method", header.method), ("backbone", name), ("method_options", header.settings)]
    return compose_recipe([*made, *changes])


def _refuse_known(new: Sequence[SubjectSpec], earlier: Adapter, path: Path) -> None:
    seen = set(_names(earlier))
    for spec in new:
        if spec.name in seen:
            raise PromptError(
                f"There is a <{spec.name}> in '{path}' already, or twice among the new subjects; "
                "give the new one another name."
            )
        seen.add(spec.name)


def _drawn(
    backbone: Backbone, adapter: Adapter, word: LearnedWord, run: tuple[Path, Recipe]
) -> Path:
    """A folder with pictures of `word`, drawn by the adapter, in the folder of a run.

    Raises:
        SubjectError: in none of them the subject can be found.
    """
    out, recipe = run
    segment = resolve_segmenter(recipe.masks.segmenter, recipe.masks.model or None)
    folder, found = out / REPLAY / word.name, 0
    for seed in range(_TRIED):
        video = generation.generate(
            backbone, adapter, list_subjects([word]), seed=seed, options=recipe.sampling
        )
        picture = video.frames[len(video) // 2]
        try:
            mask = check_mask(segment(picture, word.category), picture, "the mask", made=True)
        except SubjectError:
            continue
        for place, pixels in (("", picture), ("masks", (mask * 255).round().astype(np.uint8))):
            with atomic_path(folder / place / f"{seed}.png") as partial:
                Image.fromarray(pixels).save(partial)
        found += 1
        if found == _DRAWN:
            break
    if not found:
        raise SubjectError(
            f"In none of the pictures that the adapter draws of {word.word} it could be found; "
            f"give photos of it, with --replay {word.name}=FOLDER."
        )
    return folder
