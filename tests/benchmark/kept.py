"""A folder of results as a benchmark leaves it, with videos that are a few pixels large."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from customvideo.benchmark.rows import ResultRow, write_rows
from customvideo.video import Video


def write_results(folder: Path, rows: Sequence[ResultRow], *, videos: bool = True) -> Path:
    """Write `rows.csv`, and a job with videos for each method and subject set."""
    write_rows(folder / "rows.csv", rows)
    (folder / "bench.json").write_text(json.dumps({"results": 1, "edition_from": "./own"}))
    for method, combination in sorted({(row.method, row.combination) for row in rows}):
        own = [row for row in rows if (row.method, row.combination) == (method, combination)]
        write_job(folder / "jobs" / f"{method}-{combination}", own, videos=videos)
    return folder


def write_job(folder: Path, rows: Sequence[ResultRow], *, videos: bool = True) -> None:
    """Write one job's description, and its videos."""
    people = {row.subject: row.category for row in rows}
    told = " and ".join(f"a <{name}> {noun}" for name, noun in people.items())
    samples = sorted({(row.prompt, row.seed) for row in rows})
    job = {
        "method": rows[0].method,
        "combination": rows[0].combination,
        "subjects": [{"name": k, "category": v, "photos": "0" * 64} for k, v in people.items()],
        "prompts": [f"{told} on the beach", f"{told} in the snow"],
        "samples": samples,
    }
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps(job))
    for prompt, seed in samples if videos else ():
        make_video(prompt).save(folder / "videos" / f"{prompt}-{seed}.mp4")


def make_video(shade: int = 0) -> Video:
    """Two frames of 32 x 48 pixels."""
    return Video(np.full((2, 32, 48, 3), 60 + 50 * shade, np.uint8))


def some_photos(name: str) -> Iterable[NDArray[np.uint8]]:
    """Three photos of anybody."""
    return [np.full((60, 90, 3), len(name) % 8 * 30, np.uint8)] * 3
