"""One page that shows a whole customization: photos, masks, losses, videos, attention, scores.

`render_report` turns a `ReportData` into a single HTML file that loads nothing from anywhere.
This file prepares what the templates show; it makes no video, computes no score and trains
nothing: all of that is handed in.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from customvideo import __version__
from customvideo.charts import loss_chart
from customvideo.evaluation.measures import MEASURES
from customvideo.files import write_text
from customvideo.subjects.masks import coverage, overlay
from customvideo.subjects.subject import Subject
from customvideo.video import Video, data_uri

__all__ = ["AttentionView", "Comparison", "ReportData", "filled", "picture_uri", "render_report"]

_PICTURE_SIDE = 480
_STRIP_SIDE = 960
_FILM_WIDTH = 480
_JPEG_QUALITY = 88

_IN_CROPS = ("dino_i_crop", "dino_i_crop_min", "dino_i_gain")
_FIRST = ("clip_t", "clip_i", "dino_i", "dino_i_min", *_IN_CROPS)
"""What a person asks first; all other scores follow in the order of `MEASURES`."""
_WORST = ("… of the worse subject", "a mean can hide one that is missing")
_DERIVED = {
    "dino_i_min": _WORST,
    "dino_i_crop_min": _WORST,
    "dino_i_gain": (
        "… as a share of what is possible",
        "0 is the base model, 1 is true footage of the subjects",
    ),
}
_UNSHOWN = frozenset(
    {"clip_t_scaled", "clip_i_min", "clip_i_crop_min", "rank1_min", "t_cons_all_pairs"}
    | {"headline_min", "rank1_category_min", "motion"}
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """One prompt's videos, before and after the subjects were learned; either may be missing."""

    prompt: str
    before: Video | None = None
    after: Video | None = None
    before_prompt: str | None = None
    """What the model read before, where it differs: it knows no learned word."""


@dataclass(frozen=True, eq=False)
class AttentionView:
    """One generated video with each word's attention drawn over it: word -> video."""

    prompt: str
    words: Mapping[str, Video]


@dataclass(frozen=True, eq=False)
class ReportData:
    """All a report shows; whatever is empty is left out.

    Attributes:
        title, intro: the heading, and a sentence or two under it.
        subjects: their photos and masks are shown.
        scenes: composed training pictures, each uint8 (height, width, 3).
        losses: part name -> (step, value) pairs, in the order to be shown.
        comparisons: the videos.
        attention: the same videos with attention drawn over them.
        metrics: column ("before", "after") -> a `Scores.to_dict()`, or more numbers beside it.
        made: facts about the run, in order: "Base model" -> "toybox".
        commands: command lines that make the same again.
        parts: more of the same kind, shown below under their own titles; their `made`, `commands`
            and `parts` are not.
    """

    title: str
    intro: str = ""
    subjects: Sequence[Subject] = ()
    scenes: Sequence[NDArray[np.uint8]] = ()
    losses: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    comparisons: Sequence[Comparison] = ()
    attention: Sequence[AttentionView] = ()
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    made: Mapping[str, object] = field(default_factory=dict)
    commands: Sequence[str] = ()
    parts: Sequence[ReportData] = ()


def render_report(path: Path | str, data: ReportData) -> Path:
    """Write `data` as one self-contained HTML page, all or nothing, and return its path.

    Every text is escaped. Raises StorageError if the place cannot be written.
    """
    write_text(path, filled("report.html.j2", _context(data)))
    return Path(path)


def filled(template: str, values: Mapping[str, Any]) -> str:
    """One of the package's templates with `values` in it, each text escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("customvideo", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


def _context(data: ReportData) -> dict[str, Any]:
    return {
        "version": __version__,
        "parts": [_part(part) for part in (data, *data.parts)],
        "how": _how(data),
        "made": [(name, str(value)) for name, value in data.made.items()],
        "commands": list(data.commands),
    }


def _part(data: ReportData) -> dict[str, Any]:
    charts = (loss_chart(name, values) for name, values in data.losses.items())
    return {
        "title": data.title,
        "intro": data.intro,
        "subjects": [_subject(subject) for subject in data.subjects],
        "scenes": [picture_uri(scene) for scene in data.scenes],
        "comparisons": [_comparison(item) for item in data.comparisons],
        "compares": _compares(data),
        "attention": [_attention(view) for view in data.attention],
        "controlled": _controlled(data),
        "charts": [chart for chart in charts if chart is not None],
        "metrics": _table(data.metrics),
        "judges": _judges(data.metrics),
    }


def _how(data: ReportData) -> list[str]:
    """What was done, a sentence a step, as far as the data show that it was done."""
    several = len(data.subjects) > 1
    together = [part.after for part in data.comparisons if part.after is not None]
    steps = {
        "Each photo got a mask that says where its subject is.": data.subjects,
        "The subjects were composed into common pictures.": data.scenes and several,
        "From these pictures the model learned one new word per subject. What was learned lies in "
        "a file of its own; the model itself stayed as it was.": data.losses,
        "While learning, each word's attention was held to its subject's mask.": _controlled(data),
        "Pictures that the model makes of the mere categories were learned beside them, so that "
        "the categories stay what they were.": "prior" in data.losses,
        "The videos come from a prompt alone: nothing steers them afterwards.": together,
    }
    return [step for step, done in steps.items() if done]


def _controlled(data: ReportData) -> bool:
    """Whether attention was trained: then its loss was recorded."""
    return "attention" in data.losses


def _compares(data: ReportData) -> bool:
    return any(item.before is not None for item in data.comparisons)


def _judges(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Who made the numbers: `toybox-clip for CLIP`."""
    named: Mapping[str, str] = next(
        (scores["encoders"] for scores in metrics.values() if "encoders" in scores), {}
    )
    return [f"{name} for {part.upper()}" for part, name in named.items()]


def _subject(subject: Subject) -> dict[str, Any]:
    photos = [
        {
            "image": picture_uri(image),
            "overlay": picture_uri(overlay(image, mask)),
            "file": file,
            "coverage": f"{coverage(mask):.0%}",
        }
        for image, mask, file in zip(subject.images, subject.masks, subject.files, strict=True)
    ]
    return {"word": subject.word, "category": subject.category, "photos": photos}


def _comparison(item: Comparison) -> dict[str, Any]:
    note = f"(read as “{item.before_prompt}”)" if item.before_prompt else ""
    sides = [("Before", item.before, note), ("After", item.after, "")]
    shown = [
        {"label": label, "source": _film(video), "note": text}
        for label, video, text in sides
        if video is not None
    ]
    return {"prompt": item.prompt, "sides": shown}


def _attention(view: AttentionView) -> dict[str, Any]:
    words = [
        {"word": word, "source": _film(video), "strip": picture_uri(video.sheet(), _STRIP_SIDE)}
        for word, video in view.words.items()
    ]
    return {"prompt": view.prompt, "words": words}


def _film(video: Video) -> str:
    # Toy-sized frames are enlarged: H.264 halves the colours' resolution.
    return data_uri(video, scale=min(3, max(1, round(_FILM_WIDTH / video.size[1]))))


def picture_uri(image: NDArray[np.uint8], side: int = _PICTURE_SIDE) -> str:
    """A picture, shrunk to `side` pixels, as a `data:` address."""
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    memory = io.BytesIO()
    picture.save(memory, format="JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(memory.getvalue()).decode()}"


def _table(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Columns as given; rows for the known measures, then for other numbers, then subjects."""
    if not metrics:
        return None
    columns = list(metrics)
    rows = [
        _row(name, [metrics[column].get(name) for column in columns]) for name in _names(metrics)
    ]
    for subject in _keys(metrics[column].get("per_subject", {}) for column in columns):
        scores = [metrics[column].get("per_subject", {}).get(subject, {}) for column in columns]
        row = _row("dino_i", [score.get("dino_i") for score in scores])
        rows.append(row | {"label": f"Identity match of {subject}", "meaning": ""})
    return {"columns": columns, "rows": rows, "changes": len(columns) == 2}


def _names(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    present = _keys(metrics.values())
    listed = [*_FIRST, *(name for name in MEASURES if name not in _FIRST)]
    known = [name for name in listed if name in present and name not in _UNSHOWN]
    others = [name for name in present if name not in listed and name not in _UNSHOWN]
    return known + [
        name for name in others if any(_is_number(scores.get(name)) for scores in metrics.values())
    ]


def _row(name: str, values: Sequence[float | None]) -> dict[str, Any]:
    label, meaning = _DERIVED.get(name) or _called(name)
    first, last = values[0], values[-1]
    known = first is not None and last is not None
    # Rounded, and never a minus before zeros.
    change = round(last - first, 3) + 0.0 if first is not None and last is not None else 0.0
    return {
        "label": label,
        "meaning": meaning,
        "cells": [_number(value) for value in values],
        "change": f"{change:+.3f}" if known else "–",
        "better": known and _improved(name, change),
    }


def _improved(name: str, change: float) -> bool:
    direction = MEASURES[name].better if name in MEASURES else 1
    return direction * change >= 0.0005


def _called(name: str) -> tuple[str, str]:
    """A score's label and what it means."""
    if name not in MEASURES:
        return name, ""
    one = MEASURES[name]
    # The field's own abbreviation; other short names say nothing new.
    known_as = f" ({one.short})" if one.short.isupper() or "-" in one.short else ""
    return one.title + known_as, one.meaning + ("; lower is better" if one.better < 0 else "")


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "–"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _keys(mappings: Any) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))
