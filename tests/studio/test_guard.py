"""The door: who is let in, and what is asked of them. No server and no page is needed for that."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from customvideo.studio.guard import Guard, known_hosts
from customvideo.studio.opening import Address

TOKEN = "a-token-that-nobody-guesses"
HOME = {"host": "127.0.0.1:7860"}
OWN = {**HOME, "origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}


def ask(
    path: str = "/",
    method: str = "GET",
    headers: dict[str, str] | None = None,
    *,
    token: str = "",
    query: str = "",
    body: tuple[bytes, ...] = (b"",),
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer; the studio behind the door says `in`."""
    sent: list[dict[str, Any]] = []
    chunks = [
        {"type": "http.request", "body": part, "more_body": index < len(body) - 1}
        for index, part in enumerate(body)
    ]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"in"})

    async def receive() -> Any:
        return chunks.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    given = HOME if headers is None else headers
    scope = {
        "type": "http",
        "path": path,
        "method": method,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    guard = Guard(app, known_hosts("127.0.0.1", ["studio.example"]), token)
    asyncio.run(guard(scope, receive, send))
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(one.get("body", b"") for one in sent[1:])


def test_the_studio_answers_its_own_page() -> None:
    status, headers, body = ask()
    assert (status, body) == (200, b"in")
    assert "connect-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert ask("/gradio_api/queue/join", "POST", OWN)[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "10.0.0.7:7860", "", "["],
)
def test_a_name_that_is_not_the_studios_is_refused(host: str) -> None:
    assert ask(headers={"host": host})[0] == 421


@pytest.mark.parametrize("host", ["localhost:7860", "[::1]:7860", "STUDIO.example", "127.0.0.1"])
def test_its_own_names_are_known(host: str) -> None:
    assert ask(headers={"host": host})[0] == 200


@pytest.mark.parametrize(
    "changed",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:7861"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_other_pages_cannot_make_it_do_things(changed: dict[str, str]) -> None:
    assert ask("/gradio_api/queue/join", "POST", {**OWN, **changed})[0] == 403


def test_who_does_not_say_where_it_comes_from_cannot_either() -> None:
    assert ask("/gradio_api/queue/join", "POST", HOME)[0] == 403


def test_other_pages_cannot_show_its_pictures() -> None:
    site = {**HOME, "sec-fetch-site": "cross-site"}
    assert ask("/studio/file/videos/a/video.mp4", headers=site)[0] == 403
    assert ask("/", headers=site)[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=http://10.0.0.1/",
        "/gradio_api/proxy=http://10.0.0.1/",
        "/file=/etc/passwd",
        "/studio/file/../../etc/passwd",
        "/studio/file/..\\..\\secret",
        "/gradio_api/run/predict",
        "/gradio_api/call/x",
        "/gradio_api/vibe-edit/",
        "/monitoring",
        "/docs",
        "/login",
        "//evil.example",
    ],
)
def test_what_the_page_does_not_need_is_shut(path: str) -> None:
    assert ask(path)[0] == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_shut(method: str) -> None:
    assert ask(method=method, headers=OWN)[0] == 405


def test_what_is_too_large_is_refused_before_and_while_it_comes() -> None:
    path = "/gradio_api/queue/join"
    assert ask(path, "POST", {**OWN, "content-length": str(2**30)})[0] == 413
    assert ask(path, "POST", {**OWN, "content-length": "many"})[0] == 413
    assert ask(path, "POST", OWN, body=(bytes(2**24),) * 2)[0] == 413


def test_a_token_is_asked_for_and_gives_a_cookie() -> None:
    assert ask(token=TOKEN)[0] == 401
    assert ask(token=TOKEN, query="token=wrong")[0] == 401
    status, headers, _ = ask(token=TOKEN, query=f"token={TOKEN}")
    cookie = headers["set-cookie"]
    assert status == 200
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert TOKEN not in cookie
    kept = {**HOME, "cookie": f"other=1; {cookie.split(';')[0]}"}
    assert ask(token=TOKEN, headers=kept)[2] == b"in"
    assert ask(token="another", headers=kept)[0] == 401
    # A second studio of the machine does not take the first one's cookie away.
    second = ask(token="another", query="token=another")[1]["set-cookie"]
    assert second.partition("=")[0] != cookie.partition("=")[0]


@pytest.mark.parametrize("value", [None, "", TOKEN, "0" * 64])
def test_a_forged_cookie_opens_nothing(value: str | None) -> None:
    name = ask(token=TOKEN, query=f"token={TOKEN}")[1]["set-cookie"].partition("=")[0]
    cookie = "" if value is None else f"{name}={value}"
    for path in ("/", "/config", "/studio/file/videos/a/video.mp4"):
        assert ask(path, token=TOKEN, headers={**HOME, "cookie": cookie})[0] == 401


def test_with_a_token_bare_addresses_will_do_and_names_will_not() -> None:
    query = f"token={TOKEN}"
    assert ask(token=TOKEN, query=query, headers={"host": "10.0.0.7:7860"})[0] == 200
    assert ask(token=TOKEN, query=query, headers={"host": "evil.example"})[0] == 421


def test_a_name_of_its_own_means_that_others_come() -> None:
    """A proxy calls a local address and lets in whoever it likes."""
    assert Address().local and Address("localhost").local
    assert not Address("0.0.0.0").local
    assert not Address(names=("studio.example.org",)).local
