"""Following a subject's mask through a clip, from the frames in which it was found best.

A few frames are segmented like photos. Optical flow carries each of these masks through the clip,
and the frame whose mask the others agree with most is the key: others that do not agree are
dropped. Every frame then gets its mask from the nearest frames that are left, before and after, and
GrabCut settles its outline and what flow cannot know (what was hidden, what has just appeared).
A segmenter with a method `track` of its own does the carrying itself. It is NOT a segmenter: where
the subject is in a single picture is `customvideo.subjects.masks`.

Axes: frame, height, width.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from customvideo.subjects.masks import Segmenter, make_masks

__all__ = ["track"]

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]

_KEYS = 5  # frames that are segmented
_SIDE = 256  # pixels of the longer side at work
_SMALLEST = 0.002  # share of the picture below which nothing was found
_AGREES = 0.7  # intersection over union from which two masks mean the same thing
_ASTRAY = 1.5  # pixels between where flow leads there and back from which it is not believed
_UNKNOWN = 0.5
_SAME = 0.6  # of its colours, how many make a thing found elsewhere the same thing
_ANOTHER = 0.15  # below this share of its colours it is out of sight
_RIM = 0.03  # of the picture's shorter side, around an outline that is settled anew


def track(frames: Frames, category: str, segment: Segmenter, first: Floats | None = None) -> Floats:
    """Soft masks (frame, height, width) in [0, 1] of one subject; zero if it is found nowhere.

    Args:
        frames: uint8 (frame, height, width, 3).
        category: what the subject is, for segmenters that read words.
        segment: finds it in single frames; its method `track(frames, key, mask)`, if it has one,
            carries the mask (height, width) of frame `key` through the clip.
        first: the subject's mask in the first frame, which is then believed.
    """
    keys = [0] if first is not None else _spread(len(frames))
    found = (
        [first]
        if first is not None
        else make_masks([frames[key] for key in keys], category, segment)
    )
    seen = {
        key: mask
        for key, mask in zip(keys, found, strict=True)
        if (mask >= 0.5).mean() >= _SMALLEST
    }
    if not seen:
        return np.zeros(frames.shape[:3], np.float32)
    clip = _Clip(frames)
    own = {key: clip.shrunk(mask) for key, mask in seen.items()}
    carried = {key: clip.carry(key, mask) for key, mask in own.items()}
    best = max(own, key=lambda key: _agreement(key, carried))
    follow = getattr(segment, "track", None)
    if follow is not None:
        return np.asarray(follow(frames, best, seen[best]), np.float32)
    looks = {key: clip.look(key, mask) for key, mask in own.items()}
    kept = {
        key: mask
        for key, mask in own.items()
        # What flow lost on the way is known by its colours.
        if _overlap(carried[best][key], mask) or _alike(looks[key], looks[best]) >= _SAME
    }
    return clip.settled(kept, [looks[key] for key in kept])


class _Clip:
    """A clip's frames at working size, and where each pixel goes from frame to frame."""

    def __init__(self, frames: Frames) -> None:
        self._size = frames.shape[1:3]
        scale = min(1.0, _SIDE / max(self._size))
        height, width = (max(16, round(side * scale)) for side in self._size)
        self._small = [
            np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
            for frame in frames
        ]
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in self._small]
        finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        # _steps[a, b] leads from each pixel of frame b to its place in frame a, their neighbour.
        self._steps: dict[tuple[int, int], Floats] = {}
        for one in range(len(grey) - 1):
            for source, target in ((one, one + 1), (one + 1, one)):
                flow = finder.calc(grey[target], grey[source], None)
                self._steps[source, target] = np.asarray(flow, np.float32)

    def shrunk(self, mask: Floats) -> Floats:
        """A mask at working size."""
        height, width = self._small[0].shape[:2]
        return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA))

    def carry(
        self, key: int, mask: Floats, within: range | None = None, *, settle: bool = False
    ) -> dict[int, Floats]:
        """The mask of frame `key` as flow leads it through the frames `within`, or all.

        It is soft, and _UNKNOWN where flow contradicts itself; with `settle` each step is refined.
        """
        within = within or range(len(self._small))
        carried = {key: mask}
        onward = [(frame - 1, frame) for frame in range(key + 1, within.stop)]
        back = [(frame + 1, frame) for frame in range(key - 1, within.start - 1, -1)]
        for source, target in (*onward, *back):
            moved = self._step(carried[source], source, target)
            carried[target] = _refined(self._small[target], moved) if settle else moved
        return carried

    def settled(self, keys: dict[int, Floats], looks: list[Floats]) -> Floats:
        """Masks of the clip's own size, each from the nearest of the `keys` before and after; zero
        where what was followed looks like none of `looks` any more."""
        order = sorted(keys)
        ends = [0, *(key + 1 for key in order[:-1])], [*order[1:], len(self._small)]
        carried = {
            key: self.carry(key, keys[key], range(start, stop), settle=True)
            for key, start, stop in zip(order, *ends, strict=True)
        }
        masks = []
        for frame in range(len(self._small)):
            mask = _blended(carried, frame)
            look = self.look(frame, mask)
            lost = max(_alike(look, one) for one in looks) < _ANOTHER
            masks.append(np.zeros_like(mask) if lost else mask)
        return np.stack([self._enlarged(mask) for mask in masks])

    def look(self, frame: int, mask: Floats) -> Floats:
        """The colours inside a mask, as shares of it."""
        inside = (mask >= 0.5).astype(np.uint8)
        lab = cv2.cvtColor(self._small[frame], cv2.COLOR_RGB2LAB)
        counts = cv2.calcHist([lab], [0, 1, 2], inside, [4, 16, 16], [0, 256] * 3)
        return np.asarray(counts / max(1, inside.sum()), np.float32)

    def _step(self, mask: Floats, source: int, target: int) -> Floats:
        """The mask of frame `source` in its neighbour `target`."""
        back = self._steps[source, target]
        height, width = mask.shape
        across, down = np.meshgrid(np.arange(width), np.arange(height))
        places = np.stack([across, down], axis=-1).astype(np.float32) + back
        moved = _sampled(mask, places)
        there = _sampled(self._steps[target, source], places)
        astray = np.linalg.norm(back + there, axis=-1) > _ASTRAY
        return np.where(astray, np.float32(_UNKNOWN) * (moved > 0.05), moved)

    def _enlarged(self, mask: Floats) -> Floats:
        height, width = self._size
        soft = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
        step = max(1.0, max(height, width) / max(mask.shape))
        blurred = cv2.GaussianBlur(soft, (0, 0), max(0.5, step / 2))
        return np.asarray(np.clip(blurred, 0, 1), np.float32)


def _spread(count: int) -> list[int]:
    """Frames evenly spread over a clip, neither of its ends among them where it is long."""
    keys = min(_KEYS, count)
    return [int((index + 0.5) * count / keys) for index in range(keys)]


def _blended(carried: dict[int, dict[int, Floats]], frame: int) -> Floats:
    """What the keys that lead to a frame make of it, the nearer one counting more."""
    near = [key for key, masks in carried.items() if frame in masks]
    if frame in near:
        return carried[frame][frame]
    weights = np.array([1 / (1 + abs(key - frame)) for key in near], np.float32)
    stack = np.stack([carried[key][frame] for key in near])
    return np.asarray(np.tensordot(weights / weights.sum(), stack, 1), np.float32)


def _refined(picture: Frames, guess: Floats) -> Floats:
    """The guess with its rim and what it leaves open settled by colours; zero if it is empty."""
    inside = (guess >= 0.5).astype(np.uint8)
    if inside.mean() < _SMALLEST:
        return np.zeros_like(guess)
    rim = max(1, round(_RIM * min(guess.shape)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * rim + 1, 2 * rim + 1))
    sure = cv2.erode((guess > 0.6).astype(np.uint8), kernel)
    far = cv2.dilate((guess > 0.2).astype(np.uint8), kernel) == 0
    labels = np.where(inside, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[sure > 0], labels[far] = cv2.GC_FGD, cv2.GC_BGD
    if min((labels % 2 == 1).sum(), (labels % 2 == 0).sum()) < 20:
        return guess
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    blue_first = np.ascontiguousarray(picture[..., ::-1])
    try:
        cv2.grabCut(blue_first, labels, None, *models, 3, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # one side came out empty on the way
        return guess
    settled = np.asarray(labels % 2 == 1, np.float32)
    return settled if _overlap(settled, guess) else guess


def _agreement(key: int, carried: dict[int, dict[int, Floats]]) -> float:
    """How much the other keys' own masks are where that of `key` leads."""
    ratios = [_ratio(carried[key][other], masks[other]) for other, masks in carried.items()]
    return float(np.mean(ratios))


def _alike(one: Floats, other: Floats) -> float:
    """How much two looks have in common, 0 to 1."""
    return float(np.minimum(one, other).sum())


def _overlap(one: Floats, other: Floats) -> bool:
    return _ratio(one, other) >= _AGREES


def _ratio(one: Floats, other: Floats) -> float:
    a, b = one >= 0.5, other >= 0.5
    return float((a & b).sum() / max(1, (a | b).sum()))


def _sampled(values: Floats, places: Floats) -> Floats:
    """`values` (height, width, …) at places (height, width, 2), across and down."""
    return np.asarray(
        cv2.remap(values, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
        np.float32,
    )
