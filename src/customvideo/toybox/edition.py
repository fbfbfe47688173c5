"""CustomStudio's toybox editions: the 63 individuals, and the twelve that settings are tuned on.

What `customvideo.benchmark.editions` asks of an edition: a manifest, photos, and true footage.
Who is in it is decided by `customstudio` and `development`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from customvideo.errors import BenchmarkError
from customvideo.toybox.captions import PLACE_PHRASES, noun
from customvideo.toybox.customstudio import (
    Group,
    StudioPrompt,
    StudioSubject,
    group_verb,
    studio,
    write_subject,
)
from customvideo.toybox.development import development_pairs
from customvideo.toybox.render import render
from customvideo.toybox.world import sample_world
from customvideo.training.prior import default_cache
from customvideo.video import Video

__all__ = ["ToyboxEdition", "load", "load_development"]

_PHOTOS = 5
_COMPLETE = "subject.toml"
"""Written last of a subject's files."""
_DRAWING = (
    "animals",
    "bodies",
    "customstudio",
    "machines",
    "motion",
    "places",
    "quadrics",
    "render",
    "uprights",
    "world",
)
"""The files that decide what a photo looks like."""
_DEVELOPMENT_SCENES = (("beach", "walk"), ("snow", "jump"), ("forest", "run"))
"""Place and action of the prompts that settings are tuned on."""


@dataclass(frozen=True)
class ToyboxEdition:
    """Individuals of the toybox, in groups; photos are drawn when somebody asks for them."""

    name: str
    description: str
    subjects: tuple[StudioSubject, ...]
    groups: tuple[Group, ...]
    default_backbone: str = "toybox"

    @property
    def seal(self) -> str:
        """A digest of how everybody looks and of what each prompt's footage shows."""
        return hashlib.sha256(repr((self.subjects, self.groups)).encode()).hexdigest()

    @property
    def home(self) -> Path:
        """A folder in the user's cache, another one whenever photos come out differently."""
        sha = hashlib.sha256(self.seal.encode())
        for module in _DRAWING:
            sha.update(Path(__file__).with_name(f"{module}.py").read_bytes())
        return default_cache().parent / "customstudio" / f"{self.name}-{sha.hexdigest()[:12]}"

    def manifest(self) -> str:
        """The manifest, as JSON; photos are drawn, so it lists no files."""
        subjects = [
            {"name": one.name, "category": noun(one.category)}
            for one in sorted(self.subjects, key=lambda one: one.name)
        ]
        groups = [
            {"subjects": list(group.names), "prompts": [prompt.text for prompt in group.prompts]}
            for group in self.groups
        ]
        values: dict[str, Any] = {"name": self.name, "version": "1"}
        values["description"] = self.description
        return json.dumps(values | {"subjects": subjects, "combinations": groups})

    def prepare(self, names: Sequence[str], root: Path) -> None:
        """Draw the photos and masks of these subjects that `root` does not hold yet.

        Raises:
            StorageError: `root` cannot be written.
        """
        for subject in self.subjects:
            folder = root / subject.name
            if subject.name in names and not (folder / _COMPLETE).is_file():
                write_subject(folder, subject.individual, subject.name, _PHOTOS, masks=True)

    def footage(
        self, combination: str, prompt_index: int, seed: int, frames: int, size: tuple[int, int]
    ) -> Video | None:
        """The toys themselves, as the prompt asks; frames of `size` (height, width).

        Raises:
            BenchmarkError: there is no such combination or prompt.
        """
        group = next((one for one in self.groups if "+".join(one.names) == combination), None)
        if group is None or not 0 <= prompt_index < len(group.prompts):
            raise BenchmarkError(
                f"The edition '{self.name}' has no prompt {prompt_index} of '{combination}'; see "
                "its combinations."
            )
        prompt = group.prompts[prompt_index]
        toys = {one.name: one.individual for one in self.subjects}
        world = sample_world(
            np.random.default_rng([seed, *prompt.text.encode()]),
            individuals=[toys[name] for name in group.names],
            place=prompt.place,
            action=prompt.action,
        )
        clip = render(world, frames=frames, height=size[0], width=size[1])
        return Video(clip.frames.numpy(), clip.fps)


def load() -> ToyboxEdition:
    """The 63: 68 pairs, 8 triples and 4 quadruples, eight prompts each."""
    everybody = studio()
    groups = (*everybody.pairs, *everybody.triples, *everybody.quadruples)
    description = "63 named toys in 13 categories, rendered; figures are taken on these."
    return ToyboxEdition("toybox", description, everybody.subjects, groups)


def load_development() -> ToyboxEdition:
    """The twelve that settings are tuned on: six pairs, three prompts each."""
    pairs = development_pairs()
    subjects = tuple(one for pair in pairs for one in pair)
    groups = tuple(_group(pair) for pair in pairs)
    description = "Twelve other toys in six pairs; settings are tuned on these, and only on these."
    return ToyboxEdition("toybox-development", description, subjects, groups)


def _group(pair: tuple[StudioSubject, StudioSubject]) -> Group:
    prompts = []
    for place, action in _DEVELOPMENT_SCENES:
        doing = group_verb([one.category for one in pair], action)
        text = f"a {pair[0].phrase} and a {pair[1].phrase} {doing} {PLACE_PHRASES[place][0]}"
        prompts.append(StudioPrompt(text, place, action))
    return Group((pair[0].name, pair[1].name), tuple(prompts))
