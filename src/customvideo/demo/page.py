"""The demo's report: what was played, as `customvideo.report` wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from customvideo.adapters.adapter import Adapter
from customvideo.attention.draw import COLOURS, fade, overlay
from customvideo.demo.acts import Act
from customvideo.demo.stage import Shot
from customvideo.report import AttentionView, Comparison, ReportData, render_report
from customvideo.runs.calling import command
from customvideo.runs.folder import ADAPTER, REPORT, loss_curves
from customvideo.runs.learning import Job, facts, sample_scenes
from customvideo.subjects.prompt import list_subjects

__all__ = ["Played", "write_page"]

_INTRO = (
    "Two toys were photographed, found in their photos, and learned by a small text-to-video model "
    "that had never seen them. Before and after: same prompts, same seeds. How near they come to "
    "their photos, the numbers under the videos say."
)
_HARDER = (
    "The harder case: to the model both are a {category}, so nothing but the learned words tells "
    "them apart. They were learned and shown in the same way."
)


@dataclass(frozen=True, eq=False)
class Played:
    """All that came of one act."""

    act: Act
    job: Job
    adapter: Adapter
    shots: Sequence[Shot]
    metrics: Mapping[str, Any]


def write_page(played: Sequence[Played], out: Path) -> Path:
    """Write the report on all acts, the first one's first."""
    first, *others = played
    subjects = list_subjects(first.adapter.words)
    data = ReportData(
        title=f"{subjects[0].upper()}{subjects[1:]}",
        intro=_INTRO,
        **_contents(first, out),
        made=facts(first.job, first.adapter),
        commands=[
            command("demo", "--out", out, "--seed", first.job.recipe.seed),
            *(_more(one, out) for one in played),
        ],
        parts=[_part(one, out) for one in others],
    )
    return render_report(out / REPORT, data)


def _part(played: Played, out: Path) -> ReportData:
    categories = dict.fromkeys(played.act.categories)
    return ReportData(
        title=f"{played.act.title}: {list_subjects(played.adapter.words)}",
        intro=_HARDER.format(category=" or ".join(categories)),
        **_contents(played, out),
    )


def _contents(played: Played, out: Path) -> dict[str, Any]:
    shots, metrics = played.shots, played.metrics
    return {
        "subjects": played.job.subjects,
        "scenes": sample_scenes(played.job),
        "losses": loss_curves(played.act.folder(out)),
        "comparisons": [
            Comparison(shot.prompt.text, shot.before, shot.after, shot.prompt.plain)
            for shot in shots
        ],
        "attention": [_view(shot) for shot in shots],
        "metrics": {"before": metrics["before"], "after": metrics["after"]},
    }


def _more(played: Played, out: Path) -> str:
    """A command for one video more."""
    prompt = f"{list_subjects(played.adapter.words)} in the desert"
    adapter = played.act.folder(out) / ADAPTER
    video = f"{'-'.join(played.act.names)}.mp4"
    return command("generate", prompt, "--adapter", adapter, "--out", video)


def _view(shot: Shot) -> AttentionView:
    grey = fade(shot.after, 1.0)
    words = {
        word: overlay(grey, maps, COLOURS[index % len(COLOURS)])
        for index, (word, maps) in enumerate(shot.maps.items())
    }
    return AttentionView(shot.prompt.text, words)
