"""Where masks come from, and whether they make sense.

Holds the table of segmenters, the check every mask passes once, and the overlays that let a
person judge them. The segmenters themselves are `customvideo.subjects.grabcut` (embedded) and
`customvideo.subjects.segmenters` (learned models); reading mask files is
`customvideo.subjects.pictures`.
"""

from __future__ import annotations

import io
import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from customvideo.errors import SubjectError
from customvideo.files import write_bytes, write_text
from customvideo.tables import look_up

if TYPE_CHECKING:
    from customvideo.subjects.subject import Subject

__all__ = [
    "SEGMENTERS",
    "Segmenter",
    "boxed",
    "check_mask",
    "coverage",
    "make_masks",
    "outliers",
    "overlay",
    "overlay_path",
    "reads_words",
    "resolve_segmenter",
    "save_overlays",
    "segment_inside",
]

Segmenter = Callable[[NDArray[np.uint8], str], NDArray[np.float32]]
"""From an RGB image uint8 (height, width, 3) and a category to a mask float32 (height, width)."""

SEGMENTERS = {
    "grabcut": "customvideo.subjects.grabcut:GrabCut",
    "sam": "customvideo.subjects.segmenters:Sam",
    "sam2": "customvideo.subjects.segmenters:Sam2",
    "grounded-sam": "customvideo.subjects.segmenters:GroundedSam",
    "sam3": "customvideo.subjects.segmenters:Sam3",
}

_EMPTY, _FULL = 0.001, 0.99
_FEWEST_TO_COMPARE = 3
_ODD = math.log(5)
"""How far a mask's log odds of coverage lie from its companions' to look wrong: 5 % where others
cover 26 % to 42 % does, a portrait of 40 % among full figures of 12 % does not."""
_TINT = np.array([255, 40, 150], np.float32)
_OUTLINE = np.array([255, 255, 0], np.uint8)


def resolve_segmenter(name: str, model: str | Path | None = None) -> Segmenter:
    """Make the segmenter called `name`, a row of `SEGMENTERS`.

    Args:
        name: `grabcut`, `sam`, `sam2`, `sam3` or `grounded-sam`.
        model: hub id or folder of the weights, where the segmenter has any.

    Raises:
        SubjectError: no such row, or a model given to a segmenter without weights.
    """
    make = look_up(name, SEGMENTERS, "segmenter", SubjectError)
    if model is None:
        return cast(Segmenter, make())
    if name == "grabcut":
        raise SubjectError("The segmenter 'grabcut' has no weights; leave its model out.")
    return cast(Segmenter, make(str(model)))


def make_masks(
    images: Sequence[NDArray[np.uint8]], category: str, segment: Segmenter
) -> list[NDArray[np.float32]]:
    """Masks of one subject's photos, one by one."""
    return [segment(image, category) for image in images]


def reads_words(segment: Segmenter) -> bool:
    """Whether `segment` looks for the category instead of for what stands out."""
    return bool(getattr(segment, "reads_words", False))


def segment_inside(
    segment: Segmenter,
    image: NDArray[np.uint8],
    box: tuple[float, float, float, float],
    category: str,
) -> NDArray[np.float32]:
    """The mask (height, width) of what is in `box`: left, top, right, bottom, as shares.

    By the segmenter's own method `inside`, which takes a box in pixels, or else in the box's part
    of the picture alone.
    """
    height, width = image.shape[:2]
    left, right = box[0] * width, box[2] * width
    top, bottom = box[1] * height, box[3] * height
    inside = getattr(segment, "inside", None)
    if inside is not None:
        return np.asarray(inside(image, (left, top, right, bottom)), np.float32)
    rows = slice(int(top), max(int(top) + 1, math.ceil(bottom)))
    columns = slice(int(left), max(int(left) + 1, math.ceil(right)))
    mask = np.zeros((height, width), np.float32)
    mask[rows, columns] = segment(np.ascontiguousarray(image[rows, columns]), category)
    return mask


def check_mask(
    mask: NDArray[np.float32], image: NDArray[np.uint8], label: str, *, made: bool = False
) -> NDArray[np.float32]:
    """Return `mask` (height, width) if it can stand for the subject in `image`, as float32.

    Args:
        label: what the mask is, as the subject of a sentence: "the mask 'masks/00.png'".
        made: the mask was made by a segmenter, so the way out is another mask.

    Raises:
        SubjectError: wrong size, values outside [0, 1], empty or full.
    """
    label = label[0].upper() + label[1:]
    remedy = (
        "add a mask file under masks/ or choose another segmenter"
        if made
        else "white marks the subject and black the rest; correct it"
    )
    if mask.shape != image.shape[:2]:
        raise SubjectError(
            f"{label} is {mask.shape} but its image is {image.shape[:2]} (height, width); "
            "make it the image's size."
        )
    if not (np.isfinite(mask).all() and mask.min() >= 0 and mask.max() <= 1):
        raise SubjectError(f"{label} has values outside 0 to 1; scale it.")
    share = float((mask >= 0.5).mean())
    if share < _EMPTY:
        raise SubjectError(f"{label} is empty; {remedy}.")
    if share > _FULL:
        raise SubjectError(f"{label} covers the whole picture; {remedy}.")
    return np.ascontiguousarray(mask, dtype=np.float32)


def boxed(masks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each of the `masks` (…, height, width) as the smallest upright box around it.

    What is half inside counts as inside; a mask without such a place stays empty.
    """
    boxes = np.zeros_like(masks)
    for place in np.ndindex(masks.shape[:-2]):
        inside = masks[place] >= 0.5
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        if len(rows):
            boxes[place][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = 1
    return boxes


def coverage(mask: NDArray[np.float32]) -> float:
    """The fraction of the picture a mask (height, width) covers."""
    return float(mask.mean())


def outliers(subject: Subject) -> list[int]:
    """Which photos' masks cover much less or much more than the subject's others do."""
    if len(subject.masks) < _FEWEST_TO_COMPARE:
        return []
    shares = [min(max(coverage(mask), _EMPTY), _FULL) for mask in subject.masks]
    odds = [math.log(share / (1 - share)) for share in shares]
    return [
        index
        for index, own in enumerate(odds)
        if abs(own - statistics.median(odds[:index] + odds[index + 1 :])) > _ODD
    ]


def overlay_path(directory: Path | str, subject: Subject, file: str) -> Path:
    """Where `save_overlays` draws the mask of the photo `file`."""
    return Path(directory) / subject.name / f"{Path(file).stem}.png"


def overlay(image: NDArray[np.uint8], mask: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draw a mask (height, width) over its image (height, width, 3): tinted, with an outline."""
    weight = 0.35 * mask[..., None]
    dimmed = image * (0.45 + 0.55 * mask[..., None])
    drawn: NDArray[np.uint8] = np.asarray(dimmed * (1 - weight) + _TINT * weight, np.uint8)
    thickness = 3 if max(mask.shape) < 600 else 5
    bits = (mask >= 0.5).astype(np.uint8)
    kernel = np.ones((thickness, thickness), np.uint8)
    drawn[cv2.morphologyEx(bits, cv2.MORPH_GRADIENT, kernel) > 0] = _OUTLINE
    return drawn


def save_overlays(subjects: Sequence[Subject], directory: Path | str) -> None:
    """Write every mask drawn over its photo, and how much of the photo it covers.

    Writes `<directory>/<name>/<stem>.png`, of a clip `<stem>.mp4`, and `<directory>/coverage.json`,
    which maps name and file to a fraction. Raises StorageError when the place cannot be written.
    """
    fractions: dict[str, dict[str, float]] = {}
    for subject in subjects:
        fractions[subject.name] = {}
        for image, mask, file in zip(subject.images, subject.masks, subject.files, strict=True):
            path = overlay_path(directory, subject, file)
            write_bytes(path, _png(overlay(image, mask)))
            fractions[subject.name][file] = round(coverage(mask), 4)
        for clip in subject.clips:
            clip.drawn().save(overlay_path(directory, subject, clip.file).with_suffix(".mp4"))
    text = json.dumps(fractions, indent=2, sort_keys=True)
    write_text(Path(directory) / "coverage.json", text + "\n")


def _png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
