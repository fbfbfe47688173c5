"""What a study asks, and the rules its votes are counted by: `study.toml`, fixed before the first.

The file is meant to be read and changed by a person until somebody has voted; from then on its
digest stands in the database, and neither the server nor the tally takes another. Which videos are
compared is in `customvideo.userstudy.items`.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Self

import tomli_w
from pydantic import Field, field_validator, model_validator

from customvideo.errors import ConfigError, StudyError
from customvideo.files import is_file
from customvideo.records import parse_toml
from customvideo.settings import FROM_LIST, LARGEST_SEED, Settings, validated

__all__ = [
    "PLAN",
    "QUESTIONS",
    "SUBJECT",
    "TEXT",
    "Checks",
    "Exclusion",
    "Question",
    "StudyPlan",
    "read_plan",
    "write_plan",
]

PLAN = "study.toml"

_CONSENT = """\
You will see pairs of short videos made by computer programs, and say which of the two answers a \
question better. There are no right or wrong answers. It takes about ten minutes.

Taking part is voluntary: you may stop at any time, without giving a reason. Answers you gave \
until then are kept.

What is kept: your answers, when you gave them, and how long you took. No name, no address, and \
nothing about your device is asked for or stored. The answers may be published."""
_THANKS = "Your answers are saved. You may close this page."


class Question(Settings):
    """One question, asked about every pair of videos."""

    key: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")
    """How tables and files call it."""
    title: str = Field(min_length=1, max_length=60)
    """How plots and tables head it."""
    text: str = Field(min_length=1, max_length=300)
    """What the rater reads; the answer is one of the two videos."""


TEXT = Question(
    key="text", title="Text alignment", text="Which video shows better what the description says?"
)
SUBJECT = Question(
    key="subject",
    title="Subject fidelity",
    text="In which video do the subjects look more like those in the photos?",
)
QUESTIONS = (
    TEXT,
    SUBJECT,
    Question(
        key="motion", title="Motion quality", text="In which video is the motion more natural?"
    ),
    Question(key="overall", title="Overall quality", text="Which video is better overall?"),
)
"""The four questions of the paper's human evaluation."""


class Checks(Settings):
    """Comparisons that show whether somebody attends; they count towards no method."""

    obvious: int = Field(default=2, ge=0, le=20)
    """A video against a still, grey mosaic of it, so often for each rater."""
    repeats: int = Field(default=1, ge=0, le=20)
    """Comparisons shown again later with their sides exchanged, so many for each rater."""


class Exclusion(Settings):
    """Who is left out of the tally. Every rule can be switched off by its extreme value."""

    wrong_checks: float = Field(default=0.25, ge=0, le=1)
    """Whoever answers more than this share of the obvious questions wrongly; 1 is never."""
    changed_repeats: float = Field(default=0.75, ge=0, le=1)
    """Whoever changes more than this share of the answers when asked again; 1 is never. Somebody
    who tosses a coin changes half, and so does an attentive person where two videos are alike."""
    seconds: float = Field(default=2.0, ge=0)
    """Whoever takes less than this time for the middle one of their comparisons; 0 is never."""
    fewest: int = Field(default=3, ge=0)
    """Whoever answered fewer comparisons, checks not counted; 0 is never."""
    one_side: float = Field(default=0.95, ge=0.5, le=1)
    """Whoever takes the same side in more than this share of the answers; 1 is never."""


class StudyPlan(Settings):
    """All of `study.toml`."""

    title: str = Field(default="Which video is better?", min_length=1, max_length=120)
    consent: str = Field(default=_CONSENT, min_length=1, max_length=20_000)
    """Read and agreed to before the first comparison; blank lines part paragraphs."""
    contact: str = Field(default="", max_length=200)
    """Whom raters may ask."""
    thanks: str = Field(default=_THANKS, max_length=4000)
    """Read after the last comparison; the place for a completion code."""
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    """Fixes who sees which pair in which order and on which side."""
    per_rater: int = Field(default=12, ge=1, le=500)
    """Comparisons for each rater, checks not counted."""
    raters: int = Field(default=30, ge=1)
    """How many are wanted; it is shown beside how many came."""
    most_raters: int = Field(default=1000, ge=1)
    """No more are let in."""
    closes: datetime | None = None
    """When voting ends, such as `2030-01-31T18:00:00Z`; a time without zone is this machine's."""
    checks: Checks = Checks()
    exclusion: Exclusion = Exclusion()
    questions: Annotated[tuple[Question, ...], FROM_LIST, Field(min_length=1, max_length=12)] = (
        QUESTIONS
    )

    @field_validator("questions")
    @classmethod
    def _distinct(cls, questions: tuple[Question, ...]) -> tuple[Question, ...]:
        keys = [question.key for question in questions]
        if len(set(keys)) < len(keys):
            raise ValueError("questions with keys of their own")
        return questions

    @model_validator(mode="after")
    def _feasible(self) -> Self:
        if self.checks.repeats > self.per_rater:
            raise ValueError("at most as many checks.repeats as per_rater")
        return self

    @property
    def digest(self) -> str:
        """Of everything that raters see or votes are counted by."""
        told = self.model_dump(mode="json")
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


_HEAD = """\
# A user study: what is asked, and by which rules the answers are counted.
# Change it before anybody has voted. From the first rater on it is fixed: the server and the tally
# refuse another version of it.

"""
_NOTES = {
    "[checks]": """\
# Attention checks for each rater: a video against a still mosaic of it ("obvious"), and comparisons
# shown again with their sides exchanged ("repeats").
""",
    "[exclusion]": """\
# Who is left out of the tally: more than this share of obvious checks wrong, of repeated answers
# changed, or of answers on one side (1 switches a rule off); a median time per comparison below so
# many seconds, or fewer comparisons than "fewest" (0 switches them off).
""",
    "[[questions]]": "# Asked about every pair, in this order.\n",
}


def write_plan(plan: StudyPlan) -> str:
    """The plan as TOML that explains itself; `read_plan` reads it back."""
    told = plan.model_dump(exclude_none=True)
    told["questions"] = list(told["questions"])
    text = tomli_w.dumps(told, multiline_strings=True)
    for mark, note in _NOTES.items():
        text = text.replace(f"\n{mark}\n", f"\n{note}{mark}\n", 1)
    return _HEAD + text


def read_plan(folder: Path) -> StudyPlan:
    """The plan of the study in `folder`.

    Raises:
        StudyError: there is no study, or its `study.toml` is no TOML.
        ConfigError: a setting is unknown or out of range.
    """
    path = folder / PLAN
    if not is_file(path):
        raise StudyError(
            f"There is no study in '{folder}'; make one with 'customvideo study new {folder}'."
        )
    try:
        told: dict[str, Any] = parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(f"'{path}' cannot be read as TOML: {error}; correct it.") from error
    try:
        return validated(StudyPlan, told)
    except ConfigError as error:
        raise ConfigError(f"In '{path}': {error}") from error
