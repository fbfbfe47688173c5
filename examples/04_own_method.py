"""A method of your own in one file: here, learn words alone and leave every weight as it is.

Run it from anywhere: python examples/04_own_method.py
That is Textual Inversion (Gal et al. 2022) with CustomVideo's composed pictures: a good baseline,
and a sign of how little a method has to say. A package of its own would register by an entry
point of the group `customvideo.methods` instead of writing into the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import customvideo as cv
from customvideo.adapters.build import AdapterConfig, new_adapter
from customvideo.attention.site import AttentionSite
from customvideo.methods.base import METHODS
from customvideo.toybox.customstudio import studio, write_subject

OUT = Path("runs/examples")


class WordsOnly(cv.CustomVideo):
    """CustomVideo without weights to train and without attention control."""

    name = "words-only"

    def trainable(self, backbone: cv.Backbone, subjects: Sequence[cv.Subject]) -> cv.Adapter:
        learned = AdapterConfig(vectors=self.config.vectors, initial=self.config.initial)
        return new_adapter(backbone, subjects, method=self.name, paths=(), config=learned)

    def watches(
        self, backbone: cv.Backbone, frames: int, height: int, width: int
    ) -> list[AttentionSite]:
        return []


METHODS["words-only"] = f"{__name__}:WordsOnly"


def main() -> None:
    for name in ("ida", "rex"):
        write_subject(OUT / "photos" / name, studio().subject(name).individual, name)

    backbone = cv.load_backbone("toybox")
    subjects = cv.load_subjects(OUT / "photos")
    settings = {"steps": 20, "batch_size": 4, "pool": 16, "word_learning_rate": 5e-3}
    adapter = cv.customize(backbone, subjects, method="words-only", prior_weight=0.0, **settings)
    adapter.save(OUT / "04_words.safetensors")
    print(f"{adapter.header.method} learned {sum(p.numel() for p in adapter.parameters())} numbers")


if __name__ == "__main__":
    main()
