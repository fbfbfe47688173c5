"""Group photos: pictures that show several of the subjects at once, and where each of them is.

A folder of them is named by its subjects, `tom+rex=photos/together`. Who is where in a picture is
said by mask files (`masks/01.tom.png`), by boxes (`01.bbox`), or by a segmenter that reads words.
They become training pictures as they are (`customvideo.subjects.scene.natural`). Photos of one
subject each are `customvideo.subjects.folders`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from customvideo.errors import SubjectError
from customvideo.files import expanded, is_dir
from customvideo.records import parse_json
from customvideo.subjects.captions import read_caption
from customvideo.subjects.masks import Segmenter, check_mask, reads_words, segment_inside
from customvideo.subjects.pictures import Picture, list_pictures, read_mask, read_picture
from customvideo.subjects.prompt import check_name

if TYPE_CHECKING:
    from customvideo.subjects.subject import Subject

__all__ = [
    "GroupFolder",
    "GroupPhoto",
    "GroupSpec",
    "add_photo",
    "read_group",
    "read_groups",
    "share_groups",
]

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, as shares of the picture's width and height."""

_SYNTAX = "write --subject NAME+NAME=FOLDER, such as --subject tom+rex=photos/together"
_SUFFIX = ".bbox"
_LONGEST_FILE = 1 << 16


@dataclass(frozen=True, eq=False)
class GroupPhoto:
    """One photo that shows several subjects.

    Attributes:
        file: its name, for messages.
        image: uint8 (height, width, 3), RGB.
        masks: name -> float32 (height, width) in [0, 1], for everybody it shows, each once; where
            masks meet they never sum to more than 1.
        caption: a text with everybody's word in it; "" for none.
    """

    file: str
    image: NDArray[np.uint8]
    masks: Mapping[str, NDArray[np.float32]]
    caption: str = ""


@dataclass(frozen=True)
class GroupSpec:
    """Where photos lie that show all of `names`, or whom a picture's own boxes or masks name."""

    names: tuple[str, ...]
    folder: Path

    def __post_init__(self) -> None:
        for name in self.names:
            check_name(name)
        if len(set(self.names)) < 2 or len(set(self.names)) != len(self.names):
            raise SubjectError(
                f"'{'+'.join(self.names)}' is no group of different subjects; {_SYNTAX}."
            )

    @classmethod
    def parse(cls, text: str) -> GroupSpec:
        """Read `tom+rex=photos/together`.

        Raises:
            SubjectError: the text has another form.
            PromptError: a name is unusable.
        """
        label, equals, folder = text.partition("=")
        if not equals or not folder.strip() or ":" in label:
            raise SubjectError(f"'{text}' does not describe a group; {_SYNTAX}.")
        names = tuple(part.strip() for part in label.split("+"))
        return cls(names, expanded(folder.strip()))

    @staticmethod
    def describes(text: str) -> bool:
        """Whether `text` is about a group, well written or not."""
        return "+" in text.partition("=")[0]

    @property
    def label(self) -> str:
        """`tom+rex`."""
        return "+".join(self.names)


@dataclass(frozen=True, eq=False)
class GroupFolder:
    """A folder of group photos, read: everything but the masks that are still to be made.

    Attributes:
        spec: what was asked for.
        pictures: the photos, by file name.
        masks: for each, the masks that lie beside it, by name.
        boxes: for each, the boxes that lie beside it, by name.
    """

    spec: GroupSpec
    pictures: tuple[Picture, ...]
    masks: tuple[Mapping[str, NDArray[np.float32]], ...]
    boxes: tuple[Mapping[str, Box], ...]

    def photos(self, subjects: Sequence[Subject], segment: Segmenter) -> list[GroupPhoto]:
        """The photos of `subjects`, with the masks that are missing made by `segment`.

        Raises:
            SubjectError: nobody can say who is where, or a mask or caption cannot be used.
        """
        categories = {one.name: one.category for one in subjects}
        photos = []
        for index, picture in enumerate(self.pictures):
            masks = self.masks_of(index, categories, segment)
            words = [one.learned for one in subjects if one.name in masks]
            caption = read_caption(picture.path, words)
            photos.append(GroupPhoto(picture.path.name, picture.image, masks, caption))
        return photos

    def masks_of(
        self, index: int, categories: Mapping[str, str], segment: Segmenter
    ) -> Mapping[str, NDArray[np.float32]]:
        """The masks of one picture by name, in the order of `categories`, name -> category.

        Raises:
            SubjectError: nobody can say who is where, or a mask cannot be used.
        """
        shown = self._shown(index)
        nouns = {name: noun for name, noun in categories.items() if name in shown}
        return _apart({name: self._mask(index, name, nouns, segment) for name in nouns})

    def _shown(self, index: int) -> tuple[str, ...]:
        """Who is in a picture: those it has masks or boxes of, or, without any, all."""
        told = {*self.masks[index], *self.boxes[index]}
        return tuple(name for name in self.spec.names if not told or name in told)

    def _mask(
        self, index: int, name: str, nouns: Mapping[str, str], segment: Segmenter
    ) -> NDArray[np.float32]:
        """Where `name` is in a picture that shows `nouns`, name -> category."""
        picture, given = self.pictures[index], self.masks[index].get(name)
        if given is not None:
            return given
        box = self.boxes[index].get(name)
        if box is not None:
            mask = segment_inside(segment, picture.image, box, nouns[name])
        elif reads_words(segment) and list(nouns.values()).count(nouns[name]) == 1:
            mask = segment(picture.image, nouns[name])
        else:
            raise SubjectError(
                f"Nobody says where <{name}> is in '{picture.path}'; put a box into "
                f"'{picture.path.stem}{_SUFFIX}', a mask into "
                f"'masks/{picture.path.stem}.{name}.png', or, where each is of another "
                "category, choose the segmenter grounded-sam or sam3."
            )
        label = f"the mask of <{name}> made for '{picture.path}'"
        return check_mask(mask, picture.image, label, made=True)


def read_groups(specs: Iterable[GroupSpec], names: Sequence[str]) -> list[GroupFolder]:
    """Read folders of group photos; no mask is made. `names` are the subjects there are.

    Raises:
        SubjectError: a folder, picture, mask or box is unusable, or a group names a stranger.
    """
    return [read_group(spec, names) for spec in specs]


def read_group(
    spec: GroupSpec, names: Sequence[str], pictures: Sequence[Picture] | None = None
) -> GroupFolder:
    """Read one folder, as `read_groups` does; of its `pictures`, if they have been read already.

    Raises:
        SubjectError: as `read_groups`.
    """
    for name in spec.names:
        if name not in names:
            raise SubjectError(
                f"The group '{spec.label}' shows '{name}', of whom there are no photos alone; "
                f"add --subject {name}:CATEGORY=FOLDER."
            )
    found = tuple(_pictures(spec) if pictures is None else pictures)
    boxes = tuple(_boxes(spec, picture.path) for picture in found)
    return GroupFolder(spec, found, _masks(spec, found), boxes)


def share_groups(
    subjects: Sequence[Subject], folders: Iterable[GroupFolder], segment: Segmenter
) -> list[Subject]:
    """The subjects, each with the group photos that show it.

    Raises:
        SubjectError: as `GroupFolder.photos`.
    """
    photos = [photo for folder in folders for photo in folder.photos(subjects, segment)]
    if not photos:
        return list(subjects)
    return [
        replace(one, together=tuple(photo for photo in photos if one.name in photo.masks))
        for one in subjects
    ]


def add_photo(sha: Any, image: NDArray[np.uint8], masks: Iterable[NDArray[np.float32]]) -> None:
    """Feed a photo and its masks to the hash `sha`."""
    sha.update(repr(image.shape).encode())
    sha.update(image.tobytes())
    for mask in masks:
        # As 8-bit weights, so that rounding in a mask's last digits leaves it the same mask.
        sha.update((mask * 255).round().astype(np.uint8).tobytes())


def _pictures(spec: GroupSpec) -> list[Picture]:
    if not is_dir(spec.folder):
        raise SubjectError(
            f"The folder '{spec.folder}' for pictures of {spec.label} does not exist; check the "
            "path."
        )
    paths = list_pictures(spec.folder)
    if not paths:
        raise SubjectError(f"'{spec.folder}' holds no picture of {spec.label}; put one there.")
    return [read_picture(path) for path in paths]


def _masks(
    spec: GroupSpec, pictures: Sequence[Picture]
) -> tuple[Mapping[str, NDArray[np.float32]], ...]:
    """Each picture's mask files `masks/<stem>.<name>.png`, read and checked."""
    places = {picture.path.stem.casefold(): place for place, picture in enumerate(pictures)}
    found: list[dict[str, NDArray[np.float32]]] = [{} for _ in pictures]
    folder = spec.folder / "masks"
    for path in list_pictures(folder) if folder.is_dir() else []:
        stem, _, name = path.stem.rpartition(".")
        place = places.get(stem.casefold())
        if place is None or name not in spec.names:
            raise SubjectError(
                f"The mask '{path}' belongs to no picture or subject of {spec.label}; call it like "
                f"'{pictures[0].path.stem}.{spec.names[0]}.png' or remove it."
            )
        picture = pictures[place]
        found[place][name] = check_mask(
            read_mask(path, picture), picture.image, f"the mask '{path}'"
        )
    return tuple(found)


def _boxes(spec: GroupSpec, picture: Path) -> dict[str, Box]:
    """The boxes beside a picture, by name."""
    path = picture.with_suffix(_SUFFIX)
    if not path.is_file():
        return {}
    form = f'[{{"label": "{spec.names[0]}", "bbox": [0.1, 0.2, 0.5, 0.9]}}]'
    try:
        with path.open("rb") as file:
            entries = parse_json(file.read(_LONGEST_FILE))
        boxes = {str(entry["label"]): _box(entry["bbox"]) for entry in entries}
    except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise SubjectError(
            f"The boxes '{path}' cannot be read; write {form}: left, top, right, bottom, as shares "
            "of width and height."
        ) from error
    if strangers := [name for name in boxes if name not in spec.names]:
        raise SubjectError(
            f"The boxes '{path}' are of '{strangers[0]}', who is not in {spec.label}; correct the "
            "label."
        )
    return boxes


def _box(values: Sequence[float]) -> Box:
    left, top, right, bottom = (float(value) for value in values)
    if not all(map(math.isfinite, (left, top, right, bottom))):
        raise ValueError("not finite")
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError("not within the picture")
    return left, top, right, bottom


def _apart(masks: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Masks that share a place share its weight."""
    if not any((one * other).any() for one, other in combinations(masks.values(), 2)):
        return masks
    total = np.maximum(np.sum(list(masks.values()), axis=0), 1)
    return {name: np.asarray(mask / total, np.float32) for name, mask in masks.items()}
