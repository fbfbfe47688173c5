"""Class-prior samples: what the base model itself draws for a category, kept as latents.

Training on them beside the subjects' scenes keeps `cat` a cat while `<tom> cat` becomes Tom
(class-specific prior preservation, DreamBooth, arXiv 2208.12242, section 3.3). Samples are made
with no adapter attached, and cached, a few to a file, so that an interrupted making goes on where
it stopped and every later run finds them. How they are weighed is the method's business.

Axes: sample, then channel, frame, height, width of the latents.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from customvideo.backbones.base import Backbone
from customvideo.backbones.sampling import denoise
from customvideo.files import ensure_dir, write_bytes
from customvideo.methods.base import PriorPlan

__all__ = ["PriorPool", "PriorRequest", "build_prior", "default_cache", "prior_latents"]

_SAMPLED_TOGETHER = 4
_KEY = "latents"
_UNSTATED = {"prompt": "a {category}", "steps": "20", "guidance": "3.0"}
"""How shipped samples were drawn whose file does not say it."""

Notify = Callable[[str], None]


@dataclass(frozen=True)
class PriorRequest:
    """Which samples: the prompt, their size in pixels, and how they are drawn."""

    prompt: str
    frames: int
    height: int
    width: int
    steps: int
    guidance: float


@dataclass(frozen=True, eq=False)
class PriorPool:
    """All prior samples of a run, by category.

    Attributes:
        plan: the method's wishes they were made for.
        pictures: one-frame latents (sample, channel, 1, height, width) of each category.
        clips: latents (sample, channel, frame, height, width) of each category; may be empty.
    """

    plan: PriorPlan
    pictures: dict[str, Tensor]
    clips: dict[str, Tensor]

    def draw(self, rng: np.random.Generator, *, clip: bool) -> tuple[str, Tensor]:
        """A prompt and one of its samples (channel, frame, height, width)."""
        samples = self.clips if clip else self.pictures
        category = self.plan.categories[int(rng.integers(len(self.plan.categories)))]
        latents = samples[category]
        return self.plan.prompt(category), latents[int(rng.integers(len(latents)))]

    def clips_at(self, step: int) -> bool:
        """Whether a pass over a prior clip belongs to `step` (counted from 1)."""
        return bool(self.clips) and step % self.plan.clips_every == 0


def build_prior(
    backbone: Backbone,
    plan: PriorPlan,
    canvas: tuple[int, int],
    *,
    cache: Path | None = None,
    notify: Notify = lambda _: None,
) -> PriorPool:
    """Gather every sample of `plan`: shipped with the backbone, from the cache, or newly made.

    `canvas` is (height, width) in pixels; `cache` None means the user's cache folder. Shipped
    samples are taken where they were drawn just as `plan` asks and are at least as many.

    Raises:
        StorageError: the cache folder cannot be written.
    """
    folder = cache or default_cache()

    def gather(frames: int, count: int) -> dict[str, Tensor]:
        samples = {}
        for category in plan.categories:
            request = PriorRequest(
                plan.prompt(category), frames, *canvas, plan.sampling_steps, plan.guidance
            )
            shipped = _shipped(backbone, category, request, count)
            samples[category] = (
                prior_latents(backbone, request, count, cache=folder, notify=notify)
                if shipped is None
                else shipped
            )
        return samples

    clips = gather(plan.clip_frames, plan.clip_samples) if plan.clips_every else {}
    return PriorPool(plan, gather(1, plan.samples), clips)


def prior_latents(
    backbone: Backbone,
    request: PriorRequest,
    count: int,
    *,
    cache: Path,
    notify: Notify = lambda _: None,
) -> Tensor:
    """`count` samples (sample, channel, frame, height, width), made unless the cache has them.

    Sample i depends on the backbone, the request and i alone. No adapter may be attached.

    Raises:
        StorageError: the cache folder cannot be written.
    """
    folder = ensure_dir(cache / _digest(backbone, request))
    parts = []
    for start in range(0, count, _SAMPLED_TOGETHER):
        file = folder / f"{start:05d}.safetensors"
        part = _read(file)
        if part is None:
            notify(f"drawing class-prior samples of '{request.prompt}': {start} of {count}")
            part = _sample(backbone, request, range(start, start + _SAMPLED_TOGETHER))
            write_bytes(file, save({_KEY: part}))
        parts.append(part)
    return torch.cat(parts)[:count]


def default_cache() -> Path:
    """The user's cache folder for prior samples; not created."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "customvideo" / "prior"


def _sample(backbone: Backbone, request: PriorRequest, indices: Iterable[int]) -> Tensor:
    seeds = [_seed(backbone, request, index) for index in indices]
    shape = backbone.latent_shape(request.frames, request.height, request.width)
    noise = torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )
    with torch.no_grad():
        text = backbone.encode_prompt([request.prompt] * len(seeds))
        latents = denoise(
            backbone,
            noise.to(backbone.device, backbone.dtype),
            text,
            steps=request.steps,
            guidance=request.guidance,
            # Models of a flow take none of DDIM's steps.
            solver="ddim" if "ddim" in backbone.noise.solvers else "native",
        )
    return latents.float().cpu()


def _digest(backbone: Backbone, request: PriorRequest) -> str:
    text = json.dumps([backbone.fingerprint, asdict(request)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _seed(backbone: Backbone, request: PriorRequest, index: int) -> int:
    digest = hashlib.sha256(f"{_digest(backbone, request)}/{index}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _read(file: Path) -> Tensor | None:
    """A cached part, or None if it is missing or damaged, in which case it is made again."""
    try:
        latents: Tensor = load_file(file)[_KEY]
    except (OSError, SafetensorError, KeyError):
        return None
    return latents


def _shipped(backbone: Backbone, category: str, request: PriorRequest, count: int) -> Tensor | None:
    """The first `count` samples that come with the backbone, if they are those of `request`.

    The file's metadata say how they were drawn: "prompt" (with `{category}`), "steps", "guidance".
    """
    file: Path | None = getattr(backbone, "shipped_prior", None)
    if file is None or not file.is_file():
        return None
    with safe_open(file, framework="pt") as archive:
        stated = _UNSTATED | (archive.metadata() or {})
        key = f"{category}/{request.frames}"
        keys: Sequence[str] = archive.keys()
        latents: Tensor | None = archive.get_tensor(key).float() if key in keys else None
    if latents is None or len(latents) < count or not _asked(request, category, stated):
        return None
    shape = backbone.latent_shape(request.frames, request.height, request.width)
    return latents[:count] if latents.shape[1:] == shape else None


def _asked(request: PriorRequest, category: str, stated: Mapping[str, str]) -> bool:
    """Whether samples of `category` that were drawn as `stated` are those of `request`."""
    prompt = stated["prompt"].replace("{category}", category)
    drawn = (float(stated["steps"]), float(stated["guidance"]))
    return prompt == request.prompt and drawn == (request.steps, request.guidance)
