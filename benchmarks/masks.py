"""How well the embedded segmenter outlines subjects: IoU against the renderer's exact masks.

    python benchmarks/masks.py                     # 200 photos of 40 toys, three minutes
    python benchmarks/masks.py --segmenter sam --model DIR

The toys are CustomStudio's, five photos each, as `customvideo toybox studio` writes them. Prints
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from customvideo.subjects.masks import make_masks, resolve_segmenter
from customvideo.toybox.captions import noun
from customvideo.toybox.customstudio import reference_photos, studio

Photos = list[tuple[NDArray[np.uint8], NDArray[np.float32]]]
WRONG = 0.7
"""Intersection over union below which a mask would teach something else."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--segmenter", default="grabcut")
    parser.add_argument("--model", help="its weights, where it has any")
    parser.add_argument("--photos", type=int, default=200)
    options = parser.parse_args()
    segment = resolve_segmenter(options.segmenter, options.model)
    scores: list[float] = []
    named: list[str] = []
    seconds = 0.0
    for name, category, photos in toys(options.photos):
        began = time.process_time()
        masks = make_masks([image for image, _ in photos], category, segment)
        seconds += time.process_time() - began
        scores += [overlap(mask, truth) for mask, (_, truth) in zip(masks, photos, strict=True)]
        named += [f"{name}/{index}" for index in range(1, len(photos) + 1)]
    print(json.dumps(summary(scores, named, seconds), indent=2))


def toys(count: int) -> Iterator[tuple[str, str, Photos]]:
    """Name, category and photos of CustomStudio's toys, `count` photos in all."""
    for subject in studio().subjects:
        if count <= 0:
            return
        photos = reference_photos(subject.individual, subject.name)[:count]
        count -= len(photos)
        yield subject.name, noun(subject.category), photos


def overlap(mask: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    found, true = mask >= 0.5, truth >= 0.5
    return float((found & true).sum() / max(1, (found | true).sum()))


def summary(scores: list[float], named: list[str], seconds: float) -> dict[str, Any]:
    order = np.argsort(scores)
    return {
        "photos": len(scores),
        "mean_iou": round(float(np.mean(scores)), 4),
        "median_iou": round(float(np.median(scores)), 4),
        "tenth_percentile": round(float(np.percentile(scores, 10)), 4),
        f"below_{WRONG}": int((np.array(scores) < WRONG).sum()),
        "at_least_0.9": int((np.array(scores) >= 0.9).sum()),
        "worst": {named[index]: round(scores[index], 3) for index in order[:10]},
        "seconds_a_photo": round(seconds / max(1, len(scores)), 3),
    }


if __name__ == "__main__":
    main()
