"""The trainer: from a method and subjects to a trained adapter, through any interruption.

It says when things happen: steps, checkpoints, previews, stops. It knows no method by name and no
backbone's inside; what happens in a step is `customvideo.training.session`.

A run with an output folder leaves there

    checkpoints/<step>/   see `customvideo.training.checkpoint`
    losses.jsonl          one line a step, see `StepReport`
    tensorboard/          if `tracker` says so

and nothing else: where the final adapter goes is its receiver's business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from customvideo.adapters.adapter import Adapter
from customvideo.attention.site import describe, require_visible
from customvideo.backbones.base import Backbone
from customvideo.errors import ConfigError, StorageError, SubjectError, UserError
from customvideo.files import expanded
from customvideo.methods.base import Method, PriorPlan, TuningFree
from customvideo.settings import validated
from customvideo.subjects.subject import Subject
from customvideo.training.batch import Batches, ScenePool, WordFinder, Workshop
from customvideo.training.checkpoint import (
    Checkpoint,
    best_checkpoint,
    check_same_run,
    clear,
    newest_valid,
    prune,
    recover,
)
from customvideo.training.clips import clip_pool
from customvideo.training.config import FREE_ON_RESUME, OF_CLIPS, TrainerConfig
from customvideo.training.interrupt import Interrupted, StopRequest, catch_signals
from customvideo.training.prior import PriorPool, build_prior
from customvideo.training.progress import LossLog, ProgressView, StepReport
from customvideo.training.ranks import Ranks, asked_processes, is_main
from customvideo.training.session import Session, Task, build_accelerator, resolve_precision
from customvideo.training.sharding import shard_base
from customvideo.training.stages import Schedule
from customvideo.training.surroundings import checkpointing, own_randomness, text_encoder
from customvideo.training.tracking import start_tracking

__all__ = ["Interrupted", "StepReport", "Trainer", "TrainerConfig", "best_checkpoint"]

_LOG = logging.getLogger(__name__)

OnStep = Callable[[StepReport], None]
Preview = Callable[[int, Adapter], None]


class Trainer:
    """Trains adapters as `config` says.

    Args:
        config: the settings; a `Recipe` will do, its other keys are ignored.
        out: where checkpoints and the loss log go; None keeps nothing, and nothing can be resumed.
        on_step: called after every optimizer step.
        preview: called with the step and the adapter every `preview_every` steps, after a
            checkpoint, with the adapter *not* attached; whatever it raises is logged and forgotten.
            A resumed run calls it again for the step it resumes from.
        console: where progress is shown; None for standard error.
    """

    def __init__(
        self,
        config: TrainerConfig,
        out: Path | None = None,
        *,
        on_step: OnStep | None = None,
        preview: Preview | None = None,
        console: Console | None = None,
    ) -> None:
        # Checked again: pydantic checks nothing in a copy with changes.
        settings = {name: getattr(config, name) for name in TrainerConfig.model_fields}
        self.config = validated(TrainerConfig, settings)
        self.out = Path(out) if out is not None else None
        self.on_step = on_step
        self.preview = preview
        self.console = console or Console(stderr=True)

    def fit(
        self,
        backbone: Backbone,
        method: Method,
        subjects: Sequence[Subject],
        resume: bool = False,
    ) -> Adapter:
        """Train `method` on `subjects` and return the adapter, detached, as it is after the last
        step; the best by held-out score is `best_checkpoint(out / "checkpoints")`.

        With `resume` the run goes on from the newest whole checkpoint in `out`, as if it had never
        stopped; without any it starts at the beginning and says so. Without `resume` the first new
        checkpoint replaces those of an earlier run in `out`.

        Of a method that trains nothing this is the adapter that it makes, and nothing is kept.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; the run was saved if `out` is given.
            ConfigError: settings that cannot work, or a resume of a different run.
            UserError: subjects, prompts or storage at fault.
        """
        if not subjects:
            raise SubjectError("There is no subject to train on; give at least one.")
        if isinstance(method, TuningFree):
            _LOG.info("Nothing is trained: %s.", method.untrained())
            with own_randomness(self.config.seed, backbone.device):
                return method.trainable(backbone, subjects)
        identity = self._identity(backbone, method, subjects)
        found = self._find(identity, method) if resume else None
        with (
            own_randomness(self.config.seed, backbone.device),
            checkpointing(backbone, self.config.gradient_checkpointing),
            text_encoder(backbone, self.config.text_encoder),
        ):
            try:
                session = self._prepare(backbone, method, subjects)
            except KeyboardInterrupt:
                raise Interrupted(
                    "Stopped before the first step; run the same command again to start."
                ) from None
            if found is not None and self.checkpoints is not None:
                session.restore(found)
            # Each has looked for itself, perhaps on a disk that lags behind.
            session.require_same_place()
            if found is not None and self.checkpoints is not None and is_main():
                # The run may have been killed between saving and this.
                keep, score = self.config.keep_checkpoints, found.state["score"]
                prune(self.checkpoints, keep, found, score)
            _Run(self, session, identity, continued=found is not None).to_the_end()
        return session.task.adapter

    @property
    def checkpoints(self) -> Path | None:
        """The folder of checkpoints, or None without an output folder."""
        return self.out / "checkpoints" if self.out is not None else None

    def _prepare(self, backbone: Backbone, method: Method, subjects: Sequence[Subject]) -> Session:
        accelerator = build_accelerator(self.config, backbone, self.out)
        canvas = self.config.canvas or backbone.size
        adapter = method.trainable(backbone, subjects)
        if self.config.start_from:
            adapter.go_on_from(Adapter.load(expanded(self.config.start_from)))
        if stages := Schedule.of(method, adapter, self.config.steps).describe():
            self.say(stages)
        with Ranks.found().main_first():
            prior = self._prior(backbone, method.prior(backbone, subjects), canvas)
        workshop = Workshop(backbone, method, subjects, canvas, self.config.seed)
        pool = ScenePool(workshop, self.config.pool)
        sites = method.watches(backbone, pool.frames, *canvas)
        if sites:
            self.say(f"attention control at\n{describe(sites)}")
            words, least = [subject.word for subject in subjects], self.config.least_cells
            require_visible(sites, words, pool.mean_masks, least)
        clips = clip_pool(workshop, self.config)
        batches = Batches(pool, WordFinder(backbone, adapter), prior, self.config, clips)
        if (ranks := Ranks.found()).count > 1:
            self.say(f"training in {ranks.count} processes, {self._rows} rows a step")
        if self.config.shard:
            self._share_out(backbone, ranks)
        if self.config.tracker != "none":
            assert self.out is not None, "a tracker without a folder was let pass"
            try:
                start_tracking(accelerator, self.config, self.out)
            except UserError:
                raise
            except Exception as error:
                _note_tracker(self.config.tracker, error)
        clip_sites = method.watches(backbone, clips.shape.frames, *canvas) if clips else []
        if clips is not None:
            self.say(f"{self.config.clip_share:.0%} of the rows are clips of {clips.shape}")
        task = Task(backbone, method, adapter, sites, clip_sites)
        return Session(task, batches, self.config, accelerator)

    def _prior(
        self, backbone: Backbone, plan: PriorPlan | None, canvas: tuple[int, int]
    ) -> PriorPool | None:
        if plan is None:
            return None
        place = self.config.prior_cache
        cache = expanded(place) if place else None
        return build_prior(backbone, plan, canvas, cache=cache, notify=self.say)

    def _share_out(self, backbone: Backbone, ranks: Ranks) -> None:
        if self.config.preview_every:
            raise ConfigError(
                "A preview is drawn by one process, and with shard=true none has the whole base "
                "model; set preview_every=0."
            )
        blocks = shard_base(backbone, ranks)
        self.say(f"the base model's {blocks} blocks are shared out over {ranks.count} processes")

    def _find(self, identity: dict[str, Any], method: Method) -> Checkpoint | None:
        """The checkpoint to resume from, or None, said aloud, if there is none."""
        if self.checkpoints is None:
            raise ConfigError("A run without an output folder cannot be resumed; give one.")
        if is_main():
            recover(self.checkpoints)
        search = newest_valid(self.checkpoints)
        for fault in search.broken:
            _LOG.warning(fault)
        if search.newest is None:
            if search.broken:
                raise ConfigError(
                    f"No checkpoint in '{self.checkpoints}' is whole; start a new run instead."
                )
            _LOG.warning("Nothing to resume in '%s': starting at step 1.", self.checkpoints)
            return None
        earlier = _completed(search.newest.state["identity"], identity, method)
        check_same_run(earlier, identity)
        if search.newest.step > self.config.steps:
            raise ConfigError(
                f"The run is already at step {search.newest.step}, beyond steps={self.config.steps}"
                "; raise steps, or start a new run instead of resuming."
            )
        self.say(f"resuming after step {search.newest.step}")
        return search.newest

    def _identity(
        self, backbone: Backbone, method: Method, subjects: Sequence[Subject]
    ) -> dict[str, Any]:
        """All that moves a run's trajectory, as nested dicts of plain values."""
        moving = any(subject.clips for subject in subjects)
        unsaid = FREE_ON_RESUME if moving else FREE_ON_RESUME | OF_CLIPS
        settings = self.config.model_dump(mode="json", exclude=set(unsaid))
        settings["precision"] = resolve_precision(self.config, backbone)
        settings["canvas"] = list(self.config.canvas or backbone.size)
        options = method.config.model_dump(mode="json")
        if asked_processes() > 1:
            settings["processes"] = asked_processes()
        return {
            "training": settings,
            "method": {"method": method.name, **options},
            "backbone": {"backbone": backbone.name, "backbone weights": backbone.fingerprint},
            "subjects": {"subjects": " ".join(f"{one.name}:{one.category}" for one in subjects)},
            "photos": {subject.name: subject.digest for subject in subjects},
        }

    @property
    def _rows(self) -> int:
        return self.config.batch_size * self.config.accumulation * asked_processes()

    def say(self, text: str) -> None:
        """Print a line of progress."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Run:
    """The loop over steps: reports, checkpoints, previews, and stopping when asked."""

    def __init__(
        self, trainer: Trainer, session: Session, identity: dict[str, Any], *, continued: bool
    ) -> None:
        self._trainer = trainer
        self._config = trainer.config
        self._session = session
        self._identity = identity
        self._owns_folder = continued
        self._tracker_failed = False
        self._log = LossLog(trainer.out and trainer.out / "losses.jsonl", session.step)
        self._stop = StopRequest()
        self._view = ProgressView(trainer.console, session.step, trainer.config.steps)

    def to_the_end(self) -> None:
        """Do the remaining steps."""
        task = self._session.task
        try:
            with self._session.compiled(), catch_signals() as self._stop, self._view:
                if self._owns_folder and self._preview_due():
                    # The run may have been killed between the checkpoint and its preview.
                    self._show_preview()
                while self._session.step < self._config.steps:
                    with task.adapter.attach(task.backbone):
                        preview_due = self._steps_until_preview()
                    if preview_due:
                        self._show_preview()
        except KeyboardInterrupt:
            raise Interrupted(self._farewell()) from None
        finally:
            self._track(self._session.end_tracking)
            self._session.close()

    def _steps_until_preview(self) -> bool:
        """Train until a preview is due (True) or the run ends (False)."""
        while self._session.step < self._config.steps:
            self._report(self._session.train_step())
            preview_due = self._preview_due()
            last = self._session.step == self._config.steps
            asked = self._session.stop_everywhere(self._stop.asked)
            if last or preview_due or asked or self._due(self._config.checkpoint_every):
                self._save()
            if asked and not last:
                raise Interrupted(self._farewell())
            if preview_due:
                return True
        return False

    def _preview_due(self) -> bool:
        return self._trainer.preview is not None and self._due(self._config.preview_every)

    def _due(self, every: int) -> bool:
        return every > 0 and self._session.step % every == 0

    def _report(self, report: StepReport) -> None:
        self._log.add(report)
        self._view.show(report)
        self._track(lambda: self._session.track(report))
        if self._trainer.on_step is not None:
            try:
                self._trainer.on_step(report)
            except KeyboardInterrupt:
                self._stop.ask()

    def _track(self, act: Callable[[], None]) -> None:
        if self._tracker_failed:
            return
        try:
            act()
        except Exception as error:
            # A chart is no reason to lose what it shows.
            self._tracker_failed = True
            _note_tracker(self._config.tracker, error)

    def _save(self) -> None:
        folder = self._trainer.checkpoints
        if folder is None:
            return
        ranks = self._session.ranks
        score = self._session.score() if ranks.main or ranks.lockstep else None
        if not ranks.main:
            # What the main process writes is theirs, too; they go on when it is written.
            self._owns_folder = True
            ranks.wait()
            return
        try:
            self._log.write()
            latest = self._session.save(folder, {"identity": self._identity, "score": score})
        except StorageError as error:
            raise StorageError(f"{self._farewell()} It stopped because: {error}") from error
        if not self._owns_folder:
            # Only now, that this run has something to show, may an earlier one's be lost.
            clear(folder, keep=latest)
            self._owns_folder = True
        prune(folder, self._config.keep_checkpoints, latest, score)
        ranks.wait()

    def _show_preview(self) -> None:
        assert self._trainer.preview is not None
        if not self._session.ranks.main:
            return
        try:
            self._trainer.preview(self._session.step, self._session.task.adapter)
        except Exception as error:
            # Hours of training are worth more than any picture of them.
            _LOG.warning(
                "The preview after step %d failed, training goes on (%s: %s).",
                self._session.step,
                type(error).__name__,
                error,
            )

    def _farewell(self) -> str:
        stopped = f"Stopped after step {self._session.step} of {self._config.steps}"
        if self._trainer.checkpoints is None or not self._owns_folder:
            return f"{stopped}, before anything was saved; run the same command to start again."
        return (
            f"{stopped}; the last checkpoint is in '{self._trainer.checkpoints}': run the same "
            "command with --resume to go on."
        )


def _completed(earlier: dict[str, Any], now: dict[str, Any], method: Method) -> dict[str, Any]:
    """A run's identity with the defaults of those settings that now count and were unknown when it
    was written."""
    defaults: dict[str, Any] = {
        "training": TrainerConfig().model_dump(mode="json"),
        "method": type(method.config).model_construct().model_dump(mode="json"),
    }
    whole = {}
    for group, told in earlier.items():
        known = defaults.get(group, {})
        whole[group] = {name: known[name] for name in now.get(group, ()) if name in known} | told
    return whole


def _note_tracker(name: str, error: Exception) -> None:
    _LOG.warning(
        "The tracker '%s' failed, training goes on without it (%s: %s).",
        *(name, type(error).__name__, error),
    )
