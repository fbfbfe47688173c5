"""The page on which videos are made: the prompt, how it is drawn, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from customvideo.errors import ConfigError
from customvideo.studio.desk import Desk, Page, told, word_choices
from customvideo.studio.parts import layout, panel, prompt_box
from customvideo.workspace import AdapterEntry, VideoEntry

__all__ = ["BASE", "adapter_choices", "build", "seeds_of"]

BASE = "Base model, nothing learned"
_REGIONS = [("as learned", ""), ("off", "off"), ("alike", "alike"), ("all", "all")]
_SHOWN = ("negative", "steps", "guidance", "strength", "frames", "regions")
_MOST_SEEDS = 16
_ASPECT = 1.5


class _Form:
    """The prompt and how it is drawn; `inputs` in the order of `_request`."""

    def __init__(self) -> None:
        self.adapter = gr.Dropdown([(BASE, "")], value="", label="What was learned")
        self.prompt = prompt_box(
            label="Prompt", placeholder="a <tom> cat running on the beach", elem_id="prompt"
        )
        with gr.Row():
            self.seeds = gr.Textbox(
                "0", label="Seeds", info="One video each: 0, 1, 2 or 0-3", max_length=200
            )
            self.attention = gr.Checkbox(False, label="Also draw where each word looks")
        self.draw = gr.Button("Make videos", variant="primary", elem_id="draw")
        with gr.Accordion("More settings", open=False):
            self.negative = gr.Textbox(label="What should not be seen", max_length=2000)
            with gr.Row():
                self.steps = self._number("Denoising steps")
                self.guidance = self._number("Guidance", precision=None)
            self.strength = gr.Slider(0, 1.5, 1, step=0.05, label="Strength of what was learned")
            with gr.Row():
                self.width, self.height = self._number("Width"), self._number("Height")
                self.frames = self._number("Frames")
            self.regions = gr.Radio(_REGIONS, value="", label="Words keep to their places")
        with gr.Accordion("Layout: who stands where", open=False):
            self.layout = layout(elem_id="layout")
        self.inputs = [
            self.adapter, self.prompt, self.seeds, self.negative, self.steps, self.guidance,
            self.strength, self.width, self.height, self.frames, self.regions, self.attention,
            self.layout,
        ]  # fmt: skip

    @staticmethod
    def _number(label: str, precision: int | None = 0) -> Any:
        return gr.Number(
            label=label,
            value=None,
            precision=precision,
            # Gradio makes a 0 of an empty field; that means the usual, too.
            minimum=0,
            placeholder="usual",
            min_width=90,
        )


def build(desk: Desk) -> Page:
    """Lay the page out, and wire it."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=320):
            form = _Form()
        with gr.Column(scale=3, min_width=320):
            gallery = panel(elem_id="gallery")
    outputs = [form.adapter, form.prompt, form.layout, gallery]

    def refresh(project: str | None) -> list[Any]:
        choices = adapter_choices(desk, project)
        chosen = choices[0][1]
        return [
            gr.Dropdown(choices=choices, value=chosen),
            *_chosen(desk, chosen),
            _gallery(desk, project),
        ]

    _wire_form(desk, form, gallery)
    _wire_gallery(desk, form, gallery)
    return Page(refresh, outputs)


def _wire_form(desk: Desk, form: _Form, gallery: Any) -> None:
    @told
    def draw(project: str, *given: Any) -> str:
        desk.workspace.queue.submit("generate", project, _request(*given))
        return _gallery(desk, project)

    @told
    def choose(adapter: str) -> list[Any]:
        return _chosen(desk, adapter)

    form.adapter.input(choose, form.adapter, [form.prompt, form.layout], show_progress="hidden")
    gr.on(
        [form.draw.click, form.prompt.submit],
        draw,
        [desk.project, *form.inputs],
        [gallery],
    )


def _wire_gallery(desk: Desk, form: _Form, gallery: Any) -> None:
    @told
    def act(project: str, event: gr.EventData) -> list[Any]:
        pressed: Mapping[str, str] = event._data
        settings: list[Any] = [gr.skip()] * len(form.inputs)
        undo: Any = gr.skip()
        if pressed["do"] == "again":
            settings = _settings(desk, desk.workspace.library.video(pressed["video"]))
        elif pressed["do"] == "another":
            _another(desk, project, desk.workspace.library.video(pressed["video"]))
        elif pressed["do"] == "delete":
            undo = desk.deleted(desk.workspace.library.delete_video(pressed["video"]))
        else:
            undo = desk.on_job(pressed["do"], pressed["job"])
        return [*settings, _gallery(desk, project), undo]

    def tick(project: str | None) -> str:
        return _gallery(desk, project)

    gallery.click(act, desk.project, [*form.inputs, gallery, desk.undo])
    desk.clock.tick(tick, desk.project, gallery, show_progress="hidden", trigger_mode="once")


def adapter_choices(desk: Desk, project: str | None) -> list[tuple[str, str]]:
    """What can draw, the project's own first, the base model last."""
    found = desk.workspace.library.adapters().entries
    ordered = sorted(found, key=lambda one: one.project != project)
    return [*((_named(one), one.id) for one in ordered), (BASE, "")]


def _named(adapter: AdapterEntry) -> str:
    return f"{adapter.name} ({', '.join(f'<{name}>' for name, _ in adapter.words)})"


def seeds_of(text: str) -> list[int]:
    """`0, 2, 5-7` as numbers.

    Raises:
        ConfigError: it is no such list, or too long.
    """
    found: list[int] = []
    for part in re.split(r"[,\s]+", text.strip()) if text.strip() else ["0"]:
        match = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", part)
        if match is None:
            raise ConfigError(f"{part[:40]!r} is no seed; write numbers such as 0, 1 or 4-7.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last - first >= _MOST_SEEDS or len(found) + max(0, last - first) >= _MOST_SEEDS:
            raise ConfigError(f"These are many seeds; give at most {_MOST_SEEDS} at once.")
        found += range(first, last + 1)
    return list(dict.fromkeys(found))


def _request(*given: Any) -> dict[str, Any]:
    """What the form says, as settings of `GenerateRequest`."""
    adapter, prompt, seeds, negative, steps, guidance, strength, *rest = given
    width, height, frames, regions, attention, layout = rest
    return {
        "prompts": [(prompt or "").strip()],
        "adapters": [adapter or ""],
        "seeds": seeds_of(seeds or ""),
        "negative": (negative or "").strip(),
        "steps": int(steps) if steps else None,
        "guidance": float(guidance) if guidance else None,
        "strength": float(strength) if adapter and strength != 1 else None,
        "width": int(width) if width else None,
        "height": int(height) if height else None,
        "frames": int(frames) if frames else None,
        "regions": regions or None,
        "attention": bool(attention and adapter),
        "layout": (layout or {}).get("boxes", {}) if adapter else {},
    }


def _settings(desk: Desk, video: VideoEntry) -> list[Any]:
    """The form's values that draw `video` again, in the order of its inputs."""
    had = video.settings
    adapters = [value for _, value in adapter_choices(desk, video.project)]
    adapter = video.adapter if video.adapter in adapters else ""
    return [
        adapter,
        gr.HTML(value=video.prompt, words=_words(desk, adapter)),
        str(video.seed),
        had.get("negative", ""),
        had.get("steps"),
        had.get("guidance"),
        had.get("strength") if had.get("strength") is not None else 1,
        had.get("width"),
        had.get("height"),
        had.get("frames"),
        had.get("regions") or "",
        bool(had.get("attention")),
        _layout(desk, adapter, had.get("layout") or {}),
    ]


def _another(desk: Desk, project: str, video: VideoEntry) -> None:
    desk.workspace.queue.submit("generate", project, {**video.settings, "seeds": [video.seed + 1]})


def _words(desk: Desk, adapter: str) -> list[dict[str, str]]:
    return word_choices(desk.workspace.library.adapter(adapter) if adapter else None)


def _chosen(desk: Desk, adapter: str) -> list[Any]:
    """Prompt box and layout for an adapter; what was written stays."""
    return [gr.HTML(words=_words(desk, adapter)), _layout(desk, adapter, {})]


def _layout(desk: Desk, adapter: str, boxes: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    names = [word["name"] for word in _words(desk, adapter)]
    kept = {name: list(box) for name, box in boxes.items() if name in names}
    return {"words": names, "boxes": kept, "aspect": _ASPECT}


def _gallery(desk: Desk, project: str | None) -> str:
    if not project:
        return ""
    drawing = [
        pair
        for pair in desk.jobs(project, ("generate",))
        if pair[0].active or pair[0].state in ("paused", "failed")
    ]
    hint = (
        "Write a prompt, choose a seed, and press Make videos. A seed fixes everything drawn by "
        "chance: the same seed and prompt give the same video."
    )
    videos = desk.workspace.library.videos(project).entries
    return desk.show("gallery", drawing=drawing, videos=videos, hint=hint, shown=_shown)


def _shown(video: VideoEntry) -> list[tuple[str, Any]]:
    """Settings that somebody chose, for the caption."""
    return [(key, video.settings[key]) for key in _SHOWN if video.settings.get(key)]
