"""Four ways to fail that averages hide, each said or not said of one video and subject.

A survey of personalized video (2026) names them and asks for their rates: BLEND (identities
mixed), DROP (a subject missing), COPY (a reference photo reproduced), FREEZE (stillness bought
similarity). How they are told is our choice; every threshold is named here. Numbers come in, a yes
or no goes out, None where it cannot be said.

`docs/metrics.md` has how often each is right where the truth is known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = [
    "ABSENT",
    "ENOUGH",
    "MIXED",
    "NEARER",
    "STILL",
    "blend",
    "copied",
    "drop",
    "freeze",
    "usual_range",
]

MIXED = 0.5
"""BLEND: share of the frames with the subject from which mixed ones are the rule."""
ABSENT = 0.5
"""DROP: share of all frames that must be without the subject."""
NEARER = 4.0
"""COPY: how many times nearer to a photo than any two photos are to each other."""
STILL = 0.2
"""FREEZE: the quantile of the base model's motion below which a video stands still."""
CHANCE = 0.95
"""COPY: the quantile of the base model's nearness to a photo, which chance alone explains."""
ENOUGH = 5
"""Videos of one prompt that make a quantile; fewer are joined by those of all other prompts."""


def blend(present: float, mixed: float | None) -> bool | None:
    """BLEND: in more than half of the frames with it the subject is (also) somebody else.

    `mixed` is that share, as `customvideo.evaluation.binding.Bound` has it, `present` the share of
    frames with the subject. Who is never there is dropped, not blended; who is alone in the
    prompt, so that nobody can be mixed in, gets None.
    """
    if mixed is None:
        return None if present > 0 else False
    return mixed > MIXED


def drop(present: float) -> bool:
    """DROP: the subject is absent from more than half of the frames."""
    return 1 - present > ABSENT


def copied(
    nearness: float | None, closest_pair: float | None, base: Sequence[float] = ()
) -> bool | None:
    """COPY: the subject is shown as one of its photos shows it, ground, pose and frame.

    `nearness` is the video's cosine to its nearest photo, `closest_pair` that of the two most
    alike photos (see `customvideo.evaluation.views`): a video must be `NEARER` times as near as
    these. `base` are values of `nearness` of the base model, which knows no photo: what the
    prompt alone brings about, such as a beach for a photo at the beach, is no copy.

    None where the subject is never seen, or where there is neither a pair of photos nor a base.
    """
    limits = [] if closest_pair is None else [1 - (1 - closest_pair) / NEARER]
    if len(base):
        limits.append(float(np.quantile(np.asarray(base, np.float64), CHANCE)))
    if nearness is None or not limits:
        return None
    return nearness > max(limits)


def freeze(motion: float | None, dynamic: float | None, base: Sequence[float] = ()) -> bool | None:
    """FREEZE: less moves than in four fifths of the base model's videos, or not enough at all.

    With `base`, values of `motion` of the base model's videos of the same prompt, a video whose
    `motion` is under their 20th percentile is frozen; without, one whose dynamic degree is 0. None
    for a single frame.
    """
    if motion is None:
        return None
    if len(base):
        return motion < float(np.quantile(np.asarray(base, np.float64), STILL))
    return dynamic == 0


def usual_range(same: Sequence[float], every: Sequence[float]) -> Sequence[float]:
    """`same`, the base's values for one prompt, if there are `ENOUGH` of them, else `every`."""
    return same if len(same) >= ENOUGH else every
