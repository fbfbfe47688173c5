"""The rendered training set: shards of frames and label maps on disk, worlds rebuilt from seeds.

A shard stores only what is slow to make (pixels). Captions are drawn afresh from the world at
every step, so one picture is seen under many descriptions. Nothing here trains.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from customvideo.files import atomic_path, ensure_dir
from customvideo.toybox.captions import Mention, grounded_caption
from customvideo.toybox.customstudio import held_out
from customvideo.toybox.development import for_development
from customvideo.toybox.models import SIZE
from customvideo.toybox.names import name_of, sample_cast
from customvideo.toybox.render import render
from customvideo.toybox.world import Individual, World, sample_individual, sample_world

SHARD = 250
"""Worlds per shard: small enough that a stopped rendering loses under half a minute."""
_BEGINNING = 0.5
"""The phase (see `World`) at which limbs are at rest and a jump leaves the ground."""
_NAMING_RATE = 0.85
"""How often a named individual is called by its name; else it is described as anybody is."""


@dataclass(frozen=True)
class Split:
    """One part of the training set.

    `kind` "mixed" draws one to four subjects a world, "lone" one; "views" draws lone subjects, each
    twice in a row (worlds 2k and 2k+1 show one individual under different light, view and place);
    "moves" draws lone ones in six of ten worlds, and whatever they do, they begin at its beginning:
    then words tell how a clip goes on. In three of ten worlds, views apart, somebody is a named
    individual (see `names`).
    """

    name: str
    count: int
    frames: int
    kind: str = "mixed"
    kept: int | None = None
    """How many of the frames are kept, the first ones, if not all: a part of the second that a
    world lasts."""

    def world(self, seed: int, index: int) -> World:
        """World number `index`; a pure function of the arguments."""
        rng = np.random.default_rng([seed, _code(self.name), index])
        if self.kind == "mixed":
            return sample_world(rng, individuals=sample_cast(rng))
        if self.kind == "lone":
            return sample_world(rng, individuals=sample_cast(rng)[:1])
        if self.kind == "moves":
            cast = sample_cast(rng)
            world = sample_world(rng, individuals=cast[:1] if rng.random() < 0.6 else cast)
            return replace(world, phases=(_BEGINNING,) * len(world.individuals))
        same = np.random.default_rng([seed, _code(self.name), index // 2, 7])
        return sample_world(rng, individuals=[sample_individual(same)])


def _code(name: str) -> int:
    return int.from_bytes(name.encode(), "big") % (2**31)


@dataclass
class Shelf:
    """A split in memory.

    `frames` uint8 (world, frame, height, width, 3); `labels` uint8 (world, frame, height, width),
    0 for background and k+1 for the world's subject k.
    """

    worlds: list[World]
    frames: Tensor
    labels: Tensor

    def captions(self, indices: list[int], rng: np.random.Generator) -> list[str]:
        """A fresh caption for each world in `indices`."""
        return [text for text, _ in self.grounded(indices, rng)]

    def grounded(
        self, indices: list[int], rng: np.random.Generator
    ) -> list[tuple[str, list[Mention]]]:
        """The same, with what is said of whom."""
        return [described(self.worlds[index], rng) for index in indices]

    def coverage(self) -> Tensor:
        """Share of each 8x8 cell covered by each subject, uint8 0..255 (world, frame, 4, h, w)."""
        each = [
            torch.nn.functional.avg_pool2d((self.labels == label).float(), 8)
            for label in range(1, 5)
        ]
        return (255 * torch.stack(each, dim=2)).round().to(torch.uint8)


def described(world: World, rng: np.random.Generator) -> tuple[str, list[Mention]]:
    """A fresh caption; named individuals mostly go by name, and then often by name alone."""
    known = {i: name for i, one in enumerate(world.individuals) if (name := name_of(one))}
    called = {i: name for i, name in known.items() if rng.random() < _NAMING_RATE}
    detail = "bare" if called and rng.random() < 0.5 else None
    return grounded_caption(world, rng, detail, called)


def render_split(
    split: Split, seed: int, folder: Path, device: str, progress: Callable[[str], None]
) -> None:
    """Render the shards of `split` that are not on disk yet."""
    ensure_dir(folder)
    for start in range(0, split.count, SHARD):
        path = _shard_path(folder, split, start)
        if path.exists():
            continue
        indices = range(start, min(start + SHARD, split.count))
        clips = [_labelled(split.world(seed, i), split, device) for i in indices]
        frames, labels = (torch.stack(list(part)) for part in zip(*clips, strict=True))
        with atomic_path(path) as temporary:
            save_file({"frames": frames, "labels": labels}, temporary)
        progress(f"{split.name}: {indices.stop} of {split.count} worlds rendered")


def _labelled(world: World, split: Split, device: str) -> tuple[Tensor, Tensor]:
    clip = render(world, frames=split.frames, height=SIZE[0], width=SIZE[1], device=device)
    order = torch.arange(1, clip.masks.shape[1] + 1, device=clip.masks.device)
    labels = (clip.masks * order[None, :, None, None]).amax(dim=1)
    return clip.frames[: split.kept].cpu(), labels[: split.kept].to(torch.uint8).cpu()


def _shard_path(folder: Path, split: Split, start: int) -> Path:
    return folder / f"{split.name}-{split.frames}f-{start:06d}.safetensors"


def load_split(split: Split, seed: int, folder: Path) -> Shelf:
    """The part of `split` that lies on disk, whole shards from the first on.

    Worlds with a look-alike of a CustomStudio or a development subject are left out: what a model
    is asked to learn from photos must not have been seen before.
    """
    shards = []
    for start in range(0, split.count, SHARD):
        path = _shard_path(folder, split, start)
        if not path.exists():
            break
        shards.append(load_file(path))
    frames = torch.cat([shard["frames"] for shard in shards])
    labels = torch.cat([shard["labels"] for shard in shards])
    worlds = [split.world(seed, index) for index in range(len(frames))]
    kept = [i for i, world in enumerate(worlds) if not any(map(_reserved, world.individuals))]
    return Shelf([worlds[i] for i in kept], frames[kept], labels[kept])


def _reserved(individual: Individual) -> bool:
    return held_out(individual) or for_development(individual)
