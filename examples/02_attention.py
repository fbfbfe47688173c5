"""Where does each word look? Draw the attention of learned words over a video.

Run it from anywhere: python examples/02_attention.py [ADAPTER]
Without an adapter it takes the one of the demo or of the first example, whichever is there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import customvideo as cv
from customvideo.attention.draw import draw_words
from customvideo.subjects.prompt import list_subjects

OUT = Path("runs/examples")
USUAL = (Path("runs/demo/adapter.safetensors"), OUT / "ida-and-rex.safetensors")


def find_adapter() -> Path:
    given = [Path(argument) for argument in sys.argv[1:]]
    for path in (*given, *USUAL):
        if path.is_file():
            return path
    raise SystemExit("Run `customvideo demo` or examples/01_customize.py first.")


def main() -> None:
    backbone = cv.load_backbone("toybox")
    adapter = cv.Adapter.load(find_adapter())
    prompt = f"{list_subjects(adapter.words)} walking on the beach"

    video, maps = cv.generate_with_attention(backbone, adapter, prompt, seed=1)
    for word, attention in maps.items():
        # Axes (frame, height, width), as probabilities: where is the word's strongest place?
        row, column = np.unravel_index(attention.mean(axis=0).argmax(), attention.shape[1:])
        print(f"{word} looks at row {row}, column {column} of {attention.shape[1:]}")

    drawn = draw_words(video, maps, scale=4)
    drawn.save(OUT / "02_attention.mp4")
    drawn.save(OUT / "02_attention.png")
    print(f"Look at {OUT / '02_attention.mp4'}")


if __name__ == "__main__":
    main()
