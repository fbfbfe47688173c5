"""CustomStudio's photos edition: 63 real subjects, told by a manifest without a single picture.

The photos are those of the DreamBooth data set (Ruiz et al., CVPR 2023) and of CustomConcept101
(Kumari et al., CVPR 2023), fetched from where their authors keep them
(`customvideo.benchmark.fetch`). The manifest is `photos.json` beside this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from customvideo.errors import BenchmarkError
from customvideo.training.prior import default_cache
from customvideo.video import Video

__all__ = ["PhotosEdition", "load"]


@dataclass(frozen=True)
class PhotosEdition:
    """The packaged manifest, and the folder its photos are fetched into."""

    default_backbone: str | None = None
    seal: str = ""

    @property
    def home(self) -> Path:
        """A folder in the user's cache; not created."""
        return default_cache().parent / "customstudio" / "photos"

    def manifest(self) -> str:
        """The manifest, as JSON."""
        return (files("customvideo.benchmark") / "photos.json").read_text(encoding="utf-8")

    def prepare(self, names: Sequence[str], root: Path) -> None:
        """Nothing is downloaded unasked.

        Raises:
            BenchmarkError: nothing was fetched into `root` yet.
        """
        if not root.is_dir():
            raise BenchmarkError(
                f"The photos of the edition 'photos' are not in '{root}'; fetch them with "
                "'customvideo bench fetch photos'."
            )

    def footage(
        self, combination: str, prompt_index: int, seed: int, frames: int, size: tuple[int, int]
    ) -> Video | None:
        """Nobody has filmed them."""
        return None


def load() -> PhotosEdition:
    """The edition of the DreamBooth data set's and CustomConcept101's subjects."""
    return PhotosEdition()
