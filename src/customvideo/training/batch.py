"""From subjects to batches: scenes composed and encoded, prior rows drawn, noise and time added.

Every draw is a pure function of (seed, stream, step, row), so a run stopped anywhere continues
exactly, and four accumulated batches of one row are the rows of one batch of four. What a scene
looks like is the method's decision; what the losses are is too.

Axes: row, word, token, channel, frame, height, width as in `customvideo.methods.base`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from customvideo.adapters.adapter import Adapter
from customvideo.attention.losses import latent_masks
from customvideo.backbones.base import Backbone
from customvideo.backbones.noise import Relay
from customvideo.errors import ConfigError, PromptError
from customvideo.methods.base import Batch, Example, Method
from customvideo.subjects.subject import Subject
from customvideo.training.config import TrainerConfig
from customvideo.training.prior import PriorPool

if TYPE_CHECKING:
    from customvideo.training.clips import ClipPool

__all__ = [
    "Batch",
    "Batches",
    "EncodedScene",
    "Pass",
    "ScenePool",
    "WordFinder",
    "Workshop",
    "row_rng",
]

# Streams keep draws apart that share a step and a row.
_SCENES, _ROWS, _PRIOR, _CLIPS, _HELD_OUT, _LEGS = range(6)
_TURNS = 7  # 6 is that of `customvideo.training.clips`
_ENCODED_TOGETHER = 8
_PROBED = 8
# Draws that may look for a subject that no scene shows.
_TRIED = 64


def row_rng(seed: int, stream: int, *index: int) -> np.random.Generator:
    """The random generator of one draw; equal arguments, equal numbers."""
    return np.random.default_rng([seed, stream, *index])


def _torch_rng(rng: np.random.Generator) -> torch.Generator:
    """A torch generator (always on the CPU, so that a GPU sees the same noise) seeded by `rng`."""
    return torch.Generator().manual_seed(int(rng.integers(2**63 - 1)))


@dataclass(frozen=True, eq=False)
class EncodedScene:
    """One training sample as latents.

    Attributes:
        latents: (channel, frame, height, width), float32.
        masks: (word, height, width) at latent resolution, area-averaged, in [0, 1]; of a clip
            (word, frame, height, width).
        present: (word,) bool.
        text: the prompt as the text encoder reads it.
        extra: the example's own arrays, as they were; empty in a prior row.
    """

    latents: Tensor
    masks: Tensor
    present: Tensor
    text: str
    extra: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Workshop:
    """What it takes to make a scene: who draws it, of whom, and who encodes it."""

    backbone: Backbone
    method: Method
    subjects: Sequence[Subject]
    canvas: tuple[int, int]
    seed: int

    @property
    def frames(self) -> int:
        """Frames of one of the method's samples."""
        rng = row_rng(self.seed, _SCENES, 0)
        return len(self.method.scenes(self.subjects, rng, self.canvas)[0].frames)

    def make(self, stream: int, *index: int) -> list[EncodedScene]:
        """The encoded scenes of one draw of the method."""
        rng = row_rng(self.seed, stream, *index)
        return self.encode(self.method.scenes(self.subjects, rng, self.canvas))

    def make_many(self, stream: int, count: int) -> list[EncodedScene]:
        """`count` encoded scenes, drawn one after the other and encoded a few at a time."""
        examples: list[Example] = []
        for index in range(count):
            if len(examples) >= count:
                break
            rng = row_rng(self.seed, stream, index)
            examples += self.method.scenes(self.subjects, rng, self.canvas)
        return [
            scene
            for start in range(0, count, _ENCODED_TOGETHER)
            for scene in self.encode(examples[:count][start : start + _ENCODED_TOGETHER])
        ]

    def make_all_seen(self, stream: int, count: int) -> list[EncodedScene]:
        """As `make_many`, but every subject is in some scene, whatever chance says.

        Where each scene shows one subject, a few may all show the same one: then later draws take
        the places of those that can be spared.

        Raises:
            ConfigError: so few scenes cannot show everybody.
        """
        scenes = self.make_many(stream, count)
        later = (row_rng(self.seed, stream, index) for index in range(count, count + _TRIED))
        draws = (
            one for rng in later for one in self.method.scenes(self.subjects, rng, self.canvas)
        )
        while scenes and (missing := _missing(scenes)).any():
            spare, example = _spare(scenes), next(draws, None)
            if spare is None or example is None:
                raise ConfigError(
                    f"{count} scenes do not show each of the {len(self.subjects)} subjects; set "
                    "pool to more, or to 0."
                )
            if bool((self._present(example) & missing).any()):
                (scenes[spare],) = self.encode([example])
        return scenes

    def encode(self, examples: Sequence[Example]) -> list[EncodedScene]:
        """Encode samples of one size together."""
        frames = torch.from_numpy(np.stack([example.frames for example in examples]))
        pixels = frames.permute(0, 1, 4, 2, 3).to(self.backbone.device, torch.float32)
        latents = self.backbone.encode_frames(pixels / 127.5 - 1).float().cpu()
        return [self._scene(*pair) for pair in zip(examples, latents, strict=True)]

    def _scene(self, example: Example, latents: Tensor) -> EncodedScene:
        masks = torch.from_numpy(example.masks)
        moving = masks.ndim == 4
        layers = masks if moving else masks[None]
        small = functional.interpolate(layers, size=tuple(latents.shape[-2:]), mode="area")
        small = latent_masks(small, latents.shape[1]) if moving else small[0]
        extra = {name: torch.from_numpy(value) for name, value in example.extra.items()}
        return EncodedScene(latents, small, self._present(example), example.prompt.encoded, extra)

    def _present(self, example: Example) -> Tensor:
        """Whom the example names, (word,) bool."""
        mentioned = {word.name for word in example.prompt.mentioned}
        return torch.tensor([subject.name in mentioned for subject in self.subjects])


class ScenePool:
    """Scenes to train on: `count` made once and drawn from, or, for 0, a new one for every row."""

    def __init__(self, workshop: Workshop, count: int) -> None:
        self.workshop = workshop
        self.scenes = workshop.make_all_seen(_SCENES, count)
        self.frames = workshop.frames

    @property
    def mean_masks(self) -> Tensor:
        """Each subject's masks averaged over the scenes that show it (word, height, width)."""
        scenes = self.scenes or self.workshop.make_all_seen(_SCENES, _PROBED)
        total = torch.stack([scene.masks for scene in scenes]).sum(dim=0)
        shown = torch.stack([scene.present for scene in scenes]).sum(dim=0)
        return total / shown.clamp(min=1)[:, None, None]

    def pick(self, rng: np.random.Generator, step: int, row: int) -> EncodedScene:
        """The scene of one row of one step; `rng` is that row's generator."""
        scenes = self.scenes or self.workshop.make(_SCENES, step, row)
        return scenes[int(rng.integers(len(scenes)))]


class WordFinder:
    """Where the learned words stand in encoded texts; each text is tokenised once.

    The adapter's words must be attached to the backbone whenever this is called.
    """

    def __init__(self, backbone: Backbone, adapter: Adapter) -> None:
        self._backbone = backbone
        self._adapter = adapter
        self._known: dict[str, tuple[Tensor, Tensor | None]] = {}

    def __call__(self, scenes: Sequence[EncodedScene]) -> tuple[Tensor, Tensor | None]:
        """Weights (row, word, token): 1/n at a word's n positions, 0 elsewhere; and which tokens
        (row, token) are no padding, or None if all count.

        Raises:
            PromptError: a text lost one of its words, because it is longer than the text encoder
                reads.
        """
        found = [self._find(scene) for scene in scenes]
        real = [one for _, one in found if one is not None]
        return torch.stack([weights for weights, _ in found]), torch.stack(real) if real else None

    def _find(self, scene: EncodedScene) -> tuple[Tensor, Tensor | None]:
        if scene.text not in self._known:
            with torch.no_grad():
                text = self._backbone.encode_prompt([scene.text])
            weights = self._adapter.tokens.select(text.ids)[0].float().cpu()
            real = None if text.real is None else text.real[0].cpu()
            if bool((scene.present & (weights.sum(dim=-1) < 1 - 1e-4)).any()):
                raise PromptError(
                    f"The training prompt '{scene.text}' is too long for the text encoder of "
                    f"'{self._backbone.name}'; use fewer subjects or fewer vectors a word."
                )
            self._known[scene.text] = weights, real
        return self._known[scene.text]


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward and backward: a batch, and the share of its loss in the step's loss."""

    batch: Batch
    share: float


@dataclass(frozen=True, eq=False)
class _Row:
    """One row before batching: a clean sample, its draw of noise and time, and its kind."""

    scene: EncodedScene
    noise: Tensor
    time: Tensor
    prior: bool


class Batches:
    """All batches of a run, addressed by step and accumulation index instead of streamed.

    Where several networks take the noise away in turn (`Relay`), all times of a step are on the leg
    of one of them, and each has its turn as often as the others.

    Where there are clips, each row is one with the chance `clip_share`.
    """

    def __init__(
        self,
        pool: ScenePool,
        words: WordFinder,
        prior: PriorPool | None,
        config: TrainerConfig,
        clips: ClipPool | None = None,
    ) -> None:
        self._pool = pool
        self._words = words
        self._prior = prior
        self._config = config
        self._clips = clips
        self._noise = pool.workshop.backbone.noise

    def passes(self, step: int, micro: int, of: int | None = None) -> list[Pass]:
        """The forwards of accumulation index `micro` of `step`, which has `of` of them in all
        processes together; without it, this process is alone.

        Prior pictures join the scenes when their latents have the same size and no row is a clip,
        else they get a forward of their own. So does every clip, with the share of its row, and a
        prior clip, once a step and with full weight.
        """
        size, whole = self._config.batch_size, 1 / (of or self._config.accumulation)
        rows = range(micro * size, (micro + 1) * size)
        moving = [row for row in rows if self._is_clip(step, row)]
        scenes = [self._instance_row(step, row) for row in rows if row not in moving]
        pictures = self._prior_rows(step, micro)
        together = pictures and not moving and pictures[0].noise.shape == scenes[0].noise.shape
        parts = [(scenes + pictures, 1.0)] if together else [(scenes, len(scenes) / size)]
        parts += [] if together else [(pictures, 1.0)]
        passes = [Pass(self._batch(part), share * whole) for part, share in parts if part]
        passes += [Pass(self._batch([self._clip_row(step, row)]), whole / size) for row in moving]
        if micro == 0 and self._prior is not None and self._prior.clips_at(step):
            passes.append(Pass(self._batch([self._prior_row(_CLIPS, step, clip=True)]), 1.0))
        return passes

    def held_out(self) -> list[Pass]:
        """A fixed batch of scenes never trained on, to score checkpoints by, in one forward for
        each leg of the noise process.

        Its times are spread evenly over the noise process, so that few rows cover it.
        """
        workshop, count = self._pool.workshop, self._config.held_out
        rows = [
            self._row(scene, row_rng(self._config.seed, _HELD_OUT, count, index), prior=False)
            for index, scene in enumerate(workshop.make_many(_HELD_OUT, count))
        ]
        legs: dict[int, list[_Row]] = {}
        for row, time in zip(rows, self._noise.spread_times(count), strict=True):
            leg = int(self._noise.leg_of(time)) if isinstance(self._noise, Relay) else 0
            legs.setdefault(leg, []).append(replace(row, time=time[None]))
        return [Pass(self._batch(found), len(found) / count) for found in legs.values()]

    def _instance_row(self, step: int, row: int) -> _Row:
        rng = row_rng(self._config.seed, _ROWS, step, row)
        return self._row(self._pool.pick(rng, step, row), rng, prior=False, step=step)

    def _is_clip(self, step: int, row: int) -> bool:
        if self._clips is None:
            return False
        turn = row_rng(self._config.seed, _TURNS, step, row).random()
        return bool(turn < self._config.clip_share)

    def _clip_row(self, step: int, row: int) -> _Row:
        assert self._clips is not None
        rng = row_rng(self._config.seed, _ROWS, step, row)
        return self._row(self._clips.pick(rng, step, row), rng, prior=False, step=step)

    def _prior_rows(self, step: int, micro: int) -> list[_Row]:
        if self._prior is None:
            return []
        count = self._prior.plan.rows
        return [self._prior_row(_PRIOR, step, micro * count + row) for row in range(count)]

    def _prior_row(self, stream: int, step: int, *index: int, clip: bool = False) -> _Row:
        assert self._prior is not None
        rng = row_rng(self._config.seed, stream, step, *index)
        text, latents = self._prior.draw(rng, clip=clip)
        words = len(self._pool.workshop.subjects)
        masks = torch.zeros(words, *latents.shape[-2:])
        absent = torch.zeros(words, dtype=torch.bool)
        return self._row(EncodedScene(latents, masks, absent, text), rng, prior=True, step=step)

    def _row(
        self, scene: EncodedScene, rng: np.random.Generator, *, prior: bool, step: int = 0
    ) -> _Row:
        generator = _torch_rng(rng)
        if isinstance(self._noise, Relay):
            time = self._noise.draw_times_on(self._leg(step, self._noise.legs), 1, generator)
        else:
            time = self._noise.draw_times(1, generator)
        noise = torch.randn(scene.latents.shape, generator=generator)
        return _Row(scene, noise, time, prior)

    def _leg(self, step: int, legs: int) -> int:
        """The leg that `step` trains: every `legs` steps each of them once, in random order."""
        turn, place = divmod(step, legs)
        return int(row_rng(self._config.seed, _LEGS, turn).permutation(legs)[place])

    def _batch(self, rows: Sequence[_Row]) -> Batch:
        scenes = [row.scene for row in rows]
        words, real = self._words(scenes)
        return Batch(
            latents=torch.stack([scene.latents for scene in scenes]),
            noise=torch.stack([row.noise for row in rows]),
            times=torch.cat([row.time for row in rows]),
            texts=tuple(scene.text for scene in scenes),
            words=words,
            masks=torch.stack([scene.masks for scene in scenes]),
            present=torch.stack([scene.present for scene in scenes]),
            prior=torch.tensor([row.prior for row in rows]),
            extra=_stacked([scene.extra for scene in scenes]),
            real=real,
        )


def _missing(scenes: Sequence[EncodedScene]) -> Tensor:
    """Whom none of the scenes shows, (word,) bool."""
    return ~torch.stack([scene.present for scene in scenes]).any(dim=0)


def _spare(scenes: Sequence[EncodedScene]) -> int | None:
    """The last scene whose subjects are all in others, too; None if there is none."""
    shown = torch.stack([scene.present for scene in scenes])
    spare = (shown.sum(dim=0) > shown.int()).logical_or(~shown).all(dim=1).nonzero().flatten()
    return int(spare[-1]) if len(spare) else None


def _stacked(extras: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Every extra (row, …), with zeros for the rows that have none."""
    full = next((extra for extra in extras if extra), {})
    return {
        name: torch.stack([extra.get(name, torch.zeros_like(value)) for extra in extras])
        for name, value in full.items()
    }
