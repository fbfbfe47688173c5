"""Clips in a run: rows of their own, masks that move, and the same trajectory however often it
stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from customvideo.adapters.adapter import Adapter
from customvideo.attention.losses import latent_masks
from customvideo.backbones.base import Backbone
from customvideo.backbones.wan import load as load_wan
from customvideo.errors import AttentionError, BackboneError, ConfigError
from customvideo.methods.custom_diffusion import CustomDiffusion
from customvideo.methods.customvideo import CustomVideo
from customvideo.subjects.subject import Subject
from customvideo.training.batch import Batches, ScenePool, WordFinder, Workshop
from customvideo.training.clips import clip_pool, clip_shape
from customvideo.training.prior import PriorPool
from customvideo.training.progress import StepReport
from customvideo.training.trainer import Trainer
from tests.cast import CANVAS, make_cast, quick_method, short_run
from tests.subjects.films import with_clip
from tests.tiny_wan import build_tiny_wan
from tests.training.test_batch import make_prior, same


@pytest.fixture(scope="module")
def cast() -> list[Subject]:
    """Tom, of whom there is a clip, and Rex, of whom there is none."""
    tom, rex = make_cast()
    return [with_clip(tom), rex]


@pytest.fixture
def adapter(backbone: Backbone, cast: list[Subject]) -> Any:
    adapter = quick_method().trainable(backbone, cast)
    with adapter.attach(backbone):
        yield adapter


def make(
    backbone: Backbone,
    cast: list[Subject],
    adapter: Adapter,
    prior: PriorPool | None = None,
    **changes: Any,
) -> Batches:
    config = short_run(**({"clip_frames": 3} | changes))
    workshop = Workshop(backbone, quick_method(), cast, CANVAS, seed=0)
    pool = ScenePool(workshop, config.pool)
    return Batches(pool, WordFinder(backbone, adapter), prior, config, clip_pool(workshop, config))


def test_clips_have_passes_of_their_own_and_all_shares_make_one(
    backbone: Backbone, cast: list[Subject], adapter: Adapter
) -> None:
    batches = make(backbone, cast, adapter, make_prior(), batch_size=4, clip_share=0.5)
    moving = still = 0
    for step in range(1, 9):
        passes = batches.passes(step, 0)
        rows = [one for one in passes if not one.batch.prior.all()]
        assert sum(one.share for one in rows) == pytest.approx(1)
        assert sum(one.share for one in passes if one.batch.prior.any()) == pytest.approx(1)
        for one in rows:
            count = int((~one.batch.prior).sum())
            assert one.share == count / 4
            if one.batch.moving:
                assert one.batch.latents.shape == (1, 4, 3, 8, 12)
                assert one.batch.masks.shape == (1, 2, 3, 8, 12)
                moving += count
            else:
                assert one.batch.masks.shape[1:] == (2, 8, 12)
                still += count
    assert moving + still == 32
    assert 8 < moving < 24


def test_a_clip_s_masks_move(backbone: Backbone, cast: list[Subject], adapter: Adapter) -> None:
    batches = make(backbone, cast, adapter, clip_share=1.0, pool=8)
    seen = [one.batch.masks[0, 0] for step in range(4) for one in batches.passes(step + 1, 0)]
    assert all(mask.amax(dim=(1, 2)).gt(0.3).all() for mask in seen)
    assert max(float((mask[0] - mask[-1]).abs().max()) for mask in seen) > 0.5


def test_accumulated_rows_are_those_of_one_large_batch(
    backbone: Backbone, cast: list[Subject], adapter: Adapter
) -> None:
    whole = make(backbone, cast, adapter, batch_size=4, clip_share=0.5)
    parts = make(backbone, cast, adapter, batch_size=1, accumulation=4, clip_share=0.5)
    for step in (1, 2, 3):
        one = [p for p in whole.passes(step, 0) if p.batch.moving]
        other = [p for micro in range(4) for p in parts.passes(step, micro) if p.batch.moving]
        assert [p.share for p in one] == [p.share for p in other]
        assert all(same(p.batch, q.batch) for p, q in zip(one, other, strict=True))


def test_without_clips_nothing_is_different(
    backbone: Backbone, cast: list[Subject], adapter: Adapter
) -> None:
    plain = make(backbone, make_cast(), adapter)
    none = make(backbone, cast, adapter, clip_share=0.0)
    for batches in (plain, none):
        (only,) = batches.passes(1, 0)
        assert not only.batch.moving
        assert only.share == 1
    workshop = Workshop(backbone, CustomDiffusion(), cast, CANVAS, seed=0)
    assert clip_pool(workshop, short_run()) is None


def test_a_run_with_clips_resumes_bit_for_bit(
    backbone: Backbone, cast: list[Subject], tmp_path: Path, quiet: Console
) -> None:
    class Killed(BaseException):
        pass

    def stop(report: StepReport) -> None:
        if report.step == 3:
            raise Killed

    def run(folder: str, **options: Any) -> bytes:
        config = short_run(steps=5, clip_share=0.5, clip_frames=3)
        resume = options.pop("resume", False)
        trainer = Trainer(config, tmp_path / folder, console=quiet, **options)
        method = quick_method(masked_weight=2.0, single_frame="skip")
        adapter = trainer.fit(backbone, method, cast, resume=resume)
        adapter.save(tmp_path / f"{folder}.safetensors")
        return (tmp_path / f"{folder}.safetensors").read_bytes()

    whole = run("whole")
    with pytest.raises(Killed):
        run("broken", on_step=stop)
    assert run("broken", resume=True) == whole
    lines = (tmp_path / "whole/losses.jsonl").read_text().splitlines()
    assert len(lines) == 5
    # What has been trained on clips may not go on without them.
    config = short_run(steps=6, clip_share=0.0, clip_frames=3)
    with pytest.raises(ConfigError, match=r"clip_share was 0.5 and is 0.0"):
        Trainer(config, tmp_path / "whole", console=quiet).fit(
            backbone, quick_method(masked_weight=2.0, single_frame="skip"), cast, resume=True
        )


def test_clips_are_as_long_as_the_model_s_and_no_longer_than_the_subjects(
    backbone: Backbone, cast: list[Subject], tmp_path: Path
) -> None:
    assert clip_shape(backbone, cast, CANVAS).frames == min(backbone.frames, 10)
    assert clip_shape(backbone, [with_clip(cast[0], 3)], CANVAS).frames == 3
    wan = load_wan(build_tiny_wan(tmp_path / "wan"), device="cpu")
    assert clip_shape(wan, [with_clip(cast[0], 11, wan.fps)], CANVAS).frames == 9
    assert clip_shape(wan, [with_clip(cast[0], 3, wan.fps)], CANVAS).frames == 5
    with pytest.raises(BackboneError, match="choose 5"):
        clip_shape(wan, cast, CANVAS, 6)


def test_on_a_model_that_joins_frames_masks_are_joined_alike(
    cast: list[Subject], tmp_path: Path, quiet: Console
) -> None:
    wan = load_wan(build_tiny_wan(tmp_path / "wan"), device="cpu")
    reports: list[StepReport] = []
    config = short_run(steps=2, clip_share=1.0, clip_frames=9, learning_rate=1e-2)
    trainer = Trainer(config, console=quiet, on_step=reports.append)
    trainer.fit(wan, quick_method(attention_loss="mse_maxnorm"), cast)
    assert all(report.parts["attention"] > 0 for report in reports)
    pool = clip_pool(Workshop(wan, CustomVideo(), cast, CANVAS, seed=0), config)
    assert pool is not None
    scene = pool.pick(np.random.default_rng(0), 1, 0)
    assert scene.latents.shape[1] == scene.masks.shape[1] == 3


def test_the_first_frame_s_mask_stays_alone_and_the_others_are_averaged() -> None:
    masks = torch.arange(9.0).reshape(1, 9, 1, 1).expand(2, 9, 3, 4)
    small = latent_masks(masks, 3)
    assert small.shape == (2, 3, 3, 4)
    assert small[0, :, 0, 0].tolist() == [0, 2.5, 6.5]
    assert latent_masks(masks, 9) is masks
    with pytest.raises(AttentionError, match="9 frames became 4 latent ones"):
        latent_masks(masks, 4)
