"""How the studio looks: colours, letters, and the templates that its panels are written in.

Templates escape whatever they are given, so no name or prompt can become part of the page.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr
import jinja2

__all__ = ["STATIC", "render", "spoken", "theme"]

STATIC = Path(__file__).parent / "static"
_LETTERS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
_FIXED = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
_CLAY = gr.themes.Color(
    name="clay",
    c50="#fdf4ef",
    c100="#f6e4db",
    c200="#efc9b6",
    c300="#e5a586",
    c400="#ff9466",
    c500="#b4441c",
    c600="#a33c17",
    c700="#8a3213",
    c800="#6b2a13",
    c900="#3a261d",
    c950="#24150e",
)
_PAPER = gr.themes.Color(
    name="paper",
    c50="#fbfaf8",
    c100="#f3f1ec",
    c200="#e4e2dc",
    c300="#cfccc4",
    c400="#8b8f99",
    c500="#5d6370",
    c600="#454a55",
    c700="#31353d",
    c800="#23272e",
    c900="#1d2026",
    c950="#14161a",
)

_SHADES = {
    "body_background_fill": "#fbfaf8",
    "body_background_fill_dark": "#14161a",
    "body_text_color": "#1d1f24",
    "body_text_color_dark": "#eceae5",
    "body_text_color_subdued": "#5d6370",
    "body_text_color_subdued_dark": "#a3a8b3",
    "block_background_fill": "#ffffff",
    "block_background_fill_dark": "#1d2026",
    "block_border_color": "#e4e2dc",
    "block_border_color_dark": "#31353d",
    "block_label_text_color": "#454a55",
    "block_label_text_color_dark": "#cfccc4",
    "block_title_text_color": "#1d1f24",
    "block_title_text_color_dark": "#eceae5",
    "block_info_text_color": "#5d6370",
    "block_info_text_color_dark": "#a3a8b3",
    "border_color_primary": "#cfccc4",
    "border_color_primary_dark": "#454a55",
    "input_background_fill": "#fbfaf8",
    "input_background_fill_dark": "#14161a",
    "input_border_color": "#8b8f99",
    "input_border_color_dark": "#6b7079",
    "input_border_width": "1px",
    "input_placeholder_color": "#6b6f79",
    "input_placeholder_color_dark": "#a3a8b3",
    "button_primary_background_fill": "#b4441c",
    "button_primary_background_fill_dark": "#ff9466",
    "button_primary_background_fill_hover": "#8a3213",
    "button_primary_background_fill_hover_dark": "#ffb08d",
    "button_primary_text_color": "#ffffff",
    "button_primary_text_color_dark": "#1d1206",
    "button_secondary_background_fill": "#efece6",
    "button_secondary_background_fill_dark": "#31353d",
    "button_secondary_text_color": "#1d1f24",
    "button_secondary_text_color_dark": "#eceae5",
    "button_cancel_background_fill": "#efece6",
    "button_cancel_background_fill_dark": "#31353d",
    "button_cancel_text_color": "#8f1d1d",
    "button_cancel_text_color_dark": "#ff9c9c",
    "slider_color": "#b4441c",
    "slider_color_dark": "#ff9466",
    "checkbox_background_color_selected": "#b4441c",
    "checkbox_background_color_selected_dark": "#b4441c",
    "link_text_color": "#b4441c",
    "link_text_color_dark": "#ff9466",
}
"""Gradio's names for them; what ends in `_dark` is for the dark."""


def theme() -> Any:
    """The colours of the package's reports, with letters that every machine has."""
    base = gr.themes.Base(
        primary_hue=_CLAY,
        secondary_hue=_CLAY,
        neutral_hue=_PAPER,
        radius_size="lg",
        font=_LETTERS,
        font_mono=_FIXED,
    )
    return base.set(**_SHADES)


def render(name: str, **values: Any) -> str:
    """The template `name` filled with `values`, as HTML."""
    return _environment().get_template(f"{name}.html.j2").render(**values).strip()


def spoken(seconds: float | None) -> str:
    """A duration as people say it: `40 s`, `12 min`, `3 h 20 min`; empty for None."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        # The package's own templates too: a loss is drawn as in a run's report.
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader("customvideo.studio"), jinja2.PackageLoader("customvideo")]
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["spoken"] = spoken
    return environment
