"""Which attention sites to hold to masks: what `customvideo sites` does.

How sites are ranked is decided in `customvideo.training.ranking`; here photos are read and the
ranking is shown.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from customvideo.backbones.base import load_backbone
from customvideo.config import default_recipe
from customvideo.errors import ConfigError
from customvideo.methods.customvideo import CustomVideoConfig
from customvideo.records import write_record
from customvideo.runs.folder import Say
from customvideo.settings import validated
from customvideo.subjects.folders import load_subjects
from customvideo.training.ranking import RankedSite, rank_sites

__all__ = ["SitesPlan", "rank"]

_SHOWN = 12


@dataclass(frozen=True)
class SitesPlan:
    """Photos to rank a backbone's sites with. `top` sites are suggested, None for a third of them;
    `out` is a JSON file, None for none."""

    subjects: Sequence[str]
    backbone: str = "toybox"
    segmenter: str = "grabcut"
    scenes: int = 8
    top: int | None = None
    seed: int = 0
    out: Path | None = None
    device: str = "auto"


def rank(plan: SitesPlan, say: Say) -> list[RankedSite]:
    """Rank the sites, say the best of them and how to train with them, and return all.

    Raises:
        UserError: a photo, backbone or place cannot be used.
    """
    if not plan.subjects:
        raise ConfigError(
            "Sites are ranked by where they see a subject; give one with --subject NAME=FOLDER."
        )
    backbone = load_backbone(plan.backbone, plan.device)
    subjects = load_subjects(plan.subjects, plan.segmenter, backbone.known_nouns)
    recipe = default_recipe(backbone=plan.backbone)
    config = validated(CustomVideoConfig, recipe.method_options)
    found = rank_sites(backbone, subjects, config, scenes=plan.scenes, seed=plan.seed)
    chosen = found[: plan.top or max(1, len(found) // 3)]
    say("overlap  over chance  grid     site")
    for one in found[: max(_SHOWN, len(chosen))]:
        grid = "x".join(map(str, one.site.grid[1:]))
        say(f"{one.overlap:7.3f}  {one.inside:11.2f}  {grid:<7}  {one.site.path}")
    paths = json.dumps([one.site.path for one in chosen])
    say(
        f"To hold the best {len(chosen)} of {len(found)} to masks: train with --set 'sites={paths}'"
    )
    if plan.out is not None:
        told = [
            {"path": one.site.path, "grid": one.site.grid, "overlap": one.overlap}
            | {"over_chance": one.inside}
            for one in found
        ]
        write_record(plan.out, told)
        say(f"Wrote '{plan.out}'.")
    return found
