"""What each score is called in print, which way it is better, and how its numbers are written.

One literal table for the report and the benchmark; a score that is not in it is shown all the same,
under its own name. What a score *is*, its own file decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["MEASURES", "Group", "Measure", "measure"]

Group = Literal["main", "bound", "motion", "failure", "cost", "other"]
"""Which table a score stands in: what is quoted first, single subjects, motion, ways to fail, what
it costs; `other` are those nobody has sorted."""

Kind = Literal["score", "share", "seconds", "count", "megabytes", "bytes"]


@dataclass(frozen=True)
class Measure:
    """How one score is shown.

    Attributes:
        name: its column.
        title: as said in a sentence or beside a plot.
        short: over a column.
        group, kind: where it stands, and what its numbers are.
        better: 1 if higher is better, -1 if lower is, 0 if neither.
        meaning: one clause that explains it.
    """

    name: str
    title: str
    short: str
    group: Group = "other"
    kind: Kind = "score"
    better: int = 1
    meaning: str = ""

    @property
    def arrow(self) -> str:
        """↑ if higher is better, ↓ if lower is, nothing if neither."""
        return {1: "↑", -1: "↓"}.get(self.better, "")

    def format(self, value: float) -> str:
        """`value` as it is printed, with its unit."""
        text = _WRITERS[self.kind](value)
        return text if _tells(text) else text.lstrip("-")

    def format_interval(self, low: float, high: float, *, signed: bool = False) -> str:
        """`[0.512, 0.547]`, or `[81.0, 92.5 %]` with the unit said once."""
        write = self.format_change if signed else self.format
        first, last = write(low), write(high)
        unit = last.partition(" ")[2]
        return f"[{first.removesuffix(f' {unit}') if unit else first}, {last}]"

    def format_change(self, value: float) -> str:
        """A difference of two values, with a sign; that of two shares is in percentage points."""
        text = self.format(abs(value))
        if self.kind == "share":
            # A per cent of a per cent is something else.
            text = text.replace("%", "pts")
        # What is printed as nothing has no direction.
        sign = ("-" if value < 0 else "+") if _tells(text) else ""
        return f"{sign}{text}"


def measure(name: str) -> Measure:
    """How the score in column `name` is shown; one that is unknown has no better direction."""
    plain = name.replace("_", " ")
    return MEASURES.get(name) or Measure(name, plain[:1].upper() + plain[1:], plain, better=0)


_ROWS = (
    Measure(
        "headline",
        "Headline",
        "Headline",
        "main",
        meaning="identity times the share of frames bound rightly: the one number to rank by",
    ),
    Measure("clip_t", "Text match", "CLIP-T", "main", meaning="does it show what the prompt says?"),
    Measure("clip_i", "Look match", "CLIP-I", "main", meaning="do frames resemble the photos?"),
    Measure(
        "dino_i",
        "Identity match",
        "DINO-I",
        "main",
        meaning="is it this individual, not just its kind?",
    ),
    Measure(
        "t_cons",
        "Consistency over time",
        "T.Cons",
        "main",
        meaning="do neighbouring frames agree? A frozen video scores 1",
    ),
    Measure(
        "dino_i_crop",
        "Identity match, each cut out",
        "DINO-I crop",
        "main",
        meaning="each subject found, cut out and compared with its own photos; 0 where missing",
    ),
    Measure(
        "clip_t_scaled",
        "Text match, scaled",
        "CLIP-T ×2.5",
        "other",
        meaning="the same times 2.5, as some tables print it",
    ),
    Measure(
        "clip_i_crop",
        "Look match, each cut out",
        "CLIP-I crop",
        "bound",
        meaning="the same cut-outs, seen by CLIP",
    ),
    Measure(
        "co_occurrence",
        "All there",
        "All there",
        "bound",
        "share",
        meaning="frames that show every subject",
    ),
    Measure(
        "bleed",
        "Mixed up",
        "Mixed up",
        "bound",
        "share",
        -1,
        "of these, frames where one looks like another",
    ),
    Measure(
        "binding_margin",
        "Distance from being mixed up",
        "Margin",
        "bound",
        meaning="how much nearer each is to its own photos than to another's; above 0 is right",
    ),
    Measure(
        "present", "Present", "Present", "bound", "share", meaning="frames that show the subject"
    ),
    Measure(
        "correct",
        "Present and not mixed up",
        "Bound",
        "bound",
        "share",
        meaning="frames that show the subject, nearer to its own photos than to another's",
    ),
    Measure(
        "rank1",
        "Told apart",
        "Rank 1",
        "bound",
        "share",
        meaning="cut-outs nearest to their own photos, of all individuals",
    ),
    Measure(
        "rank1_category",
        "Told apart within its category",
        "Rank 1, category",
        "bound",
        "share",
        meaning="the same among individuals of one category",
    ),
    Measure(
        "detect_and_compare",
        "Detect and compare",
        "D&C",
        "bound",
        meaning="found against reference subjects in one matrix (MuDI)",
    ),
    Measure(
        "swap",
        "Words exchanged",
        "Swap",
        "bound",
        meaning="1 if the subjects change places with their words, 0 if nothing changes",
    ),
    Measure(
        "retention",
        "Text match kept without learned words",
        "Retention",
        "other",
        meaning="CLIP-T on bare categories minus the base model's; a loss is below 0",
    ),
    Measure(
        "dynamic_degree",
        "Dynamic degree",
        "Dynamic",
        "motion",
        "share",
        meaning="videos in which something moves",
    ),
    Measure(
        "motion_smoothness",
        "Smoothness of motion",
        "Smoothness",
        "motion",
        meaning="how well a frame follows from its neighbours; a frozen video scores best",
    ),
    Measure(
        "frame_change",
        "Movement",
        "Movement",
        "motion",
        "score",
        0,
        "mean change of pixels; 0 is a frozen video",
    ),
    Measure("blend", "Blended", "Blend", "failure", "share", -1, "identities are mixed"),
    Measure("drop", "Dropped", "Drop", "failure", "share", -1, "a subject is missing"),
    Measure(
        "copy", "Copied", "Copy", "failure", "share", -1, "a photo's pose or background comes back"
    ),
    Measure("freeze", "Frozen", "Freeze", "failure", "share", -1, "stillness bought similarity"),
    Measure("seams", "Seams", "Seams", "failure", "share", -1, "edges where training panels met"),
    Measure("train_seconds", "Training time", "Training", "cost", "seconds", -1, "per subject set"),
    Measure("sample_seconds", "Sampling time", "Sampling", "cost", "seconds", -1, "per video"),
    Measure(
        "trained_parameters",
        "Trained parameters",
        "Trained",
        "cost",
        "count",
        -1,
        "per subject set",
    ),
    Measure("peak_memory_mb", "Peak memory", "Memory", "cost", "megabytes", -1, "while training"),
    Measure(
        "adapter_bytes", "Stored per subject set", "Stored", "cost", "bytes", -1, "the file's size"
    ),
)

MEASURES = {row.name: row for row in _ROWS}
"""Column -> how it is shown, in the order of the columns of the tables."""


def _tells(text: str) -> bool:
    """Whether a printed number is more than zeros."""
    return any(digit in text for digit in "123456789")


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _seconds(value: float) -> str:
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def _count(value: float) -> str:
    return _scaled(value, (("", 1.0), (" k", 1e3), (" M", 1e6), (" B", 1e9)))


def _bytes(value: float) -> str:
    return _scaled(value, ((" B", 1.0), (" kB", 1e3), (" MB", 1e6), (" GB", 1e9)))


def _megabytes(value: float) -> str:
    return _bytes(1e6 * value)


def _scaled(value: float, units: tuple[tuple[str, float], ...]) -> str:
    unit, size = next((u for u in reversed(units) if abs(value) >= u[1]), units[0])
    number = value / size
    return f"{number:.0f}{unit}" if abs(number) >= 99.5 else f"{number:.3g}{unit}"


_WRITERS: dict[Kind, Callable[[float], str]] = {
    "score": lambda value: f"{value:.3f}",
    "share": _share,
    "seconds": _seconds,
    "count": _count,
    "megabytes": _megabytes,
    "bytes": _bytes,
}
