"""What a stranger may try, against a studio that really runs."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.studio.conftest import Running, running


def ask(
    studio: Running, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers; the path goes out as it is, dots and all."""
    parts = urlsplit(studio.url)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        connection.request(method, path, body, given)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def own(studio: Running) -> dict[str, str]:
    return {"Origin": studio.url.rstrip("/"), "Content_Type": "application/json"}


@pytest.mark.parametrize(
    "path",
    [
        "/studio/file/../../../etc/passwd",
        "/studio/file/projects/../../../../etc/passwd",
        "/studio/file/projects/%2e%2e/%2e%2e/workspace.json",
        "/studio/file/%2fetc/passwd",
        "/studio/file//etc/passwd",
        "/studio/file/projects%2f..%2fworkspace.json",
        "/studio/file/projects/..%5c..%5cworkspace.json",
        "/studio/file/workspace.json",
        "/studio/file/.uploads/x",
        "/studio/file/trash/x/content",
        "/studio/archive/..%2f..%2fworkspace",
        "/studio/static/..%2fguard.py",
        "/gradio_api/file=/etc/passwd",
        "/static/..%2f..%2f..%2froutes.py",
        "/assets/..%2f..%2f..%2froutes.py",
    ],
)
def test_no_path_leads_out_of_the_workspace(studio: Running, path: str) -> None:
    status, body, _ = ask(studio, path)
    assert status in (403, 404, 422)
    assert b"root:" not in body
    assert b"format" not in body


def test_a_file_of_the_workspace_is_served_and_a_link_is_not(studio: Running) -> None:
    folder = studio.workspace / "videos" / "a-1234"
    folder.mkdir(parents=True)
    (folder / "video.mp4").write_bytes(b"film")
    (folder / "out.mp4").symlink_to("/etc/passwd")
    assert ask(studio, "/studio/file/videos/a-1234/video.mp4")[1] == b"film"
    assert ask(studio, "/studio/file/videos/a-1234/out.mp4")[0] == 404
    _, _, headers = ask(studio, "/studio/file/videos/a-1234/video.mp4?download=%22%0d%0aX:1.mp4")
    assert headers["content-disposition"] == 'attachment; filename="X1.mp4"'


def test_a_report_cannot_act_for_anybody(studio: Running) -> None:
    folder = studio.workspace / "adapters" / "b-1234"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<script>fetch('/config')</script>")
    _, _, headers = ask(studio, "/studio/file/adapters/b-1234/report.html")
    assert headers["content-security-policy"].startswith("sandbox allow-scripts;")


def test_other_pages_and_other_names_are_refused(studio: Running) -> None:
    join = "/gradio_api/queue/join"
    assert ask(studio, join, "POST", b"{}", Origin="http://evil.example")[0] == 403
    assert ask(studio, join, "POST", b"{}")[0] == 403
    assert ask(studio, "/", Host="evil.example")[0] == 421


def test_a_file_of_the_machine_is_no_upload(studio: Running) -> None:
    """A forged message says that a file of this machine had been uploaded."""
    config = json.loads(ask(studio, "/config")[1])
    numbers = {one["id"]: one for one in config["components"]}
    takes = next(
        one
        for one in config["dependencies"]
        if any(numbers[number]["type"] == "file" for number in one["inputs"])
        and len(one["inputs"]) == 3
    )
    forged = [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}]
    message = {"data": ["p", "tom", forged], "fn_index": takes["id"], "session_hash": "abc"}
    status, body, _ = ask(
        studio, "/gradio_api/queue/join", "POST", json.dumps(message).encode(), **own(studio)
    )
    if status == 200:
        _, body, _ = ask(studio, "/gradio_api/queue/data?session_hash=abc")
        assert b'"success":false' in body.replace(b" ", b"")
    assert b"root:" not in body


def test_what_is_too_large_never_arrives(studio: Running) -> None:
    headers = {**own(studio), "Content_Length": str(10**12)}
    assert ask(studio, "/gradio_api/upload", "POST", b"", **headers)[0] == 413


def test_every_answer_says_what_the_page_may_load(studio: Running) -> None:
    for path in ("/", "/config", "/studio/static/studio.js", "/nothing"):
        policy = ask(studio, path)[2]["content-security-policy"]
        assert "default-src 'self'" in policy or "default-src 'none'" in policy


def test_open_to_other_machines_it_asks_each_of_them_for_its_token(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    with running(tmp_path / "workspace", "--host", "0.0.0.0") as studio:
        parts = urlsplit(studio.url)
        (token,) = parse_qs(parts.query)["token"]
        join, origin = "/gradio_api/queue/join", f"http://{parts.netloc}"
        assert parts.hostname == "127.0.0.1" and len(token) >= 32
        for path in ("/", "/config", "/studio/static/studio.js", "/?token=", f"/?token={token}x"):
            status, body, headers = ask(studio, path)
            assert status == 401 and b"its token here" in body and b"gradio" not in body
            assert "set-cookie" not in headers
        for path in (join, "/gradio_api/upload"):
            assert ask(studio, path, "POST", b"{}", Origin=origin)[0] == 401
        # Only the page itself takes the token: no picture's address can hold one.
        assert ask(studio, f"/config?token={token}")[0] == 401
        status, body, headers = ask(studio, f"/?token={token}")
        cookie, *rest = headers["set-cookie"].split("; ")
        assert status == 200 and token not in cookie and b"gradio" not in body
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} == set(rest)
        assert b"gradio" in ask(studio, "/", Cookie=cookie)[1]
        assert json.loads(ask(studio, "/config", Cookie=cookie)[1])["components"]
        # As another machine calls it, and as nobody does.
        for host, expected in ((f"10.0.0.7:{parts.port}", 200), ("evil.example", 421)):
            assert ask(studio, "/config", Cookie=cookie, Host=host)[0] == expected
        forged = cookie[:-1] + ("0" if cookie[-1] != "0" else "1")
        assert ask(studio, "/config", Cookie=forged)[0] == 401
        # A cookie is not enough where something is done: the page itself must ask.
        kind = {"Cookie": cookie, "Content_Type": "application/json"}
        assert ask(studio, join, "POST", b"{}", **kind)[0] == 403
        assert ask(studio, join, "POST", b"{}", Origin="http://evil.example", **kind)[0] == 403
        assert ask(studio, join, "POST", b"{}", Origin=origin, **kind)[0] == 422
