"""Training on the Wan family: one network, and two that take turns; then videos and maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from customvideo.adapters.adapter import Adapter
from customvideo.attention.site import AttentionSite, intermediate
from customvideo.attention.tape import Tape
from customvideo.backbones.base import Backbone
from customvideo.backbones.noise import Flow, FlowRelay, Relay, reached
from customvideo.backbones.wan import Wan, load
from customvideo.errors import ConfigError
from customvideo.generation import SamplingConfig, generate, generate_with_attention
from customvideo.methods.base import Batch
from customvideo.methods.customvideo import CustomVideo
from customvideo.training.batch import Batches, Pass, ScenePool, WordFinder, Workshop
from customvideo.training.prior import PriorPool
from customvideo.training.progress import StepReport, read_losses
from customvideo.training.trainer import Trainer
from tests.cast import CANVAS, make_cast, quick_method, short_run
from tests.tiny_wan import build_tiny_wan, build_tiny_wan_every_token, build_tiny_wan_experts

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "2.1": build_tiny_wan,
    "every-token": build_tiny_wan_every_token,
    "experts": build_tiny_wan_experts,
}
PROMPT = "a <tom> cat and a <rex> dog"
QUICK = SamplingConfig(num_steps=3, guidance=5.0, frames=5, height=64, width=96, solver="native")
CONFIG = {"flow_shift": 3.0}


@pytest.fixture(scope="module", params=BUILDERS)
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Wan:
    return load(BUILDERS[request.param](tmp_path_factory.mktemp("wan") / "tiny"), device="cpu")


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Wan:
    return load(build_tiny_wan_experts(tmp_path_factory.mktemp("wan") / "tiny"), device="cpu")


def chosen(backbone: Wan) -> dict[str, Any]:
    """Settings of a short run; the smallest grid wants a larger canvas."""
    canvas = (128, 192) if backbone.latent_shape(1, 64, 96)[1:] == (1, 4, 6) else CANVAS
    return {"canvas": canvas, "held_out": 3, "learning_rate": 2e-2, "word_learning_rate": 2e-1}


def test_a_run_is_saved_loaded_and_shown(backbone: Wan, tmp_path: Path) -> None:
    cast, reports = make_cast(), list[StepReport]()
    method = quick_method(
        attention_loss="mse_maxnorm",
        attention_weight=1.0,
        prior_weight=0.5,
        prior_samples=1,
        prior_sampling_steps=2,
        prior_rows=1,
    )
    weights = {name: value.clone() for name, value in backbone.denoiser.state_dict().items()}
    before = dict(method.trainable(backbone, cast).state_dict())
    config = short_run(
        **chosen(backbone),
        steps=12,
        checkpoint_every=6,
        gradient_checkpointing=True,
        prior_cache=str(tmp_path / "prior"),
    )
    trainer = Trainer(config, tmp_path, on_step=reports.append, console=Console(quiet=True))
    adapter = trainer.fit(backbone, method, cast)
    assert [set(one.parts) for one in reports] == [{"reconstruction", "prior", "attention"}] * 12
    attention = [one.parts["attention"] for one in reports]
    assert sum(attention[-4:]) < 0.9 * sum(attention[:4])
    after = adapter.state_dict()
    assert all(not torch.equal(after[name], value) for name, value in before.items())
    now = backbone.denoiser.state_dict()
    assert all(torch.equal(now[name], value) for name, value in weights.items())

    adapter.save(tmp_path / "adapter.safetensors")
    again = Adapter.load(tmp_path / "adapter.safetensors")
    video, maps = generate_with_attention(backbone, again, PROMPT, seed=3, options=QUICK)
    assert video.frames.shape == (5, 64, 96, 3)
    same = generate(backbone, adapter, PROMPT, seed=3, options=QUICK)
    assert np.array_equal(video.frames, same.frames)
    plain = generate(backbone, None, "a cat and a dog", seed=3, options=QUICK)
    assert not np.array_equal(video.frames, plain.frames)
    grid = backbone.sites(5, 64, 96)[0].grid
    assert list(maps) == ["<tom>", "<rex>"]
    for found in maps.values():
        assert found.shape == grid and found.min() > 0 and found.max() < 1 and found.std() > 0
    assert not np.allclose(maps["<tom>"], maps["<rex>"], atol=1e-6)


def test_a_run_of_experts_resumes_bit_for_bit(experts: Wan, tmp_path: Path) -> None:
    """Also where one of them had no step yet."""

    class Killed(BaseException):
        pass

    def kill(report: StepReport) -> None:
        if report.step == 3:
            raise Killed

    config, cast = short_run(**chosen(experts), steps=5, checkpoint_every=1), make_cast()
    quiet = Console(quiet=True)
    whole = Trainer(config, tmp_path / "whole", console=quiet).fit(experts, quick_method(), cast)
    with pytest.raises(Killed):
        broken = Trainer(config, tmp_path / "broken", on_step=kill, console=quiet)
        broken.fit(experts, quick_method(), cast)
    resumed = Trainer(config, tmp_path / "broken", console=quiet)
    again = resumed.fit(experts, quick_method(), cast, resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    losses = [
        [(line["step"], line["parts"]) for line in read_losses(tmp_path / run / "losses.jsonl")]
        for run in ("whole", "broken")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 5


def make(backbone: Backbone, adapter: Adapter, **changes: Any) -> Batches:
    """Batches with class prior; `adapter` must be attached."""
    cast, method = make_cast(), quick_method(prior_weight=1.0, prior_clips_every=2)
    plan = method.prior(backbone, cast)
    assert plan is not None
    drawn = torch.Generator().manual_seed(0)
    shape = backbone.latent_shape(1, *CANVAS)
    pictures = {name: torch.randn(2, *shape, generator=drawn) for name in plan.categories}
    prior = PriorPool(plan, pictures, pictures)
    pool = ScenePool(Workshop(backbone, method, cast, CANVAS, seed=0), 4)
    return Batches(pool, WordFinder(backbone, adapter), prior, short_run(**changes))


def test_every_step_trains_one_expert_and_every_two_steps_both(experts: Wan) -> None:
    adapter = quick_method().trainable(experts, make_cast())
    with adapter.attach(experts):
        batches, steps = make(experts, adapter, accumulation=2), range(2, 42)
        legs: list[int] = []
        for step in steps:
            passes = [*batches.passes(step, 0), *batches.passes(step, 1)]
            assert len(passes) == 2 + (step % 2 == 0)
            found = torch.cat([experts.noise.leg_of(one.batch.times) for one in passes])  # type: ignore[attr-defined]
            (leg,) = found.unique().tolist()
            legs.append(leg)
        times = batches.passes(7, 0)[0].batch.times
        assert torch.equal(times, make(experts, adapter).passes(7, 0)[0].batch.times)
    pairs = {tuple(legs[index : index + 2]) for index in range(0, len(legs), 2)}
    # In random order, so that nothing that happens every other step meets always the same one.
    assert pairs == {(0, 1), (1, 0)}


def test_held_out_scenes_are_scored_expert_by_expert(experts: Wan) -> None:
    adapter = quick_method().trainable(experts, make_cast())
    with adapter.attach(experts):
        parts: list[Pass] = make(experts, adapter, held_out=4).held_out()
    assert sorted((len(part.batch), part.share) for part in parts) == [(1, 0.25), (3, 0.75)]
    times = [part.batch.times for part in parts]
    assert {len(experts.noise.leg_of(one).unique()) for one in times} == {1}  # type: ignore[attr-defined]
    every = torch.cat(times).sort().values
    assert torch.equal(every, experts.noise.spread_times(4))


def test_an_expert_that_nothing_trains_is_reported(experts: Wan) -> None:
    class Lopsided(CustomVideo):
        """Forgets what the second network predicts."""

        def losses(self, backbone: Backbone, batch: Batch, tape: Tape | None) -> Any:
            losses = super().losses(backbone, batch, tape)
            if bool((batch.times >= 875).all()):
                return losses
            return {"words": backbone.encode_prompt(batch.texts).states.square().mean()}

        def watches(self, *_: Any) -> list[AttentionSite]:
            return []

    trainer = Trainer(short_run(steps=4), console=Console(quiet=True))
    with pytest.raises(ConfigError, match=r"No gradient reaches '_deltas\.transformer_2/"):
        trainer.fit(experts, Lopsided(quick_method().config), make_cast())


def test_maps_of_experts_are_the_mean_over_steps(experts: Wan) -> None:
    adapter = quick_method().trainable(experts, make_cast())
    seen: list[tuple[bool, dict[str, torch.Tensor]]] = []
    real = Tape.maps

    def spy(self: Tape, **options: Any) -> dict[str, torch.Tensor]:
        found = real(self, **options)
        seen.append(("transformer_2" in next(iter(found)), found))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tape, "maps", spy)
        _, maps = generate_with_attention(experts, adapter, PROMPT, options=QUICK)
    assert [late for late, _ in seen] == [False, True, True]
    assert all(list(found) == [f"transformer{late * '_2'}.blocks.1.attn2"] for late, found in seen)
    mean = torch.stack([next(iter(found.values()))[1] for _, found in seen]).mean(dim=0)
    np.testing.assert_allclose(np.stack(list(maps.values())), mean.numpy(), atol=1e-6)


def test_a_leg_is_drawn_as_the_whole_is() -> None:
    noise, rows = FlowRelay(CONFIG, 875.0), 40_000
    assert isinstance(noise, Relay) and not isinstance(Flow(CONFIG), Relay)
    whole = noise.draw_times(rows, torch.Generator().manual_seed(0))
    assert torch.equal(whole, Flow(CONFIG).draw_times(rows, torch.Generator().manual_seed(0)))
    for leg in (0, 1):
        drawn = noise.draw_times_on(leg, rows, torch.Generator().manual_seed(1))
        assert drawn.dtype == torch.float32 and set(noise.leg_of(drawn).tolist()) == {leg}
        given = whole[noise.leg_of(whole) == leg]
        levels = torch.tensor([0.02, 0.25, 0.5, 0.75, 0.98])
        torch.testing.assert_close(drawn.quantile(levels), given.quantile(levels), atol=6, rtol=0)
    # The stock pipeline gives the boundary itself to the first.
    assert noise.leg_of(torch.tensor([1000, 875, 874, 0])).tolist() == [0, 0, 1, 1]
    assert 0.15 < (noise.leg_of(whole) == 0).float().mean() < 0.25


def test_sites_are_reached_by_their_own_network(experts: Wan) -> None:
    sites = experts.sites(1, 64, 96)
    assert [site.leg for site in sites] == [0, 0, 0, 1, 1, 1]
    assert reached(experts.noise, sites, torch.tensor([999, 875])) == sites[:3]
    assert reached(experts.noise, sites, torch.tensor([1])) == sites[3:]
    assert reached(Flow(CONFIG), sites, torch.tensor([1, 999])) == sites
    assert intermediate(sites) == [sites[1], sites[4]]
