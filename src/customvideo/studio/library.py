"""The page on which what was learned is kept: merged, exported, scored, deleted, brought back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from customvideo.studio.desk import Desk, Page, Refresh, told
from customvideo.studio.parts import panel

__all__ = ["build"]

_WAYS = [
    ("the one that loses least", ""),
    ("sum", "sum"),
    ("closed-form", "closed-form"),
    ("gradient", "gradient"),
]


class _Tools:
    """What can be done with adapters, below their list."""

    def __init__(self) -> None:
        from customvideo.exports.targets import TARGETS

        with gr.Accordion("Merge several into one", open=False):
            self.several = gr.CheckboxGroup([], label="Which")
            with gr.Row():
                self.name = gr.Textbox(label="Name of the new one", max_length=80)
                self.how = gr.Dropdown(_WAYS, value="", label="How")
            self.rename = gr.Textbox(
                label="Other names for words that several know",
                placeholder="tom=tom2, rex=rex2",
                max_length=400,
            )
            self.merge = gr.Button("Merge", variant="primary")
        with gr.Accordion("Write one for another program", open=False):
            with gr.Row():
                self.one = gr.Dropdown([], label="Which", elem_id="export-which")
                self.target = gr.Dropdown(list(TARGETS), value="diffusers", label="For")
            self.export = gr.Button("Export", variant="primary")
        with gr.Accordion("Bring one in", open=False):
            self.file = gr.File(
                label="An adapter.safetensors", file_types=[".safetensors"], height=120
            )
        self.chosen = [self.several, self.one]
        self.jobs = panel(elem_id="library-jobs")
        with gr.Accordion("Deleted things and disk space", open=False):
            self.trash = panel(elem_id="trash")


def build(desk: Desk) -> Page:
    """Lay the page out, and wire it."""
    adapters = panel(elem_id="adapters")
    tools = _Tools()
    outputs = [adapters, tools.several, tools.one, tools.jobs, tools.trash]

    def refresh(
        project: str | None, ticked: Sequence[str] = (), chosen: str | None = None
    ) -> list[Any]:
        found = desk.workspace.library.adapters()
        choices = [(one.name, one.id) for one in found.entries]
        ids = [id for _, id in choices]
        one = chosen if chosen in ids else next(iter(ids), None)
        return [
            _adapters(desk),
            gr.CheckboxGroup(choices=choices, value=[id for id in ids if id in ticked]),
            gr.Dropdown(choices=choices, value=one),
            _jobs(desk, project),
            _trash(desk),
        ]

    _wire_list(desk, adapters, tools, refresh, outputs)
    _wire_tools(desk, adapters, tools, refresh, outputs)
    _wire_import(desk, tools, refresh, outputs)
    return Page(refresh, outputs, tools.chosen)


def _wire_list(desk: Desk, adapters: Any, tools: _Tools, refresh: Refresh, outputs: Any) -> None:
    @told
    def act(project: str, ticked: list[str], chosen: str, event: gr.EventData) -> list[Any]:
        do, id = event._data["do"], event._data["adapter"]
        undo: Any = gr.skip()
        if do == "delete":
            undo = desk.deleted(desk.workspace.library.delete_adapter(id))
        else:
            owner = desk.workspace.library.adapter(id).project or project
            desk.workspace.queue.submit("evaluate", owner, {"adapter": id})
        return [*refresh(project, ticked, chosen), undo]

    @told
    def restore(project: str, event: gr.EventData) -> list[Any]:
        if event._data["do"] == "empty":
            desk.workspace.trash.empty()
        else:
            desk.workspace.trash.restore(event._data["entry"])
        return [*refresh(project), ""]

    adapters.click(act, [desk.project, *tools.chosen], [*outputs, desk.undo])
    tools.trash.click(restore, desk.project, [*outputs, desk.undo])


def _wire_tools(desk: Desk, adapters: Any, tools: _Tools, refresh: Refresh, outputs: Any) -> None:
    @told
    def merge(project: str, which: list[str], name: str, how: str, rename: str) -> list[Any]:
        settings = {
            "adapters": which,
            "name": (name or "").strip(),
            "how": how or None,
            "rename": [text for text in re.split(r"[,\s]+", rename or "") if text],
        }
        desk.workspace.queue.submit("merge", project, settings)
        return [*refresh(project)]

    @told
    def export(project: str, which: str | None, target: str) -> str:
        settings = {"adapter": which or "", "target": target}
        desk.workspace.queue.submit("export", project, settings)
        return _jobs(desk, project)

    @told
    def on_job(project: str, event: gr.EventData) -> list[Any]:
        undo = desk.on_job(event._data["do"], event._data["job"])
        return [_jobs(desk, project), undo]

    def tick(project: str | None) -> list[Any]:
        return [_jobs(desk, project), _adapters(desk)]

    given = [desk.project, tools.several, tools.name, tools.how, tools.rename]
    tools.merge.click(merge, given, outputs)
    tools.export.click(export, [desk.project, tools.one, tools.target], [tools.jobs])
    tools.jobs.click(on_job, desk.project, [tools.jobs, desk.undo])
    desk.clock.tick(
        tick, desk.project, [tools.jobs, adapters], show_progress="hidden", trigger_mode="once"
    )


def _wire_import(desk: Desk, tools: _Tools, refresh: Refresh, outputs: Any) -> None:
    @told
    def bring(project: str, file: str | None) -> list[Any]:
        if file is None:
            return [*refresh(project), None]
        path = Path(file)
        try:
            desk.workspace.library.import_adapter(path.read_bytes(), path.stem, project)
        finally:
            path.unlink(missing_ok=True)
        return [*refresh(project), None]

    tools.file.upload(bring, [desk.project, tools.file], [*outputs, tools.file])


def _adapters(desk: Desk) -> str:
    found = desk.workspace.library.adapters()
    videos = {one.id: one for one in desk.workspace.library.videos().entries}
    samples = [
        (one, next((videos[id] for id in one.videos if id in videos), None))
        for one in found.entries
    ]
    return desk.show("adapters", adapters=samples, broken=found.broken)


def _jobs(desk: Desk, project: str | None) -> str:
    """Exports, merges and scores with what they left to download."""
    if not project:
        return ""
    jobs = desk.jobs(project, ("export", "merge", "evaluate"))
    done = [job.id for job, _ in jobs if job.state == "done"]
    results = {id: desk.workspace.queue.results(id) for id in done}
    return desk.show("jobs", jobs=jobs, results=results, watched="") if jobs else ""


def _trash(desk: Desk) -> str:
    entries = desk.workspace.trash.list().entries
    return desk.show("trash", entries=entries, use=desk.workspace.library.disk_use())
