"""The verb `customvideo doctor`, from flags to a call of `customvideo.doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from customvideo.cli.flags import MENDABLE, say

__all__ = ["doctor"]


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """Say what is there and what is not: versions, devices, codecs, space, optional parts.

    Exits with 2 if something has to be mended before anything works.
    """
    from customvideo.doctor import examine, tell

    findings = examine()
    say(tell(findings, as_json=as_json))
    raise typer.Exit(MENDABLE if any(one.mark == "!!" for one in findings) else 0)
