"""Whether subjects stay in the boxes that are drawn for them, on the toybox.

    customvideo train --subject ida:cat=photos/ida --subject rex:rabbit=photos/rex --out runs/mine
    python benchmarks/boxes.py --adapter runs/mine/adapter.safetensors --seeds 4

Draws one prompt about the adapter's two subjects without boxes, with one half of the picture for
each, and with the halves exchanged. In every frame the toybox's finder looks for each subject's
category; counted is in which half the centre of the largest one lies. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import load_backbone
from customvideo.evaluation.instances import InstanceSegmenter
from customvideo.generation import generate
from customvideo.runs.making import sampling_for
from customvideo.runs.scoring import finder_for
from customvideo.subjects.prompt import list_subjects
from customvideo.video import Video

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    adapter, backbone = Adapter.load(options.adapter), load_backbone("toybox", "cpu")
    finder = finder_for(backbone)
    assert finder is not None, "the toybox has a finder"
    first, second = adapter.words
    prompt = f"{list_subjects(adapter.words)} on the beach"
    found: dict[str, dict[str, dict[str, int]]] = {}
    for name, layout in {
        "no boxes": None,
        f"{first.word} left": {first.name: LEFT, second.name: RIGHT},
        f"{first.word} right": {first.name: RIGHT, second.name: LEFT},
    }.items():
        videos = generate(
            backbone,
            adapter,
            prompt,
            seed=list(range(options.seeds)),
            options=sampling_for(options.adapter, backbone, {}),
            layout=layout,
        )
        assert isinstance(videos, list)
        found[name] = {word.word: halves(finder, videos, word.category) for word in adapter.words}
    print(json.dumps({"prompt": prompt, "seeds": options.seeds, "frames": found}, indent=2))


def halves(finder: InstanceSegmenter, videos: Sequence[Video], category: str) -> dict[str, int]:
    """In how many frames the largest thing of `category` is left, right, or not found."""
    counts = {"left": 0, "right": 0, "not found": 0}
    for video in videos:
        for instances in finder.find(video.frames):
            masks = [one.mask for one in instances if one.category == category]
            if not masks:
                counts["not found"] += 1
                continue
            largest = max(masks, key=lambda mask: int(mask.sum()))
            centre = np.argwhere(largest)[:, 1].mean() / largest.shape[1]
            counts["left" if centre < 0.5 else "right"] += 1
    return counts


if __name__ == "__main__":
    main()
