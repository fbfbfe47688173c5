"""What the verbs of all groups have in common: a few flags, exit codes, and how a line is said."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

__all__ = ["MENDABLE", "Device", "Sets", "say"]

MENDABLE = 2
"""How a program ends when somebody has to mend something first."""

Sets = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; repeat.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


def say(text: str) -> None:
    """Print a line of progress."""
    typer.echo(text)
    # Whoever reads a pipe sees progress as it happens.
    sys.stdout.flush()
