"""The toybox's animator: borrowed parts answer as their owners do, and training fits sampling."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder
from torch import Tensor
from transformers import CLIPModel, CLIPVisionModelWithProjection

from customvideo.backbones.animators import Animation, check_animator
from customvideo.errors import ConfigError
from customvideo.toybox import animator, models
from customvideo.toybox.recipe.animator import AnimatorStage, motion_buckets
from customvideo.toybox.render import render
from customvideo.toybox.world import sample_world

WEIGHTS = animator.WEIGHTS


@pytest.fixture(scope="module")
def vae() -> Any:
    return AutoencoderKL.from_pretrained(WEIGHTS / "model" / "vae").eval()


@pytest.fixture(scope="module")
def clip() -> Any:
    return CLIPModel.from_pretrained(WEIGHTS / "clip", dtype=torch.float32).eval()


@torch.no_grad()
def test_the_autoencoder_is_the_toybox_s_own_frame_by_frame(vae: Any) -> None:
    same = animator.by_frames(vae)
    assert isinstance(same, AutoencoderKLTemporalDecoder)
    assert same.config.scaling_factor == vae.config.scaling_factor
    pictures = torch.rand(3, 3, 64, 96) * 2 - 1
    latents = vae.encode(pictures).latent_dist.mode()
    assert torch.equal(same.encode(pictures).latent_dist.mode(), latents)
    assert torch.equal(same.decode(latents, num_frames=3).sample, vae.decode(latents).sample)


@torch.no_grad()
def test_the_tower_reads_224_pixels_as_the_judge_reads_64(clip: Any) -> None:
    tower = animator.wide_tower(clip)
    assert isinstance(tower, CLIPVisionModelWithProjection)
    large = torch.rand(2, 3, 224, 224) * 2 - 1
    # A pixel of the small picture is the mean of 3.5 of the large one, or of 7 half ones.
    small = F.avg_pool2d(large.repeat_interleave(2, -1).repeat_interleave(2, -2), 7)
    wanted = clip.visual_projection(clip.vision_model(small).pooler_output)
    torch.testing.assert_close(tower(large).image_embeds, wanted, atol=1e-4, rtol=1e-4)


def stage(network: Any, vae: Any, clip: Any, clips: int = 4) -> AnimatorStage:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (clips, 1, 64, 96, 3), generator=generator, dtype=torch.uint8)
    shelf: Any = SimpleNamespace(
        shelf=SimpleNamespace(frames=frames),
        latents=torch.randn(clips, 8, 16, 8, 12, generator=generator),
        coverage=torch.zeros(clips, 8, 4, 8, 12, dtype=torch.uint8),
    )
    return AnimatorStage((network, vae), animator.wide_tower(clip), [shelf], seed=1)


class Recorder(torch.nn.Module):
    """Stands for the network, and answers nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.asked: dict[str, Tensor] = {}

    def forward(self, sample: Tensor, times: Tensor, **told: Tensor) -> Any:
        self.asked = {"sample": sample, "times": times, **told}
        return SimpleNamespace(sample=self.weight * sample[:, :, :16])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_what_is_learned_is_what_the_scheduler_asks_for(vae: Any, clip: Any) -> None:
    """With the network's target, one step of the stock scheduler finds the clean clip."""
    network = Recorder()
    training = stage(network, vae, clip)
    loss = training(0)["clips"]
    sigma = (4 * network.asked["times"]).exp()
    scheduler = models.build_animator_scheduler()
    scheduler.set_timesteps(2)
    (row,) = (sigma > 0.5).nonzero()[:1, 0].tolist()
    seen = network.asked["sample"][row, :, :16]
    size = (sigma[row] ** 2 + 1).sqrt()
    noised = seen * size
    # The clean clip whose noised version was seen is the one nearest to it.
    clean = min(training.latents, key=lambda one: float((noised - one).square().mean()))
    velocity = ((noised - clean) / sigma[row] - sigma[row] * clean) / size
    scheduler.sigmas = torch.stack([sigma[row], torch.zeros(())])
    scheduler._step_index = 0
    scheduler.is_scale_input_called = True
    found = scheduler.step(velocity, scheduler.timesteps[0], noised).prev_sample
    torch.testing.assert_close(found, clean, atol=1e-3, rtol=1e-3)
    # An answer of nothing leaves the target's own square, which is about 1.
    assert 0.8 < float(loss.detach()) < 1.2


def test_the_first_picture_is_told_as_the_pipeline_tells_it(vae: Any, clip: Any) -> None:
    network = Recorder()
    training = stage(network, vae, clip)
    dropped = 0
    for step in range(6):
        training(step)
        latents, seen = network.asked["sample"][:, :, 16:], network.asked["encoder_hidden_states"]
        ids = network.asked["added_time_ids"]
        assert torch.equal(latents, latents[:, :1].expand_as(latents)), "alike at every frame"
        assert (ids[:, 0] == 7).all() and (ids[:, 1] >= 0).all() and (ids[:, 1] <= 255).all()
        assert torch.equal(latents.flatten(1).any(1), seen.flatten(1).any(1)), "both or neither"
        dropped += int((~seen.flatten(1).any(1)).sum())
    assert 0 < dropped < 12


def test_motion_is_ranked_over_all_clips() -> None:
    still = torch.randn(1, 1, 2, 4, 4).expand(3, 8, -1, -1, -1).clone()
    still[0] += torch.arange(8.0)[:, None, None, None]
    still[2] += 0.1 * torch.arange(8.0)[:, None, None, None]
    assert motion_buckets(still).tolist() == [255.0, 0.0, 128.0]


def test_the_network_s_shape_is_small() -> None:
    assert models.parameter_count(models.build_animator()) < 2_700_000


def test_a_clip_begins_with_its_picture() -> None:
    """The shipped weights know whose clip they make."""
    worlds = [sample_world(np.random.default_rng(seed)) for seed in (5, 6)]
    true = np.concatenate(
        [
            render(world, frames=1, height=64, width=96, device="cpu").frames.numpy()
            for world in worlds
        ]
    )
    wanted = Animation(frames=8, size=(64, 96), steps=8)
    clips = animator.load("cpu").animate(true, [0, 1], wanted)
    assert [clip.shape for clip in clips] == [(8, 64, 96, 3)] * 2
    for own, clip in enumerate(clips):
        errors = [np.square(clip[0].astype(float) - picture).mean() for picture in true]
        assert errors[own] < 0.5 * errors[1 - own]


def test_missing_weights_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(animator, "WEIGHTS", tmp_path)
    with pytest.raises(ConfigError, match=r"animator are missing.*animator/unet"):
        animator.load("cpu")
    # Before training, too.
    with pytest.raises(ConfigError, match=r"animator are missing.*animator/unet"):
        check_animator("toybox")


def test_weights_without_their_config_are_not_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = tmp_path / "weights"
    for part in ("animator", "model/vae", "clip"):
        shutil.copytree(WEIGHTS / part, copy / part)
    monkeypatch.setattr(animator, "WEIGHTS", copy)
    check_animator("toybox")
    (copy / "clip" / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"animator are missing[^(]*\(clip\)"):
        check_animator("toybox")
