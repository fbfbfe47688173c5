"""The verbs of `customvideo bench`, from flags to calls of `customvideo.benchmark.commands`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from customvideo.cli.flags import MENDABLE, Device, Sets, say

__all__ = ["bench"]

bench = typer.Typer(no_args_is_help=True, help="Many methods on many subjects, scored alike.")

Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where results are kept.")]
Kept = Annotated[Path, typer.Argument(metavar="DIR", help="Where bench run keeps its results.")]
Plan = Annotated[Path | None, typer.Option(metavar="FILE", help="A plan as TOML; flags change it.")]
Pairs = Annotated[int | None, typer.Option(min=1, help="So many pairs, spread over the edition's.")]
Prompts = Annotated[int | None, typer.Option(min=1, help="So many prompts of each combination.")]
Seeds = Annotated[int | None, typer.Option(min=1, help="So many videos of each prompt.")]
AnyDevice = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Ray = Annotated[str | None, typer.Option(metavar="auto|ADDRESS", help="Work on a Ray cluster.")]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Try again what failed earlier.")]


@bench.command("run", short_help="Train and sample every method on every combination.")
def bench_run(  # noqa: PLR0913 - a verb's parameters are its flags
    out: Out,
    edition: Annotated[
        str | None, typer.Option(metavar="NAME|DIR", help="Whom it shows; default toybox.")
    ] = None,
    plan: Plan = None,
    entry: Annotated[
        list[str],
        typer.Option(metavar="LABEL[=RECIPE]", help="What to compare; repeat. Default all."),
    ] = [],  # noqa: B006
    sets: Sets = [],  # noqa: B006
    pairs: Pairs = None,
    only: Annotated[
        list[str],
        typer.Option(
            metavar="NAME|SIZE|KIND",
            help="Which combinations: ida+rex, 2, same-category, different-category; repeat.",
        ),
    ] = [],  # noqa: B006
    prompts: Prompts = None,
    seeds: Seeds = None,
    device: AnyDevice = None,
    ray: Ray = None,
    retry_failed: Retry = False,
) -> None:
    """Train and sample every method on every combination, and score the videos.

    Run it again to go on: what is finished is not done twice. Exits with 1 if a job failed.
    """
    from customvideo.benchmark.commands import run
    from customvideo.benchmark.plan import compose_plan
    from customvideo.config import parse_set

    given = {"edition": edition, "pairs": pairs, "only": only or None, "prompts": prompts}
    given |= {"seeds": seeds, "device": device}
    flags = {key: value for key, value in given.items() if value is not None}
    asked = compose_plan(plan, flags, entry, dict(map(parse_set, sets)))
    ended = run(asked, out, say=say, ray=ray, retry_failed=retry_failed)
    raise typer.Exit(1 if ended.failed else 0)


@bench.command("search", short_help="Try settings of methods, and say which won.")
def bench_search(  # noqa: PLR0913 - a verb's parameters are its flags
    out: Out,
    method: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="Whose settings; repeat. Default all that train."),
    ] = [],  # noqa: B006
    factor: Annotated[
        list[float],
        typer.Option(metavar="X", help="Times the rates; repeat. Default 1/3, 1 and 3."),
    ] = [],  # noqa: B006
    plan: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A plan with entries method@setting.")
    ] = None,
    edition: Annotated[
        str | None, typer.Option(metavar="NAME|DIR", help="Default toybox-development.")
    ] = None,
    sets: Sets = [],  # noqa: B006
    pairs: Pairs = None,
    prompts: Prompts = None,
    seeds: Seeds = None,
    device: AnyDevice = None,
    ray: Ray = None,
    retry_failed: Retry = False,
) -> None:
    """Train each method with several settings, log all, and say which has the best headline.

    Two prompts and one video of each unless said otherwise. Run it again to go on, or with more
    factors. Exits with 1 if a job failed.
    """
    from customvideo.benchmark.commands import search as run
    from customvideo.benchmark.search import compose_search
    from customvideo.config import parse_set

    given = {"edition": edition, "pairs": pairs, "prompts": prompts}
    given |= {"seeds": seeds, "device": device}
    flags = {key: value for key, value in given.items() if value is not None}
    asked = compose_search(plan, flags, method, factor, dict(map(parse_set, sets)))
    ended = run(asked, out, say=say, ray=ray, retry_failed=retry_failed)
    raise typer.Exit(1 if ended.failed else 0)


@bench.command("score", short_help="Score saved videos anew.")
def bench_score(
    out: Kept,
    device: Device = "auto",
) -> None:
    """Score saved videos anew, without training or sampling. Exits with 1 if a job failed."""
    from customvideo.benchmark.commands import score as run

    raise typer.Exit(1 if run(out, say=say, device=device).failed else 0)


@bench.command("probe", short_help="Exchange words, and ask for bare categories.")
def bench_probe(
    out: Kept,
    videos: Annotated[int, typer.Option(min=1, help="So many of each training's videos.")] = 1,
    entry: Annotated[
        list[str], typer.Option(metavar="LABEL", help="Only these entries; repeat.")
    ] = [],  # noqa: B006
    device: Device = "auto",
) -> None:
    """Make the extra videos of the swap test and of retention, for the table of gates.

    Exits with 1 if a job failed.
    """
    from customvideo.benchmark.commands import probe as run

    raise typer.Exit(
        1 if run(out, say=say, videos=videos, entries=entry, device=device).failed else 0
    )


@bench.command("table", short_help="Tables, plots and a page from results.")
def bench_table(
    results: Kept,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where they go; default DIR/tables.")
    ] = None,
    ours: Annotated[
        str, typer.Option(metavar="LABEL", help="The method all others are compared with.")
    ] = "customvideo",
    max_mb: Annotated[
        float,
        typer.Option(min=0, metavar="N", help="Megabytes of the page; what exceeds it are links."),
    ] = 24,
) -> None:
    """Write tables (Markdown, CSV, LaTeX) and a page with plots and videos."""
    from customvideo.benchmark.commands import table as run

    run(results, out, say=say, ours=ours, max_mb=max_mb)


@bench.command("check", short_help="Look an edition over.")
def bench_check(
    edition: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A known edition or yours.")],
) -> None:
    """Look an edition over, pictures included. Exits with 2 if something is to be mended."""
    from customvideo.benchmark.commands import check as run

    raise typer.Exit(0 if run(edition, say=say) else MENDABLE)


@bench.command("fetch", short_help="Get an edition's photos.")
def bench_fetch(
    edition: Annotated[str, typer.Argument(metavar="NAME|DIR", help="Such as photos.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to; default where a run looks.")
    ] = None,
) -> None:
    """Get an edition's photos from where their authors keep them; a stopped fetch goes on."""
    from customvideo.benchmark.commands import fetch as run

    run(edition, out, say=say)
