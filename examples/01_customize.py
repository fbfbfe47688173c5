"""Two subjects from photos into one video: the Python API in six lines.

Run it from anywhere: python examples/01_customize.py
It photographs two toys of the toybox first, so that it needs neither a network nor a GPU; with
photos of your own, put one folder per subject into PHOTOS and leave that part out.
"""

from __future__ import annotations

from pathlib import Path

import customvideo as cv
from customvideo.toybox.customstudio import studio, write_subject

OUT = Path("runs/examples")
PHOTOS = OUT / "photos"


def take_photos() -> None:
    for name in ("ida", "rex"):
        write_subject(PHOTOS / name, studio().subject(name).individual, name)


def main() -> None:
    take_photos()

    backbone = cv.load_backbone("toybox")
    subjects = cv.load_subjects(PHOTOS, known_nouns=backbone.known_nouns)
    adapter = cv.customize(backbone, subjects, steps=60)
    adapter.save(OUT / "ida-and-rex.safetensors")
    video = cv.generate(backbone, adapter, "an <ida> cat and a <rex> rabbit walking on the beach")
    video.save(OUT / "01_together.mp4", scale=4)

    print(f"Look at {OUT / '01_together.mp4'}")


if __name__ == "__main__":
    main()
