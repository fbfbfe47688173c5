"""How much moves in a video, and how smoothly: dense optical flow, no weights to fetch.

The rules are VBench's (Huang et al. 2023, arXiv 2311.17982, as released); the flow is not. VBench
reads it from RAFT and interpolates with AMT-S, here Farnebäck's method (2003) does both, so the
numbers are not those of its leaderboard. Farnebäck misses what moves in front of flat colour and
large leaps, so fewer videos count as dynamic, and its middle frames are blurrier, so smoothness is
lower; both hold alike for all videos of one comparison.

Axes: frames are uint8 (frame, height, width, 3).
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["DYNAMIC", "dynamic_degree", "motion", "motion_smoothness", "steps"]

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]

DYNAMIC = 6.0
"""The step from which a pair of frames moves: 6 pixels where the shorter side has 256."""

_SIDE = 256  # the shorter side VBench's threshold is given for
_RATE = 8.0  # frames a second it is given for
_FASTEST = 0.05  # share of the pixels whose flow makes a step
_NOISE = 3.0  # of 255, mean change of a patch below which it does not move
_PATCH = (5, 5)
_PAIRS = 4 / 16  # of the frames, how many moving pairs make a video dynamic


def steps(frames: Frames, fps: float) -> NDArray[np.float64]:
    """How far the fastest pixels move from frame to frame: (pair,), empty for fewer than two.

    Each is the mean length of the longest twentieth of the flow vectors, in pixels where the
    shorter side has 256. Pixels about which nothing changes stand still, whatever the flow says.
    Faster videos are thinned to about 8 frames a second; at slower ones a
    step is counted for an eighth of a second. VBench's `get_score` and `set_params`.
    """
    shown = frames[:: max(1, round(fps / _RATE))]
    grey = [_grey(frame) for frame in shown]
    if len(grey) < 2:
        return np.zeros(0)
    unit = min(grey[0].shape) / _SIDE * max(1.0, _RATE / fps)
    return np.array([_fastest(one, other) / unit for one, other in pairwise(grey)])


def motion(steps: NDArray[np.float64]) -> float | None:
    """The mean of `steps` (pair,): how much moves, without a threshold; None if there are none."""
    return float(steps.mean()) if len(steps) else None


def dynamic_degree(steps: NDArray[np.float64]) -> float | None:
    """1 if enough of `steps` (pair,) exceed `DYNAMIC`, else 0; None if there are none.

    Enough is one for every four frames, at least one: VBench asks for none of 1 or 2 frames and
    so calls these dynamic whatever they show. The mean over videos is the degree.
    """
    if not len(steps):
        return None
    enough = max(1, round(_PAIRS * (len(steps) + 1)))
    return float(int((steps > DYNAMIC).sum()) >= enough)


def motion_smoothness(frames: Frames) -> float | None:
    """How well every other frame can be told from its neighbours: 1 − mean error / 255.

    Frames 1, 3, 5 … are left out and interpolated from those before and after (VBench). Frames
    without both neighbours are not asked for; None for fewer than three. Both flows between the
    neighbours are halved and blended as Super SloMo does (Jiang et al. 2018, eq. 4, t = 1/2).
    A frozen video scores 1.
    """
    middles = range(1, len(frames) - 1, 2)
    if not middles:
        return None
    errors = [np.abs(_between(frames[i - 1], frames[i + 1]) - frames[i]).mean() for i in middles]
    return float(1 - np.mean(errors) / 255)


def _between(before: Frames, after: Frames) -> Floats:
    """The frame (height, width, 3) half-way in time, in [0, 255]."""
    one, other = _grey(before, None), _grey(after, None)
    drift = np.asarray((_flow(one, other) - _flow(other, one)) / 4, np.float32)
    return np.asarray((_moved(before, -drift) + _moved(after, drift)) / 2, np.float32)


def _moved(frame: Frames, offsets: Floats) -> Floats:
    """What `frame` shows at each pixel plus its offset (height, width, 2), across and down."""
    height, width = frame.shape[:2]
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    places = np.stack([across, down], axis=-1).astype(np.float32) + offsets
    seen = cv2.remap(
        frame.astype(np.float32),
        places,
        None,  # both maps are in the first
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(seen, np.float32)


def _fastest(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """The mean length of the longest twentieth of the flow vectors, in pixels."""
    lengths = np.linalg.norm(_flow(before, after), axis=-1)
    # Where nothing changes but noise, the flow is a guess: RAFT has learned not to make it.
    lengths[cv2.blur(cv2.absdiff(before, after).astype(np.float32), _PATCH) < _NOISE] = 0
    lengths = np.sort(lengths, axis=None)
    return float(lengths[-max(1, int(_FASTEST * lengths.size)) :].mean())


def _flow(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> Floats:
    """Where each pixel of `before` (height, width) goes: (height, width, 2), across and down."""
    if np.array_equal(before, after):
        # Farnebäck's own answer is a little above nothing.
        return np.zeros((*before.shape, 2), np.float32)
    window = max(9, round(15 * min(before.shape) / _SIDE))
    flow = cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 5, window, 3, 5, 1.1, 0)
    return np.asarray(flow, np.float32)


def _grey(frame: Frames, side: int | None = _SIDE) -> NDArray[np.uint8]:
    """Brightness (height, width), its shorter side at most `side` pixels."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    scale = 1.0 if side is None else side / min(height, width)
    if scale < 1:
        size = (round(width * scale), round(height * scale))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.uint8)
