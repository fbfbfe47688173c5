"""Boxes: a word is read inside of its own and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.errors import ConfigError
from customvideo.generation import SamplingConfig, generate, generate_with_attention
from customvideo.methods.layout import check_layout, without_phrase
from customvideo.subjects.prompt import LearnedWord, Prompt
from tests.cast import make_cast, quick_method

TOM, REX, TEDDY = LearnedWord("tom", "cat"), LearnedWord("rex", "dog", 2), LearnedWord("bo", "bear")
SHORT = SamplingConfig(num_steps=2, frames=2, height=64, width=96)
PROMPT = "a <tom> cat and a <rex> dog on the beach"
LEFT, RIGHT, ALL = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def backbone(tiny_zeroscope: Path) -> Backbone:
    return load_backbone(tiny_zeroscope, device="cpu")


@pytest.fixture(scope="module")
def adapter(backbone: Backbone) -> Iterator[Adapter]:
    yield quick_method().trainable(backbone, make_cast())


@pytest.mark.parametrize(
    ("text", "word", "left"),
    [
        ("a <tom> cat and a <rex> dog on the beach", TOM, "a <rex> <rex>_1 dog on the beach"),
        ("a <tom> cat and a <rex> dog on the beach", REX, "a <tom> cat on the beach"),
        ("a <tom> cat, a <rex> dog and a <bo> bear", REX, "a <tom> cat and a <bo> bear"),
        ("a <tom> cat, a <rex> dog and a <bo> bear", TEDDY, "a <tom> cat, a <rex> <rex>_1 dog"),
        ("the <tom> and the cat", TOM, "the cat"),
        ("a <tom> cat", TOM, ""),
        ("a cat", TOM, "a cat"),
    ],
)
def test_a_phrase_is_taken_out_of_a_prompt(text: str, word: LearnedWord, left: str) -> None:
    assert without_phrase(Prompt(text, (TOM, REX, TEDDY)).encoded, word) == left


@pytest.mark.parametrize(
    ("layout", "told"),
    [
        ({"tim": ALL}, "did you mean 'tom'"),
        ({"tom": (0.5, 0.0, 0.5, 1.0)}, "must lie before"),
        ({"tom": (0.0, 0.0, 1.5, 1.0)}, "between 0 and 1"),
        ({"tom": (float("nan"), 0.0, 1.0, 1.0)}, "between 0 and 1"),
    ],
)
def test_boxes_that_cannot_be_used(layout: dict[str, tuple[float, ...]], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_layout(layout, (TOM, REX))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="give the adapter"):
        check_layout({"tom": ALL}, ())


def test_attention_ends_at_the_box(backbone: Backbone, adapter: Adapter) -> None:
    _, maps = generate_with_attention(
        backbone, adapter, PROMPT, options=SHORT, layout={"tom": LEFT, "rex": RIGHT}
    )
    half = maps["<tom>"].shape[-1] // 2
    assert maps["<tom>"][..., :half].min() > 0 and not maps["<tom>"][..., half:].any()
    assert maps["<rex>"][..., half:].min() > 0 and not maps["<rex>"][..., :half].any()


def test_a_box_around_everything_changes_nothing(backbone: Backbone, adapter: Adapter) -> None:
    plain = generate(backbone, adapter, PROMPT, options=SHORT)
    boxed = generate(backbone, adapter, PROMPT, options=SHORT, layout={"tom": ALL, "rex": ALL})
    unmentioned = generate(backbone, adapter, "a <rex> dog", options=SHORT, layout={"tom": LEFT})
    assert np.array_equal(plain.frames, boxed.frames)
    assert np.array_equal(
        unmentioned.frames, generate(backbone, adapter, "a <rex> dog", options=SHORT).frames
    )


def test_boxes_decide_what_is_seen_and_batches_do_not(backbone: Backbone, adapter: Adapter) -> None:
    layout = {"tom": LEFT, "rex": RIGHT}
    plain = generate(backbone, adapter, PROMPT, options=SHORT)
    boxed = generate(backbone, adapter, PROMPT, options=SHORT, layout=layout)
    swapped = generate(backbone, adapter, PROMPT, options=SHORT, layout={"tom": RIGHT, "rex": LEFT})
    assert not np.array_equal(plain.frames, boxed.frames)
    assert not np.array_equal(boxed.frames, swapped.frames)
    together = generate(
        backbone, adapter, [PROMPT, "a <rex> dog"], seed=[0, 1], options=SHORT, layout=layout
    )
    difference = np.abs(together[0].frames.astype(int) - boxed.frames.astype(int))
    assert difference.max() <= 1, "rounding alone"
