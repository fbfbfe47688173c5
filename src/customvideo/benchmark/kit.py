"""What the jobs of a run share: the base model, the subjects' photos, and those who judge.

Everything is loaded once, on first use. One base model is kept at a time: jobs come sorted by it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from customvideo.backbones.base import Backbone, called, draws_toys, load_backbone
from customvideo.benchmark.editions import Edition
from customvideo.benchmark.grid import RESULTS_VERSION, Sample
from customvideo.config import Recipe
from customvideo.evaluation.crops import CropJudge, Crops
from customvideo.evaluation.evaluate import Encoders
from customvideo.evaluation.scores import Row
from customvideo.runs.scoring import encoders_for, finder_for
from customvideo.subjects.masks import coverage
from customvideo.subjects.subject import Subject
from customvideo.video import Video

__all__ = ["Judges", "Kit"]

_SMALL = 1 / 3
"""The share of an edition's subjects that count as small."""


@dataclass(frozen=True, eq=False)
class Judges:
    """Who scores videos. `crops` None means that nobody looks at each subject alone; else it knows
    the individuals among which the right one is to be told. `small` are the small ones' names."""

    encoders: Encoders
    crops: CropJudge | None
    small: frozenset[str]


class Kit:
    """Loads what jobs need, on `device`."""

    def __init__(self, edition: Edition, device: str = "auto") -> None:
        self.edition, self.device = edition, device
        self._backbone: tuple[str, Backbone] | None = None
        self._encoders: tuple[str, Encoders] | None = None
        self._judges: tuple[str, Judges] | None = None
        self._subjects: dict[str, Subject] = {}

    def backbone(self, name: str) -> Backbone:
        """The base model called `name`; the one before it is let go."""
        if self._backbone is None or self._backbone[0] != name:
            self._backbone = None
            self._backbone = name, load_backbone(name, self.device)
        return self._backbone[1]

    def subjects(self, names: Sequence[str], backbone: Backbone) -> list[Subject]:
        """The edition's subjects called so, photos and masks, in that order."""
        missing = [name for name in dict.fromkeys(names) if name not in self._subjects]
        if missing:
            found = self.edition.load(missing, backbone.known_nouns)
            self._subjects |= dict(zip(missing, found, strict=True))
        return [self._subjects[name] for name in names]

    def encoders(self, backbone: Backbone) -> Encoders:
        """Who compares with texts and looks, those that suit `backbone`.

        Raises:
            EvaluationError: one cannot be loaded, and so nothing could be scored.
        """
        if self._encoders is None or self._encoders[0] != backbone.name:
            self._encoders = backbone.name, encoders_for(backbone, device=self.device)
        return self._encoders[1]

    def judges(self, backbone: Backbone) -> Judges:
        """Those that suit `backbone`, with all subjects of the edition as the gallery."""
        if self._judges is None or self._judges[0] != backbone.name:
            encoders = self.encoders(backbone)
            finder = finder_for(backbone, device=self.device)
            gallery = tuple(self.subjects(self.edition.subjects, backbone))
            crops = None
            if finder is not None:
                crops = CropJudge(Crops(finder, gallery), encoders.clip, encoders.dino)
            self._judges = backbone.name, Judges(encoders, crops, _small(gallery))
        return self._judges[1]

    def footage(self, combination: str, sample: Sample, recipe: Recipe) -> Video | None:
        """True footage of a combination, as long and as large as the videos of `recipe`."""
        backbone, options = self.backbone(recipe.backbone), recipe.sampling
        height, width = backbone.size
        size = (options.height or height, options.width or width)
        found = self.edition.combination(combination)
        return self.edition.footage(found, *sample, options.frames or backbone.frames, size)

    def scoring(self, backbone: str) -> str:
        """Digest of all that scores depend on besides the videos; nothing is loaded for it."""
        # Which judges are asked depends on the base model's name alone.
        judged = "toybox" if draws_toys(called(backbone)) else "clip"
        measured = sorted(field.name for field in fields(Row))
        told = [RESULTS_VERSION, self.edition.digest, judged, measured]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:20]


def _small(gallery: Iterable[Subject]) -> frozenset[str]:
    shares = {one.name: float(np.mean([coverage(mask) for mask in one.masks])) for one in gallery}
    bound = np.quantile(list(shares.values()), _SMALL)
    return frozenset(name for name, share in shares.items() if share <= bound)
