"""Videos drawn while a run trains, and where its words look in them.

When they are drawn is the trainer's business, how is `customvideo.generation`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from customvideo.adapters.adapter import Adapter
from customvideo.attention.draw import draw_words
from customvideo.backbones.base import Backbone
from customvideo.config import Recipe
from customvideo.generation import generate, generate_with_attention
from customvideo.methods.rendering import renderer
from customvideo.runs.folder import PREVIEWS
from customvideo.runs.making import watchable_scale
from customvideo.subjects.prompt import list_subjects

__all__ = ["previewer"]


def previewer(recipe: Recipe, backbone: Backbone, out: Path) -> Callable[[int, Adapter], None]:
    """What draws the subjects after a step, as `<step>.mp4` and, where the method lets attention
    be recorded, `<step>-attention.png`, among the previews of the run in `out`.

    What is there already, from before a stop, is not drawn again.

    Raises:
        BackboneError: the model cannot make videos of the size or length that the recipe says.
    """
    wanted = recipe.sampling
    height, width = backbone.size
    # Now, and not after hours of training.
    backbone.latent_shape(
        wanted.frames or backbone.frames, wanted.height or height, wanted.width or width
    )

    def preview(step: int, adapter: Adapter) -> None:
        file = out / PREVIEWS / f"{step:06d}.mp4"
        if file.is_file():
            return
        options, seed = recipe.sampling, recipe.seed
        prompt = list_subjects(adapter.words)
        if renderer(adapter) is not None:
            video = generate(backbone, adapter, prompt, seed=seed, options=options)
        else:
            video, maps = generate_with_attention(
                backbone, adapter, prompt, seed=seed, options=options
            )
            drawn = draw_words(video, maps, scale=watchable_scale(video))
            drawn.save(file.with_name(f"{file.stem}-attention.png"))
        video.save(file, scale=watchable_scale(video))

    return preview
