"""Samples that show one subject each, for methods without co-occurrence, and what a sample's
prompt says.

Composing several subjects is `customvideo.subjects.scene`, choosing which is the method's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from customvideo.methods.base import Example
from customvideo.subjects.captions import captioned_prompt
from customvideo.subjects.prompt import TEMPLATES, LearnedWord, Prompt, training_prompt
from customvideo.subjects.scene import Background, Scene, compose
from customvideo.subjects.subject import Subject

__all__ = ["learned_words", "one_subject", "scene_prompt"]


def learned_words(subjects: Sequence[Subject], vectors: int = 1) -> tuple[LearnedWord, ...]:
    """The subjects' words in their order, as `trainable` makes them."""
    return tuple(LearnedWord(one.name, one.category, vectors) for one in subjects)


def one_subject(
    subjects: Sequence[Subject],
    rng: np.random.Generator,
    canvas: tuple[int, int],
    *,
    vectors: int = 1,
    background: Background = "keep",
    templates: Sequence[str] = TEMPLATES,
) -> Example:
    """A sample of one of the `subjects`, drawn at random: one frame, its own mask and prompt.

    The other subjects' masks are zero and their words unmentioned. `canvas` is (height, width) in
    pixels; `templates` hold `{subjects}`.
    """
    index = int(rng.integers(len(subjects)))
    scene = compose([subjects[index]], rng, canvas, background=background)
    masks = np.zeros((len(subjects), *canvas), np.float32)
    masks[index] = scene.masks[0]
    words = learned_words(subjects, vectors)
    shown = scene if background == "keep" else None
    asked = scene_prompt([subjects[index]], [words[index]], rng, templates, shown)
    return Example(scene.image[None], masks, Prompt(asked.text, words))


def scene_prompt(
    subjects: Sequence[Subject],
    words: Sequence[LearnedWord],
    rng: np.random.Generator,
    templates: Sequence[str],
    scene: Scene | None = None,
) -> Prompt:
    """A prompt that names the `subjects` in random order, by their `words`.

    It is made of the captions of their photos in `scene`, where there are any and the scene shows
    what lies behind its subjects (else leave it out), and of one of the `templates` otherwise.
    """
    captions = []
    if scene is not None and scene.photos:
        drawn = zip(subjects, scene.photos, strict=True)
        captions = [one.captions[index] if one.captions else "" for one, index in drawn]
    if any(captions):
        return captioned_prompt(words, captions, rng)
    return training_prompt(words, rng, templates=templates)
