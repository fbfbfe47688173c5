"""From the scores of single jobs to one table of rows; nothing is measured here.

Two failures are told by comparison with the base model's videos of the same combination, so they
are decided here, where all jobs are at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from customvideo.benchmark.grid import Job
from customvideo.benchmark.rows import SCORES, ResultRow, write_rows
from customvideo.benchmark.store import ROWS, JobFolder, Scored, Store
from customvideo.evaluation.scores import Row, Scores

__all__ = ["collect"]

_MEASURED = frozenset(field.name for field in fields(Row)) & frozenset(SCORES)
_PROBED = ("swap", "retention")
_COSTS = ("train_seconds", "trained_parameters", "peak_memory_mb")


def collect(store: Store) -> Path:
    """Write `rows.csv` from the scores of all finished jobs that have a label; return its path.

    Raises:
        StorageError: it cannot be written.
    """
    finished = [(job, folder, scored) for job, folder in store.found() if (scored := folder.scored)]
    bases = {
        _place(job): Scores(_asked(job, scored))
        for job, _, scored in finished
        if job.kind == "base"
    }
    rows = [
        row
        for job, folder, scored in finished
        for row in _result_rows(job, folder, scored, bases.get(_place(job)))
    ]
    write_rows(store.out / ROWS, rows)
    return store.out / ROWS


def _place(job: Job) -> tuple[str, str]:
    """What a job shares with the base model's videos that it is to be compared with."""
    return job.combination, job.made.backbone


def _asked(job: Job, scored: Scored) -> tuple[Row, ...]:
    """The rows of the videos that are asked for; there may be more from an earlier plan."""
    return tuple(row for row in scored.rows if scored.samples[row.video] in job.samples)


def _result_rows(
    job: Job, folder: JobFolder, scored: Scored, base: Scores | None
) -> list[ResultRow]:
    scores = Scores(_asked(job, scored))
    compared = scores if base is None else scores.against(base)
    costs, probed = folder.costs(), folder.probed
    if folder.adapter.is_file():
        costs["adapter_bytes"] = folder.adapter.stat().st_size
    return [_result_row(job, scored, row, costs, probed) for row in compared.rows]


def _result_row(
    job: Job, scored: Scored, row: Row, costs: Mapping[str, Any], probed: Mapping[str, Any]
) -> ResultRow:
    prompt, seed = scored.samples[row.video]
    probes = probed.get(f"{prompt}-{seed}", {})
    categories = {name: category for name, category, _ in job.made.subjects}
    seconds = costs.get("sample_seconds", {})
    return ResultRow(
        method=job.method,
        combination=job.combination,
        subjects=len(categories),
        same_category=len(set(categories.values())) < len(categories),
        prompt=prompt,
        seed=seed,
        subject=row.subject,
        category=categories[row.subject],
        small=row.subject in scored.small,
        **{name: _number(getattr(row, name)) for name in _MEASURED},
        **{name: _number(costs.get(name)) for name in (*_COSTS, "adapter_bytes")},
        **{name: _number(probes.get(name)) for name in _PROBED},
        sample_seconds=_number(seconds.get(f"{prompt}-{seed}")),
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
