"""Custom Diffusion's scale augmentation, and the cells on which errors count."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from customvideo.methods.base import Batch, Example
from customvideo.methods.scaling import FAR, NEAR, scaled, valid_cells
from customvideo.methods.separate import learned_words
from customvideo.subjects.prompt import Prompt
from tests.cast import CANVAS, make_cast

HEIGHT, WIDTH = CANVAS


@pytest.fixture
def example() -> Example:
    """A white photo whose subject is its left half."""
    masks = np.zeros((2, *CANVAS), np.float32)
    masks[0, :, : WIDTH // 2] = 1
    prompt = Prompt("photo of a <tom> cat", learned_words(make_cast()))
    return Example(np.full((1, *CANVAS, 3), 255, np.uint8), masks, prompt)


def draws(example: Example, count: int = 60, **words: Any) -> list[Example]:
    return [scaled(example, np.random.default_rng(seed), **words) for seed in range(count)]


def prefix(example: Example) -> str:
    return example.prompt.text.removesuffix("photo of a <tom> cat").strip()


def test_a_shrunk_photo_lies_on_a_blank_canvas(example: Example) -> None:
    corners = set()
    for drawn in draws(example):
        valid = drawn.extra["valid"]
        rows, columns = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
        # The valid region is one upright box with the canvas' proportions.
        assert valid.sum() == len(rows) * len(columns) and set(np.unique(valid)) <= {0, 1}
        assert len(rows) / HEIGHT == pytest.approx(len(columns) / WIDTH, abs=0.02)
        assert 1 / 3 - 0.01 <= len(rows) / HEIGHT <= 1
        assert (drawn.frames[0, valid == 1] == 255).all()
        assert (drawn.frames[0, valid == 0] == 128).all()
        assert not drawn.masks[1].any() and not drawn.masks[0, valid == 0].any()
        if valid.mean() < 1:
            assert drawn.masks[0].sum() == pytest.approx(valid.sum() / 2, rel=0.05)
            corners.add((rows[0], columns[0]))
    assert len(corners) > 10


def test_how_often_and_how_far(example: Example) -> None:
    drawn = draws(example, 400)
    scales = {one: np.sqrt(one.extra["valid"].mean()) for one in drawn}
    words = {one: prefix(one) for one in drawn}
    assert all((words[one] in FAR) == (scales[one] < 0.6) for one in drawn)
    assert set(words.values()) == {*FAR, *NEAR, ""}
    near = sum(word in NEAR for word in words.values()) / len(drawn)
    far = sum(word in FAR for word in words.values()) / len(drawn)
    assert near == pytest.approx(1 / 3, abs=0.07)
    assert far == pytest.approx(2 / 3 * (0.6 - 1 / 3) / (2 / 3), abs=0.07)


def test_an_enlarged_photo_is_cropped(example: Example) -> None:
    """The subject's edge, in the middle, moves by up to half of what is cut off."""
    edges = []
    for drawn in draws(example):
        if prefix(drawn) in NEAR:
            assert drawn.extra["valid"].all()
            edges.append(drawn.masks[0].sum() / HEIGHT)
    assert 0.5 * WIDTH * (1 - 0.4) - 2 < min(edges) < max(edges) < 0.5 * WIDTH * (1 + 0.4) + 2
    assert max(edges) - min(edges) > 0.1 * WIDTH


def test_the_same_draw_is_the_same_and_prefixes_may_be_left_out(example: Example) -> None:
    for one, other in zip(draws(example, 9), draws(example, 9), strict=True):
        assert np.array_equal(one.frames, other.frames) and one.prompt == other.prompt
    assert {prefix(one) for one in draws(example, 30, far=(), near=["huge"])} == {"", "huge"}
    assert all(one.prompt.words == example.prompt.words for one in draws(example, 3))


def batch_of(valid: torch.Tensor, prior: bool = False) -> Batch:
    rows = len(valid)
    latents, masks = torch.zeros(rows, 4, 1, 8, 12), torch.zeros(rows, 1, 8, 12)
    words, present = torch.zeros(rows, 1, 5), torch.ones(rows, 1, dtype=torch.bool)
    times, kinds = torch.zeros(rows, dtype=torch.long), torch.full((rows,), prior)
    extra = {"valid": valid}
    return Batch(latents, latents, times, ("",) * rows, words, masks, present, kinds, extra)


def test_errors_count_a_cell_away_from_the_blank() -> None:
    valid = torch.zeros(2, *CANVAS)
    # Rows 1 to 6 and columns 2 to 8, the outer ones in part; and three sides at the canvas' edge.
    valid[0, 12:52, 20:68] = 1
    valid[1, :40, :] = 1
    cells = valid_cells(batch_of(valid))
    wanted = torch.zeros(2, 8, 12)
    wanted[0, 3:5, 4:7] = 1
    wanted[1, :4] = 1
    assert torch.equal(cells, wanted)


def test_a_photo_too_small_for_that_counts_where_it_covers() -> None:
    valid = torch.zeros(1, *CANVAS)
    valid[0, 5:26, 30:62] = 1
    (cells,) = valid_cells(batch_of(valid))
    assert cells.nonzero().tolist() == [[row, column] for row in (1, 2) for column in (4, 5, 6)]


def test_all_of_a_prior_row_and_of_a_photo_as_it_was_counts() -> None:
    assert valid_cells(batch_of(torch.zeros(1, *CANVAS), prior=True)).all()
    assert valid_cells(replace(batch_of(torch.zeros(1, *CANVAS)), extra={})).all()
