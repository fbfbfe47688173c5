"""Training clips as samples of a method: who is in one, and what its prompt says.

Composing them is `customvideo.subjects.moving`, how many there are beside pictures the trainer's
`clip_share`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from customvideo.methods.base import Example
from customvideo.subjects.captions import captioned_prompt
from customvideo.subjects.moving import ClipShape, compose_clip
from customvideo.subjects.prompt import LearnedWord, Prompt, training_prompt
from customvideo.subjects.scene import Background, Style
from customvideo.subjects.subject import Subject

__all__ = ["ClipLook", "clip_example"]


@dataclass(frozen=True)
class ClipLook:
    """How clips are composed.

    Attributes:
        alone: whether it shows one of the subjects that have clips, instead of all.
        style: as for `customvideo.subjects.scene.compose`.
        background: likewise.
        templates: prompts with `{subjects}` in them; captions take their place where the clip shows
            what lies behind its subjects.
    """

    alone: bool
    style: Style
    background: Background
    templates: Sequence[str]


def clip_example(
    subjects: Sequence[Subject],
    words: Sequence[LearnedWord],
    rng: np.random.Generator,
    shape: ClipShape,
    look: ClipLook,
) -> Example:
    """A clip of all `subjects`, or of one alone; the others' masks are zero then and their `words`
    unmentioned."""
    moving = [index for index, subject in enumerate(subjects) if subject.clips]
    shown = [moving[int(rng.integers(len(moving)))]] if look.alone else list(range(len(subjects)))
    chosen, own = [subjects[one] for one in shown], [words[one] for one in shown]
    scene = compose_clip(chosen, rng, shape, style=look.style, background=look.background)
    masks = np.zeros((len(subjects), shape.frames, *shape.canvas), np.float32)
    masks[shown] = scene.masks
    behind = look.style == "panel" and look.background == "keep"
    prompt = (
        captioned_prompt(own, scene.captions, rng)
        if behind and any(scene.captions)
        else training_prompt(own, rng, templates=look.templates)
    )
    return Example(scene.frames, masks, Prompt(prompt.text, tuple(words)))
