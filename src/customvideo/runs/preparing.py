"""Understanding what people have before anything is learned: what `customvideo prepare` does.

Each subject's folder is sorted, looked at, masked and described; what was understood goes to one
page (`customvideo.runs.prepare_page`) and, tidied up, to folders that training takes as they are
(`customvideo.runs.tidying`). The originals are only read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from customvideo.backbones.base import called, draws_toys, family_of, load_backbone
from customvideo.backbones.spelling import spell, tokenizers_of
from customvideo.errors import BackboneError, ConfigError, SubjectError, UserError
from customvideo.evaluation.encoders import TextImageEncoder, resolve_encoder
from customvideo.evaluation.naming import likeliest
from customvideo.files import expanded, write_text
from customvideo.records import write_record
from customvideo.runs.calling import command
from customvideo.runs.folder import Say
from customvideo.runs.prepare_page import Prepared, Understood, page, recorded
from customvideo.runs.preparing_clips import seen_in, tidy_clips
from customvideo.runs.tidying import RECORD, Earlier, Tidy, TidyPhoto, tidy_names, write_tidy
from customvideo.subjects.captions import read_caption, with_words
from customvideo.subjects.clips import list_clips
from customvideo.subjects.folders import SubjectSpec, read_spec, stated_category
from customvideo.subjects.groups import GroupSpec, read_group
from customvideo.subjects.inspection import remarks, see
from customvideo.subjects.masks import (
    Segmenter,
    check_mask,
    coverage,
    make_masks,
    outliers,
    resolve_segmenter,
)
from customvideo.subjects.nouns import NOUNS
from customvideo.subjects.prompt import LearnedWord, check_category
from customvideo.subjects.sorting import Kept, LeftOut, Sorted, sort_folder
from customvideo.subjects.subject import Subject

__all__ = ["PAGE", "PreparePlan", "prepare"]

PAGE = "prepare.html"
Describe = Callable[[NDArray[np.uint8], str], str]
"""A picture and a category to a caption that says nothing of the subject's look."""


@dataclass(frozen=True)
class PreparePlan:
    """Folders to prepare. `segmenter` and `clip` are `NAME` or `NAME=MODEL`, `captioner` a model;
    None for nobody, or, of `clip` on the toybox, for the toybox's own."""

    out: Path
    subjects: Sequence[str]
    backbone: str = "toybox"
    segmenter: str = "grabcut"
    clip: str | None = None
    captioner: str | None = None
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class _Tools:
    """Who helps to understand; None or empty where nobody does."""

    segment: Segmenter
    clip: TextImageEncoder | None
    describe: Describe | None
    tokenizers: Mapping[str, Any]
    nouns: Sequence[str]


def prepare(plan: PreparePlan, say: Say) -> Path:
    """Prepare the plan's folders, and return the path of the page.

    Raises:
        UserError: a folder holds nothing to learn from, or `out` cannot be written.
    """
    specs = [read_spec(text) for text in plan.subjects]
    subjects = [spec for spec in specs if isinstance(spec, SubjectSpec)]
    _check(subjects, specs, plan.out)
    earlier = Earlier.read(plan.out)
    notes: list[str] = []
    found = {spec: sort_folder(spec.folder) for spec in subjects}
    for spec in subjects:
        if not list_clips(spec.folder):
            _require_some(spec.name, spec.folder, found[spec])
    tools = _tools(plan, notes)
    folders = []
    for spec in subjects:
        say(f"Looking at {len(found[spec].kept)} photos of <{spec.name}>")
        folders.append(_subject(spec, found[spec], tools, earlier))
    categories = {spec.name: one.category for spec, one in zip(subjects, folders, strict=True)}
    for group in specs:
        if isinstance(group, GroupSpec):
            say(f"Looking at photos of {group.label} together")
            folders.append(_group(group, categories, tools, earlier))
    prepared = Prepared(plan.backbone, folders, notes, _next(plan, folders))
    path = _write(plan.out, prepared, earlier)
    _tell(prepared, path, say)
    return path


def _check(subjects: Sequence[SubjectSpec], specs: Sequence[Any], out: Path) -> None:
    """Refuse what would touch an original, and names that are there twice or not at all."""
    if not subjects:
        raise SubjectError("No subject was given; write --subject NAME:CATEGORY=FOLDER.")
    names = [spec.name if isinstance(spec, SubjectSpec) else spec.label for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise SubjectError(f"'{name}' is given twice; give each folder its own name.")
    place = expanded(out).resolve()
    for spec in specs:
        folder = spec.folder.resolve()
        if place.is_relative_to(folder) or folder.is_relative_to(place):
            raise ConfigError(
                f"'{out}' and '{spec.folder}' lie one in the other, and originals are never "
                "touched; choose an --out elsewhere."
            )


def _require_some(label: str, folder: Path, found: Sorted) -> None:
    if found.kept:
        return
    first = found.left_out[0] if found.left_out else None
    why = f" ('{first.file}' {first.why})" if first else ""
    raise SubjectError(f"'{folder}' holds no picture of '{label}' that can be used{why}; add one.")


def _tools(plan: PreparePlan, notes: list[str]) -> _Tools:
    name, _, model = plan.segmenter.partition("=")
    segment = resolve_segmenter(name, model or None)
    toys = draws_toys(called(plan.backbone))
    clip = plan.clip or ("toybox-clip" if toys else None)
    encoder = None
    if clip is not None:
        kind, _, weights = clip.partition("=")
        encoder = resolve_encoder(kind, weights or None, plan.device)
        if not isinstance(encoder, TextImageEncoder):
            raise ConfigError(f"The encoder '{kind}' reads no texts; choose clip or toybox-clip.")
    tokenizers: Mapping[str, Any] = {}
    try:
        tokenizers = tokenizers_of(plan.backbone)
    except BackboneError as error:
        if family_of(plan.backbone) is None and "/" not in plan.backbone:
            raise
        notes.append(f"How '{plan.backbone}' reads the words is not known: {error}")
    nouns = NOUNS
    if toys:
        nouns = tuple(sorted(load_backbone(plan.backbone, "cpu").known_nouns))
    return _Tools(segment, encoder, _captioner(plan), tokenizers, nouns)


def _captioner(plan: PreparePlan) -> Describe | None:
    if plan.captioner is None:
        return None
    from customvideo.subjects.captioner import Captioner

    return Captioner(plan.captioner, plan.device)


def _subject(spec: SubjectSpec, found: Sorted, tools: _Tools, earlier: Earlier) -> Understood:
    """One subject's photos: masked, looked at, named and described."""
    films = [path.name for path in list_clips(spec.folder)]
    names = tidy_names([*(one.picture.path.name for one in found.kept), *films])
    given = stated_category(spec)
    masks, origins = _masks(spec.name, given or spec.name, found, names, tools, earlier)
    kept = [one for one in found.kept if one.picture.path.name in masks]
    thing = LearnedWord(spec.name, given or spec.name)
    clips = tidy_clips(spec.folder, thing, names, tools.segment, found)
    if not clips:
        _require_some(spec.name, spec.folder, replace(found, kept=kept))
    shown = _as_subject(thing, kept, masks) if kept else seen_in(clips, thing)
    suggested = [] if tools.clip is None else likeliest(tools.clip, shown, tools.nouns)
    category = given or _guessed(spec, tools, suggested)
    word = LearnedWord(spec.name, category)
    odd = {shown.files[index] for index in outliers(shown)}
    photos = []
    for one in kept:
        file = one.picture.path.name
        mask = masks[file]
        caption = _caption(one, names[file], [word], found, tools, earlier)
        facts = _facts(one, {spec.name: mask}, odd=file in odd)
        photos.append(
            TidyPhoto(
                names[file],
                file,
                one.picture.image,
                {spec.name: mask},
                caption,
                origins[file],
                facts,
            )
        )
    spelt = [spell(one, name, word.word, category) for name, one in tools.tokenizers.items()]
    tidy = Tidy(spec.name, photos, {"word": spec.name, "category": category}, clips)
    left = sorted(found.left_out, key=lambda one: one.file)
    return Understood(tidy, str(spec.folder), left, category, given is not None, suggested, spelt)


def _masks(
    name: str,
    category: str,
    found: Sorted,
    names: Mapping[str, str],
    tools: _Tools,
    earlier: Earlier,
) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    """Masks and their origins, by file name; a photo of which none can be made is left out."""
    masks: dict[str, NDArray[np.float32]] = {}
    origins: dict[str, str] = {}
    missing: list[Kept] = []
    for one in found.kept:
        file = one.picture.path.name
        yours = earlier.mask(name, names[file], Path(names[file]).stem, one.picture.image.shape)
        mask = one.mask if yours is None else yours
        if mask is None:
            missing.append(one)
        else:
            masks[file], origins[file] = mask, "given" if yours is None else "yours"
    made = make_masks([one.picture.image for one in missing], category, tools.segment)
    for one, mask in zip(missing, made, strict=True):
        file = one.picture.path.name
        try:
            masks[file] = check_mask(mask, one.picture.image, f"the mask of '{file}'", made=True)
            origins[file] = "made"
        except SubjectError:
            way_out = f"add a mask 'masks/{Path(file).stem}.png'"
            why = f"shows no {category} that could be found; {way_out}"
            found.left_out.append(LeftOut(file, why))
    return masks, origins


def _as_subject(
    word: LearnedWord, kept: Sequence[Kept], masks: Mapping[str, NDArray[np.float32]]
) -> Subject:
    files = tuple(one.picture.path.name for one in kept)
    images = tuple(one.picture.image for one in kept)
    shown = tuple(masks[file] for file in files)
    return Subject(word.name, word.word, word.category, images, shown, files)


def _guessed(spec: SubjectSpec, tools: _Tools, suggested: list[tuple[str, float]]) -> str:
    """What a subject is of which nobody said it."""
    folder = spec.folder.resolve().name.replace("_", " ")
    for name in (spec.name, folder):
        if name in tools.nouns:
            return name
    if suggested:
        return suggested[0][0]
    try:
        return check_category(folder)
    except UserError:
        raise SubjectError(
            f"Nobody says what '{spec.name}' is; write --subject {spec.name}:CATEGORY=FOLDER."
        ) from None


def _caption(
    one: Kept,
    file: str,
    words: Sequence[LearnedWord],
    found: Sorted,
    tools: _Tools,
    earlier: Earlier,
) -> str:
    """A photo's caption: what somebody wrote since, what came with it, or the captioner's."""
    label = "+".join(word.name for word in words)
    yours = earlier.caption(label, file)
    try:
        text = read_caption(one.picture.path, words) if yours is None else with_words(yours, words)
    except SubjectError as error:
        found.left_out.append(LeftOut(f"{one.picture.path.stem}.txt", f"is no caption: {error}"))
        return ""
    if text or yours is not None or tools.describe is None:
        return text
    return with_words(tools.describe(one.picture.image, words[0].category), words)


def _facts(
    one: Kept, masks: Mapping[str, NDArray[np.float32]], *, odd: bool = False
) -> dict[str, Any]:
    """What is known of a photo, JSON-ready."""
    image, said = one.picture.image, [one.note] if one.note else []
    for name, mask in masks.items():
        whose = f"<{name}>: " if len(masks) > 1 else ""
        said += [whose + text for text in remarks(image, one.seen, see(image, mask))]
    if odd:
        said.append("its mask covers much more or less than the others' do")
    height, width = one.picture.size
    return {
        "width": width,
        "height": height,
        "sharpness": round(one.seen.sharpness, 1),
        "coverage": {name: round(coverage(mask), 4) for name, mask in masks.items()},
        "remarks": list(dict.fromkeys(said)),
    }


def _group(
    spec: GroupSpec, categories: Mapping[str, str], tools: _Tools, earlier: Earlier
) -> Understood:
    """Photos that show several subjects at once."""
    found = sort_folder(spec.folder, masked=False)
    _require_some(spec.label, spec.folder, found)
    folder = read_group(spec, list(categories), [one.picture for one in found.kept])
    names = tidy_names([one.picture.path.name for one in found.kept])
    words = [LearnedWord(name, categories[name]) for name in spec.names]
    photos = []
    for index, one in enumerate(found.kept):
        file = one.picture.path.name
        try:
            masks = folder.masks_of(index, categories, tools.segment)
        except SubjectError as error:
            found.left_out.append(LeftOut(file, f"cannot be used: {error}"))
            continue
        changed = _changed(spec.label, names[file], one, list(masks), earlier)
        masks, origin = {**masks, **changed}, "yours" if changed else "made"
        shown = [word for word in words if word.name in masks]
        caption = _caption(one, names[file], shown, found, tools, earlier)
        facts = _facts(one, masks)
        photos.append(
            TidyPhoto(names[file], file, one.picture.image, masks, caption, origin, facts)
        )
    if not photos:
        _require_some(spec.label, spec.folder, replace(found, kept=[]))
    return Understood(Tidy(spec.label, photos), str(spec.folder), found.left_out)


def _changed(
    label: str, file: str, one: Kept, names: Sequence[str], earlier: Earlier
) -> dict[str, NDArray[np.float32]]:
    """The masks of a group photo that somebody changed since the last time, by name."""
    size, stem = one.picture.image.shape, Path(file).stem
    found = {name: earlier.mask(label, file, f"{stem}.{name}", size) for name in names}
    return {name: mask for name, mask in found.items() if mask is not None}


def _next(plan: PreparePlan, folders: Sequence[Understood]) -> str:
    """The command line that trains on what was prepared."""
    words: list[str | Path] = []
    for one in folders:
        label = one.tidy.label if one.tidy.grouped else f"{one.tidy.label}:{one.category}"
        words += ["--subject", f"{label}={plan.out / one.tidy.label}"]
    chosen = [] if plan.backbone == "toybox" else ["--backbone", plan.backbone]
    return command("train", *words, *chosen, "--out", "runs/mine")


def _write(out: Path, prepared: Prepared, earlier: Earlier) -> Path:
    digests: dict[str, str] = {}
    for one in prepared.folders:
        digests |= write_tidy(one.tidy, earlier)
    record = recorded(prepared) | {"files": digests}
    write_text(out / PAGE, page(prepared))
    write_record(out / RECORD, record)
    return out / PAGE


def _tell(prepared: Prepared, path: Path, say: Say) -> None:
    for one in prepared.folders:
        what = f" {one.category}" if one.category else ""
        guess = "" if one.stated else " (nobody said so: the best guess)"
        said = sum(bool(photo.facts["remarks"]) for photo in one.tidy.photos)
        say(
            f"{one.tidy.label}{what}{guess}: {len(one.tidy.photos)} photos kept, {said} with "
            f"remarks, {len(one.left_out)} files left out"
        )
        for left in one.left_out:
            say(f"  {left.file}: {left.why}")
    for note in prepared.notes:
        say(note)
    say(f"Wrote '{path}': look at it before you train. Next:")
    say(f"  {prepared.next_command}")
