"""Phrases are found in captions, and what is read of them is pulled onto their subjects."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from customvideo.attention.tape import watch
from customvideo.backbones.unet3d import attention_sites
from customvideo.backbones.unet3d_forward import Passage, forward, prepare
from customvideo.errors import AttentionError
from customvideo.toybox import models
from customvideo.toybox.captions import Mention, grounded_caption, vocabulary
from customvideo.toybox.recipe.dataset import Split
from customvideo.toybox.recipe.grounding import grounding_loss, phrase_tokens
from customvideo.toybox.recipe.segmenter import _subject_loss
from customvideo.toybox.world import sample_world


def test_every_mention_holds_its_subjects_noun() -> None:
    rng = np.random.default_rng(3)
    both = 0
    for _ in range(400):
        world = sample_world(rng)
        text, mentions = grounded_caption(world, rng)
        assert text.isascii()
        assert sorted(k for m in mentions for k in m.subjects) == list(
            range(len(world.individuals))
        )
        for mention in mentions:
            phrase = text[mention.start : mention.stop]
            assert phrase.split()[0] in ("a", "an", "two", "three", "four")
            for subject in mention.subjects:
                assert world.individuals[subject].category in phrase
            both += len(mention.subjects) > 1
    assert both > 0


def test_tokens_of_a_phrase_are_marked_for_its_subject_alone() -> None:
    tokenizer = models.build_tokenizer(vocabulary())
    text = "a red cat and two dogs on the beach"
    mentions = [Mention((1,), 0, 9), Mention((0, 2), 14, 22)]
    told = phrase_tokens(tokenizer, [text, ""], [mentions, []])
    assert told.shape == (2, 4, models.MAX_LENGTH)
    assert told[0, 1].nonzero().flatten().tolist() == [1, 2, 3]
    assert told.sum() == 3


def _loss(probabilities: torch.Tensor, told: torch.Tensor, cover: torch.Tensor) -> torch.Tensor:
    """Of one site at the grid of `cover`, given (row, frame * position, token)."""
    rows, frames, subjects, height, width = cover.shape
    maps = (told @ probabilities.transpose(1, 2)).view(rows, subjects, frames, height, width)
    return grounding_loss({"site": maps}, cover)


def test_reading_each_phrase_at_its_own_subject_costs_nothing() -> None:
    cover = torch.zeros(1, 1, 4, 2, 2)
    cover[0, 0, 0, :, 0] = 1
    cover[0, 0, 1, :, 1] = 1
    told = torch.zeros(1, 4, 6)
    told[0, 0, 1:3] = 1
    told[0, 1, 4] = 1
    right = torch.zeros(1, 4, 6)
    right[0, [0, 2], 1] = 1
    right[0, [1, 3], 4] = 1
    assert _loss(right, told, cover).item() == pytest.approx(0, abs=1e-5)
    # Both read everywhere alike: half of each outside, (1/2)^2, and one bit of doubt.
    even = torch.full((1, 4, 6), 0.25)
    told[0, 0, 2] = 0
    assert _loss(even, told, cover).item() == pytest.approx(0.25 + np.log(2), abs=1e-4)
    swapped = right[:, [1, 0, 3, 2]]
    assert _loss(swapped, told, cover) > 10


def test_frames_are_folded_before_positions() -> None:
    cover = torch.zeros(1, 2, 4, 1, 2)
    cover[0, 0, 0, 0, 0] = cover[0, 1, 0, 0, 1] = 1
    told = torch.zeros(1, 4, 3)
    told[0, 0, 1] = 1
    read = torch.zeros(1, 4, 3)
    read[0, [0, 3], 1] = 1
    assert _loss(read, told, cover).item() == pytest.approx(0, abs=1e-5)
    assert _loss(read[:, [1, 0, 3, 2]], told, cover).item() == pytest.approx(1, abs=1e-4)


def test_watching_changes_no_prediction_and_reaches_keys_and_queries() -> None:
    torch.manual_seed(0)
    denoiser = models.build_denoiser()
    sites = attention_sites(denoiser, 1, 8, 12)
    prepare(denoiser, [site.path for site in sites])
    noisy, states = torch.randn(2, 16, 1, 8, 12), torch.randn(2, 6, models.TEXT_WIDTH)
    times = torch.tensor([500, 100])
    passage = Passage(states, 1, temporal=False)
    before = forward(denoiser, noisy, times, passage)
    told, cover = torch.zeros(2, 4, 6), torch.rand(2, 1, 4, 8, 12)
    told[:, 0, 1] = told[:, 1, 3] = 1
    with watch(denoiser, sites, told) as tape:
        assert torch.allclose(forward(denoiser, noisy, times, passage), before, atol=1e-5)
    grounding_loss(tape.maps(), cover).backward()
    attention = denoiser.get_submodule(sites[-1].path)
    assert attention.to_q.weight.grad.abs().sum() > 0  # type: ignore[union-attr, operator]
    assert attention.to_k.weight.grad.abs().sum() > 0  # type: ignore[union-attr, operator]
    tape.clear()
    with pytest.raises(AttentionError, match="recorded nothing"):
        tape.maps()


def test_in_moves_everybody_begins_at_the_beginning() -> None:
    split = Split("moves", 60, 8, kind="moves")
    worlds = [split.world(2, index) for index in range(60)]
    assert {phase for world in worlds for phase in world.phases} == {0.5}
    lone = sum(len(world.individuals) == 1 for world in worlds)
    assert 36 <= lone < 60


def test_every_subject_counts_once_however_large() -> None:
    labels = torch.ones(1, 4, 4, dtype=torch.long)
    labels[0, 0, 0] = 2
    kinds = torch.tensor([[0, 3, 5, 0, 0]])
    logits = torch.zeros(1, 14, 4, 4)
    logits[0, 3] = 20.0
    # The large one is named right, the one of a single pixel is not: half of -log of a millionth.
    assert _subject_loss(logits, labels, kinds).item() == pytest.approx(-np.log(1e-6) / 2, rel=1e-3)
    logits[0, :, 0, 0] = 0
    logits[0, 5, 0, 0] = 20.0
    assert _subject_loss(logits, labels, kinds).item() == pytest.approx(0, abs=1e-4)
