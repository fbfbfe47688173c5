"""Opening the studio: surroundings, addresses, and the server. What is served is `app`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from customvideo.errors import ConfigError, StorageError
from customvideo.files import ensure_dir
from customvideo.studio.guard import Guard, known_hosts
from customvideo.workspace import Workspace

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["Address", "application", "serve"]

_OWN = ("127.0.0.1", "localhost", "::1")
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that mean all of the machine's, and one of them to open."""
_UPLOADS = ".uploads"
_LARGEST_FILE = "256mb"
_KEPT = 3600
"""Seconds after which an upload that nobody took in is deleted."""
_READABLE = ("projects", "adapters", "videos", "jobs")
"""Folders of a workspace that the browser may read."""


@dataclass(frozen=True)
class Address:
    """Where the studio listens.

    Attributes:
        host: an address of this machine; other machines get in only if it is not a local one, or
            through a proxy.
        port: 0 for any free one.
        token: what other machines have to know; made where it is empty and one is needed.
        names: further names that the machine is called by in browsers.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    token: str = ""
    names: Sequence[str] = ()

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it; a name of its own means that others come through
        a proxy, whatever address that one calls."""
        return self.host in _OWN and not self.names


def serve(workspace: Workspace, address: Address, say: Callable[[str], None]) -> None:
    """Serve the studio until somebody interrupts it; jobs go on all the same.

    Raises:
        ConfigError: Gradio is missing.
        StorageError: the port is taken.
    """
    import uvicorn

    token = address.token or ("" if address.local else secrets.token_urlsafe(24))
    guarded = Guard(application(workspace), known_hosts(address.host, address.names), token)
    sock = _bound(address)
    port = sock.getsockname()[1]
    query = f"/?token={token}" if token else "/"
    # 0.0.0.0 is where all of a machine's addresses are listened at, and none to be opened.
    listening = sock.getsockname()[0]
    host = _EVERYWHERE.get(listening, address.host)
    host = f"[{host}]" if ":" in host else host
    say(f"The studio is open at http://{host}:{port}{query}")
    if listening in _EVERYWHERE:
        say(f"From other machines: the same with this one's address in place of {host}.")
    if token:
        say("Whoever has this address can use it; it is shown once.")
    say("Ctrl-C closes the page; jobs that run go on.")
    # Addresses, which may hold the token, are not logged.
    config = uvicorn.Config(guarded, log_level="warning", access_log=False, server_header=False)
    server = uvicorn.Server(config)
    server.run(sockets=[sock])


def application(workspace: Workspace) -> FastAPI:
    """The studio without its guard.

    Raises:
        ConfigError: Gradio is missing.
    """
    if find_spec("gradio") is None:
        raise ConfigError("The studio needs Gradio; install it with: pip install customvideo[web]")
    # Gradio reads these when it is imported: nothing is reported to anybody, and what is uploaded
    # stays within the workspace.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(ensure_dir(workspace.root / _UPLOADS))
    import gradio as gr
    from fastapi import FastAPI

    from customvideo.studio.app import build
    from customvideo.studio.look import STATIC, theme

    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _add_files(outer, workspace)
    blocks = build(workspace)
    blocks.delete_cache = (_KEPT, _KEPT)
    blocks.queue(default_concurrency_limit=4, api_open=False)
    app: FastAPI = gr.mount_gradio_app(
        outer,
        blocks,
        path="/",
        theme=theme(),
        css_paths=STATIC / "studio.css",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size=_LARGEST_FILE,
        show_error=False,
    )
    return app


def _add_files(app: FastAPI, workspace: Workspace) -> None:
    """The studio's own doors: its scripts, and files of the workspace."""
    from fastapi import HTTPException
    from fastapi.responses import FileResponse
    from starlette.staticfiles import StaticFiles

    from customvideo.studio.look import STATIC

    app.mount("/studio/static", StaticFiles(directory=STATIC))

    @app.get("/studio/file/{relative:path}")
    def file(relative: str, download: str = "") -> Any:
        if relative.partition("/")[0] not in _READABLE:
            raise HTTPException(404)
        try:
            path = workspace.file(relative)
        except StorageError:
            raise HTTPException(404) from None
        headers = {"cache-control": "private, max-age=3600"}
        if path.suffix in (".html", ".svg"):
            # A report is shown, but is no page of the studio's and acts for nobody.
            headers["content-security-policy"] = (
                "sandbox allow-scripts; default-src 'none'; img-src data:; media-src data:; "
                "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
            )
        name = "".join(c for c in download if c.isalnum() or c in "._-")[:100]
        return FileResponse(path, headers=headers, filename=name or None)

    @app.get("/studio/archive/{id}")
    def archive(id: str) -> Any:
        try:
            path = workspace.library.archive(id)
        except StorageError:
            raise HTTPException(404) from None
        return FileResponse(path, filename=path.name, media_type="application/zip")


def _bound(address: Address) -> Any:
    import socket

    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    if os.name == "posix":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((address.host, address.port))
        # Whoever opens the address as soon as it is printed waits, and is not refused.
        sock.listen()
    except (OSError, OverflowError) as error:
        sock.close()
        raise StorageError(
            f"The studio cannot listen at {address.host}:{address.port} "
            f"({getattr(error, 'strerror', None) or error}); choose another --port or --host."
        ) from error
    return sock
