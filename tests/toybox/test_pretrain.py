"""The whole recipe at its smallest: a dozen worlds, one step a stage, a folder that loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from customvideo.backbones.unet3d import load_folder, text_sites
from customvideo.backbones.unet3d_forward import Passage, forward, prepare
from customvideo.toybox import models
from customvideo.toybox.customstudio import held_out, studio
from customvideo.toybox.judges import ToyActions, ToyClip, ToyDino, ToySegmenter
from customvideo.toybox.recipe.autoencoder import PatchCode, start_from_patches
from customvideo.toybox.recipe.clip import confused, swap_colours
from customvideo.toybox.recipe.dataset import Shelf, Split, load_split, render_split
from customvideo.toybox.recipe.denoiser import Diet, silence_time
from customvideo.toybox.recipe.dino import padded_box
from customvideo.toybox.recipe.draw import Draw, unit
from customvideo.toybox.recipe.pretrain import PretrainConfig, Pretraining
from customvideo.toybox.recipe.segmenter import centres
from customvideo.toybox.world import ACTIONS

TINY = PretrainConfig(
    lone=6,
    pictures=18,
    clips=2,
    acts=2,
    moves=2,
    views=12,
    autoencoder_steps=1,
    clip_steps=1,
    dino_steps=1,
    actions_steps=1,
    segmenter_steps=1,
    denoiser_steps=2,
    motion_steps=2,
    animator_steps=1,
    prior_pictures=1,
    prior_clips=1,
    prior_steps=1,
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("pretrain")
    pretraining = Pretraining(TINY, work, "cpu", lambda line: None)
    pretraining.run()
    # What is timed and drawn for the log comes every 50 steps; a tiny run has none.
    (work / "log.jsonl").touch()
    return work


def test_the_recipe_leaves_a_folder_that_loads(work: Path, tmp_path: Path) -> None:
    config = TINY
    pretraining = Pretraining(config, work, "cpu", lambda line: None)
    weights = tmp_path / "weights"
    pretraining.export(weights)
    backbone = load_folder(weights / "model", device="cpu")
    assert backbone.encode_prompt(["a cat"]).states.dtype == torch.float32
    pictures = np.zeros((2, 64, 96, 3), np.uint8)
    assert ToyClip(model=weights / "clip").encode_images(pictures).shape == (2, 128)
    assert ToyDino(model=weights / "dino").encode_images(pictures).shape == (2, 128)
    assert len(ToySegmenter(model=weights / "segmenter").find(pictures)) == 2
    clip, masks = np.zeros((8, 64, 96, 3), np.uint8), np.ones((8, 64, 96), bool)
    assert ToyActions(model=weights / "actions").name(clip, masks) in ACTIONS
    assert (weights / "animator" / "unet" / "config.json").is_file()
    assert (weights / "animator" / "scheduler" / "scheduler_config.json").is_file()
    assert not (tmp_path / "weights.new").exists()


def test_rendering_goes_on_where_it_stopped(work: Path) -> None:
    shard = next((work / "data").glob("pictures-*"))
    before = shard.stat().st_mtime_ns
    render_split(TINY.splits()["pictures"], TINY.seed, work / "data", "cpu", lambda line: None)
    assert shard.stat().st_mtime_ns == before


def test_no_look_alike_of_the_benchmark_is_trained_on(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = TINY.splits()["pictures"]
    assert all(held_out(subject.individual) for subject in studio().subjects)
    seen = load_split(split, TINY.seed, work / "data").worlds
    assert not any(held_out(individual) for world in seen for individual in world.individuals)
    banned = seen[0].individuals[0]
    monkeypatch.setattr("customvideo.toybox.recipe.dataset.held_out", lambda one: one == banned)
    assert len(load_split(split, TINY.seed, work / "data").worlds) == len(seen) - 1


def test_views_come_in_pairs_of_one_individual() -> None:
    split = Split("views", 4, 1, kind="views")
    worlds = [split.world(1, index) for index in range(4)]
    assert worlds[0].individuals == worlds[1].individuals != worlds[2].individuals
    assert worlds[0].view != worlds[1].view


def test_mirrored_words_keep_their_place() -> None:
    text = "a red cat with a blue tail, and a red dog"
    swapped = swap_colours(text, np.random.default_rng(0))
    assert swapped != text
    assert sorted(swapped.split()) == sorted(text.split())
    assert swap_colours("a red cat", np.random.default_rng(0)) == "a red cat"


def test_a_caption_is_made_wrong_by_colours_or_by_a_noun() -> None:
    rng = np.random.default_rng(0)
    text = "a red cat with a blue tail, and two dogs"
    wrong = [confused(text, rng) for _ in range(60)]
    assert text not in wrong
    assert any(sorted(one.split()) == sorted(text.split()) for one in wrong)
    nouns = [one for one in wrong if sorted(one.split()) != sorted(text.split())]
    assert nouns and all(
        sum(old != new for old, new in zip(text.split(), one.split(), strict=True)) == 1
        for one in nouns
    )
    assert confused("on the beach", rng) == "on the beach"


def test_the_patch_code_is_loud_in_coarse_channels(work: Path) -> None:
    shelf: Shelf = load_split(TINY.splits()["pictures"], TINY.seed, work / "data")
    code = PatchCode(shelf.frames[:, 0])
    deviations = code(unit(shelf.frames[:, 0])).std((0, 2, 3))
    assert deviations[0] > 2 * deviations[-1]


def test_draws_depend_on_nothing_but_their_numbers() -> None:
    one, other = Draw(1, 2, 3), Draw(1, 2, 3)
    assert one.indices(100, 5) == other.indices(100, 5)
    assert torch.equal(one.normal(torch.zeros(4)), other.normal(torch.zeros(4)))
    assert Draw(1, 2, 4).indices(100, 5) != Draw(1, 2, 3).indices(100, 5)


def test_a_padded_box_stays_inside() -> None:
    inside = torch.zeros(10, 20)
    inside[2:5, 0:6] = 1
    assert padded_box(inside, 0.0) == (2, 5, 0, 6)
    assert padded_box(inside, 1.0) == (1, 6, 0, 9)


def test_the_encoder_starts_as_the_patch_code(work: Path) -> None:
    frames = load_split(TINY.splits()["pictures"], TINY.seed, work / "data").frames[:, 0]
    vae, code = models.build_autoencoder(), PatchCode(frames)
    start_from_patches(vae, code)
    pictures = unit(frames)
    with torch.no_grad():
        difference = (vae.encode(pictures).latent_dist.mean - code(pictures)).abs().max()
    assert difference < 0.02 * code(pictures).abs().max()


def test_centres_pull_each_cell_to_its_own_subject() -> None:
    labels = torch.zeros(1, 8, 12, dtype=torch.long)
    labels[0, 2:5, 1:4] = 1
    labels[0, 5:8, 8:11] = 2
    heat, offsets, inside = centres(labels)
    assert heat[0, 3, 2] == heat[0, 6, 9] == heat.max() == 1
    assert inside.sum() == 18
    assert offsets[0, :, 2, 1].tolist() == [1, 1] and offsets[0, :, 7, 10].tolist() == [-1, -1]
    assert offsets[0, :, 0, 0].tolist() == [0, 0]


def test_pictures_come_before_clips_and_lone_subjects_first() -> None:
    diet = Diet()
    assert diet.clip_share == 0
    assert diet.lone_at(0.0) > diet.lone_at(0.3) > diet.lone_at(1.0) > 0


def test_time_is_silent_before_clips_are_learned() -> None:
    torch.manual_seed(0)
    denoiser = models.build_denoiser().eval()
    silence_time(denoiser)
    prepare(denoiser, text_sites(denoiser))
    latents, states = torch.randn(1, 16, 3, 8, 12), torch.randn(1, 48, 128)
    times = torch.tensor([500])
    with torch.no_grad():
        moving = forward(denoiser, latents, times, Passage(states, 3))
        alone = forward(denoiser, latents[:, :, 1:2], times, Passage(states, 1, temporal=False))
    assert torch.allclose(moving[:, :, 1:2], alone, atol=1e-4)
