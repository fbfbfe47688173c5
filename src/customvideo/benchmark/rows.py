"""A benchmark's results as one flat table: a row per method, combination, prompt, seed, subject.

Everything the tables say is made from these rows alone. What a score is, is decided in
`customvideo.evaluation`; what it is called in print, in `customvideo.evaluation.measures`.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from customvideo.errors import StorageError
from customvideo.files import write_text

__all__ = ["COLUMNS", "SCORES", "ResultRow", "read_rows", "write_rows"]

_DIGITS = 6


@dataclass(frozen=True)
class ResultRow:
    """What one method made of one subject in one video; None is a score that was not measured.

    Attributes:
        method: the entry's label, `customvideo` or `customvideo-no-control`.
        combination: the subject set's name; results of one set are not independent of each other.
        subjects: how many subjects the set has.
        same_category: whether two of them are of one category.
        prompt, seed: which of the combination's prompts, counted from 0, and the starting noise.
        subject, category: the subject this row is about.
        small: whether it is in the lower third of the edition by the share its masks cover.

    All others are scores. `clip_i`, `dino_i`, their `_crop` forms, `rank1`, `rank1_category`,
    `present` and `correct` are the subject's own; the rest belong to the video, or to the adapter
    that made it, and repeat in the rows of its other subjects. A subject that is missing counts 0
    in the `_crop` forms. Sizes are in bytes or (`peak_memory_mb`) megabytes, times in seconds.
    """

    method: str
    combination: str
    subjects: int
    same_category: bool
    prompt: int
    seed: int
    subject: str
    category: str
    small: bool
    clip_t: float | None = None
    clip_t_scaled: float | None = None
    clip_i: float | None = None
    dino_i: float | None = None
    clip_i_crop: float | None = None
    dino_i_crop: float | None = None
    t_cons: float | None = None
    co_occurrence: float | None = None
    bleed: float | None = None
    binding_margin: float | None = None
    present: float | None = None
    correct: float | None = None
    rank1: float | None = None
    rank1_category: float | None = None
    headline: float | None = None
    dynamic_degree: float | None = None
    motion_smoothness: float | None = None
    frame_change: float | None = None
    blend: float | None = None
    drop: float | None = None
    copy: float | None = None
    freeze: float | None = None
    seams: float | None = None
    detect_and_compare: float | None = None
    swap: float | None = None
    retention: float | None = None
    train_seconds: float | None = None
    sample_seconds: float | None = None
    trained_parameters: float | None = None
    peak_memory_mb: float | None = None
    adapter_bytes: float | None = None

    def __post_init__(self) -> None:
        for name in SCORES:
            value = getattr(self, name)
            assert value is None or math.isfinite(value), f"{name} of {self.key} is {value}"

    @property
    def key(self) -> tuple[str, str, int, int, str]:
        """What tells this row from all others, and the order of the file."""
        return self.method, self.combination, self.prompt, self.seed, self.subject


COLUMNS = tuple(field.name for field in fields(ResultRow))
SCORES = COLUMNS[COLUMNS.index("small") + 1 :]
"""The columns that hold scores; whatever is added to `ResultRow` is one."""


def read_rows(path: Path | str) -> list[ResultRow]:
    """The rows of a file that `write_rows` wrote, in its order.

    Raises:
        StorageError: the file is missing, is something else, or is of another version; or a line
            cannot be understood, or stands there twice.
    """
    lines = _records(Path(path))
    rows = [_row(values, f"line {number} of '{path}'") for number, values in lines]
    _require_distinct(rows, Path(path))
    return rows


def write_rows(path: Path | str, rows: Iterable[ResultRow]) -> None:
    """Write `rows` as CSV, sorted, all or nothing; the same rows give the same bytes.

    Numbers are kept to six decimals, which a second reading and writing leaves as they are.

    Raises:
        StorageError: two rows are about the same thing, or the place cannot be written.
    """
    ordered = sorted(rows, key=lambda row: row.key)
    _require_distinct(ordered, Path(path))
    memory = io.StringIO()
    writer = csv.writer(memory, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_text(getattr(row, name)) for name in COLUMNS] for row in ordered)
    write_text(path, memory.getvalue())


def _records(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The line number and the columns of each line, once the first line is found to be ours."""
    try:
        # Spreadsheets put a mark before the first column's name.
        text = path.read_text(encoding="utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        _require_columns(list(reader.fieldnames or ()), path)
        records = [(reader.line_num, values) for values in reader]
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise StorageError(
            f"There is no table of results '{path}'; make one with 'customvideo bench run'."
        ) from error
    except (OSError, ValueError, csv.Error) as error:
        raise StorageError(
            f"'{path}' cannot be read as a table of results; give the rows.csv of a benchmark."
        ) from error
    for number, values in records:
        if None in values or None in values.values():
            raise StorageError(
                f"Line {number} of '{path}' has not as many values as there are columns; the file "
                "is damaged: run the benchmark again, finished parts are not repeated."
            )
    return records


def _require_columns(found: list[str], path: Path) -> None:
    if not {"method", "combination"} <= set(found):
        raise StorageError(
            f"'{path}' is no table of results: it has no columns 'method' and 'combination'; give "
            "the rows.csv of a benchmark."
        )
    missing = [name for name in COLUMNS if name not in found and name not in SCORES]
    unknown = [name for name in found if name not in COLUMNS]
    if missing:
        raise StorageError(
            f"'{path}' lacks the column '{missing[0]}': it is of another version; run the "
            "benchmark again with this one."
        )
    if unknown:
        raise StorageError(
            f"'{path}' has a column '{unknown[0]}' that is unknown here: it was made by a newer "
            "customvideo; update customvideo, or run the benchmark again with this one."
        )


def _row(values: Mapping[str, str], where: str) -> ResultRow:
    parsed: dict[str, Any] = {}
    for name in COLUMNS:
        read = _READERS.get(name, _score)
        try:
            # A score that an earlier version did not know was not measured.
            parsed[name] = read(values.get(name, ""))
        except ValueError as error:
            raise StorageError(
                f"'{values.get(name, '')}' in {where} cannot be '{name}'; correct it, or run the "
                "benchmark again."
            ) from error
    return ResultRow(**parsed)


def _require_distinct(rows: Iterable[ResultRow], path: Path) -> None:
    seen: set[tuple[str, str, int, int, str]] = set()
    for row in rows:
        if row.key in seen:
            raise StorageError(
                f"'{path}' would say two things of {row.method}, {row.combination}, prompt "
                f"{row.prompt}, seed {row.seed}, {row.subject}; keep one of the two rows."
            )
        seen.add(row.key)


def _score(text: str) -> float | None:
    if not text:
        return None
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(text)
    return text == "1"


_READERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("method", "combination", "subject", "category"), str),
    **dict.fromkeys(("subjects", "prompt", "seed"), int),
    **dict.fromkeys(("same_category", "small"), _flag),
}


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        # Never a minus before a zero, never a point without digits behind it.
        rounded = round(value, _DIGITS) + 0.0
        return str(int(rounded)) if rounded.is_integer() else repr(rounded)
    return str(value)
