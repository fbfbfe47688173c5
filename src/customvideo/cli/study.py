"""The verbs of `customvideo study`, from flags to calls of `customvideo.userstudy.commands`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from customvideo.cli.flags import say

__all__ = ["study"]

study = typer.Typer(no_args_is_help=True, help="Many people compare videos blind.")

Kept = Annotated[Path, typer.Argument(metavar="DIR", help="The study's folder.")]
Database = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="CUSTOMVIDEO_STUDY_DATABASE",
        help="Where the votes are, such as postgresql+psycopg://…; default a file in DIR.",
    ),
]


@study.command("new", short_help="Make a study of videos.")
def study_new(  # noqa: PLR0913 - a verb's parameters are its flags
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    videos: Annotated[
        list[str],
        typer.Option(
            metavar="METHOD=DIR", help="A method's videos; repeat. Same names, same prompt."
        ),
    ] = [],  # noqa: B006
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help='TOML: "video name" = "prompt".')
    ] = None,
    subject: Annotated[
        list[str],
        typer.Option(
            metavar="NAME[:CATEGORY]=FOLDER", help="Photos to compare with; repeat for each."
        ),
    ] = [],  # noqa: B006
    bench: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Instead: what bench run made.")
    ] = None,
    method: Annotated[
        list[str], typer.Option(metavar="LABEL", help="Of the benchmark, only these; repeat.")
    ] = [],  # noqa: B006
    items: Annotated[
        int | None, typer.Option(min=1, help="So many prompts, spread over all.")
    ] = None,
    per_rater: Annotated[
        int | None, typer.Option(min=1, help="Comparisons for each rater; default 12.")
    ] = None,
    raters: Annotated[int | None, typer.Option(min=1, help="How many are wanted.")] = None,
    title: Annotated[str | None, typer.Option(help="What raters read first.")] = None,
    contact: Annotated[str | None, typer.Option(help="Whom raters may ask.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Fixes who sees what.")] = 0,
) -> None:
    """Make a folder with a blind, balanced study; look over its study.toml before serving it."""
    from customvideo.userstudy.commands import new as run

    given = {"per_rater": per_rater, "raters": raters, "title": title, "contact": contact}
    settings = {key: value for key, value in given.items() if value is not None}
    run(
        folder,
        videos=videos,
        prompts=prompts,
        subjects=subject,
        bench=bench,
        methods=method,
        items=items,
        settings={**settings, "seed": seed},
        say=say,
    )


@study.command("serve", short_help="Open the pages where people vote.")
def study_serve(
    folder: Kept,
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 is open to all.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8350,
    database: Database = None,
    proxy: Annotated[
        list[str],
        typer.Option(metavar="ADDRESS", help="A proxy whose X-Forwarded-… is believed; repeat."),
    ] = [],  # noqa: B006
    root_path: Annotated[
        str, typer.Option(metavar="/PATH", help="Where the proxy shows the study.")
    ] = "",
) -> None:
    """Serve the study on this machine, until Ctrl+C; every vote is on the disk before it counts."""
    from customvideo.userstudy.commands import serve as run

    run(
        folder,
        host=host,
        port=port,
        database=database,
        proxies=proxy,
        prefix=root_path,
        say=say,
    )


@study.command("close", short_help="End the voting.")
def study_close(folder: Kept, database: Database = None) -> None:
    """End the voting for good; a running server takes it in at once."""
    from customvideo.userstudy.commands import close as run

    run(folder, database, say)


@study.command("tally", short_help="Tables, plots and raw votes.")
def study_tally(
    folder: Kept,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where they go; default DIR/tally.")
    ] = None,
    database: Database = None,
) -> None:
    """Count the votes: preference rates, ranking, agreement, who is left out and why."""
    from customvideo.userstudy.commands import tally as run

    run(folder, out, database, say)


@study.command("power", short_help="How many raters it takes.")
def study_power(  # noqa: PLR0913 - a verb's parameters are its flags
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="A study, for its size.")
    ] = None,
    methods: Annotated[int, typer.Option(min=2, help="How many are compared.")] = 4,
    prompts: Annotated[int, typer.Option(min=1, help="How many prompts.")] = 20,
    per_rater: Annotated[int, typer.Option(min=1, help="Comparisons for each rater.")] = 12,
    rate: Annotated[
        float, typer.Option(help="How often the best is preferred to another; over 0.5.")
    ] = 0.6,
    spread: Annotated[float, typer.Option(min=0, help="How much raters differ, in strength.")] = (
        0.5
    ),
    raters: Annotated[
        list[int], typer.Option(metavar="N", help="How many there might be; repeat.")
    ] = [],  # noqa: B006
    trials: Annotated[int, typer.Option(min=50, help="Simulated studies for each.")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="Fixes every random draw.")] = 0,
) -> None:
    """Simulate the study before it starts: how surely is a preference found?"""
    from customvideo.userstudy.commands import power as run

    run(
        folder,
        methods=methods,
        prompts=prompts,
        per_rater=per_rater,
        rate=rate,
        spread=spread,
        raters=raters,
        trials=trials,
        seed=seed,
        say=say,
    )
