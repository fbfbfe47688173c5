"""What all pages of the studio share: the workspace, the project, addresses of files, errors told.

A page calls the workspace and shows what comes back; whatever a user can get wrong comes up here as
a sentence, never as a trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote

import gradio as gr
from markupsafe import escape

from customvideo.errors import UserError
from customvideo.studio.look import render
from customvideo.workspace import AdapterEntry, Discarded, Job, Progress, Workspace

__all__ = ["Desk", "Page", "Refresh", "told", "warn", "word_choices"]

P = ParamSpec("P")
R = TypeVar("R")

Refresh = Callable[..., Sequence[Any]]
"""A project's id, then the values of what is kept, if any, to a value for each output."""

_SECONDS = 10
_MOST_TOASTS = 4


@dataclass(frozen=True)
class Page:
    """What the app needs of a page: how to bring it up to date, and what that changes.

    `refresh` takes the project's id and gives a value for each of `outputs`; it changes nothing in
    the workspace and may be called at any time. With the values of `kept` after the id, what
    somebody chose there stays chosen; without them the page is as it is at first.
    """

    refresh: Refresh
    outputs: Sequence[Any]
    kept: Sequence[Any] = ()


@dataclass(frozen=True, eq=False)
class Desk:
    """What a page is built on.

    Attributes:
        workspace: where everything is.
        project: the component that holds the chosen project's id.
        undo: the panel that offers to bring back what was deleted last.
        clock: ticks as long as the page is open.
    """

    workspace: Workspace
    project: Any
    undo: Any
    clock: Any

    def address(self, path: Path) -> str:
        """Where the browser gets a file of the workspace; another address once it has changed."""
        relative = path.relative_to(self.workspace.root).as_posix()
        try:
            version = path.stat().st_mtime_ns
        except OSError:
            version = 0
        return f"/studio/file/{quote(relative)}?v={version}"

    def show(self, template: str, **values: Any) -> str:
        """A template that may name files of the workspace."""
        return render(template, address=self.address, **values)

    def deleted(self, entry: Discarded) -> str:
        """The offer to bring it back."""
        return render("undo", entry=entry)

    def jobs(self, project: str, kinds: Iterable[str]) -> list[tuple[Job, Progress]]:
        """Jobs of these kinds with how far they are, in the queue's order."""
        queue, wanted = self.workspace.queue, frozenset(kinds)
        found = [job for job in queue.list(project).entries if job.kind in wanted]
        return [(job, queue.progress(job.id) if job.active else Progress()) for job in found]

    def on_job(self, do: str, id: str) -> Any:
        """Do what somebody pressed at a job; the offer to undo it, where it can be."""
        queue = self.workspace.queue
        if do == "forget":
            return self.deleted(queue.delete(id))
        if do == "sooner":
            waiting = [job.id for job in queue.list().entries if job.state == "queued"]
            at = waiting.index(id) if id in waiting else 0
            if at:
                waiting[at - 1 : at + 1] = waiting[at], waiting[at - 1]
                queue.reorder(waiting)
        else:
            {"pause": queue.pause, "stop": queue.stop, "resume": queue.resume}[do](id)
        return gr.skip()


def told(function: Callable[P, R]) -> Callable[P, R]:
    """Let `function` raise errors of `customvideo.errors`; the page shows them as a sentence."""

    @wraps(function)
    def telling(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            raise gr.Error(
                str(escape(str(error))),
                duration=_SECONDS,
                title="That did not work",
                print_exception=False,
            ) from error

    return telling


def warn(sentences: Sequence[str]) -> None:
    """Show sentences that are no failure of the whole."""
    for sentence in sentences[:_MOST_TOASTS]:
        gr.Warning(str(escape(sentence)), duration=_SECONDS)
    if len(sentences) > _MOST_TOASTS:
        gr.Warning(f"… and {len(sentences) - _MOST_TOASTS} more of the kind.", duration=_SECONDS)


def word_choices(adapter: AdapterEntry | None) -> list[dict[str, str]]:
    """An adapter's words as the prompt box takes them."""
    if adapter is None:
        return []
    return [
        {"name": name, "word": f"<{name}>", "text": f"<{name}> {category}"}
        for name, category in adapter.words
    ]
