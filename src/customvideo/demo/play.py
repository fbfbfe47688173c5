"""The demo from its first line to its last: acts in a row, then scores and report for all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import load_backbone
from customvideo.config import Recipe, apply_keys, default_recipe
from customvideo.demo import stage
from customvideo.demo.acts import ACTS, Act
from customvideo.demo.countdown import Countdown, clock
from customvideo.demo.ledger import Ledger, require_free
from customvideo.demo.page import Played, write_page
from customvideo.evaluation.evaluate import Encoders
from customvideo.files import sweep
from customvideo.records import write_record
from customvideo.runs.folder import ADAPTER, REPORT, Say, alone_in
from customvideo.runs.learning import Job, fit
from customvideo.runs.scoring import encoders_for, finder_for
from customvideo.training.interrupt import Interrupted

__all__ = ["METRICS", "run"]

METRICS = "metrics.json"

# About how many seconds it takes on two processor cores.
_PHOTOGRAPHS, _MASKS, _LEARNING, _PAGE = 2, 4, 60, 10
_PLAIN_VIDEO, _VIDEO = 4, 5


@dataclass(frozen=True, eq=False)
class _Show:
    """What all acts share."""

    out: Path
    recipe: Recipe
    device: str
    judges: stage.Judges
    ledger: Ledger
    countdown: Countdown
    say: Say


def run(
    out: Path,
    *,
    say: Say,
    seed: int = 0,
    device: str = "auto",
    recipe: Recipe | None = None,
    encoders: Encoders | None = None,
) -> Path:
    """Run the whole demo in the folder `out` and return the report's path.

    One that was stopped goes on: what it learned is kept. A finished one is made anew, file by
    file. `recipe` None means the packaged one for the toybox, `encoders` None the toybox's own.

    Raises:
        ConfigError: `out` holds something that is no demo.
        BackboneError: the model or the device is not there; nothing is written then.
        Interrupted: stopped from outside; the message says how to go on.
    """
    require_free(out)
    with alone_in(out):
        sweep(out)
        return _run(
            out, say, apply_keys(recipe or default_recipe(), [("seed", seed)]), device, encoders
        )


def _run(out: Path, say: Say, recipe: Recipe, device: str, encoders: Encoders | None) -> Path:
    backbone = load_backbone(recipe.backbone, device)
    judges = stage.Judges(
        encoders or encoders_for(backbone, device=device), finder_for(backbone, device=device)
    )
    ledger = Ledger(out, recipe, backbone)
    countdown = Countdown(_stages(ledger), say)
    show = _Show(out, recipe, device, judges, ledger, countdown, say)
    played = [_play(act, show) for act in ACTS]
    with countdown.next():
        first, *others = played
        scores = {**first.metrics, **{one.act.key: one.metrics for one in others}}
        write_record(out / METRICS, scores)
        write_page(played, out)
    ledger.close()
    say(
        f"Done in {clock(countdown.elapsed)}. How near the toys come to their photos, the numbers "
        f"under the videos say: open {out / REPORT}"
    )
    return out / REPORT


def _stages(ledger: Ledger) -> list[tuple[str, float]]:
    stages: list[tuple[str, float]] = []
    for act in ACTS:
        kept, scenes = ledger.has_learned(act), len(act.scenes)
        stages += [
            (f"Photographing {act.cast}", _PHOTOGRAPHS),
            ("Finding them in their photos", _MASKS),
            (
                "Keeping what was learned of them" if kept else "Learning them",
                0 if kept else _LEARNING,
            ),
            ("Making videos before", _PLAIN_VIDEO * scenes),
            ("Making videos after", _VIDEO * scenes),
        ]
    return [*stages, ("Reporting", _PAGE)]


def _play(act: Act, show: _Show) -> Played:
    folder, countdown = act.folder(show.out), show.countdown
    with countdown.next():
        stage.photograph(act, folder)
    with countdown.next():
        job = stage.prepare(act, folder, show.recipe, show.device)
    with countdown.next():
        adapter = _learn(act, job, show)
    with countdown.next():
        before = stage.shoot_plain(act, job, adapter, show.say)
    with countdown.next():
        shots = stage.shoot(act, job, adapter, before, show.say)
        stage.save(shots, folder)
        metrics = stage.score(act, job, shots, show.judges)
    return Played(act, job, adapter, shots, metrics)


def _learn(act: Act, job: Job, show: _Show) -> Adapter:
    folder = act.folder(show.out)
    if show.ledger.has_learned(act):
        return Adapter.load(folder / ADAPTER)
    resume = show.ledger.has_begun(act)
    show.ledger.begin(act)
    try:
        adapter = fit(job, folder, resume=resume, say=show.say)
    except Interrupted as error:
        place = str(error).partition(";")[0]
        raise Interrupted(f"{place}; run the demo again to go on.") from None
    show.ledger.learned(act)
    return adapter
