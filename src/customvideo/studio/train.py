"""The page on which subjects are learned: what a training takes, the queue, and how it goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from customvideo.charts import loss_chart
from customvideo.errors import UserError
from customvideo.studio.desk import Desk, Page, told
from customvideo.studio.look import render
from customvideo.studio.parts import panel
from customvideo.workspace import Job, estimate

__all__ = ["build"]

_KINDS = ("train", "export", "merge", "evaluate", "generate")
_LOG_LINES = 60


def build(desk: Desk) -> Page:
    """Lay the page out, and wire it."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=320):
            form = _Form(desk.workspace.models)
        with gr.Column(scale=3, min_width=320):
            queue = panel(elem_id="queue")
            live = panel(elem_id="live")
    watched = gr.State("")
    offered = gr.State(())
    _wire_form(desk, form, queue, live, watched)
    _wire_queue(desk, queue, live, watched)

    def refresh(
        project: str | None, ticked: Sequence[str] = (), known: Sequence[str] = ()
    ) -> list[Any]:
        subjects = desk.workspace.shelf(project).list() if project else ()
        names = [(f"{one.word} {one.category}", one.name) for one in subjects]
        # Who is new is meant; who was taken out stays out.
        meant = [name for _, name in names if name in ticked or name not in known]
        return [
            gr.CheckboxGroup(choices=names, value=meant),
            [name for _, name in names],
            *_looked(desk, project, ""),
        ]

    return Page(refresh, [form.subjects, offered, queue, live], [form.subjects, offered])


class _Form:
    """What is learned, and how; `inputs` in the order of `_request`."""

    def __init__(self, models: Sequence[str]) -> None:
        from customvideo.backbones.base import backbone_rows
        from customvideo.methods.base import METHODS

        self.subjects = gr.CheckboxGroup(choices=[], label="Subjects to learn together")
        with gr.Row():
            self.backbone = gr.Dropdown([*backbone_rows(), *models], value="toybox", label="Model")
            self.method = gr.Dropdown(list(METHODS), value="customvideo", label="Method")
        with gr.Accordion("More settings", open=False):
            self.name = gr.Textbox(label="Name of what is learned", max_length=80)
            with gr.Row():
                self.steps = _number("Steps")
                self.every = _number("Previews every")
                self.seed = gr.Number(label="Seed", value=0, precision=0, minimum=0, min_width=100)
        self.start = gr.Button("Start training", variant="primary", elem_id="start")
        self.ask = gr.Button("What will it take?")
        self.said = panel(elem_id="estimate")
        self.inputs = [
            self.subjects, self.backbone, self.method, self.name, self.steps, self.seed, self.every
        ]  # fmt: skip


def _number(label: str) -> Any:
    """A field whose empty value, and 0, which Gradio makes of it, mean what the recipe says."""
    return gr.Number(
        label=label, value=None, precision=0, minimum=0, placeholder="usual", min_width=100
    )


def _request(*given: Any) -> dict[str, Any]:
    """What the form says, as settings of `TrainRequest`."""
    subjects, backbone, method, name, steps, seed, every = given
    return {
        "subjects": subjects,
        "backbone": backbone,
        "method": method,
        "name": (name or "").strip(),
        "steps": int(steps) if steps else None,
        "seed": int(seed or 0),
        "preview_every": int(every) if every else None,
    }


def _wire_form(desk: Desk, form: _Form, queue: Any, live: Any, watched: Any) -> None:
    def ask(project: str, *given: Any) -> str:
        try:
            found = estimate(desk.workspace, project, _request(*given))
        except UserError as error:
            return render("estimate", problem=str(error), found=None)
        return render("estimate", problem="", found=found)

    @told
    def start(project: str, *given: Any) -> list[Any]:
        job = desk.workspace.queue.submit("train", project, _request(*given))
        return [*_looked(desk, project, job.id), job.id]

    given = [desk.project, *form.inputs]
    gr.on(
        [form.ask.click, form.backbone.input, form.method.input],
        ask,
        given,
        form.said,
        trigger_mode="always_last",
    )
    form.start.click(start, given, [queue, live, watched])


def _wire_queue(desk: Desk, queue: Any, live: Any, watched: Any) -> None:
    @told
    def act(project: str, id: str, event: gr.EventData) -> list[Any]:
        do, job = event._data["do"], event._data["job"]
        undo = gr.skip()
        if do == "watch":
            id = job
        else:
            undo = desk.on_job(do, job)
        return [*_looked(desk, project, id), id, undo]

    def tick(project: str | None, id: str) -> list[Any]:
        return [*_looked(desk, project, id)]

    inputs = [desk.project, watched]
    queue.click(act, inputs, [queue, live, watched, desk.undo])
    desk.clock.tick(tick, inputs, [queue, live], show_progress="hidden", trigger_mode="once")


def _looked(desk: Desk, project: str | None, watched: str) -> list[str]:
    """The queue and the training that is watched, as HTML."""
    if not project:
        return ["", ""]
    jobs = desk.jobs(project, _KINDS)
    results = {
        job.id: desk.workspace.queue.results(job.id)
        for job, _ in jobs
        if job.state == "done" and job.kind in ("export", "evaluate")
    }
    shown = _shown([job for job, _ in jobs], watched)
    return [
        desk.show("jobs", jobs=jobs, results=results, watched=shown.id if shown else ""),
        _live(desk, shown),
    ]


def _shown(jobs: Sequence[Job], watched: str) -> Job | None:
    """The training to show: the one that was asked for, else the one that runs, else the newest."""
    trainings = [job for job in jobs if job.kind == "train"]
    asked = [job for job in trainings if job.id == watched]
    running = [job for job in trainings if job.state == "running"]
    return next(iter([*asked, *running, *trainings]), None)


def _live(desk: Desk, job: Job | None) -> str:
    if job is None:
        return desk.show("live", job=None)
    progress = desk.workspace.queue.progress(job.id)
    drawn = (loss_chart(name, values) for name, values in progress.losses.items())
    adapter = None
    if job.state in ("done", "stopped") and job.adapter:
        known = {one.id: one for one in desk.workspace.library.adapters().entries}
        adapter = known.get(job.adapter)
    words = ", ".join(f"<{name}>" for name, _ in adapter.words) if adapter else ""
    return desk.show(
        "live",
        job=job,
        charts=[chart for chart in drawn if chart is not None],
        previews=sorted(progress.previews.items()),
        attention=max(progress.attention.items(), default=None),
        adapter=adapter,
        words=words,
        log=desk.workspace.queue.log(job.id, _LOG_LINES),
    )
