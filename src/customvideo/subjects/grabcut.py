"""The embedded segmenter: OpenCV's GrabCut, seeded without any learned model.

GrabCut needs a first guess. Several are made (`customvideo.subjects.saliency`), each is refined,
and the result the others agree with most is taken. It suits one subject set off from its
surroundings; for a cluttered photo a mask file or a learned segmenter
(`customvideo.subjects.segmenters`) is the better choice.

Axes: height, width.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from customvideo.subjects.saliency import (
    border_contrast,
    central_prior,
    region_contrast,
    to_lab,
)

__all__ = ["GrabCut"]

Bits = NDArray[np.uint8]
Floats = NDArray[np.float32]

_WORKING_SIDE = 256
_LEAST_OF_BOX = 0.2  # share of a box that what is in it covers at least
_MARGIN = 0.5  # of a box's size: what around it shows the background
_SMALLEST, _LARGEST = 0.005, 0.9  # share of the picture a believable subject covers


class GrabCut:
    """Segment the most salient, most central thing of a photo; deterministic."""

    def __call__(self, image: NDArray[np.uint8], category: str) -> Floats:
        """Soft mask (height, width) in [0, 1] of `image` (height, width, 3); zero if none found.

        `category` is accepted as every segmenter must, and ignored: colours know no nouns.
        """
        del category
        small = _shrink(image)
        top, bottom, left, right = _content_box(small)
        inside = np.ascontiguousarray(small[top:bottom, left:right])
        mask = np.zeros(small.shape[:2], np.float32)
        candidates = _candidates(inside)
        if candidates:
            mask[top:bottom, left:right] = _most_plausible(candidates, _is_flat(inside))
        return _enlarge(mask, image.shape[0], image.shape[1])

    def inside(self, image: NDArray[np.uint8], box: tuple[float, float, float, float]) -> Floats:
        """Soft mask (height, width) of what is in `box`: left, top, right, bottom, in pixels."""
        height, width = image.shape[:2]
        rows, columns = _around(box, height, width)
        part = np.ascontiguousarray(image[rows, columns])
        small = _shrink(part)
        scale = small.shape[1] / part.shape[1], small.shape[0] / part.shape[0]
        left, right = ((edge - columns.start) * scale[0] for edge in (box[0], box[2]))
        top, bottom = ((edge - rows.start) * scale[1] for edge in (box[1], box[3]))
        found = _within(small, (left, top, right, bottom)).astype(np.float32)
        mask = np.zeros((height, width), np.float32)
        mask[rows, columns] = _enlarge(found, *part.shape[:2])
        return mask


def _within(image: NDArray[np.uint8], box: tuple[float, float, float, float]) -> Bits:
    """GrabCut's outline inside `box`, in pixels; all of the box if it finds little there."""
    height, width = image.shape[:2]
    left, top = max(0, round(box[0])), max(0, round(box[1]))
    right, bottom = min(width, round(box[2])), min(height, round(box[3]))
    labels = np.full((height, width), cv2.GC_BGD, np.uint8)
    whole = np.zeros((height, width), np.uint8)
    labels[top:bottom, left:right], whole[top:bottom, left:right] = cv2.GC_PR_FGD, 1
    # Corners of a box around a thing are seldom the thing.
    ellipse = np.zeros((height, width), np.uint8)
    centre, axes = ((left + right) // 2, (top + bottom) // 2), (right - left, bottom - top)
    cv2.ellipse(ellipse, (centre, axes, 0.0), 1, -1)
    labels[(whole == 1) & (ellipse == 0)] = cv2.GC_PR_BGD
    found = _refine(image, labels)
    if found is None or found.sum() < _LEAST_OF_BOX * whole.sum():
        return whole
    return found


def _candidates(image: NDArray[np.uint8]) -> list[Bits]:
    """Refined masks (height, width) of 0 and 1 from every first guess, and their compact cores."""
    regions, border = region_contrast(image), border_contrast(image)
    centre = central_prior(image.shape[:2])
    # Thresholds relative to Otsu's; chosen on photos as the fewest that keep each other honest.
    guesses = ((regions, 0.7), (regions, 0.9), (border, 0.8), (centre, 0.8), (centre, 1.1))
    found: list[Bits] = []
    for guess, strictness in guesses:
        refined = _refine(image, _seeds(guess, strictness))
        if refined is None or not _SMALLEST < refined.mean() < _LARGEST:
            continue
        found.append(refined)
        core = _core(refined)
        if _overlap(core, refined) < 0.95 and core.mean() > _SMALLEST:
            found.append(core)
    return found


def _seeds(guess: Floats, strictness: float) -> Bits:
    """GrabCut's labels (height, width): probably subject where `guess` is high."""
    otsu, _ = cv2.threshold((guess * 255).astype(np.uint8), 0, 255, cv2.THRESH_OTSU)
    threshold = min(otsu / 255 * strictness, 0.9)
    labels = np.full(guess.shape, cv2.GC_PR_BGD, np.uint8)
    labels[guess > threshold] = cv2.GC_PR_FGD
    labels[guess < 0.2 * threshold] = cv2.GC_BGD
    # The bottom edge stays open: seated animals and portraits are cut off there.
    depth = max(1, round(min(guess.shape) * 0.01))
    labels[:depth], labels[:, :depth], labels[:, -depth:] = cv2.GC_BGD, cv2.GC_BGD, cv2.GC_BGD
    return labels


def _refine(image: NDArray[np.uint8], labels: Bits) -> Bits | None:
    if (labels == cv2.GC_PR_FGD).sum() < 20 or (labels == cv2.GC_BGD).sum() < 20:
        return None  # GrabCut fits five colours to each side
    cv2.setRNGSeed(0)  # those fits draw from OpenCV's global generator
    models = np.zeros((1, 65)), np.zeros((1, 65))
    blue_first = np.ascontiguousarray(image[..., ::-1])
    try:
        cv2.grabCut(blue_first, labels, None, *models, 4, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # one side came out empty on the way
        return None
    subject = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return _tidy(subject.astype(np.uint8))


def _tidy(mask: Bits) -> Bits:
    """Drop specks and far parts, fill small holes."""
    opened = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, parts = cv2.connectedComponents(opened)
    if count < 2:
        return np.asarray(opened, np.uint8)
    weights = np.bincount(parts.ravel(), central_prior(mask.shape, spread=0.33).ravel())
    weights[0] = 0
    kept = np.flatnonzero(weights >= 0.25 * weights.max())
    return _fill_holes(np.isin(parts, kept).astype(np.uint8))


def _fill_holes(mask: Bits) -> Bits:
    count, parts, stats, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4)
    outside = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    for part in set(range(1, count)) - set(outside.tolist()):
        # A large hole is real: a handle, a crook of the arm.
        if stats[part, cv2.CC_STAT_AREA] < 0.02 * mask.size:
            mask[parts == part] = 1
    return mask


def _core(mask: Bits) -> Bits:
    """The most central piece once thin bridges are cut, grown back to its own outline."""
    width = max(3, round(0.025 * min(mask.shape))) | 1
    eroded = cv2.erode(mask, _disc(width))
    count, parts = cv2.connectedComponents(eroded)
    if count < 2:
        return mask
    weights = np.bincount(parts.ravel(), central_prior(mask.shape).ravel())
    weights[0] = 0
    seed = (parts == weights.argmax()).astype(np.uint8)
    return np.asarray(cv2.dilate(seed, _disc(width + 4)) & mask, np.uint8)


def _most_plausible(candidates: list[Bits], flat: NDArray[np.bool_]) -> Bits:
    """The candidate the others agree with most, with a bonus for looking like one whole thing.

    The weights were set on about sixty photos; around these values they hardly matter.
    """
    agreement = [np.mean([_overlap(one, other) for other in candidates]) for one in candidates]
    scores = [
        agreed
        + 0.75 * _solidity(mask)
        + 0.15 * _centrality(mask)
        - _edge_share(mask)
        - _unsupported(mask, flat)
        for agreed, mask in zip(agreement, candidates, strict=True)
    ]
    return candidates[int(np.argmax(scores))]


def _overlap(one: Bits, other: Bits) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


def _solidity(mask: Bits) -> float:
    """Area over the area of the convex hull."""
    rows, columns = np.nonzero(mask)
    hull = cv2.convexHull(np.stack([columns, rows], axis=1).astype(np.int32))
    return float(mask.sum() / max(1.0, cv2.contourArea(hull)))


def _centrality(mask: Bits) -> float:
    """The share of the picture's middle that the mask covers."""
    prior = central_prior(mask.shape, spread=0.2)
    return float((prior * mask).sum() / prior.sum())


def _edge_share(mask: Bits) -> float:
    """How much of the picture's edge the mask touches; the bottom counts less."""
    touched = mask[0].sum() + mask[:, 0].sum() + mask[:, -1].sum() + 0.3 * mask[-1].sum()
    return float(touched / (2 * sum(mask.shape)))


def _unsupported(mask: Bits, flat: NDArray[np.bool_]) -> float:
    """The share of the mask's outline, off the picture's edge, where the picture has no edge."""
    outline = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))[1:-1, 1:-1] > 0
    return float(flat[1:-1, 1:-1][outline].mean()) if outline.any() else 1.0


def _is_flat(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where no colour edge lies within a pixel; bool (height, width)."""
    lab = to_lab(image, blur=1.0)
    slopes = cv2.Sobel(lab, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(lab, cv2.CV_32F, 0, 1) ** 2
    steepest = cv2.dilate(np.sqrt(slopes.sum(axis=-1)), np.ones((3, 3), np.uint8))
    return np.asarray(steepest < 10)


def _content_box(image: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) without letterbox bars, which would pass for the background."""
    height, width = image.shape[:2]
    sideways = image.transpose(1, 0, 2)
    return (
        _bar(image),
        height - _bar(image[::-1]),
        _bar(sideways),
        width - _bar(sideways[::-1]),
    )


def _bar(lines: NDArray[np.uint8]) -> int:
    """How many leading lines are one flat colour that ends at once along the whole line."""
    colour = np.median(lines[0], axis=0)
    differs = (np.abs(lines.astype(np.float32) - colour).max(axis=-1) > 12).mean(axis=1)
    depth = int(np.argmax(differs >= 0.02)) if (differs >= 0.02).any() else 0
    after = min(len(lines) - 1, depth + 2)
    return after if 0 < depth < 0.35 * len(lines) and differs[after] > 0.6 else 0


def _disc(diameter: int) -> Bits:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter)), np.uint8)


def _around(box: tuple[float, ...], height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a picture around `box`, with half the box's size on every side."""
    tall, wide = (box[3] - box[1]) * _MARGIN, (box[2] - box[0]) * _MARGIN
    rows = slice(max(0, int(box[1] - tall)), min(height, int(box[3] + tall) + 1))
    return rows, slice(max(0, int(box[0] - wide)), min(width, int(box[2] + wide) + 1))


def _shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    scale = min(1.0, _WORKING_SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _enlarge(mask: Floats, height: int, width: int) -> Floats:
    # Blurring by half a working pixel hides the steps that enlarging would show.
    soft = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
    step = max(height, width) / max(mask.shape)
    blurred = cv2.GaussianBlur(soft, (0, 0), max(0.5, step / 2))
    return np.asarray(np.clip(blurred, 0, 1), np.float32)
