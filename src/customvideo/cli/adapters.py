"""The verbs that bring adapters to other programs and other programs' files here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from customvideo.cli.flags import Device, say

__all__ = ["export", "import_file"]


def export(  # noqa: PLR0913 - a verb's parameters are its flags
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="What training wrote.")],
    to: Annotated[
        str,
        typer.Option(help="comfyui, diffusers, kohya, textual-inversion or merged-folder."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A new folder; else one beside the adapter."),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="The model it was made for, if that is not found by itself.")
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(help="Of LoRA files; else 64, or the own. 0: full."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="fp16, bf16 or fp32.")] = "fp32",
    verify: Annotated[
        bool, typer.Option("--verify", help="Read the files back and compare a short clip.")
    ] = False,
    words_only: Annotated[
        bool, typer.Option("--words-only", help="Leave out what else was learned.")
    ] = False,
    device: Device = "cpu",
) -> None:
    """Write what was learned for another program."""
    from customvideo.runs.exporting import ExportPlan
    from customvideo.runs.exporting import export as run

    run(ExportPlan(adapter, to, out, backbone, rank, dtype, verify, words_only, device), say)


def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Another trainer's .safetensors.")],
    backbone: Annotated[str, typer.Option(help="The model that it was trained on.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the adapter goes.")],
    device: Device = "cpu",
) -> None:
    """Make an adapter, without words, of another trainer's LoRA or Custom Diffusion weights."""
    from customvideo.runs.exporting import ImportPlan
    from customvideo.runs.exporting import import_file as run

    run(ImportPlan(file, backbone, out, device), say)
