"""The page on which videos are compared, frame by frame: base and customized, one with another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from customvideo.errors import ConfigError
from customvideo.studio.desk import Desk, Page, told, word_choices
from customvideo.studio.generate import adapter_choices, seeds_of
from customvideo.studio.look import render
from customvideo.studio.parts import panel, players, prompt_box
from customvideo.workspace import VideoEntry

__all__ = ["build"]

_MOST = 4
_EMPTY = render(
    "empty",
    title="Side by side, frame by frame",
    lines=[
        "Choose two to four videos: they play in step, so that what differs is what you see.",
        "Or let one prompt be drawn by several: the base model, what you learned, other methods.",
    ],
)


class _Parts:
    """The page's components."""

    def __init__(self) -> None:
        self.chosen = gr.Dropdown(
            [], value=[], multiselect=True, max_choices=_MOST, label="Videos to compare"
        )
        self.films = players(elem_id="players")
        self.empty = panel(_EMPTY)
        with gr.Accordion("Draw one prompt with several", open=True):
            self.prompt = prompt_box(label="Prompt", placeholder="a <tom> cat on the beach")
            self.makers = gr.CheckboxGroup([], label="Who draws it")
            with gr.Row():
                self.seeds = gr.Textbox("0", label="Seeds", max_length=200)
                self.draw = gr.Button("Draw and compare", variant="primary")
        self.waiting = gr.State("")
        self.said = panel()


def build(desk: Desk) -> Page:
    """Lay the page out, and wire it."""
    parts = _Parts()

    def refresh(project: str | None) -> list[Any]:
        names = adapter_choices(desk, project)
        words = _all_words(desk, [value for _, value in names if value])
        return [
            gr.Dropdown(choices=_choices(desk, project)),
            gr.CheckboxGroup(choices=names),
            gr.HTML(words=words),
        ]

    @told
    def compare(ids: list[str]) -> list[Any]:
        return _films(desk, ids)

    shown = [parts.films, parts.empty]
    parts.chosen.input(compare, parts.chosen, shown, show_progress="hidden")
    _wire_drawing(desk, parts)
    return Page(refresh, [parts.chosen, parts.makers, parts.prompt])


def _wire_drawing(desk: Desk, parts: _Parts) -> None:
    """One prompt drawn by several; once that is done, it is what is compared."""

    @told
    def submit(project: str, text: str, who: list[str], given: str) -> list[Any]:
        if len(who) < 2:
            raise ConfigError("Choose at least two who draw it, such as the base model and yours.")
        settings = {"prompts": [(text or "").strip()], "adapters": who, "seeds": seeds_of(given)}
        job = desk.workspace.queue.submit("generate", project, settings)
        return [job.id, _state(desk, project, job.id)]

    @told
    def act(project: str, id: str, event: gr.EventData) -> list[Any]:
        undo = desk.on_job(event._data["do"], event._data["job"])
        return [_state(desk, project, id), undo]

    def tick(project: str | None, id: str) -> list[Any]:
        if not id or not project:
            return [gr.skip()] * 5
        job = desk.workspace.queue.get(id)
        if job.active:
            return [gr.skip(), gr.skip(), gr.skip(), id, _state(desk, project, id)]
        there = {one.id for one in desk.workspace.library.videos(project).entries}
        ids = [one for one in job.videos if one in there][:_MOST]
        update = gr.Dropdown(choices=_choices(desk, project), value=ids)
        return [update, *_films(desk, ids), "", _state(desk, project, id)]

    given = [desk.project, parts.prompt, parts.makers, parts.seeds]
    parts.draw.click(submit, given, [parts.waiting, parts.said])
    waits = [desk.project, parts.waiting]
    parts.said.click(act, waits, [parts.said, desk.undo])
    desk.clock.tick(
        told(tick),
        waits,
        [parts.chosen, parts.films, parts.empty, parts.waiting, parts.said],
        show_progress="hidden",
        trigger_mode="once",
    )


def _choices(desk: Desk, project: str | None) -> list[tuple[str, str]]:
    videos = desk.workspace.library.videos(project).entries if project else ()
    return [(f"{one.label}: {one.prompt}, seed {one.seed}", one.id) for one in videos]


def _all_words(desk: Desk, adapters: Sequence[str]) -> list[dict[str, str]]:
    found = {
        word["name"]: word
        for id in adapters
        for word in word_choices(desk.workspace.library.adapter(id))
    }
    return list(found.values())


def _films(desk: Desk, ids: Sequence[str]) -> list[Any]:
    """The players' value, and whether the page is empty."""
    videos = [desk.workspace.library.video(id) for id in ids[:_MOST]]
    films = [_film(desk, video) for video in videos]
    return [{"films": films}, gr.update(visible=not films)]


def _film(desk: Desk, video: VideoEntry) -> dict[str, Any]:
    return {
        "src": desk.address(video.mp4),
        "title": video.label,
        "caption": f"{video.prompt}, seed {video.seed}",
        "alt": f"{video.prompt}, drawn by {video.label}, seed {video.seed}",
        "fps": video.fps,
        "frames": video.frames,
        "attention": {word: desk.address(path) for word, path in video.attention.items()},
    }


def _state(desk: Desk, project: str, id: str) -> str:
    drawing = [pair for pair in desk.jobs(project, ("generate",)) if pair[0].id == id]
    unfinished = [pair for pair in drawing if pair[0].state != "done"]
    if not unfinished:
        return ""
    return desk.show("drawing", drawing=unfinished)
