"""The verb `customvideo batch`, from flags to a call of `customvideo.batch.commands`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from customvideo.cli.flags import Device, Sets, say

__all__ = ["batch"]


def batch(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="The runs, as TOML.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where results are kept.")],
    sets: Sets = [],  # noqa: B006
    ray: Annotated[
        str | None, typer.Option(metavar="auto|ADDRESS", help="Work on a Ray cluster.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed earlier.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Customize many times: every run of a plan, with its videos.

    Run it again to go on: what is finished is not done twice. Exits with 1 if a run failed.
    """
    from customvideo.batch.commands import run_batch
    from customvideo.batch.plan import load_plan
    from customvideo.config import parse_set

    runs = load_plan(plan, list(map(parse_set, sets)))
    ended = run_batch(runs, out, say=say, ray=ray, retry_failed=retry_failed, device=device)
    raise typer.Exit(1 if ended.failed else 0)
