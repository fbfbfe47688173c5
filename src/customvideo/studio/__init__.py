"""The studio: a page in the browser on which videos are made, over `customvideo.workspace`.

    serve(Workspace("studio"))      # http://127.0.0.1:7860

The page owns nothing: photos, jobs and videos live in the workspace and go on without it. One file
per page (`subjects`, `train`, `generate`, `compare`, `library`), the browser's own parts in `parts`
and `static/`, who may ask for what in `guard`. Gradio, an extra (`pip install customvideo[web]`),
is imported in this room only, and only when the studio is opened.
"""

from __future__ import annotations

from customvideo.studio.opening import Address, serve

__all__ = ["Address", "serve"]
