"""Two questions that need videos of their own: do words carry identity, and is the base kept?

*Swap*: the learned vectors of the words change places, nothing else; the subjects have to change
places with them. *Retention*: a trained model is asked with bare categories, as the base model was,
and has to follow the text as well. Both videos lie beside the job's own; what they say goes into
the rows with everything else.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.tokens import LearnedTokens
from customvideo.backbones.base import Backbone
from customvideo.benchmark.grid import Job, Sample
from customvideo.benchmark.judging import words_of
from customvideo.benchmark.kit import Kit
from customvideo.benchmark.store import JobFolder
from customvideo.evaluation.comparison import retention, slot_equivariance, slot_similarity
from customvideo.generation import CustomVideoWarning, SamplingConfig, generate
from customvideo.subjects.prompt import Prompt
from customvideo.video import Video

__all__ = ["Base", "exchanged", "probe", "swapped"]

Base = tuple[Job, JobFolder]
"""The base model's job of the same combination."""


def probe(job: Job, folder: JobFolder, kit: Kit, base: Base | None, count: int) -> None:
    """Make and score both videos for the first `count` samples of a trained job.

    Videos that are there are kept, and what they say unless it is scored otherwise now. Without a
    `base` that has the sample, retention is left out.

    Raises:
        UserError: a video cannot be drawn, read or written.
    """
    known, scoring = folder.probed, kit.scoring(job.recipe.backbone)
    for sample in job.samples[:count]:
        key, asked = f"{sample[0]}-{sample[1]}", _Probed(job, folder, kit, sample)
        found = dict(known.get(key, {}))
        if found.get("scoring") != scoring:
            found = {"scoring": scoring}
        if "swap" not in found:
            found["swap"] = asked.swap()
        if "retention" not in found and base is not None and base[1].video(sample).is_file():
            found["retention"] = asked.retention(base)
        known[key] = found
        folder.note_probed(known)


def swapped(adapter: Adapter) -> Adapter:
    """The same adapter, but that each word has the vectors of the next one, the last the first's.

    It shares all other parameters with `adapter`, whose words stay as they are.
    """
    rows = adapter.tokens.value.detach()
    each = rows.reshape(len(adapter.words), -1, rows.shape[-1])
    tokens = LearnedTokens(
        adapter.words, rows.shape[-1], each.roll(-1, 0).flatten(0, 1), adapter.header.space
    )
    return Adapter(adapter.header, tokens, adapter.deltas, adapter.extras)


def exchanged(before: NDArray[np.float64]) -> list[int]:
    """For each slot the one that showed whom it has to show once words are `swapped`.

    `before` is (slot, identity), the identities in the order of their words, the slots in any: who
    is in which is what makes all together look most like themselves.
    """
    count = len(before)
    shown = max(permutations(range(count)), key=lambda who: before[range(count), who].sum())
    return [shown.index((identity + 1) % count) for identity in shown]


@dataclass(frozen=True)
class _Probed:
    """One sample of a job, asked for once more in other words."""

    job: Job
    folder: JobFolder
    kit: Kit
    sample: Sample

    def swap(self) -> float | None:
        """How fully the subjects changed places; None where that cannot be told."""
        judges = self.kit.judges(self._backbone).crops
        adapter, names = Adapter.load(self.folder.adapter), self.job.subjects
        if judges is None or len(names) < 2 or len({one.vectors for one in adapter.words}) > 1:
            return None
        text = self.job.prompts[self.sample[0]]
        after = self._drawn("swap", swapped(adapter), text, self.job.recipe.sampling)
        before = Video.load(self.folder.video(self.sample))
        subjects = self.kit.subjects(names, self._backbone)
        both = [judges.slots(video.frames, subjects) for video in (before, after)]
        if any(len(slot) == 0 for slots in both for slot in slots):
            # Nobody can have changed places where not everybody is seen.
            return None
        references = [judges.look(subject).dino for subject in subjects]
        one, other = (slot_similarity(slots, references) for slots in both)
        return slot_equivariance(one, other, exchanged(one))

    def retention(self, base: Base) -> float:
        """Change of text alignment against the base model's video of the same text and noise."""
        told, folder = base
        text = Prompt(self.job.prompts[self.sample[0]], words_of(self.job)).plain
        adapter = Adapter.load(self.folder.adapter)
        after = self._drawn("plain", adapter, text, told.recipe.sampling)
        before = Video.load(folder.video(self.sample))
        clip = self.kit.encoders(self._backbone).clip
        return retention([before], [after], [text], clip).clip_t_change

    @property
    def _backbone(self) -> Backbone:
        return self.kit.backbone(self.job.recipe.backbone)

    def _drawn(self, kind: str, adapter: Adapter, text: str, options: SamplingConfig) -> Video:
        """The extra video of this kind, drawn first if it is not there."""
        path, seed = self.folder.extra_video(kind, self.sample), self.sample[1]
        if not path.is_file():
            with warnings.catch_warnings():
                # That there is no learned word in bare categories is the point.
                warnings.simplefilter("ignore", CustomVideoWarning)
                video = generate(self._backbone, adapter, text, seed=seed, options=options)
            video.save(path)
        return Video.load(path)
