"""The studio's one page: the project, five tabs, and what binds them.

Each tab is a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from customvideo.studio import compare, generate, library, subjects, train
from customvideo.studio.desk import Desk, Page, Refresh, told
from customvideo.studio.look import render
from customvideo.studio.parts import panel
from customvideo.workspace import Workspace, example_project

__all__ = ["build"]

_PAGES: dict[str, Callable[[Desk], Page]] = {
    "Subjects": subjects.build,
    "Train": train.build,
    "Generate": generate.build,
    "Compare": compare.build,
    "Library": library.build,
}
_TICK = 1.5
"""Seconds between looks at what is being done."""


class _Bar:
    """The line on top: which project, and new ones."""

    def __init__(self) -> None:
        with gr.Row(elem_classes=["bar"]):
            self.title = panel("<h1>customvideo <span>studio</span></h1>")
            self.project = gr.Dropdown([], label="Project", min_width=180, elem_id="project")
            self.more = gr.Button("Projects", min_width=110, elem_id="more")
        with gr.Row(visible=False, elem_classes=["form-line"]) as self.line:
            self.name = gr.Textbox(label="Name", placeholder="Tom and Rex", max_length=80, scale=2)
            self.create = gr.Button("New project", variant="primary")
            self.example = gr.Button("Example project")
            self.rename = gr.Button("Rename this one")
            self.delete = gr.Button("Delete this one", variant="stop")
        self.undo = panel(elem_id="undo")


class _Welcome:
    """What is shown before there is a project."""

    def __init__(self) -> None:
        with gr.Column(visible=False) as self.whole:
            panel(render("welcome"))
            with gr.Row(elem_classes=["form-line"]):
                self.example = gr.Button("Try the example", variant="primary", elem_id="example")
                self.name = gr.Textbox(label="Or name your own project", max_length=80, scale=2)
                self.create = gr.Button("Begin", elem_id="begin")


def build(workspace: Workspace) -> Any:
    """The studio over `workspace`, as Gradio blocks that are not served yet."""
    with gr.Blocks(title="customvideo studio", analytics_enabled=False) as blocks:
        bar = _Bar()
        # Never switched: one that was switched on after the page was opened did not tick.
        desk = Desk(workspace, bar.project, bar.undo, gr.Timer(_TICK))
        welcome = _Welcome()
        pages: list[Page] = []
        with gr.Tabs(visible=False, elem_id="pages") as tabs:
            for name, lay_out in _PAGES.items():
                with gr.Tab(name, id=name.lower()) as tab:
                    page = lay_out(desk)
                pages.append(page)
                given = [desk.project, *page.kept]
                tab.select(page.refresh, given, page.outputs, show_progress="hidden")
        _wire(desk, blocks, bar, welcome, tabs, pages)
    return blocks


def _wire(
    desk: Desk, blocks: Any, bar: _Bar, welcome: _Welcome, tabs: Any, pages: Sequence[Page]
) -> None:
    frame = [desk.project, welcome.whole, tabs, bar.line, bar.more]
    outputs = [*frame, *(one for page in pages for one in page.outputs)]

    def show(project: str | None) -> list[Any]:
        """All of it, with the project `project` or the newest chosen."""
        found = desk.workspace.projects.list().entries
        ids = [one.id for one in found]
        chosen, some = project if project in ids else next(iter(ids), None), bool(ids)
        choices = [(one.name, one.id) for one in found]
        return [
            gr.Dropdown(choices=choices, value=chosen, visible=some),
            gr.Column(visible=not some),
            gr.Tabs(visible=some),
            gr.Row(visible=False),
            gr.Button(visible=some),
            *(value for page in pages for value in page.refresh(chosen)),
        ]

    def opened() -> list[Any]:
        desk.workspace.queue.ensure_runner()
        return show(None)

    @told
    def restore(project: str | None, event: gr.EventData) -> list[Any]:
        desk.workspace.trash.restore(event._data["entry"])
        return [*show(project), ""]

    blocks.load(told(opened), None, outputs, show_progress="hidden")
    desk.project.input(told(show), desk.project, outputs, show_progress="hidden")
    bar.more.click(lambda: gr.Row(visible=True), None, bar.line, show_progress="hidden")
    bar.undo.click(restore, desk.project, [*outputs, desk.undo])
    _wire_projects(desk, bar, welcome, show, outputs)


def _wire_projects(
    desk: Desk, bar: _Bar, welcome: _Welcome, show: Refresh, outputs: Sequence[Any]
) -> None:
    """New projects, other names, and none."""
    projects = desk.workspace.projects

    @told
    def create(name: str) -> list[Any]:
        return [*show(projects.create(name).id), "", ""]

    @told
    def example() -> list[Any]:
        return [*show(example_project(desk.workspace).id)]

    @told
    def rename(project: str, name: str) -> list[Any]:
        projects.rename(project, name)
        return [*show(project)]

    @told
    def delete(project: str) -> list[Any]:
        entry = projects.delete(project)
        return [*show(None), desk.deleted(entry)]

    for line in (bar, welcome):
        done = [*outputs, bar.name, welcome.name]
        gr.on([line.create.click, line.name.submit], create, line.name, done)
        line.example.click(example, None, outputs)
    bar.rename.click(rename, [desk.project, bar.name], outputs)
    bar.delete.click(delete, desk.project, [*outputs, desk.undo])
