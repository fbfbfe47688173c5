"""What the demo shows: whom, in which scenes. How it comes about is `stage`'s part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from customvideo.toybox.captions import noun
from customvideo.toybox.customstudio import studio
from customvideo.toybox.world import Individual

__all__ = ["ACTS", "Act", "Scene"]


@dataclass(frozen=True)
class Scene:
    """A prompt, `{subjects}` standing for them, and the place and action that it means in the
    toybox's words. Files are called after the place."""

    place: str
    action: str
    prompt: str


@dataclass(frozen=True)
class Act:
    """Toys to be learned together, and the scenes to show them in.

    Attributes:
        title: heads the act in the report.
        names: subjects of the toybox's CustomStudio.
        scenes: each with another place.
        key: names the act's folder in the demo's and its scores; empty for the first act, whose
            files lie in the demo's own folder.
    """

    title: str
    names: tuple[str, ...]
    scenes: Sequence[Scene]
    key: str = ""

    @property
    def individuals(self) -> list[Individual]:
        """The toys, in the order of `names`."""
        return [studio().subject(name).individual for name in self.names]

    @property
    def categories(self) -> list[str]:
        """Each toy's noun, in the order of `names`."""
        return [noun(individual.category) for individual in self.individuals]

    @property
    def cast(self) -> str:
        """The names as a sentence has them: `Ida and Rex`."""
        return " and ".join(name.capitalize() for name in self.names)

    def folder(self, out: Path) -> Path:
        """Where the act's files go, in a demo in `out`."""
        return out / self.key if self.key else out


_BEACH = Scene("beach", "walk", "{subjects} walking on the beach")
_SNOW = Scene("snow", "jump", "{subjects} jumping in the snow")
_FOREST = Scene("forest", "run", "{subjects} running in the forest")

ACTS = (
    Act("Two toys", ("ida", "rex"), (_BEACH, _SNOW, _FOREST)),
    Act("Two of one category", ("yuri", "xena"), (_BEACH, _SNOW), key="same_category"),
)
