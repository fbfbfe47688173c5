"""How folders become subjects: their pictures, masks, captions and settings, read from disk.

Folders are read before any mask is made: reading is quick and finds most of what is wrong, making
masks is slow. Reading single files is `customvideo.subjects.pictures`, making missing masks
`customvideo.subjects.masks`; group photos are `customvideo.subjects.groups`.
"""

from __future__ import annotations

import difflib
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from customvideo.errors import SubjectError
from customvideo.files import expanded, is_dir, is_file
from customvideo.records import parse_toml
from customvideo.reels import KINDS
from customvideo.subjects.captions import read_caption
from customvideo.subjects.clips import (
    PER_CLIP,
    Film,
    list_clips,
    picked,
    read_films,
    still_name,
)
from customvideo.subjects.groups import GroupSpec, read_groups, share_groups
from customvideo.subjects.masks import Segmenter, check_mask, make_masks, resolve_segmenter
from customvideo.subjects.pictures import (
    SUFFIXES,
    Picture,
    list_pictures,
    read_mask,
    read_picture,
)
from customvideo.subjects.prompt import LearnedWord, check_category, check_name
from customvideo.subjects.subject import Subject

__all__ = [
    "Photos",
    "Spec",
    "SubjectSpec",
    "load_subjects",
    "read_photos",
    "read_spec",
    "stated_category",
]

_SYNTAX = "write --subject NAME:CATEGORY=FOLDER, such as --subject tom:cat=photos/tom"
_log = logging.getLogger(__name__)
_SETTINGS = "subject.toml"
_SETTING_KEYS = ("word", "category")


@dataclass(frozen=True)
class SubjectSpec:
    """Where one subject's photos lie; `category` None leaves it to the folder or the name."""

    name: str
    folder: Path
    category: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.category is not None:
            check_category(self.category)

    @classmethod
    def parse(cls, text: str) -> SubjectSpec:
        """Read `tom:cat=photos/tom` or `tom=photos/tom`.

        Raises:
            SubjectError: the text has another form.
            PromptError: the name or category is unusable.
        """
        label, equals, folder = text.partition("=")
        name, colon, category = label.partition(":")
        if not (name.strip() and equals and folder.strip()) or (colon and not category.strip()):
            raise SubjectError(f"'{text}' does not describe a subject; {_SYNTAX}.")
        return cls(
            name.strip(),
            expanded(folder.strip()),
            category.strip() if colon else None,
        )


Spec = str | SubjectSpec | GroupSpec
"""A subject's folder or a group's, or the description of one."""


@dataclass(frozen=True, eq=False)
class Photos:
    """A subject's folder, read: everything but the masks that are still to be made.

    Attributes:
        spec: what was asked for.
        pictures: the photos, by file name.
        masks: one per photo, checked, as in `Subject`; None where there is no file and no alpha
            channel.
        films: the clips, by file name.
    """

    spec: SubjectSpec
    pictures: tuple[Picture, ...]
    masks: tuple[NDArray[np.float32] | None, ...]
    films: tuple[Film, ...] = ()

    @property
    def unmasked(self) -> int:
        """How many photos need a mask to be made."""
        return sum(mask is None for mask in self.masks)

    @property
    def work(self) -> list[str]:
        """What making its masks will take, in words: a line for the photos, one for each clip."""
        word, count = f"<{self.spec.name}>", self.unmasked
        lines = [f"Finding {word} in {count} photo{'' if count == 1 else 's'}"] if count else []
        return lines + [f"Following {word} through '{film.path.name}'" for film in self.films]

    def category(self, known_nouns: Collection[str] = ()) -> str:
        """What the subject is; its bare name if that is one of `known_nouns` and nobody says.

        Raises:
            SubjectError: nobody says what it is.
        """
        spec = self.spec
        category = stated_category(spec)
        if category is not None:
            return category
        if spec.name in {noun.lower() for noun in known_nouns}:
            return spec.name
        raise SubjectError(
            f"Subject '{spec.name}' has no category; {_SYNTAX}, or put category = \"cat\" into "
            f"'{spec.folder / _SETTINGS}'."
        )

    def subject(self, category: str, segment: Segmenter, per_clip: int = PER_CLIP) -> Subject:
        """The subject, with the masks that are missing made by `segment`; `per_clip` frames of each
        clip are among its photos.

        Raises:
            SubjectError: a mask that was made, or a caption, cannot be used.
        """
        name, word = self.spec.name, LearnedWord(self.spec.name, category)
        captions = [read_caption(picture.path, [word]) for picture in self.pictures]
        images = [picture.image for picture in self.pictures]
        files = [picture.path.name for picture in self.pictures]
        masks = list(self._masks(category, segment))
        clips = tuple(film.followed(word, segment) for film in self.films)
        for clip in clips:
            for frame in picked(clip, per_clip):
                images.append(clip.frames[frame])
                masks.append(clip.masks[frame] / np.float32(255))
                files.append(still_name(clip, frame))
                captions.append(clip.caption)
        return Subject(
            name,
            word.word,
            category,
            images=tuple(images),
            masks=tuple(masks),
            files=tuple(files),
            captions=tuple(captions),
            clips=clips,
        )

    def _masks(self, category: str, segment: Segmenter) -> tuple[NDArray[np.float32], ...]:
        """All masks, those that are missing made of their pictures together."""
        missing = [
            picture for picture, mask in zip(self.pictures, self.masks, strict=True) if mask is None
        ]
        made = zip(
            missing, make_masks([one.image for one in missing], category, segment), strict=True
        )
        checked = (
            check_mask(mask, one.image, f"the mask made for '{one.path}'", made=True)
            for one, mask in made
        )
        return tuple(next(checked) if mask is None else mask for mask in self.masks)


def load_subjects(
    specs: Path | str | Sequence[Spec],
    segmenter: str | Segmenter = "grabcut",
    known_nouns: Collection[str] = (),
    per_clip: int = PER_CLIP,
) -> list[Subject]:
    """Load subjects from their folders, making the masks that are missing.

    A subject's folder holds pictures (`*.jpg`, `*.png`, `*.webp`) or clips (`*.mp4`, `*.webm`,
    `*.gif`) and may hold `masks/` with the same stems (white = subject, grey = weight; of a clip
    the mask of its first frame), a caption `<stem>.txt` a picture or clip, and a `subject.toml`
    (`word`, `category`). A picture without a mask file uses its alpha channel, else `segmenter`. A
    folder of group photos is described by the names of all it shows.

    Args:
        specs: descriptions such as `tom:cat=photos/tom` and `tom+rex=photos/together`, or one
            folder of such folders.
        segmenter: a row of `customvideo.subjects.masks.SEGMENTERS`, or any callable like one.
        known_nouns: categories that a subject's bare name may stand for.
        per_clip: frames of each clip that serve as photos.

    Raises:
        SubjectError, PromptError: something about a folder, file or name is unusable.
    """
    segment = resolve_segmenter(segmenter) if isinstance(segmenter, str) else segmenter
    described, grouped = _described(specs)
    found = read_photos(described)
    groups = read_groups(grouped, [photos.spec.name for photos in found])
    categories = [photos.category(known_nouns) for photos in found]
    subjects = [
        photos.subject(category, segment, per_clip)
        for photos, category in zip(found, categories, strict=True)
    ]
    return share_groups(subjects, groups, segment)


def stated_category(spec: SubjectSpec) -> str | None:
    """What somebody says the subject is, in its description or in its folder; None if nobody does.

    Raises:
        SubjectError, PromptError: the folder's `subject.toml` is unusable.
    """
    own = _settings(spec.folder).get("category")
    if spec.category and own and spec.category != own:
        _log.warning(
            "The category of '%s' is '%s', as given, though its %s says '%s'.",
            *(spec.folder, spec.category, _SETTINGS, own),
        )
    return spec.category or own


def read_photos(specs: Path | str | Sequence[Spec]) -> list[Photos]:
    """Read the folders of subjects, described as for `load_subjects`, groups left out; no mask is
    made.

    Raises:
        SubjectError, PromptError: something about a folder, file or name is unusable.
    """
    found, _ = _described(specs)
    _refuse_shared_words(found)
    for spec in found:
        _require_folder(spec.folder, f"the pictures of subject '{spec.name}'")
        _settings(spec.folder)
    return [_read(spec) for spec in found]


def _described(specs: Path | str | Sequence[Spec]) -> tuple[list[SubjectSpec], list[GroupSpec]]:
    if isinstance(specs, str):
        specs = [specs] if "=" in specs else Path(specs)
    if isinstance(specs, Path):
        specs = _specs_in(specs)
    read = [read_spec(one) if isinstance(one, str) else one for one in specs]
    found = [one for one in read if isinstance(one, SubjectSpec)]
    if not found:
        raise SubjectError(f"No subject was given; {_SYNTAX}.")
    return found, [one for one in read if isinstance(one, GroupSpec)]


def read_spec(text: str) -> SubjectSpec | GroupSpec:
    """Read `tom:cat=photos/tom` or `tom+rex=photos/together`.

    Raises:
        SubjectError, PromptError: as their own `parse`.
    """
    return GroupSpec.parse(text) if GroupSpec.describes(text) else SubjectSpec.parse(text)


def _specs_in(folder: Path) -> list[Spec]:
    _require_folder(folder, "subject folders")
    inside = sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    if list_pictures(folder) or list_clips(folder) or not inside:
        raise SubjectError(
            f"'{folder}' should hold one folder per subject; put each subject's pictures into its "
            f"own folder there, or {_SYNTAX}."
        )
    return [
        GroupSpec(tuple(path.name.split("+")), path)
        if "+" in path.name
        else SubjectSpec(_settings(path).get("word", path.name), path)
        for path in inside
    ]


def _refuse_shared_words(specs: Iterable[SubjectSpec]) -> None:
    name, count = Counter(spec.name for spec in specs).most_common(1)[0]
    if count > 1:
        raise SubjectError(f"Two subjects share the word '<{name}>'; give each its own name.")


def _settings(folder: Path) -> dict[str, str]:
    """The folder's `subject.toml`, with `word` reduced to its bare name; empty if there is none."""
    path = folder / _SETTINGS
    if not is_file(path):
        return {}
    try:
        settings = parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SubjectError(f"'{path}' cannot be read as TOML: {error}; correct it.") from error
    for key, value in settings.items():
        if key not in _SETTING_KEYS:
            guess = difflib.get_close_matches(key, _SETTING_KEYS, 1)
            meant = guess[0] if guess else " or ".join(_SETTING_KEYS)
            raise SubjectError(f"'{path}' has an unknown key '{key}'; did you mean {meant}?")
        if not isinstance(value, str):
            raise SubjectError(f"'{key}' in '{path}' must be text; put it in quotes.")
    if "word" in settings:
        settings["word"] = check_name(settings["word"].removeprefix("<").removesuffix(">"))
    if "category" in settings:
        check_category(settings["category"])
    return settings


def _read(spec: SubjectSpec) -> Photos:
    paths = _pictures(spec)
    files = _mask_files(spec.folder, paths)
    films = read_films([path for path in paths if path.suffix.lower() not in SUFFIXES], files)
    stills = [film.still for film in films if film.still is not None]
    shown = [read_picture(path) for path in paths if path.suffix.lower() in SUFFIXES] + stills
    pictures = tuple(sorted(shown, key=lambda picture: picture.path))
    masks = tuple(_given(picture, files.get(_stem(picture.path))) for picture in pictures)
    return Photos(spec, pictures, masks, tuple(film for film in films if film.still is None))


def _pictures(spec: SubjectSpec) -> list[Path]:
    """The files of all pictures and clips."""
    paths = sorted([*list_pictures(spec.folder), *list_clips(spec.folder)])
    if not paths:
        others = sorted({path.suffix for path in spec.folder.iterdir() if path.is_file()} - {""})
        seen = f" (only {', '.join(others)} files)" if others else ""
        raise SubjectError(
            f"'{spec.folder}' holds no picture of subject '{spec.name}'{seen}; put at least one "
            f"{', '.join(suffix[1:] for suffix in (*SUFFIXES, *KINDS))} file there."
        )
    by_stem: dict[str, Path] = {}
    for path in paths:
        twin = by_stem.setdefault(_stem(path), path)
        if twin is not path:
            raise SubjectError(
                f"'{twin}' and '{path.name}' have the same name but for their suffix, so a mask "
                "could belong to either; rename one."
            )
    return paths


def _mask_files(folder: Path, pictures: Sequence[Path]) -> dict[str, Path]:
    """The mask file of each picture that has one, by the picture's stem."""
    if not (folder / "masks").is_dir():
        return {}
    stems = {_stem(path) for path in pictures}
    masks: dict[str, Path] = {}
    if not list_pictures(folder / "masks") and any((folder / "masks").glob("[!.]*")):
        raise SubjectError(
            f"'{folder / 'masks'}' holds no mask that can be read; save masks as png, or remove "
            "the folder."
        )
    for path in list_pictures(folder / "masks"):
        twin = masks.setdefault(_stem(path), path)
        if twin is not path:
            raise SubjectError(f"'{twin}' and '{path.name}' mask the same picture; remove one.")
        if _stem(path) not in stems:
            raise SubjectError(
                f"The mask '{path}' belongs to no picture in '{folder}'; name it like its picture "
                f"(such as '{pictures[0].stem}.png') or remove it."
            )
    return masks


def _given(picture: Picture, file: Path | None) -> NDArray[np.float32] | None:
    if file is not None:
        return check_mask(read_mask(file, picture), picture.image, f"the mask '{file}'")
    if picture.alpha is not None:
        return check_mask(picture.alpha, picture.image, f"the alpha channel of '{picture.path}'")
    return None


def _require_folder(folder: Path, purpose: str) -> None:
    if not (is_dir(folder) or is_file(folder)):
        raise SubjectError(f"The folder '{folder}' for {purpose} does not exist; check the path.")
    if not is_dir(folder):
        raise SubjectError(f"'{folder}' is a file; give the folder that holds {purpose}.")


def _stem(path: Path) -> str:
    return path.stem.casefold()
