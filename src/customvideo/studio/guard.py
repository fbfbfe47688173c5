"""Who may ask the studio for what: the one door that every request goes through.

It knows no page. A request passes if its path is one the page needs, its Host is the studio's own
(so that no foreign name can be bound to it), its Origin is the page itself, its body is of bearable
size and, where a token is asked for, if it carries the cookie that the token gave.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

__all__ = ["Guard", "known_hosts"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_COOKIE = "customvideo_studio"
_PATHS = re.compile(
    r"/|/(?:assets|static)/[^?]*|/(?:favicon\.ico|theme\.css|manifest\.json|robots\.txt|config)"
    r"|/gradio_api/(?:queue/(?:join|data)|upload|upload_progress|cancel|reset|component_server"
    r"|startup-events|heartbeat/[a-z0-9]+|info|app_id|theme\.css)/?"
    r"|/studio/(?:static|file|archive)/[^?]*"
)
"""All that the page asks for. Gradio's other doors (files, proxies, streams) stay shut."""
_UPLOAD, _PLAIN = 512 * 2**20, 24 * 2**20
"""Bytes of a body: photos and clips, and all else."""
_POLICY = "; ".join(
    (
        "default-src 'self'",
        # Gradio compiles its pages' templates in the browser.
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_LOGIN = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>customvideo studio</title>
<body style="font:17px/1.5 system-ui,sans-serif;max-width:32em;margin:12vh auto;padding:0 1em">
<h1>customvideo studio</h1><p>Open the address that <code>customvideo web</code> printed, or give
its token here.</p><form><label>Token <input name="token" type="password" autocomplete="off">
</label> <button>Open</button></form></body></html>"""
_ENTER = """<!doctype html><html lang="en"><meta charset="utf-8"><title>customvideo studio</title>
<meta http-equiv="refresh" content="0;url=/"><p><a href="/">Open the studio</a></p></html>"""


def known_hosts(host: str, names: Collection[str] = ()) -> frozenset[str]:
    """Names by which a studio bound to `host` may be called, in lower case."""
    return frozenset({"localhost", "127.0.0.1", "::1", host.lower(), *map(str.lower, names)})


class Guard:
    """Stands before `app`; `token` is asked for unless it is empty.

    Args:
        app: the studio.
        hosts: names it may be called by (`known_hosts`). With a token, any bare address will do,
            too: only names can be bound to a machine by somebody else.
        token: what opens it.
    """

    def __init__(self, app: App, hosts: Collection[str], token: str = "") -> None:
        self._app, self._hosts, self._token = app, frozenset(hosts), token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = _headers(scope)
        refused = self._refusal(scope, headers)
        if refused is not None:
            await _answer(send, *refused)
        elif self._token and not self._known(headers):
            await self._ask(scope, send)
        else:
            limit = _UPLOAD if scope["path"].startswith("/gradio_api/upload") else _PLAIN
            scope["headers"] = [
                pair for pair in scope["headers"] if not pair[0].startswith(b"x-forwarded-")
            ]
            await self._pass(scope, _limited(receive, limit), send)

    def _refusal(self, scope: Scope, headers: dict[str, list[str]]) -> tuple[int, str] | None:
        """Status and sentence for a request that nobody may make."""
        path, method = scope["path"], scope["method"]
        if not self._is_ours(headers.get("host", [])):
            return 421, "This is not the studio's name; open the address that it printed."
        if method not in ("GET", "HEAD", "POST"):
            return 405, "The studio does not answer that."
        if not _PATHS.fullmatch(path) or ".." in path or "\\" in path:
            return 404, "There is nothing here."
        if not _same_origin(headers, path, method):
            return 403, "Another page sent this; open the studio itself."
        declared = headers.get("content-length", ["0"])[0]
        limit = _UPLOAD if path.startswith("/gradio_api/upload") else _PLAIN
        if not declared.isdecimal() or int(declared) > limit:
            return 413, "That is too large; send fewer or smaller files."
        return None

    def _is_ours(self, found: list[str]) -> bool:
        if len(found) != 1:
            return False
        try:
            name = urlsplit(f"//{found[0]}").hostname or ""
        except ValueError:
            return False
        if name in self._hosts:
            return True
        return bool(self._token) and _is_address(name)

    @property
    def _secret(self) -> str:
        """What the cookie holds: not the token itself, but only who has that can make it."""
        return self._derived(b"cookie")

    @property
    def _cookie(self) -> str:
        """The cookie's name, another for each token: a browser tells ports of a machine apart by
        nothing else, and opening a second studio must not shut the first."""
        return f"{_COOKIE}_{self._derived(b'name')[:8]}"

    def _derived(self, what: bytes) -> str:
        return hmac.new(self._token.encode(), what, hashlib.sha256).hexdigest()

    def _known(self, headers: dict[str, list[str]]) -> bool:
        given = ""
        for line in headers.get("cookie", []):
            for part in line.split(";"):
                name, _, value = part.strip().partition("=")
                given = value if name == self._cookie else given
        return hmac.compare_digest(given.encode(), self._secret.encode())

    async def _ask(self, scope: Scope, send: Send) -> None:
        """Let in who brings the token, and ask everybody else for it."""
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        given = query.get("token", [""])[0]
        right = hmac.compare_digest(given.encode(), self._token.encode())
        if scope["path"] != "/" or not right:
            await _answer(send, 401, _LOGIN, html=True)
            return
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        cookie = f"{self._cookie}={self._secret}; HttpOnly; SameSite=Strict; Path=/{secure}"
        # A page of its own, not a redirect: a strict cookie does not travel on a redirect that
        # began on another site.
        await _answer(send, 200, _ENTER, html=True, cookie=cookie)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                given = {name.lower() for name, _ in message["headers"]}
                own = (*_HEADERS, (b"content-security-policy", _POLICY.encode()))
                message["headers"] = [
                    *message["headers"],
                    *(pair for pair in own if pair[0] not in given),
                ]
            await send(message)

        try:
            await self._app(scope, receive, guarded)
        except _TooLargeError:
            if not begun:
                await _answer(send, 413, "That is too large; send fewer or smaller files.")


class _TooLargeError(Exception):
    """More bytes came than were announced or are bearable."""


def _limited(receive: Receive, limit: int) -> Receive:
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise _TooLargeError
        return message

    return counted


def _headers(scope: Scope) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _same_origin(headers: dict[str, list[str]], path: str, method: str) -> bool:
    """Whether the studio's own page asks, as far as the browser says who does."""
    site = headers.get("sec-fetch-site", [""])[0]
    if method != "POST":
        # Whoever follows a link to the studio may; nobody else may show its pictures.
        return site in ("", "same-origin", "none") or path == "/"
    origins = headers.get("origin", [])
    if len(origins) != 1 or site not in ("", "same-origin"):
        return False
    return urlsplit(origins[0]).netloc == headers["host"][0]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _answer(
    send: Send, status: int, text: str, *, html: bool = False, cookie: str = ""
) -> None:
    kind = b"text/html; charset=utf-8" if html else b"text/plain; charset=utf-8"
    headers = [(b"content-type", kind), (b"cache-control", b"no-store"), *_HEADERS]
    policy = b"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"
    headers.append((b"content-security-policy", policy + b"; frame-ancestors 'none'"))
    if cookie:
        headers.append((b"set-cookie", cookie.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
