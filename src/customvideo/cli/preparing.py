"""The verb `prepare`: what people have, understood and tidied up before anything is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from customvideo.cli.flags import Device, say

__all__ = ["prepare"]

Folders = Annotated[
    list[str],
    typer.Option(
        "--subject",
        metavar="NAME[:CATEGORY]=FOLDER",
        help="A subject's photos, or those of several: NAME+NAME=FOLDER; repeat for each.",
    ),
]


def prepare(  # noqa: PLR0913 - a verb's parameters are its flags
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where tidy folders and the page go.")],
    subject: Folders,
    backbone: Annotated[str, typer.Option(help="Who will read the words.")] = "toybox",
    segmenter: Annotated[
        str, typer.Option(metavar="NAME[=MODEL]", help="Who makes missing masks.")
    ] = "grabcut",
    clip: Annotated[
        str | None,
        typer.Option(metavar="NAME[=MODEL]", help="Who suggests what a subject is."),
    ] = None,
    captioner: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Who describes photos, all but the subject's look."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Look at subjects' photos and masks before training, and tidy them up.

    Writes DIR/prepare.html and prepare.json, and a folder a subject that train takes as it is.
    """
    from customvideo.runs import PreparePlan
    from customvideo.runs import prepare as run

    run(PreparePlan(out, subject, backbone, segmenter, clip, captioner, device), say)
