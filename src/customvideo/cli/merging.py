"""The verbs that bring adapters together, from flags to calls of `customvideo.runs.merging`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from customvideo.cli.flags import Device, Sets, say

__all__ = ["add", "merge", "remove"]

Made = Annotated[Path, typer.Option("--out", metavar="FILE", help="A new .safetensors.")]
Backbone = Annotated[
    str | None, typer.Option(help="The model they were made for, if it is a folder somewhere.")
]


def merge(  # noqa: PLR0913 - a verb's parameters are its flags
    adapters: Annotated[list[Path], typer.Argument(metavar="FILE…", help="What training wrote.")],
    out: Made,
    how: Annotated[
        str | None,
        typer.Option(
            metavar="sum|closed-form|gradient", help="Default: the way that loses least here."
        ),
    ] = None,
    rename: Annotated[
        list[str],
        typer.Option(metavar="OLD=NEW", help="Another word for a subject of a later file; repeat."),
    ] = [],  # noqa: B006
    captions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Captions of ordinary pictures, which change least."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What each subject loses, as JSON.")
    ] = None,
    backbone: Backbone = None,
    device: Device = "auto",
) -> None:
    """Make one adapter of several, without training, and say what each subject loses by it."""
    from customvideo.runs.merging import MergePlan
    from customvideo.runs.merging import merge as run

    run(MergePlan(adapters, out, how, rename, captions, report, backbone, device), say)


def add(  # noqa: PLR0913 - a verb's parameters are its flags
    photos: Annotated[
        list[str],
        typer.Argument(metavar="NAME[:CATEGORY]=FOLDER…", help="The new subjects' photos."),
    ],
    to: Annotated[Path, typer.Option(metavar="FILE", help="The adapter to go on from.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where everything goes.")],
    replay: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=FOLDER", help="Photos of a subject it knows; repeat. Default: drawn."
        ),
    ] = [],  # noqa: B006
    sets: Sets = [],  # noqa: B006
    backbone: Backbone = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Fixes every random draw.")] = None,
    segmenter: Annotated[str | None, typer.Option(help="Who makes missing masks.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in DIR.")] = False,
    device: Device = "auto",
) -> None:
    """Learn more subjects on top of an adapter; the words that it knows stay as they are."""
    from customvideo.runs.merging import AddPlan
    from customvideo.runs.merging import add as run

    choices = {"seed": seed, "segmenter": segmenter}
    run(AddPlan(to, photos, out, replay, sets, choices, backbone, resume, device), say)


def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The subject's name.")],
    source: Annotated[
        Path, typer.Option("--from", metavar="FILE", help="The adapter that knows it.")
    ],
    out: Made,
) -> None:
    """Take a subject out of an adapter; prompts with its word are refused from then on."""
    from customvideo.runs.merging import RemovePlan
    from customvideo.runs.merging import remove as run

    run(RemovePlan(name, source, out), say)
