"""customvideo: photos of several subjects in, a video of them together out.

The names below are the public API. They are resolved on first use, so that importing the package
is instant and loads no torch; nothing else is promised to keep its name or place.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from customvideo.adapters.adapter import Adapter
    from customvideo.attention.tape import watch
    from customvideo.backbones.base import Backbone, load_backbone
    from customvideo.backbones.sampling import denoise
    from customvideo.config import Recipe, load_recipe
    from customvideo.errors import CustomVideoError, UserError
    from customvideo.evaluation.evaluate import Encoders, Scores, evaluate
    from customvideo.generation import SamplingConfig, generate, generate_with_attention
    from customvideo.methods.base import Method
    from customvideo.methods.customvideo import CustomVideo, CustomVideoConfig
    from customvideo.runs.learning import customize
    from customvideo.subjects.folders import load_subjects
    from customvideo.subjects.prompt import Prompt
    from customvideo.subjects.scene import Scene, compose
    from customvideo.subjects.subject import Subject
    from customvideo.training.trainer import Trainer, TrainerConfig
    from customvideo.video import Video, side_by_side

__version__ = "0.1.0"

_HOMES = {
    "Adapter": "adapters.adapter",
    "Backbone": "backbones.base",
    "CustomVideo": "methods.customvideo",
    "CustomVideoConfig": "methods.customvideo",
    "CustomVideoError": "errors",
    "Encoders": "evaluation.evaluate",
    "Method": "methods.base",
    "Prompt": "subjects.prompt",
    "Recipe": "config",
    "SamplingConfig": "generation",
    "Scene": "subjects.scene",
    "Scores": "evaluation.evaluate",
    "Subject": "subjects.subject",
    "Trainer": "training.trainer",
    "TrainerConfig": "training.trainer",
    "UserError": "errors",
    "Video": "video",
    "compose": "subjects.scene",
    "customize": "runs.learning",
    "denoise": "backbones.sampling",
    "evaluate": "evaluation.evaluate",
    "generate": "generation",
    "generate_with_attention": "generation",
    "load_backbone": "backbones.base",
    "load_recipe": "config",
    "load_subjects": "subjects.folders",
    "side_by_side": "video",
    "watch": "attention.tape",
}

__all__ = [
    "Adapter",
    "Backbone",
    "CustomVideo",
    "CustomVideoConfig",
    "CustomVideoError",
    "Encoders",
    "Method",
    "Prompt",
    "Recipe",
    "SamplingConfig",
    "Scene",
    "Scores",
    "Subject",
    "Trainer",
    "TrainerConfig",
    "UserError",
    "Video",
    "__version__",
    "compose",
    "customize",
    "denoise",
    "evaluate",
    "generate",
    "generate_with_attention",
    "load_backbone",
    "load_recipe",
    "load_subjects",
    "side_by_side",
    "watch",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
