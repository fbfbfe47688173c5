"""The trainer: what a run changes, what it leaves alone, and how it survives being stopped."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from customvideo.adapters.adapter import Adapter
from customvideo.attention.tape import Tape
from customvideo.backbones.base import Backbone
from customvideo.errors import AttentionError, ConfigError, StorageError, SubjectError, UserError
from customvideo.methods.base import Batch
from customvideo.methods.customvideo import CustomVideo
from customvideo.subjects.subject import Subject
from customvideo.training import session as session_module
from customvideo.training.checkpoint import Checkpoint, newest_valid
from customvideo.training.progress import StepReport, read_losses
from customvideo.training.trainer import Interrupted, Trainer, best_checkpoint
from tests.cast import make_subject, quick_method, short_run


class Recorder(list[StepReport]):
    """Collects step reports, and does something at one of them."""

    def __init__(self, at: int = 0, action: Any = None) -> None:
        super().__init__()
        self._at, self._action = at, action

    def __call__(self, report: StepReport) -> None:
        self.append(report)
        if report.step == self._at:
            self._action()


def values(adapter: Adapter) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in adapter.state_dict().items()}


def hooks_in(backbone: Backbone) -> int:
    tables = [table.embedding for table in backbone.tables()]
    modules = [*backbone.denoiser.modules(), *tables]
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)


def losses_of(out: Path) -> list[tuple[int, float, dict[str, float], float]]:
    """Everything in the log but the time a step took."""
    lines = read_losses(out / "losses.jsonl")
    return [(line["step"], line["loss"], line["parts"], line["grad_norm"]) for line in lines]


def test_training_lowers_the_held_out_score(
    backbone: Backbone, cast: list[Subject], tmp_path: Path, quiet: Console
) -> None:
    config = short_run(
        steps=16,
        held_out=2,
        learning_rate=2e-2,
        word_learning_rate=2e-1,
        checkpoint_every=4,
        keep_checkpoints=9,
    )
    method = quick_method(attention_loss="mse_maxnorm", attention_weight=1.0)
    seen = Recorder()
    trainer = Trainer(config, tmp_path, on_step=seen, console=quiet)
    trainer.fit(backbone, method, cast)

    assert [report.step for report in seen] == list(range(1, 17))
    assert all(set(report.parts) == {"reconstruction", "attention"} for report in seen)
    assert all(sum(report.parts.values()) == pytest.approx(report.loss) for report in seen)
    attention = [report.parts["attention"] for report in seen]
    assert sum(attention[-4:]) < 0.8 * sum(attention[:4])
    newest = newest_valid(tmp_path / "checkpoints").newest
    assert newest is not None
    assert newest.step == 16
    assert newest.state["score"] < Checkpoint(tmp_path / "checkpoints/4", 4).state["score"] - 0.02
    best = best_checkpoint(tmp_path / "checkpoints")
    assert best is not None
    assert best[1] <= newest.state["score"]
    assert best[0].state["score"] == best[1]


def test_only_the_adapter_changes(backbone: Backbone, cast: list[Subject], quiet: Console) -> None:
    frozen = {name: value.clone() for name, value in backbone.denoiser.state_dict().items()}
    rows = backbone.tables()[0].embedding.weight.clone()
    processors = list(backbone.denoiser.attn_processors.values())  # type: ignore[operator, union-attr]
    tokenizer, hooks = backbone.tables()[0].tokenizer, hooks_in(backbone)
    random_state = torch.get_rng_state()
    method = quick_method()
    before = values(method.trainable(backbone, cast))

    adapter = Trainer(short_run(), console=quiet).fit(backbone, method, cast)

    after = values(adapter)
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert all(
        torch.equal(frozen[name], now) for name, now in backbone.denoiser.state_dict().items()
    )
    assert torch.equal(rows, backbone.tables()[0].embedding.weight)
    restored = list(backbone.denoiser.attn_processors.values())  # type: ignore[operator, union-attr]
    assert all(one is other for one, other in zip(processors, restored, strict=True))
    assert backbone.tables()[0].tokenizer is tokenizer
    assert hooks_in(backbone) == hooks
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [word.name for word in adapter.words] == ["tom", "rex"]
    assert adapter.header.photos == {subject.name: subject.digest for subject in cast}


def test_four_batches_of_one_train_like_one_of_four(
    backbone: Backbone, cast: list[Subject], quiet: Console
) -> None:
    results = []
    for size, accumulation in ((4, 1), (1, 4)):
        seen = Recorder()
        config = short_run(steps=2, batch_size=size, accumulation=accumulation)
        trainer = Trainer(config, on_step=seen, console=quiet)
        results.append((values(trainer.fit(backbone, quick_method(), cast)), seen))
    (one, losses), (other, split) = results
    for name, value in one.items():
        assert torch.allclose(value, other[name], atol=2e-5), name
    assert [report.loss for report in losses] == pytest.approx([r.loss for r in split], rel=1e-5)


def test_a_killed_run_resumes_bit_for_bit(
    backbone: Backbone, cast: list[Subject], tmp_path: Path, quiet: Console
) -> None:
    class Killed(BaseException):
        """Stands for SIGKILL: nothing may run after it that a dead process would not."""

    def kill() -> None:
        raise Killed

    config = short_run(steps=5, checkpoint_every=2, warmup=4, held_out=2)
    whole = Trainer(config, tmp_path / "whole", console=quiet).fit(backbone, quick_method(), cast)
    broken = Trainer(config, tmp_path / "broken", on_step=Recorder(3, kill), console=quiet)
    with pytest.raises(Killed):
        broken.fit(backbone, quick_method(), cast)
    seen = Recorder()
    resumed = Trainer(config, tmp_path / "broken", on_step=seen, console=quiet)
    again = resumed.fit(backbone, quick_method(), cast, resume=True)

    assert [report.step for report in seen] == [3, 4, 5]
    assert losses_of(tmp_path / "broken") == losses_of(tmp_path / "whole")
    assert len(losses_of(tmp_path / "whole")) == 5
    whole.save(tmp_path / "whole.safetensors")
    again.save(tmp_path / "again.safetensors")
    expected = (tmp_path / "whole.safetensors").read_bytes()
    assert (tmp_path / "again.safetensors").read_bytes() == expected
    for file in ("adapter.safetensors", "optimizer.safetensors", "rng.safetensors"):
        last = Path("checkpoints/5") / file
        assert (tmp_path / "broken" / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()


def test_resuming_may_train_longer_but_not_differently(
    backbone: Backbone, cast: list[Subject], tmp_path: Path, quiet: Console
) -> None:
    def resume(
        subjects: list[Subject] = cast, method: CustomVideo | None = None, **changes: Any
    ) -> Any:
        trainer = Trainer(short_run(**({"steps": 2} | changes)), tmp_path, console=quiet)
        return trainer.fit(backbone, method or quick_method(), subjects, resume=True)

    Trainer(short_run(steps=2), tmp_path, console=quiet).fit(backbone, quick_method(), cast)
    with pytest.raises(ConfigError, match=r"learning_rate was 0\.001 and is 0\.002"):
        resume(learning_rate=2e-3)
    with pytest.raises(ConfigError, match=r"nu was 0\.05 and is 0\.1"):
        resume(method=quick_method(nu=0.1))
    with pytest.raises(ConfigError, match="photos, masks or captions of 'rex' are others"):
        resume([cast[0], make_subject("rex", "dog", 3)])
    redrawn = cast[0].masks[0].copy()
    redrawn[20, 20] = 0
    with pytest.raises(ConfigError, match="photos, masks or captions of 'tom' are others"):
        resume([replace(cast[0], masks=(redrawn, *cast[0].masks[1:])), cast[1]])
    with pytest.raises(ConfigError, match="photos, masks or captions of 'tom' are others"):
        resume([replace(cast[0], captions=("", "a <tom> cat asleep")), cast[1]])
    with pytest.raises(ConfigError, match="subjects was tom:cat rex:dog and is rex:dog tom:cat"):
        resume(cast[::-1])
    with pytest.raises(ConfigError, match="already at step 2, beyond steps=1"):
        resume(steps=1)
    resume(steps=3, checkpoint_every=1, keep_checkpoints=5)
    assert [line[0] for line in losses_of(tmp_path)] == [1, 2, 3]
    before = (tmp_path / "checkpoints/3/adapter.safetensors").read_bytes()
    resume(steps=3).save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == before


def test_resuming_skips_a_damaged_checkpoint_and_says_so(
    backbone: Backbone,
    cast: list[Subject],
    tmp_path: Path,
    quiet: Console,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = short_run(steps=4)
    Trainer(config, tmp_path, console=quiet).fit(backbone, quick_method(), cast)
    damaged = tmp_path / "checkpoints/4/optimizer.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    seen = Recorder()
    trainer = Trainer(config, tmp_path, on_step=seen, console=quiet)
    trainer.fit(backbone, quick_method(), cast, resume=True)
    assert [report.step for report in seen] == [3, 4]
    assert "'optimizer.safetensors' is damaged" in caplog.text
    for step in (2, 4):
        (tmp_path / f"checkpoints/{step}/COMPLETE").unlink()
    with pytest.raises(ConfigError, match=r"No checkpoint in .* is whole"):
        trainer.fit(backbone, quick_method(), cast, resume=True)


def test_resuming_nothing_starts_aloud(
    backbone: Backbone,
    cast: list[Subject],
    tmp_path: Path,
    quiet: Console,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer = Trainer(short_run(steps=1), tmp_path, console=quiet)
    trainer.fit(backbone, quick_method(), cast, resume=True)
    assert "Nothing to resume" in caplog.text
    with pytest.raises(ConfigError, match="without an output folder cannot be resumed"):
        Trainer(short_run(), console=quiet).fit(backbone, quick_method(), cast, resume=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(
    backbone: Backbone, cast: list[Subject], tmp_path: Path, quiet: Console, number: signal.Signals
) -> None:
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    config = short_run(steps=4, checkpoint_every=0)
    stop = Recorder(3, lambda: os.kill(os.getpid(), number))
    with pytest.raises(
        Interrupted, match=r"Stopped after step 3 of 4; .* --resume to go on"
    ) as error:
        Trainer(config, tmp_path, on_step=stop, console=quiet).fit(backbone, quick_method(), cast)
    assert isinstance(error.value, UserError)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
    seen = Recorder()
    trainer = Trainer(config, tmp_path, on_step=seen, console=quiet)
    trainer.fit(backbone, quick_method(), cast, resume=True)
    assert [report.step for report in seen] == [4]


@pytest.mark.parametrize(
    ("every", "message"),
    [(1, "step 1 of 3; the last checkpoint is in"), (0, "step 1 of 3, before anything was saved")],
)
def test_a_second_interrupt_stops_at_once(
    backbone: Backbone,
    cast: list[Subject],
    tmp_path: Path,
    quiet: Console,
    every: int,
    message: str,
) -> None:
    def impatient() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    class Slow(CustomVideo):
        def losses(self, backbone: Backbone, batch: Batch, tape: Tape | None) -> Any:
            if seen:
                impatient()
            return super().losses(backbone, batch, tape)

    seen = Recorder()
    config = short_run(steps=3, checkpoint_every=every)
    with pytest.raises(Interrupted, match=message):
        trainer = Trainer(config, tmp_path, on_step=seen, console=quiet)
        trainer.fit(backbone, Slow(quick_method().config), cast)
    assert hooks_in(backbone) == 0


def test_an_interrupt_before_the_first_step_leaves_nothing(
    backbone: Backbone, cast: list[Subject], tmp_path: Path, quiet: Console
) -> None:
    class Slow(CustomVideo):
        def scenes(self, *args: Any) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="before the first step; run the same command again"):
        trainer = Trainer(short_run(), tmp_path, console=quiet)
        trainer.fit(backbone, Slow(quick_method().config), cast)
    assert not list(tmp_path.iterdir())


def test_a_failing_preview_cannot_end_a_run(
    backbone: Backbone,
    cast: list[Subject],
    tmp_path: Path,
    quiet: Console,
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[tuple[int, bool, int]] = []

    def preview(step: int, adapter: Adapter) -> None:
        saved = (tmp_path / f"checkpoints/{step}/COMPLETE").is_file()
        with adapter.attach(backbone):  # Would be refused if it still was attached.
            calls.append((step, saved, hooks_in(backbone)))
        raise MemoryError("no room for a picture")

    config = short_run(steps=4, checkpoint_every=0, preview_every=2)
    trainer = Trainer(config, tmp_path, preview=preview, console=quiet)
    adapter = trainer.fit(backbone, quick_method(), cast)
    assert [(step, saved) for step, saved, _ in calls] == [(2, True), (4, True)]
    assert caplog.text.count("MemoryError: no room for a picture") == 2
    plain = Trainer(config, console=quiet).fit(backbone, quick_method(), cast)
    for name, value in values(plain).items():
        assert torch.equal(value, adapter.state_dict()[name])


def test_a_loss_without_gradient_is_refused(
    backbone: Backbone, cast: list[Subject], quiet: Console
) -> None:
    class Detached(CustomVideo):
        def losses(self, backbone: Backbone, batch: Batch, tape: Tape | None) -> Any:
            return {"detached": super().losses(backbone, batch, tape)["reconstruction"].detach()}

    class Wordless(CustomVideo):
        def losses(self, backbone: Backbone, batch: Batch, tape: Tape | None) -> Any:
            return {"decay": sum(d.merged().square().mean() for d in self.learned.deltas.values())}

        def trainable(self, *args: Any) -> Adapter:
            self.learned = super().trainable(*args)
            return self.learned

    class Blind(CustomVideo):
        def _errors(self, *args: Any, **kwargs: Any) -> Any:
            with torch.no_grad():
                return super()._errors(*args, **kwargs)

    config = quick_method().config
    for method, error, message in (
        (Detached(config), ConfigError, "carries no gradient, so it would train nothing"),
        (Wordless(config), ConfigError, "No gradient reaches 'tokens.value'"),
        (Blind(config), AttentionError, "carries no gradient"),
    ):
        with pytest.raises(error, match=message):
            Trainer(short_run(), console=quiet).fit(backbone, method, cast)
    assert hooks_in(backbone) == 0


def test_a_loss_that_is_not_finite_ends_the_run_unsaved(
    backbone: Backbone, cast: list[Subject], tmp_path: Path, quiet: Console
) -> None:
    class Exploding(CustomVideo):
        def losses(self, backbone: Backbone, batch: Batch, tape: Tape | None) -> Any:
            losses = super().losses(backbone, batch, tape)
            return {**losses, "reconstruction": losses["reconstruction"] * float("inf")}

    with pytest.raises(ConfigError, match=r"The reconstruction loss is inf at step 1; lower"):
        trainer = Trainer(short_run(), tmp_path, console=quiet)
        trainer.fit(backbone, Exploding(quick_method().config), cast)
    assert not (tmp_path / "checkpoints").exists()


def test_no_attention_weight_opens_no_watch(
    backbone: Backbone, cast: list[Subject], quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: Any) -> Any:
        raise AssertionError("a watch was opened")

    monkeypatch.setattr(session_module, "watch", refuse)
    seen = Recorder()
    trainer = Trainer(short_run(steps=1), on_step=seen, console=quiet)
    trainer.fit(backbone, quick_method(attention_weight=0.0), cast)
    assert set(seen[0].parts) == {"reconstruction"}
    with pytest.raises(AssertionError, match="a watch was opened"):
        Trainer(short_run(steps=1), console=quiet).fit(backbone, quick_method(), cast)


def test_a_new_run_replaces_an_earlier_one_only_once_it_has_a_checkpoint(
    backbone: Backbone, cast: list[Subject], tmp_path: Path, quiet: Console
) -> None:
    def stop() -> None:
        raise RuntimeError("stopped early")

    def steps() -> list[str]:
        return sorted(path.name for path in (tmp_path / "checkpoints").iterdir())

    method = quick_method()
    Trainer(short_run(steps=4), tmp_path, console=quiet).fit(backbone, method, cast)
    with pytest.raises(RuntimeError):
        trainer = Trainer(short_run(seed=1), tmp_path, on_step=Recorder(1, stop), console=quiet)
        trainer.fit(backbone, method, cast)
    assert steps() == ["2", "4"]
    assert len(losses_of(tmp_path)) == 4
    Trainer(short_run(steps=1, seed=1), tmp_path, console=quiet).fit(backbone, method, cast)
    assert steps() == ["1"]
    assert len(losses_of(tmp_path)) == 1


def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_one(
    backbone: Backbone,
    cast: list[Subject],
    tmp_path: Path,
    quiet: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(path: Path, *_args: Any) -> None:
        if tmp_path / "checkpoints/2" in (tmp_path / "checkpoints").iterdir():
            raise StorageError(f"Cannot write '{path}': the disk is full.")

    real = Adapter.save
    monkeypatch.setattr(Adapter, "save", lambda self, path: (full(path), real(self, path)))
    with pytest.raises(StorageError, match=r"'.*checkpoints/4' could not be saved, earlier ones"):
        Trainer(short_run(), tmp_path, console=quiet).fit(backbone, quick_method(), cast)
    monkeypatch.undo()
    newest = newest_valid(tmp_path / "checkpoints").newest
    assert newest is not None
    assert newest.step == 2
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_settings_that_cannot_work_are_refused(
    backbone: Backbone, cast: list[Subject], quiet: Console
) -> None:
    method = quick_method()
    with pytest.raises(SubjectError, match="give at least one"):
        Trainer(short_run(), console=quiet).fit(backbone, method, [])
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        Trainer(short_run(precision="fp16"), console=quiet).fit(backbone, method, cast)
    with pytest.raises(ConfigError, match="'tensorboard' needs an output folder"):
        Trainer(short_run(tracker="tensorboard"), console=quiet).fit(backbone, method, cast)


def test_recomputed_activations_give_the_same_training(
    backbone: Backbone, cast: list[Subject], quiet: Console
) -> None:
    plain, recomputed = (
        Trainer(short_run(steps=2, gradient_checkpointing=on), console=quiet).fit(
            backbone, quick_method(), cast
        )
        for on in (False, True)
    )
    for name, value in values(plain).items():
        assert torch.allclose(value, recomputed.state_dict()[name], atol=1e-6), name
    assert not backbone.checkpointed  # type: ignore[attr-defined]


def test_mixed_precision_trains_full_precision_weights(
    backbone: Backbone, cast: list[Subject], quiet: Console
) -> None:
    seen = Recorder()
    trainer = Trainer(short_run(steps=2, precision="bf16"), on_step=seen, console=quiet)
    adapter = trainer.fit(backbone, quick_method(), cast)
    assert {value.dtype for value in adapter.state_dict().values()} == {torch.float32}
    exact = Recorder()
    Trainer(short_run(steps=2), on_step=exact, console=quiet).fit(backbone, quick_method(), cast)
    losses = [report.loss for report in seen]
    assert losses == pytest.approx([report.loss for report in exact], rel=0.02)
    assert losses != [report.loss for report in exact]


def test_tensorboard_gets_every_loss(
    backbone: Backbone, cast: list[Subject], tmp_path: Path, quiet: Console
) -> None:
    config = short_run(steps=2, tracker="tensorboard")
    Trainer(config, tmp_path, console=quiet).fit(backbone, quick_method(), cast)
    (events,) = (tmp_path / "tensorboard").rglob("events.*")
    assert b"attention" in events.read_bytes()


def test_plain_lines_without_a_terminal(
    backbone: Backbone, cast: list[Subject], capsys: pytest.CaptureFixture[str]
) -> None:
    Trainer(short_run(steps=2)).fit(backbone, quick_method(), cast)
    text = capsys.readouterr().err
    assert "attention control at" in text
    assert "step 2/2  reconstruction " in text
    assert "\x1b" not in text


def test_the_state_of_a_run_holds_no_path_and_no_time(
    backbone: Backbone, cast: list[Subject], tmp_path: Path, quiet: Console
) -> None:
    trainer = Trainer(short_run(steps=1, prior_cache=str(tmp_path)), tmp_path, console=quiet)
    trainer.fit(backbone, quick_method(), cast)
    state = (tmp_path / "checkpoints/1/state.json").read_text()
    assert str(tmp_path) not in state
    assert json.loads(state)["identity"]["training"]["seed"] == 0


def test_the_seed_moves_a_random_start(
    backbone: Backbone, cast: list[Subject], quiet: Console
) -> None:
    method = quick_method(initial="random", attention_weight=0.0)
    words = []
    for seed in (0, 0, 1):
        config = short_run(seed=seed, steps=1, word_learning_rate=1e-12)
        words.append(Trainer(config, console=quiet).fit(backbone, method, cast).tokens.value)
    assert torch.equal(words[0], words[1])
    assert not torch.allclose(words[0], words[2], atol=1e-3)
