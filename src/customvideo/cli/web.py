"""The verb `web`: opens the studio, a page in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from customvideo.cli.flags import say

__all__ = ["web"]


def web(
    workspace: Annotated[
        Path, typer.Option(metavar="DIR", help="Where photos, jobs and videos are kept.")
    ] = Path("studio"),
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than local ones ask for a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any free one.")] = 7860,
    token: Annotated[
        str, typer.Option(envvar="CUSTOMVIDEO_TOKEN", help="The token; else one is made.")
    ] = "",
    model: Annotated[
        list[Path],
        typer.Option(metavar="DIR", help="A model's folder that trainings may use; repeat."),
    ] = [],  # noqa: B006
    name: Annotated[
        list[str], typer.Option(help="A further name of this machine, as behind a proxy.")
    ] = [],  # noqa: B006
) -> None:
    """Open the studio: photos in, masks mended, trainings watched, videos made, in the browser."""
    from customvideo.studio import Address, serve
    from customvideo.workspace import Workspace

    opened = Workspace(workspace)
    for folder in model:
        opened.allow_model(folder)
    serve(opened, Address(host, port, token, name), say)
