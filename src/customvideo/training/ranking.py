"""Which attention sites see where a thing is: the base model's own, before anything is trained.

CustomVideo holds maps of intermediate size to masks; a transformer has one size only. Here the
sites are ranked by how well the map of the *category's* word covers the subject in composed scenes:
what the model knows already is what attention control can hold on to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import AdapterConfig, new_adapter
from customvideo.attention.losses import shrink_masks
from customvideo.attention.site import AttentionSite
from customvideo.attention.tape import watch
from customvideo.backbones.base import Backbone
from customvideo.backbones.noise import reached
from customvideo.methods.base import class_columns
from customvideo.methods.customvideo import CustomVideo, CustomVideoConfig
from customvideo.methods.denoising import single_frame
from customvideo.subjects.subject import Subject
from customvideo.training.batch import EncodedScene, Workshop

__all__ = ["RankedSite", "rank_sites"]

_STREAM = 4
_TIMES = 3
"""Noise levels that a scene is looked at under."""
_TINY = 1e-8


@dataclass(frozen=True)
class RankedSite:
    """A site, and how its maps of category words lie on the subjects.

    Attributes:
        site: for one frame.
        overlap: intersection over union of the map, stretched to [0, 1], with the mask, both soft.
        inside: share of what is paid to the word that is paid from inside the mask, over the
            mask's share of the picture: 1 is chance.
    """

    site: AttentionSite
    overlap: float
    inside: float


def rank_sites(
    backbone: Backbone,
    subjects: Sequence[Subject],
    config: CustomVideoConfig | None = None,
    *,
    scenes: int = 8,
    seed: int = 0,
) -> list[RankedSite]:
    """The backbone's sites, best overlap first, seen in `scenes` scenes at three noise levels.

    `config` says how scenes are composed and how one frame passes the temporal layers. Nothing is
    trained, and the backbone is left as it is.

    Raises:
        ConfigError: the scenes cannot be made, or the backbone takes no such frames.
        PromptError: the text encoder already knows a subject's word.
    """
    config = (config or CustomVideoConfig()).model_copy(update={"alone": 0.0})
    words = AdapterConfig(initial="category", seed=seed)
    adapter = new_adapter(backbone, subjects, method="customvideo", paths=[], config=words)
    workshop = Workshop(backbone, CustomVideo(config), subjects, backbone.size, seed)
    with adapter.attach(backbone), torch.no_grad(), single_frame(backbone, config.single_frame):
        sites = backbone.sites(workshop.frames, *backbone.size)
        found = [
            _seen(backbone, adapter, sites, scene) for scene in workshop.make_many(_STREAM, scenes)
        ]
    means = torch.stack(found).mean(dim=0).tolist()
    ranked = [RankedSite(site, *pair) for site, pair in zip(sites, means, strict=True)]
    return sorted(ranked, key=lambda one: -one.overlap)


def _seen(
    backbone: Backbone, adapter: Adapter, sites: Sequence[AttentionSite], scene: EncodedScene
) -> Tensor:
    """Overlap and lift at each site in one scene, (site, 2)."""
    noise, device = backbone.noise, backbone.device
    latents, masks = scene.latents[None].to(device), scene.masks[scene.present].to(device)
    drawn = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(device)
    text = backbone.encode_prompt([scene.text])
    words = class_columns(adapter.tokens.select(text.ids))[:, scene.present]
    found = []
    for time in noise.spread_times(_TIMES).to(device):
        seen = reached(noise, sites, time[None])
        with watch(backbone.denoiser, seen, words, text.real) as tape:
            backbone.predict(noise.mix(latents, drawn, time[None]), time[None], text)
        maps = tape.maps()
        absent = torch.full((2,), torch.nan)
        found.append(
            torch.stack(
                [_measured(maps[s.path][0], masks) if s.path in maps else absent for s in sites]
            )
        )
    return torch.stack(found).nanmean(dim=0)


def _measured(maps: Tensor, masks: Tensor) -> Tensor:
    """Overlap and lift (2,) of maps (word, frame, height, width) on masks (word, height, width)."""
    seen, mask = maps.mean(dim=1), shrink_masks(masks, (maps.shape[2], maps.shape[3]))
    low, high = seen.amin(dim=(1, 2), keepdim=True), seen.amax(dim=(1, 2), keepdim=True)
    stretched = (seen - low) / (high - low).clamp(min=_TINY)
    both = torch.minimum(stretched, mask).sum(dim=(1, 2))
    overlap = both / torch.maximum(stretched, mask).sum(dim=(1, 2)).clamp(min=_TINY)
    share = (seen * mask).sum(dim=(1, 2)) / seen.sum(dim=(1, 2)).clamp(min=_TINY)
    lift = share / mask.mean(dim=(1, 2)).clamp(min=_TINY)
    return torch.stack([overlap.mean(), lift.mean()]).cpu()
