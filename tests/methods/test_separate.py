"""Samples of one subject each: shown, masked and named alone, and each subject in its turn."""

from __future__ import annotations

import numpy as np

from customvideo.methods.separate import learned_words, one_subject
from tests.cast import CANVAS, make_cast


def test_one_subject_is_shown_and_named() -> None:
    cast, rng, drawn = make_cast(), np.random.default_rng(0), set()
    for _ in range(12):
        example = one_subject(cast, rng, CANVAS, vectors=2, templates=["one {subjects}"])
        assert example.frames.shape == (1, *CANVAS, 3)
        (word,) = example.prompt.mentioned
        assert example.prompt.words == learned_words(cast, 2)
        assert example.prompt.text == f"one a {word.word} {word.category}"
        shown = [one.name for one, mask in zip(cast, example.masks, strict=True) if mask.any()]
        assert shown == [word.name]
        drawn.add(word.name)
    assert drawn == {"tom", "rex"}


def test_the_same_draw_is_the_same_sample() -> None:
    one, other = (one_subject(make_cast(), np.random.default_rng(5), CANVAS) for _ in range(2))
    assert np.array_equal(one.frames, other.frames) and one.prompt == other.prompt
