"""VACE (Jiang et al., arXiv 2503.07598): nothing is learned, the model is shown the subjects.

A text-to-video model that was trained once to take reference pictures beside the text. What stands
for a subject is a cut-out of its clearest photo on white, which the adapter carries; the text names
the bare category. To compare with: what a general model makes of the same photos without any
training on them.

The network, its sampler and how pictures enter it are diffusers' `WanVACEPipeline`; what is chosen
here is in docs/methods/vace.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import new_adapter
from customvideo.backbones.base import Backbone
from customvideo.backbones.pipelines import fitted_clip
from customvideo.backbones.reference_models import (
    VACE,
    Ask,
    Filming,
    check_reference_model,
    load_vace,
)
from customvideo.errors import ConfigError
from customvideo.files import expanded
from customvideo.methods.rendering import Draw, Rendering
from customvideo.methods.untrained import Untrained
from customvideo.settings import Settings
from customvideo.subjects.prompt import Prompt
from customvideo.subjects.references import reference_pictures
from customvideo.subjects.subject import Subject
from customvideo.video import Video

__all__ = ["Vace", "VaceConfig"]

_REFERENCES = "references."
_STEP = 16
"""What sides of references are multiples of, so that the pipeline does not stretch them."""


class VaceConfig(Settings):
    """The settings. "Pipeline" means a default of diffusers' pipeline."""

    video_model: str = "Wan-AI/Wan2.1-VACE-1.3B-diffusers"
    """What makes the videos: a hub id, or a folder of a WanVACEPipeline, relative to where one
    works."""
    views: int = Field(default=1, ge=1, le=4)
    """Photos of each subject that it is shown, the clearest first (choice)."""
    reference_side: int = Field(default=480, ge=_STEP, le=960, multiple_of=_STEP)
    """Longer side of a reference picture in pixels, at most (choice: the height of a video)."""
    conditioning_scale: float = Field(default=1.0, ge=0)
    """How strongly the pictures count (pipeline)."""
    flow_shift: float | None = Field(default=None, gt=0)
    """How much of the steps the noisier times get; None for the model's own (its example: 3 at 480
    pixels of height, 5 at 720)."""
    drawn_height: int | None = Field(default=None, ge=_STEP)
    """Height it is drawn at, in pixels; the video then gets the size that was asked for. None for
    that size itself."""
    drawn_width: int | None = Field(default=None, ge=_STEP)


class Vace(Untrained):
    """The method as `customvideo.methods.base.Method` asks for it, of those that train nothing."""

    name: str = "vace"
    config_class: ClassVar[type[Settings]] = VaceConfig

    def __init__(self, config: VaceConfig | None = None) -> None:
        self.config: VaceConfig = config or VaceConfig()

    def untrained(self) -> str:
        """What its videos come from instead."""
        return "VACE goes by the pictures of the subjects that the adapter carries"

    def trainable(self, backbone: Backbone, subjects: Sequence[Subject]) -> Adapter:
        """Words that nobody reads, no deltas, and the subjects' reference pictures as extras.

        An extra is float32 (height, width, 3), whole numbers from 0 to 255, at most
        `reference_side` a side, and called `references.<subject>.<number>`.

        Raises:
            ConfigError: what is to make the videos cannot be used here.
        """
        VACE.check_kept(self._model(backbone))
        adapter = new_adapter(
            backbone,
            subjects,
            method=self.name,
            paths=(),
            settings=self.config.model_dump(mode="json"),
        )
        side, views = self.config.reference_side, self.config.views
        return adapter.with_extras(
            {
                f"{_REFERENCES}{subject.name}.{index}": torch.from_numpy(picture)
                for subject in subjects
                for index, picture in enumerate(reference_pictures(subject, views, side, _STEP))
            }
        )

    def ingredients(self, backbone: Backbone) -> dict[str, str]:
        """The model that makes the videos: its name, and what tells it apart from others.

        Raises:
            ConfigError: it cannot be used here, or cannot be loaded.
        """
        name = self._model(backbone)
        model = load_vace(name, str(backbone.device))
        return {
            "video_model": name,
            "video_model_weights": model.fingerprint,
            "video_model_schedule": model.schedule,
        }

    def render(self, backbone: Backbone, wanted: Rendering, draw: Draw) -> Sequence[Video]:
        """Videos of the bare text and of the subjects that it names, shown in its order.

        Raises:
            ConfigError: the model cannot be used here, or cannot be loaded.
        """
        assert wanted.adapter is not None, "a method renders with its adapter"
        words, extras = wanted.adapter.words, wanted.adapter.extras
        asked = []
        for text, seed in zip(wanted.prompts, wanted.seeds, strict=True):
            prompt = Prompt(text, words)
            pictures = [one for word in prompt.mentioned for one in _shown(extras, word.name)]
            asked.append(Ask(prompt.plain, pictures, seed))
        model = load_vace(self._model(backbone), str(backbone.device))
        clips = model.film(asked, self._filming(wanted, Prompt(wanted.avoided, words).plain))
        return [Video(fitted_clip(clip, wanted.size[1:]), model.fps) for clip in clips]

    def _filming(self, wanted: Rendering, negative: str) -> Filming:
        (frames, height, width), config = wanted.size, self.config
        return Filming(
            frames=frames,
            size=(config.drawn_height or height, config.drawn_width or width),
            negative=negative,
            steps=wanted.steps,
            guidance=wanted.guidance,
            conditioning=config.conditioning_scale,
            flow_shift=config.flow_shift,
        )

    def _model(self, backbone: Backbone) -> str:
        """What makes the videos, if it can be used beside `backbone`."""
        name = self.config.video_model
        check_reference_model(name)
        if backbone.known_words is not None and not expanded(name).is_dir():
            raise ConfigError(
                f"The video model '{name}' knows nothing of the world of the backbone "
                f"'{backbone.name}': name a folder with one that does by --set video_model=FOLDER, "
                "or choose another --backbone."
            )
        return name


def _shown(extras: Mapping[str, Tensor], name: str) -> Iterator[NDArray[np.uint8]]:
    """The reference pictures of the subject called `name`, the clearest first."""
    index = 0
    while (picture := extras.get(f"{_REFERENCES}{name}.{index}")) is not None:
        yield picture.detach().cpu().round().clamp(0, 255).to(torch.uint8).numpy()
        index += 1
