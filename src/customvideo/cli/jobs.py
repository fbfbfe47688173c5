"""The verb that shows a studio's jobs, from flags to calls of `customvideo.workspace`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from customvideo.cli.flags import say

__all__ = ["jobs"]

Id = Annotated[str | None, typer.Option(metavar="JOB", help="Its id, as it is listed.")]


def jobs(
    root: Annotated[Path, typer.Argument(metavar="DIR", help="The studio's folder.")],
    pause: Id = None,
    resume: Id = None,
    stop: Id = None,
    log: Id = None,
) -> None:
    """List a studio's jobs, after pausing, resuming or stopping one; or show what one said."""
    from customvideo.workspace.telling import tell

    for line in tell(root, pause=pause, resume=resume, stop=stop, log=log):
        say(line)
