"""Making a study's folder: videos under names that tell nothing, attention checks, a plan to edit.

study.toml        what is asked; to be looked over before anybody votes
items.json        which file is whose; for the researcher's eyes
media/            the videos and photos
secret            signs links and forms; made by the server
votes.sqlite      the votes; made by the server
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from customvideo.errors import StudyError
from customvideo.files import atomic_folder, write_bytes, write_text
from customvideo.settings import validated
from customvideo.userstudy.items import MEDIA, SPOILED, Item, Items, Reference, write_items
from customvideo.userstudy.plan import PLAN, QUESTIONS, SUBJECT, TEXT, StudyPlan, write_plan
from customvideo.userstudy.sources import Candidate, Found, Person
from customvideo.video import Video, plays_everywhere

__all__ = ["new_study"]

_PER_RATER = 12
_CHECKS = 4
_BLOCKS = 6
_PHOTO_SIDE, _JPEG_QUALITY = 480, 88


def new_study(
    folder: Path,
    found: Found,
    *,
    items: int | None = None,
    settings: dict[str, Any],
    say: Callable[[str], None],
) -> Path:
    """Make a study of what was found in the new folder `folder`, all or nothing.

    `items` keeps that many prompts, spread over all; `settings` are keys of `StudyPlan`.

    Raises:
        StudyError, ConfigError: nothing can be compared so.
        UserError: a video cannot be read.
        StorageError: there is something in the folder, or it cannot be written.
    """
    if SPOILED in found.methods:
        raise StudyError(f"A method cannot be called '{SPOILED}'; rename it.")
    chosen = _spread(found.candidates, items)
    pairs = _pairs(found, len(chosen))
    settings = {"per_rater": min(_PER_RATER, pairs), "questions": _questions(found), **settings}
    plan = validated(StudyPlan, settings)
    if plan.per_rater > pairs:
        raise StudyError(
            f"There are only {pairs} comparisons, fewer than --per-rater {plan.per_rater}; lower "
            "it, or bring more prompts or methods."
        )
    with atomic_folder(folder) as partial:
        write_items(partial, _Media(partial / MEDIA).take(found, chosen))
        write_text(partial / PLAN, write_plan(plan))
    _tell(folder, found, plan, len(chosen), say)
    return folder


class _Media:
    """The media folder while it is filled."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, found: Found, chosen: Sequence[Candidate]) -> Items:
        """Copy all that is shown, in an order that tells nothing."""
        references = {name: self._reference(one) for name, one in found.people.items()}
        named = [(_name(".mp4"), one, method) for one in chosen for method in found.methods]
        names = {(one.key, method): name for name, one, method in named}
        sizes = {}
        for name, one, method in sorted(named, key=lambda row: row[0]):
            sizes[one.key, method] = self._video(one.videos[method], name)
        items = []
        for one in chosen:
            height, width = sizes[one.key, found.methods[0]]
            shown = (references[name] for name in one.people)
            items.append(
                Item(
                    one.key,
                    one.prompt,
                    {method: names[one.key, method] for method in found.methods},
                    (width, height),
                    tuple(reference for reference in shown if reference.photos),
                )
            )
        return Items(found.methods, tuple(self._with_checks(items)))

    def _video(self, source: Path, name: str) -> tuple[int, int]:
        """Put one video in, and return its height and width."""
        video = Video.load(source)
        if plays_everywhere(source):
            write_bytes(self._folder / name, source.read_bytes())
        else:
            video.save(self._folder / name)
        return video.size

    def _reference(self, person: Person) -> Reference:
        names = []
        for photo in person.photos:
            names.append(_name(".jpg"))
            write_bytes(self._folder / names[-1], _jpeg(photo))
        return Reference(person.word, person.category, tuple(names))

    def _with_checks(self, items: Sequence[Item]) -> list[Item]:
        """The items, some with a mosaic of one of their videos, everybody's in turn."""
        made = {one.key: index for index, one in enumerate(_spread(items, _CHECKS))}
        return [self._checked(one, made[one.key]) if one.key in made else one for one in items]

    def _checked(self, item: Item, index: int) -> Item:
        method = list(item.videos)[index % len(item.videos)]
        name = _name(".mp4")
        _spoil(Video.load(self._folder / item.videos[method])).save(self._folder / name)
        return replace(item, spoiled=name, checks=method)


def _spoil(video: Video) -> Video:
    """A still, grey, coarse mosaic as long as the video: worse by every question, and it does not
    flicker."""
    frame = Image.fromarray(video.frames[len(video) // 2]).convert("L")
    small = frame.resize((_BLOCKS, max(1, round(_BLOCKS * frame.height / frame.width))))
    large = np.asarray(small.resize(frame.size, Image.Resampling.NEAREST))
    still = np.repeat(large[None, :, :, None], 3, axis=3)
    return Video(np.repeat(still, len(video), axis=0), video.fps)


def _spread(items: Sequence[Any], count: int | None) -> list[Any]:
    """So many of the items, evenly spread over all."""
    if count is None or count >= len(items):
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]


def _questions(found: Found) -> list[dict[str, str]]:
    """The paper's questions, as far as they can be asked."""
    missing = set()
    if not any(one.prompt for one in found.candidates):
        missing.add(TEXT)
    if not any(one.photos for one in found.people.values()):
        missing.add(SUBJECT)
    return [one.model_dump() for one in QUESTIONS if one not in missing]


def _tell(
    folder: Path, found: Found, plan: StudyPlan, prompts: int, say: Callable[[str], None]
) -> None:
    pairs = _pairs(found, prompts)
    if found.left_out:
        say(f"Left out: {found.left_out} prompts that somebody has no video of.")
    asked = {one.key for one in plan.questions}
    for question, why in ((TEXT, "no prompts"), (SUBJECT, "no photos")):
        if question.key not in asked:
            say(f"Not asked, as there are {why}: {question.text}")
    each = plan.per_rater * plan.raters / pairs
    say(
        f"{len(found.methods)} methods on {prompts} prompts make {pairs} comparisons; "
        f"{plan.raters} raters with {plan.per_rater} each judge every one {each:.3g} times."
    )
    say(f"Look over {folder / PLAN} before anybody votes; then: customvideo study serve {folder}")


def _pairs(found: Found, prompts: int) -> int:
    return len(found.methods) * (len(found.methods) - 1) // 2 * prompts


def _name(suffix: str) -> str:
    return f"{secrets.token_hex(12)}{suffix}"


def _jpeg(photo: NDArray[np.uint8]) -> bytes:
    picture = Image.fromarray(photo)
    picture.thumbnail((_PHOTO_SIDE, _PHOTO_SIDE), Image.Resampling.LANCZOS)
    memory = io.BytesIO()
    picture.save(memory, format="JPEG", quality=_JPEG_QUALITY)
    return memory.getvalue()
