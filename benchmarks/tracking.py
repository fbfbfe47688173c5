"""How well masks are followed through clips: IoU against the renderer's exact masks.

    python benchmarks/tracking.py                     # 24 clips of the development toys
    python benchmarks/tracking.py --sheets DIR        # and the worst ones, drawn
    python benchmarks/tracking.py --still             # each frame segmented by itself, to compare

Six actions in turn, 16 frames of 192 x 320 pixels, one toy each. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from customvideo.subjects.masks import make_masks, overlay, resolve_segmenter
from customvideo.subjects.tracking import track
from customvideo.toybox.captions import noun
from customvideo.toybox.development import development_pairs
from customvideo.toybox.render import Clip, render
from customvideo.toybox.world import ACTIONS, sample_world
from customvideo.video import Video

WRONG = 0.7
"""Intersection over union below which a mask would teach something else."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--segmenter", default="grabcut")
    parser.add_argument("--model", help="its weights, where it has any")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, nargs=2, default=(192, 320))
    parser.add_argument("--still", action="store_true")
    parser.add_argument("--exact", action="store_true", help="give the first frame's mask")
    parser.add_argument("--sheets", type=Path)
    options = parser.parse_args()
    segment = resolve_segmenter(options.segmenter, options.model)
    scores: dict[str, NDArray[np.float64]] = {}
    drawn: dict[str, Video] = {}
    seconds = 0.0
    for name, category, clip in toys(options.clips, options.frames, tuple(options.size)):
        frames, truth = clip.frames.numpy(), clip.masks[:, 0].numpy()
        began = time.process_time()
        if options.still:
            masks = np.stack(make_masks(list(frames), category, segment))
        else:
            first = truth[0].astype(np.float32) if options.exact else None
            masks = track(frames, category, segment, first)
        seconds += time.process_time() - began
        scores[name] = overlaps(masks, truth)
        pictures = [overlay(*pair) for pair in zip(frames, masks, strict=True)]
        drawn[name] = Video(np.stack(pictures))
    if options.sheets:
        for name in sorted(scores, key=lambda one: scores[one].mean())[:6]:
            drawn[name].save(options.sheets / f"{name}.png")
    print(json.dumps(summary(scores, seconds), indent=2))


def toys(count: int, frames: int, size: tuple[int, int]) -> Iterator[tuple[str, str, Clip]]:
    """Name, category and a clip of the development toys, one after the other."""
    subjects = [one for pair in development_pairs() for one in pair]
    for index in range(count):
        subject = subjects[index % len(subjects)]
        action = ACTIONS[(index + index // len(subjects)) % len(ACTIONS)]
        world = sample_world(
            np.random.default_rng([7, index]), individuals=[subject.individual], action=action
        )
        clip = render(world, frames=frames, height=size[0], width=size[1])
        yield f"{index:02d}-{subject.name}-{action}", noun(subject.category), clip


def overlaps(masks: NDArray[np.float32], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Intersection over union, (frame,)."""
    found = masks >= 0.5
    return np.array(
        [
            (one & true).sum() / max(1, (one | true).sum())
            for one, true in zip(found, truth, strict=True)
        ]
    )


def summary(scores: dict[str, NDArray[np.float64]], seconds: float) -> dict[str, object]:
    every = np.concatenate(list(scores.values()))
    means = {name: float(values.mean()) for name, values in scores.items()}
    return {
        "clips": len(scores),
        "frames": len(every),
        "mean_iou": round(float(every.mean()), 4),
        "median_iou": round(float(np.median(every)), 4),
        "tenth_percentile": round(float(np.percentile(every, 10)), 4),
        "worst_frame": round(float(every.min()), 4),
        "worst_clip": round(min(means.values()), 4),
        f"frames_below_{WRONG}": int((every < WRONG).sum()),
        "clips_by_mean": {n: round(v, 3) for n, v in sorted(means.items(), key=lambda p: p[1])},
        "seconds_a_frame": round(seconds / max(1, len(every)), 3),
    }


if __name__ == "__main__":
    main()
