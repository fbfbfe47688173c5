"""Composing several subjects into one picture, so that training sees them together.

Two styles: `panel` puts crops of the photos side by side with their backgrounds, `paste` puts
cut-outs at random places and scales on a clean background. A group photo needs neither. Only
composition happens here: prompts are `customvideo.subjects.prompt`, and whoever trains decides how
many scenes to draw.

Axes: subject, height, width. All sizes are pixels, all positions (row, column).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from customvideo.errors import ConfigError, SubjectError
from customvideo.subjects.groups import GroupPhoto
from customvideo.subjects.subject import Subject

__all__ = ["Background", "Scene", "Shot", "Style", "arrange", "compose", "natural", "on_white"]

Style = Literal["panel", "paste"]
Background = Literal["keep", "plain", "random"]
Floats = NDArray[np.float32]

_LARGEST_ZOOM = 1.4  # how much wider than the subject a panel's crop may be
_SMALLEST_SCALE = 0.65  # of the largest cut-out that fits its slot
_SLOT_OVERREACH = 1.15  # how far a cut-out may reach into its neighbours' slots
_PLAIN = (225.0, 225.0, 225.0)


@dataclass(frozen=True, eq=False)
class Scene:
    """One picture with every subject in it once.

    Attributes:
        image: uint8 (height, width, 3), RGB.
        masks: float32 (subject, height, width) in [0, 1], in the order of the subjects given;
            where cut-outs overlap, the one in front hides the others, so the masks of a place
            never sum to more than 1.
        photos: which of its photos each subject was taken from; empty in a natural scene.
    """

    image: NDArray[np.uint8]
    masks: NDArray[np.float32]
    photos: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Slot:
    """A subject's share of the canvas."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class Shot:
    """A photo: image float32 (height, width, 3) in [0, 255], mask (height, width) in [0, 1].

    `extent` is like the mask, of where the subject must find room; the mask itself if None.
    """

    image: Floats
    mask: Floats
    extent: Floats | None = None

    def box(self) -> _Slot:
        """The smallest upright box around the subject."""
        box = _box(self.mask if self.extent is None else self.extent)
        assert box is not None, "a subject's mask is never empty"
        return box

    def crop(self, box: _Slot) -> Shot:
        rows = slice(box.top, box.top + box.height)
        columns = slice(box.left, box.left + box.width)
        return Shot(self.image[rows, columns], self.mask[rows, columns])

    def resized(self, height: int, width: int) -> Shot:
        return Shot(_resize(self.image, height, width), _resize(self.mask, height, width))


def compose(
    subjects: Sequence[Subject],
    rng: np.random.Generator,
    canvas: tuple[int, int],
    *,
    style: Style = "panel",
    background: Background = "keep",
) -> Scene:
    """Draw one picture that contains each subject once; the same `rng` state, the same scene.

    Each subject's photo, mirroring and place are drawn independently, so that neither the order
    of `subjects` nor that of a prompt is tied to a side. (Composition is stated by the CustomVideo
    paper, how to compose is not; both styles are choices.)

    Args:
        canvas: (height, width) of the picture.
        style: `panel` or `paste`.
        background: `keep` shows the photos' own (for `paste`: one photo's, blurred, its subject
            taken out), `plain` one light grey, `random` a colour drawn anew; both shade softly.

    Raises:
        SubjectError: no subject.
        ConfigError: an unknown style or background.
    """
    if not subjects:
        raise SubjectError("A scene needs at least one subject; add one.")
    drawn = [_draw_photo(subject, rng) for subject in subjects]
    scene = arrange([photo for _, photo in drawn], rng, canvas, style, background)
    return replace(scene, photos=tuple(index for index, _ in drawn))


def arrange(
    shots: Sequence[Shot],
    rng: np.random.Generator,
    canvas: tuple[int, int],
    style: Style,
    background: Background,
) -> Scene:
    """`compose` of these very shots, one a subject; where each lies hangs on `rng` and on the
    shots' sizes and extents alone."""
    _require_known("style", style, get_args(Style))
    _require_known("background", background, get_args(Background))
    slots = _draw_slots(len(shots), rng, canvas, even=style == "panel")
    make = _panels if style == "panel" else _pasted
    return make(shots, slots, rng, canvas, background)


def natural(
    photo: GroupPhoto,
    subjects: Sequence[Subject],
    rng: np.random.Generator,
    canvas: tuple[int, int],
) -> Scene:
    """A group photo as a scene: cropped around all it shows, and mirrored half the time.

    Whom of the `subjects` it does not show has an empty mask. `canvas` is (height, width).
    """
    missing = np.zeros(photo.image.shape[:2], np.float32)
    masks = np.stack([photo.masks.get(subject.name, missing) for subject in subjects], axis=-1)
    image = photo.image.astype(np.float32)
    if rng.random() < 0.5:
        image, masks = image[:, ::-1], masks[:, ::-1]
    slot = _Slot(0, 0, *canvas)
    window = _cover(Shot(image, masks.max(axis=-1)), slot, rng)
    shown = [Shot(image, masks[..., index]).crop(window) for index in range(len(subjects))]
    small = np.stack([_resize(one.mask, *canvas) for one in shown])
    return Scene(_to_bytes(_resize(shown[0].image, *canvas)), small)


def on_white(image: NDArray[np.uint8], mask: Floats, side: int, step: int = 1) -> NDArray[np.uint8]:
    """What `mask` (height, width) marks of `image` (height, width, 3), alone on white.

    The picture is the box around it, its edges soft as a pasted cut-out's, shrunk until no side is
    longer than `side` pixels, and widened with white to multiples of `step`; `side` is one.
    """
    photo = Shot(image.astype(np.float32), mask)
    box = photo.box()
    scale = min(1.0, side / max(box.height, box.width))
    tall, wide = max(1, round(box.height * scale)), max(1, round(box.width * scale))
    cutout = _cut_out(photo.crop(box), tall, wide)
    size = (-(-tall // step) * step, -(-wide // step) * step)
    white = np.full((*size, 3), 255, np.float32)
    top, left = (size[0] - tall) // 2, (size[1] - wide) // 2
    # `cutout.image` is already multiplied by its mask.
    white[top : top + tall, left : left + wide] *= 1 - cutout.mask[..., None]
    white[top : top + tall, left : left + wide] += cutout.image
    return _to_bytes(white)


def _box(mask: Floats) -> _Slot | None:
    """The smallest upright box around what is at least half inside; None around nothing."""
    inside = mask >= 0.5
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return None
    top, left = int(rows[0]), int(columns[0])
    return _Slot(top, left, int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left)


def _require_known(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"Unknown {what} '{value}' of a scene; choose one of {', '.join(known)}.")


def _draw_photo(subject: Subject, rng: np.random.Generator) -> tuple[int, Shot]:
    """One of the subject's photos and which, mirrored half the time together with its mask."""
    index = int(rng.integers(len(subject.images)))
    image, mask = subject.images[index].astype(np.float32), subject.masks[index]
    if rng.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    return index, Shot(np.ascontiguousarray(image), np.ascontiguousarray(mask))


def _draw_slots(
    count: int, rng: np.random.Generator, canvas: tuple[int, int], *, even: bool
) -> list[_Slot]:
    """Share the canvas out in a grid, in random order; widths vary unless `even`."""
    height, width = canvas
    rows = _grid_rows(count, canvas)
    columns = count // rows
    slots = []
    for row in range(rows):
        top, bottom = height * row // rows, height * (row + 1) // rows
        shares = np.ones(columns) if even else rng.uniform(0.8, 1.25, columns)
        edges = np.round(np.cumsum([0, *shares]) / shares.sum() * width).astype(int)
        for left, right in pairwise(edges.tolist()):
            slots.append(_Slot(top, left, bottom - top, right - left))
    return [slots[index] for index in rng.permutation(count)]


def _grid_rows(count: int, canvas: tuple[int, int]) -> int:
    """Rows of the grid whose cells come closest to squares: one, but for many or tall canvases."""
    possible = [rows for rows in range(1, count + 1) if count % rows == 0]
    return min(possible, key=lambda r: abs(np.log(canvas[1] * r * r / (canvas[0] * count))))


def _panels(
    photos: Sequence[Shot],
    slots: Sequence[_Slot],
    rng: np.random.Generator,
    canvas: tuple[int, int],
    background: Background,
) -> Scene:
    """Every photo covers its slot with a crop around its subject; nothing is stretched."""
    image = np.zeros((*canvas, 3), np.float32)
    masks = np.zeros((len(photos), *canvas), np.float32)
    behind = None if background == "keep" else _shade(canvas, rng, background)
    for index, (photo, slot) in enumerate(zip(photos, slots, strict=True)):
        panel = photo.crop(_cover(photo, slot, rng)).resized(slot.height, slot.width)
        rows = slice(slot.top, slot.top + slot.height)
        columns = slice(slot.left, slot.left + slot.width)
        alpha = panel.mask[..., None]
        image[rows, columns] = (
            panel.image
            if behind is None
            else panel.image * alpha + behind[rows, columns] * (1 - alpha)
        )
        masks[index, rows, columns] = panel.mask
    return Scene(_to_bytes(image), masks)


def _cover(photo: Shot, slot: _Slot, rng: np.random.Generator) -> _Slot:
    """The part of `photo` that fills `slot`: around the subject, in the slot's proportions."""
    height, width = photo.mask.shape
    box = photo.box()
    zoom = rng.uniform(1.05, _LARGEST_ZOOM)
    # The window is `unit` slots large: large enough for the subject, but inside the photo.
    wanted = zoom * max(box.height / slot.height, box.width / slot.width)
    unit = min(wanted, height / slot.height, width / slot.width)
    tall = min(height, max(1, round(unit * slot.height)))
    wide = min(width, max(1, round(unit * slot.width)))
    # Where a subject does not fit, its upper end (a face, as a rule) is kept.
    top = _around((box.top, box.height), tall, height, rng.uniform(0, 1 if unit == wanted else 0.2))
    left = _around((box.left, box.width), wide, width, rng.uniform(0, 1))
    return _Slot(top, left, tall, wide)


def _around(subject: tuple[int, int], window: int, limit: int, share: float) -> int:
    """Where a window of `window` begins, with `share` of what is too much or too little before it.

    `subject` is (start, length) along the same axis, `limit` the photo's length.
    """
    start, length = subject
    return int(np.clip(round(start + share * (length - window)), 0, limit - window))


def _pasted(
    photos: Sequence[Shot],
    slots: Sequence[_Slot],
    rng: np.random.Generator,
    canvas: tuple[int, int],
    background: Background,
) -> Scene:
    """Cut-outs, feathered, one over the other on a background."""
    image = (
        _emptied(photos[int(rng.integers(len(photos)))], canvas)
        if background == "keep"
        else _shade(canvas, rng, background)
    )
    masks = np.zeros((len(photos), *canvas), np.float32)
    for index in rng.permutation(len(photos)):
        cutout, place = _place(photos[index], slots[index], rng, canvas)
        rows = slice(place.top, place.top + place.height)
        columns = slice(place.left, place.left + place.width)
        alpha = cutout.mask[..., None]
        # `cutout.image` is already multiplied by its mask.
        image[rows, columns] = cutout.image + image[rows, columns] * (1 - alpha)
        masks[:, rows, columns] *= 1 - cutout.mask
        masks[index, rows, columns] = cutout.mask
    return Scene(_to_bytes(image), masks)


def _place(
    photo: Shot, slot: _Slot, rng: np.random.Generator, canvas: tuple[int, int]
) -> tuple[Shot, _Slot]:
    """A cut-out at the size it will have, and where it goes."""
    box = photo.box()
    fit = min(
        min(slot.height * _SLOT_OVERREACH, canvas[0] * 0.96) / box.height,
        min(slot.width * _SLOT_OVERREACH, canvas[1] * 0.96) / box.width,
    )
    scale = fit * rng.uniform(_SMALLEST_SCALE, 1)
    tall, wide = max(2, round(box.height * scale)), max(2, round(box.width * scale))
    place = replace(
        slot,
        top=_within(slot.top, slot.height, tall, canvas[0], rng),
        left=_within(slot.left, slot.width, wide, canvas[1], rng),
        height=tall,
        width=wide,
    )
    if box.top + box.height == photo.mask.shape[0] and slot.top + slot.height == canvas[0]:
        # A subject cut off by its photo's lower edge would float on a flat bottom elsewhere.
        place = replace(place, top=canvas[0] - tall)
    return _cut_out(photo.crop(box), tall, wide), place


def _within(start: int, length: int, size: int, limit: int, rng: np.random.Generator) -> int:
    """Where something of `size` begins, drawn so that it keeps to its slot and to the canvas."""
    slack = abs(length - size)
    low = start if size <= length else start - slack
    return int(np.clip(round(low + rng.uniform() * slack), 0, limit - size))


def _cut_out(photo: Shot, height: int, width: int) -> Shot:
    """The subject alone: image multiplied by a mask whose edge lies a little inside and is soft."""
    inner = np.clip((_resize(photo.mask, height, width) - 0.25) / 0.75, 0, 1)
    # A margin of zeros lets the blur fade at the box's sides, which the subject touches.
    alpha = _blur(np.pad(inner, 2), 0.6)[2:-2, 2:-2]
    # Colours are resized weighted by the mask, or the old background would tint the edge.
    weight = photo.mask + np.float32(1e-3)
    weighted = _resize(photo.image * weight[..., None], height, width)
    colours = weighted / _resize(weight, height, width)[..., None]
    return Shot(np.clip(colours, 0, 255) * alpha[..., None], alpha)


def _emptied(photo: Shot, canvas: tuple[int, int]) -> Floats:
    """The photo's background over the whole canvas, blurred, with the subject filled in."""
    height, width = photo.mask.shape
    unit = min(height / canvas[0], width / canvas[1])
    tall, wide = max(1, int(unit * canvas[0])), max(1, int(unit * canvas[1]))
    window = _Slot((height - tall) // 2, (width - wide) // 2, tall, wide)
    # All that follows is blur, so a small copy will do.
    shrink = min(1.0, 96 / max(canvas))
    rows, columns = max(1, round(canvas[0] * shrink)), max(1, round(canvas[1] * shrink))
    cover = photo.crop(window).resized(rows, columns)
    visible = (cv2.dilate(cover.mask, np.ones((5, 5), np.uint8)) < 0.1).astype(np.float32)
    filled = np.zeros((rows, columns, 3), np.float32)
    missing = np.ones((rows, columns, 1), np.float32)
    # Each wider blur fills what the narrower ones could not reach.
    for sigma in (0.03, 0.1, 0.4):
        weight = _blur(visible, sigma * max(rows, columns))[..., None]
        colour = _blur(cover.image * visible[..., None], sigma * max(rows, columns))
        share = missing * np.clip(weight * 4, 0, 1)
        filled += share * colour / np.maximum(weight, 1e-4)
        missing -= share
    return _resize(filled + missing * cover.image.mean(axis=(0, 1)), *canvas)


def _shade(canvas: tuple[int, int], rng: np.random.Generator, background: Background) -> Floats:
    """One colour over the canvas (height, width, 3), a little lighter at one end."""
    colour = np.array(_PLAIN) if background == "plain" else rng.uniform(60, 240, 3)
    slope = rng.uniform(-20, 20)
    ramp = np.linspace(slope, -slope, canvas[0])[:, None, None]
    return np.asarray(np.clip(colour + ramp + np.zeros((*canvas, 1)), 0, 255), np.float32)


def _blur(values: Floats, sigma: float) -> Floats:
    return np.asarray(
        cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32
    )


def _resize(values: Floats, height: int, width: int) -> Floats:
    shrinking = height * width < values.shape[0] * values.shape[1]
    how = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    resized = cv2.resize(np.ascontiguousarray(values), (width, height), interpolation=how)
    return np.asarray(resized, np.float32)


def _to_bytes(image: Floats) -> NDArray[np.uint8]:
    return np.clip(np.round(image), 0, 255).astype(np.uint8)
