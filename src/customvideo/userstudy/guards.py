"""What stands between the network and the pages: headers, limits, and the proxy's word.

Plain ASGI, so that it holds for every answer, refusals and videos included. Who may do what with
which form is decided in `customvideo.userstudy.app`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import MutableMapping, Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from customvideo.errors import StudyError

__all__ = ["LARGEST_BODY", "BehindProxy", "Guard", "trusted_networks"]

LARGEST_BODY = 64 * 1024
"""Bytes of a form; a page of answers has less than one thousand."""

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        # The empty icon is a data address.
        "img-src 'self' data:",
        "media-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # A rater's link is a secret: no other site is told it.
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "X-Robots-Tag": "noindex",
}
_UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_OWN = frozenset({"same-origin", "none"})

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Guard:
    """Puts security headers on every answer, and refuses large bodies and other sites' forms."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        if scope["method"] in _UNSAFE:
            await self._take(scope, receive, guarded)
        else:
            await self._app(scope, receive, guarded)

    async def _take(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a form in whole, if it may be sent at all."""
        headers = Headers(scope=scope)
        if headers.get("sec-fetch-site", "none") not in _OWN:
            await _refuse(403, "This form was sent by another site.", scope, receive, send)
            return
        body = await _body(headers, receive)
        if body is None:
            await _refuse(413, "That is more than any form here sends.", scope, receive, send)
            return
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)


async def _body(headers: Headers, receive: Receive) -> bytes | None:
    """The request's body; None if it is too large."""
    said = headers.get("content-length", "0")
    if not said.isdecimal() or int(said) > LARGEST_BODY:
        return None
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if len(body) > LARGEST_BODY:
            return None
        if not message.get("more_body"):
            return body


async def _refuse(status: int, text: str, scope: Scope, receive: Receive, send: Send) -> None:
    # Whatever is still being sent is not waited for.
    answer = PlainTextResponse(text, status, {"Connection": "close"})
    await answer(scope, receive, send)


def trusted_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """The networks that `10.0.0.7` or `10.0.0.0/24` mean.

    Raises:
        StudyError: a text is no address.
    """
    found = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text, strict=False))
        except ValueError as error:
            raise StudyError(
                f"'{text}' is no proxy's address; write one such as 127.0.0.1 or 10.0.0.0/24."
            ) from error
    return tuple(found)


class BehindProxy:
    """Lets a trusted proxy say by which scheme, host and prefix it is reached from outside.

    `prefix` is the path the study is found under, such as "/study", whether or not the proxy takes
    it away before it passes a request on. What others than the `trusted` say is not believed.
    """

    def __init__(self, app: ASGIApp, trusted: Sequence[Network] = (), prefix: str = "") -> None:
        self._app, self._trusted = app, tuple(trusted)
        self._prefix = _clean(prefix)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            self._tell(scope)
        await self._app(scope, receive, send)

    def _tell(self, scope: Scope) -> None:
        said = MutableHeaders(scope=scope)
        prefix = self._prefix
        if self._believes(scope):
            scheme = said.get("x-forwarded-proto", "").split(",")[0].strip()
            if scheme in ("http", "https"):
                scope["scheme"] = scheme
            if host := said.get("x-forwarded-host", "").split(",")[0].strip():
                said["host"] = host
            prefix = prefix or _clean(said.get("x-forwarded-prefix", ""))
        path = scope["path"]
        if prefix and (path == prefix or path.startswith(f"{prefix}/")):
            path = path.removeprefix(prefix) or "/"
        scope["root_path"] = prefix
        scope["path"] = prefix + path

    def _believes(self, scope: MutableMapping[str, object]) -> bool:
        peer = scope.get("client")
        if not isinstance(peer, tuple | list) or not peer:
            return False
        try:
            address = ipaddress.ip_address(str(peer[0]))
        except ValueError:
            return False
        return any(address in network for network in self._trusted)


def _clean(prefix: str) -> str:
    """The prefix with one slash before it and none behind; "" for none, or for what is no path."""
    parts = [part for part in prefix.split("/") if part]
    plain = all(part.replace("-", "").replace("_", "").replace(".", "").isalnum() for part in parts)
    return "".join(f"/{part}" for part in parts) if plain and ".." not in parts else ""
