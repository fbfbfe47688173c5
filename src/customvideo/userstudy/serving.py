"""Serving a study: the socket, the web server around the pages, and what is said at the start."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from customvideo.errors import StudyError
from customvideo.userstudy.app import make_app
from customvideo.userstudy.guards import trusted_networks
from customvideo.userstudy.store import Store
from customvideo.userstudy.study import Study, open_study
from customvideo.userstudy.tokens import Keys

__all__ = ["serve"]

_WAITING = 512
"""Connections that may wait while others are answered."""


def serve(  # noqa: PLR0913 - a server's settings
    folder: Path,
    *,
    host: str,
    port: int,
    database: str | None,
    proxies: Sequence[str],
    prefix: str,
    say: Callable[[str], None],
) -> None:
    """Serve the study in `folder` until it is stopped; port 0 takes any that is free.

    Raises:
        StudyError, ConfigError: the study, the database or the address cannot be used.
    """
    study = open_study(folder)
    trusted = trusted_networks(proxies)
    with Store(folder, database) as store:
        study.seal(store)
        keys = Keys.of(folder)
        app = make_app(study, store, keys, trusted=trusted, prefix=prefix)
        with _listening(host, port) as listener:
            _tell(study, keys, listener, prefix, say)
            config = uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=5,
                # Longer than people watch: a connection closed while a vote is on its way loses the
                # answer, though not the vote.
                timeout_keep_alive=75,
            )
            try:
                uvicorn.Server(config).run(sockets=[listener])
            except KeyboardInterrupt:
                say("Stopped. All votes are kept; the same command goes on.")


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=_WAITING)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StudyError(
            f"Cannot listen on {host}:{port}: {reason}; choose another --port or --host."
        ) from error
    with listener:
        yield listener


def _tell(
    study: Study,
    keys: Keys,
    listener: socket.socket,
    prefix: str,
    say: Callable[[str], None],
) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{port}/{prefix.strip('/')}".rstrip("/")
    say(f"{study.plan.title}")
    say(f"Raters:  {address}/")
    say(f"Results: {address}/results?key={keys.results}")
    if ipaddress.ip_address(host).is_loopback:
        say("Only this machine reaches it. For others: --host, or a proxy (docs/study.md).")
    else:
        say("Anybody who reaches this machine can take part. The results' link is for you alone.")
    say("Ctrl+C stops it.")
