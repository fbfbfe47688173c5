"""The parts of the page that Gradio has not: panels, prompt box, layout canvas, brush, players.

Each is an HTML component whose behaviour is a function of `static/*.js`; what they show and what
they mean is decided by the pages.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from customvideo import __version__

__all__ = ["brush", "layout", "panel", "players", "prompt_box"]

_HEAD = "".join(
    f'<script src="/studio/static/{name}.js?v={__version__}"></script>'
    for name in ("studio", "brush", "players")
)
_EMPTY = {"html_template": "<div></div>"}
"""Filled by the behaviour, not from the value: Gradio then leaves it alone."""


def panel(value: str = "", **props: Any) -> Any:
    """HTML of a template; a press of anything with `data-do` is a `click` with its data."""
    return _part("panel", "'click'", value, **props)


def prompt_box(value: str = "", **props: Any) -> Any:
    """A prompt that completes learned words and marks those nobody learned.

    Its value is the text. A prop `words` says what it knows: `name`, `word` (`<tom>`) and `text` to
    insert (`<tom> cat`) of each. Event: `submit`.
    """
    return _part("prompt", "'submit'", value, **_EMPTY, **{"words": [], **props})


def layout(**props: Any) -> Any:
    """A canvas on which each word gets a box.

    Its value: `words` (names), `boxes` (name to left, top, right, bottom in shares), `aspect`.
    """
    return _part("layout", "", {}, **_EMPTY, **props)


def brush(**props: Any) -> Any:
    """A photo whose mask is mended by hand.

    Its value: `photo`, `mask` (addresses) and `label`. Events: `submit`, whose data has `mask`, a
    PNG as data URL; `clear`, when nothing shall be kept.
    """
    return _part("brush", "'submit' 'clear'", {}, **_EMPTY, **props)


def players(**props: Any) -> Any:
    """Videos side by side, locked to one frame.

    Its value: `films`, each with `src`, `title`, `caption`, `alt`, `fps`, `frames`, `attention`.
    """
    return _part("players", "", {}, **_EMPTY, **props)


def _part(behaviour: str, events: str, value: Any, **props: Any) -> Any:
    """An HTML component that hands itself to the function `behaviour` of `static/*.js`.

    No subclass: Gradio writes a file beside the source of each.
    """
    script = (
        f"/* events: {events} */ "
        f"window.customvideoStudio.{behaviour}({{element, props, trigger, watch}});"
    )
    return gr.HTML(
        value,
        js_on_load=script,
        head=_HEAD,
        apply_default_css=False,
        elem_classes=["part", behaviour],
        **props,
    )
