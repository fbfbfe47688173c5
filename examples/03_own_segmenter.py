"""A segmenter of your own: any function from a picture and a category to a mask.

Run it from anywhere: python examples/03_own_segmenter.py
Masks decide what is learned, so look at them: they are drawn over the photos.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import customvideo as cv
from customvideo.subjects.masks import save_overlays
from customvideo.toybox.customstudio import studio, write_subject

OUT = Path("runs/examples")


def unlike_the_border(image: NDArray[np.uint8], category: str) -> NDArray[np.float32]:
    """A mask (height, width) of 0 and 1 for an image (height, width, 3).

    Crude on purpose: whatever differs most from its own row's two ends, in the middle of the
    picture. The category is for segmenters that can read.
    """
    pixels = image.astype(np.float32)
    ends = (pixels[:, :8].mean(axis=1) + pixels[:, -8:].mean(axis=1)) / 2
    difference = np.linalg.norm(pixels - ends[:, None], axis=-1)
    height, width = difference.shape
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    central = np.exp(-2 * (rows**2 + columns**2))
    score = difference * central
    return (score > np.quantile(score, 0.8)).astype(np.float32)


def main() -> None:
    for name in ("ida", "rex"):
        write_subject(OUT / "photos" / name, studio().subject(name).individual, name)

    subjects = cv.load_subjects(OUT / "photos", segmenter=unlike_the_border)
    save_overlays(subjects, OUT / "03_masks")
    for subject in subjects:
        shares = ", ".join(f"{mask.mean():.0%}" for mask in subject.masks)
        print(f"{subject.word} {subject.category} covers {shares} of its photos")
    print(f"Look at {OUT / '03_masks'}")


if __name__ == "__main__":
    main()
