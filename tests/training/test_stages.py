"""Stages: which steps are whose, what is frozen meanwhile, and stopping in the middle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import DeltaSpec, new_adapter
from customvideo.attention.tape import Tape
from customvideo.backbones.base import Backbone
from customvideo.errors import ConfigError
from customvideo.methods.base import Batch, Stage, class_columns
from customvideo.methods.customvideo import CustomVideo
from customvideo.subjects.subject import Subject
from customvideo.training.stages import Schedule
from customvideo.training.trainer import Trainer
from tests.cast import quick_method, short_run
from tests.training.test_trainer import Recorder, losses_of

STEPS = 5


class TwoStages(CustomVideo):
    """Words first, then bottlenecks with the words frozen, as DreamVideo."""

    seen: list[tuple[str, int]]

    def trainable(self, backbone: Backbone, subjects: Sequence[Subject]) -> Adapter:
        self.seen = []
        paths = [site.path for site in backbone.sites(1, *backbone.size)]
        specs = dict.fromkeys(paths, DeltaSpec(kind="bottleneck"))
        adapter = new_adapter(backbone, subjects, method=self.name, paths=specs)
        return adapter.with_extras({"gate": torch.ones(2)})

    def stages(self, adapter: Adapter) -> Sequence[Stage]:
        self.learned = adapter
        return [Stage("words", 3, paths=()), Stage("bottlenecks", words=False)]

    def losses(self, backbone: Backbone, batch: Batch, tape: Tape | None) -> Any:
        losses = super().losses(backbone, batch, tape)
        self.seen.append((batch.stage, len(batch)))
        if batch.stage == "bottlenecks":
            losses["gate"] = self.learned.extras["gate"].square().sum()
        return losses


class Whole(CustomVideo):
    """Every weight of the denoiser and the text encoder, with the words as they started."""

    def trainable(self, backbone: Backbone, subjects: Sequence[Subject]) -> Adapter:
        paths = [*backbone.layers("denoiser"), *backbone.layers("encoder")]
        specs = dict.fromkeys(paths, DeltaSpec(kind="weight"))
        return new_adapter(backbone, subjects, method=self.name, paths=specs)

    def stages(self, adapter: Adapter) -> Sequence[Stage]:
        return [Stage("weights", words=False)]


class Columns(CustomVideo):
    """Records the words and their categories."""

    def columns(self, batch: Batch) -> torch.Tensor:
        return torch.cat([batch.words, class_columns(batch.words)], dim=1)

    def losses(self, backbone: Backbone, batch: Batch, tape: Tape | None) -> Any:
        losses = super()._errors(backbone, batch, 1.0).mean()
        assert tape is not None
        maps = torch.stack([m.mean() for m in tape.maps(require_grad=True).values()])
        assert all(found.shape[1] == 4 for found in tape.maps().values())
        return {"reconstruction": losses, "maps": maps.sum()}


def quick(cls: type[CustomVideo], **changes: Any) -> Any:
    return cls(quick_method(**changes).config)


def test_a_step_belongs_to_a_stage() -> None:
    schedule = Schedule((Stage("a", 2), Stage("b", 1), Stage("c")))
    found = [(stage.name, within) for stage, within in map(schedule.at, range(1, 7))]
    assert found == [("a", 1), ("a", 2), ("b", 1), ("c", 1), ("c", 2), ("c", 3)]
    assert schedule.describe().splitlines() == [
        "steps 1 to 2: a",
        "steps 3 to 3: b",
        "from step 4: c",
    ]


def test_a_method_without_stages_has_one(backbone: Backbone, cast: list[Subject]) -> None:
    method = quick_method()
    schedule = Schedule.of(method, method.trainable(backbone, cast), 1)
    stage, within = schedule.at(7)
    assert (stage.name, stage.words, stage.paths, within) == ("", True, None, 7)
    assert schedule.describe() == ""


def test_stages_need_their_steps(backbone: Backbone, cast: list[Subject], quiet: Console) -> None:
    with pytest.raises(ConfigError, match="need at least 4 steps, the last one 'bottlenecks', and"):
        trainer = Trainer(short_run(steps=3), console=quiet)
        trainer.fit(backbone, quick(TwoStages, attention_weight=0.0), cast)


def snapshots(adapter: Adapter) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in adapter.named_parameters()}


def test_what_is_frozen_does_not_move_by_a_bit(
    backbone: Backbone, cast: list[Subject], quiet: Console
) -> None:
    method, states = quick(TwoStages, attention_weight=0.0), []
    keep = lambda _report: states.append(snapshots(method.learned))  # noqa: E731
    config = short_run(steps=STEPS, warmup=2)
    adapter = Trainer(config, on_step=keep, console=quiet).fit(backbone, method, cast)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        start = snapshots(quick(TwoStages).trainable(backbone, cast))
    deltas = [name for name in start if name.startswith("_deltas")]
    assert all(torch.equal(states[2][name], start[name]) for name in [*deltas, "_extras.gate"])
    assert not torch.equal(states[2]["tokens.value"], start["tokens.value"])
    assert torch.equal(states[4]["tokens.value"], states[2]["tokens.value"])
    # Narrowing learns nothing before widening is more than zero.
    moved = [name for name in deltas if not torch.equal(states[4][name], states[2][name])]
    assert moved == deltas and not torch.equal(states[4]["_extras.gate"], start["_extras.gate"])
    assert method.seen == [("words", 2)] * 3 + [("bottlenecks", 2)] * 2
    assert all(value.requires_grad for value in adapter.parameters())


@pytest.mark.parametrize(
    ("cls", "stop"), [(TwoStages, 2), (TwoStages, 3), (TwoStages, 4), (Whole, 2)]
)
def test_a_run_stopped_in_any_stage_goes_on_exactly(
    backbone: Backbone, cast: list[Subject], tmp_path: Path, quiet: Console, cls: Any, stop: int
) -> None:
    """The deltas of a whole network come back in their memory layout, too."""

    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    config = short_run(steps=STEPS, checkpoint_every=1, warmup=2, held_out=1, batch_size=1)
    method = quick(cls, attention_weight=0.0)
    Trainer(config, tmp_path / "whole", console=quiet).fit(backbone, method, cast)
    with pytest.raises(Killed):
        broken = Trainer(
            config, tmp_path / "broken", on_step=Recorder(stop + 1, kill), console=quiet
        )
        broken.fit(backbone, method, cast)
    Trainer(config, tmp_path / "broken", console=quiet).fit(backbone, method, cast, resume=True)
    assert losses_of(tmp_path / "broken") == losses_of(tmp_path / "whole")
    for file in ("adapter.safetensors", "optimizer.safetensors"):
        last = Path("checkpoints/5") / file
        assert (tmp_path / "broken" / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()


def test_a_method_may_watch_the_classes_too(
    backbone: Backbone, cast: list[Subject], quiet: Console
) -> None:
    seen = Recorder()
    trainer = Trainer(short_run(steps=1), on_step=seen, console=quiet)
    trainer.fit(backbone, quick(Columns), cast)
    assert set(seen[0].parts) == {"reconstruction", "maps"}


def test_a_picture_past_the_temporal_layers_trains_the_others(
    backbone: Backbone, cast: list[Subject], quiet: Console
) -> None:
    class Spatial(Whole):
        def trainable(self, backbone: Backbone, subjects: Sequence[Subject]) -> Adapter:
            specs = dict.fromkeys(backbone.layers("spatial"), DeltaSpec(kind="weight"))
            return new_adapter(backbone, subjects, method=self.name, paths=specs)

    config, skipped = short_run(steps=1), {"attention_weight": 0.0, "single_frame": "skip"}
    adapter = Trainer(config, console=quiet).fit(backbone, quick(Spatial, **skipped), cast)
    assert all(value.any() for delta in adapter.deltas.values() for value in delta.parameters())
    with pytest.raises(ConfigError, match=r"No gradient reaches '_deltas\.transformer_in"):
        Trainer(config, console=quiet).fit(backbone, quick(Whole, **skipped), cast)
