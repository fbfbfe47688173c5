"""The pages over HTTP, from the real server: what they do, and what they refuse."""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from customvideo.userstudy.guards import LARGEST_BODY, BehindProxy, trusted_networks
from customvideo.userstudy.plan import PLAN
from customvideo.userstudy.store import Store
from customvideo.userstudy.study import close
from tests.userstudy.studies import NASTY, Server, Voter, make_study, origin, serving

METHODS = (NASTY, "rival", "third")
COMPARISONS = 6 + 2 + 1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = make_study(
        tmp_path_factory.mktemp("site") / "study", METHODS, per_rater=6, title=f"Title {NASTY}"
    )
    with serving(folder, "--proxy", "127.0.0.1") as running:
        yield running


@pytest.fixture
def voter(server: Server) -> Iterator[Voter]:
    with Voter(server.url) as one:
        yield one


def ballots(server: Server, path: str) -> Counter[int]:
    """How many votes the rater's comparisons have, by their place."""
    with Store(server.folder) as store:
        place = store.place(path.rpartition("/")[2])
        assert place is not None
        own = [one for one in store.ballots() if one.rater == place.rater]
    return Counter({one.position: len(one.answers) for one in own})


def test_somebody_votes_without_javascript_and_is_thanked(server: Server, voter: Voter) -> None:
    path = voter.join()
    assert "Comparison 1 <span>of 9" in voter.page
    for _ in range(COMPARISONS):
        assert voter.vote(path).status_code == 200
    assert "Thank you" in voter.page and f"{COMPARISONS} comparisons answered" in voter.page
    assert ballots(server, path) == dict.fromkeys(range(COMPARISONS), 4)
    # Who is through may begin anew on the same device.
    assert "begun already" not in voter.http.get(f"{server.url}/").text


def test_the_link_and_the_cookie_lead_back(server: Server, voter: Voter) -> None:
    path = voter.join()
    voter.vote(path)
    front = voter.http.get(f"{server.url}/").text
    assert "begun already" in front and f'href="{path}"' in front
    elsewhere = httpx.get(f"{server.url}{path}", trust_env=False)
    assert "Comparison 2 <span>of 9" in elsewhere.text
    assert f"{server.url}{path}" in elsewhere.text, "the link to keep is not told"


def test_nobody_joins_without_agreeing(server: Server, voter: Voter) -> None:
    voter.page = voter.http.get(f"{server.url}/").text
    answer = voter.http.post(f"{server.url}/join", data={"form": voter.form()})
    assert answer.status_code == 422 and "Please agree first" in answer.text


def test_a_join_sent_twice_makes_one_rater(server: Server, voter: Voter) -> None:
    voter.page = voter.http.get(f"{server.url}/").text
    data = {"form": voter.form(), "consent": "yes"}
    one, two = (voter.http.post(f"{server.url}/join", data=data) for _ in range(2))
    assert one.url == two.url


def test_no_page_tells_which_method_made_what(server: Server, voter: Voter) -> None:
    path = voter.join()
    for _ in range(COMPARISONS):
        for name in ("rival", "third", "spoiled", "item0", "onerror=alert(1)&gt;.mp4"):
            assert name not in voter.page
        videos = voter.videos()
        assert len(videos) == 2
        assert all(re.fullmatch(r"/media/[0-9a-f]{24}\.mp4", video) for video in videos)
        voter.vote(path)


def test_every_answer_has_its_security_headers(server: Server, voter: Voter) -> None:
    path = voter.join()
    addresses = ["/", path, "/nowhere", "/results", voter.videos()[0]]
    addresses += re.findall(r'(?:href|src)="(/static/[^"]*)"', voter.page)
    assert len(addresses) == 7
    for address in addresses:
        headers = voter.http.get(f"{server.url}{address}").headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "script-src 'self';" in policy and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers
    assert voter.http.get(f"{server.url}{path}").headers["cache-control"] == "no-store"


def test_the_pages_bring_no_inline_script_or_style(server: Server, voter: Voter) -> None:
    voter.join()
    for page in (voter.page, voter.http.get(server.results).text):
        assert not re.findall(r"<script(?![^>]*\bsrc=)", page)
        assert "<style" not in page and not re.findall(r"\sstyle=|\son\w+=\"", page)
        assert not re.findall(r"(?:src|href)=\"(?:https?:)?//(?!127\.0\.0\.1)", page)


def test_markup_in_names_and_prompts_is_text(server: Server, voter: Voter) -> None:
    front = voter.http.get(f"{server.url}/").text
    assert "<img" not in front and "Title &lt;img src=x onerror=alert(1)&gt;" in front
    path = voter.join()
    prompts = 0
    for _ in range(COMPARISONS):
        assert "<img src=x" not in voter.page
        prompts += "cat 0 &lt;img src=x onerror=alert(1)&gt;" in voter.page
        voter.vote(path)
    assert prompts > 0
    results = voter.http.get(server.results).text
    assert "<img src=x" not in results and "&lt;img src=x" in results


def test_a_vote_sent_again_changes_nothing(server: Server, voter: Voter) -> None:
    path = voter.join()
    fields = voter.fields("left")
    again = [voter.http.post(f"{server.url}{path}", data=fields) for _ in range(3)]
    assert [one.status_code for one in again] == [200] * 3
    assert all("Comparison 2 <span>" in one.text for one in again)
    other = {key: "right" if key.startswith("q-") else value for key, value in fields.items()}
    late = voter.http.post(f"{server.url}{path}", data=other)
    assert late.status_code == 409 and "the first answers count" in late.text
    assert ballots(server, path) == {0: 4}


def test_every_question_has_to_be_answered_and_answers_are_kept(
    server: Server, voter: Voter
) -> None:
    path = voter.join()
    fields = voter.fields("right")
    del fields["q-motion"]
    answer = voter.http.post(f"{server.url}{path}", data=fields)
    assert answer.status_code == 422 and "Please answer every question" in answer.text
    assert answer.text.count(" checked>") == 3
    fields["q-motion"] = "both"
    assert voter.http.post(f"{server.url}{path}", data=fields).status_code == 422
    assert ballots(server, path) == {}


def forged(server: Server, voter: Voter, mine: str, other: Voter) -> Iterator[dict[str, str]]:
    """Forms that this rater has no right to."""
    fields = voter.fields()
    yield {**fields, "form": other.form()}
    yield {**fields, "form": ""}
    yield {**fields, "form": "WzEsMSwxXQ.c2lnbmF0dXJl"}
    body, dot, signature = fields["form"].rpartition(".")
    yield {**fields, "form": f"{body}{dot}{signature[::-1]}"}
    yield {**fields, "form": f"{body[::-1]}{dot}{signature}"}
    # Signed by this server, but for joining.
    other.page = other.http.get(f"{server.url}/").text
    yield {**fields, "form": other.form()}
    yield {key: value for key, value in fields.items() if key != "form"}


def test_forged_votes_are_refused(server: Server, voter: Voter) -> None:
    with Voter(server.url) as other:
        mine, theirs = voter.join(), other.join()
        kept = dict(voter.fields())
        for fields in forged(server, voter, mine, other):
            answer = voter.http.post(f"{server.url}{mine}", data=fields)
            assert answer.status_code == 403 and "not one of yours" in answer.text
        # My own form, on their page: what is not assigned to them is not theirs to answer.
        assert other.http.post(f"{server.url}{theirs}", data=kept).status_code == 403
        assert ballots(server, mine) == {} and ballots(server, theirs) == {}


def test_links_that_nobody_has_lead_nowhere(server: Server, voter: Voter) -> None:
    path = voter.join()
    for wrong in (path[:-1], f"{path}x", path.swapcase(), "/r/", "/r/%00", "/r/../results"):
        answer = voter.http.get(f"{server.url}{wrong}")
        assert answer.status_code in (403, 404)
        assert voter.http.post(f"{server.url}{wrong}", data=voter.fields()).status_code >= 400


def test_a_form_made_for_another_browser_does_not_join(server: Server, voter: Voter) -> None:
    with Voter(server.url) as other:
        other.page = other.http.get(f"{server.url}/").text
        voter.http.get(f"{server.url}/")
        data = {"form": other.form(), "consent": "yes"}
        assert voter.http.post(f"{server.url}/join", data=data).status_code == 403
        bare = httpx.post(f"{server.url}/join", data=data, trust_env=False)
        assert bare.status_code == 403 and "cookie" in bare.text


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_forms_are_refused(server: Server, voter: Voter, site: str) -> None:
    path = voter.join()
    headers = {"Sec-Fetch-Site": site, "Origin": "https://evil.example"}
    answer = voter.http.post(f"{server.url}{path}", data=voter.fields(), headers=headers)
    assert answer.status_code == 403 and ballots(server, path) == {}


TRAVERSALS = [
    *("/media/../study.toml", "/media/..%2Fstudy.toml", "/media/%2e%2e%2fsecret"),
    *("/media/..%5csecret", "/media/secret", "/media//etc/passwd", "/media/%2Fetc%2Fpasswd"),
    *("/static/../../errors.py", "/static/..%2fstudy.js", "/results/../secret"),
    *("/items.json", "/study.toml", "/votes.sqlite", "/media/", "/static/", "/media/%00"),
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_reaches_the_disk(server: Server, path: str) -> None:
    host, port = origin(server.url).removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        # Written by hand: a client would tidy the path.
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.split()[1] in (b"404", b"403", b"400"), answer[:200]
    for secret in (b"per_rater", b"root:", b"consent =", b"SQLite"):
        assert secret not in answer


def test_oversize_bodies_are_refused_whatever_they_say(server: Server, voter: Voter) -> None:
    path = voter.join()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    large = b"x=" + b"y" * LARGEST_BODY
    answer = voter.http.post(f"{server.url}{path}", content=large, headers=form)
    assert answer.status_code == 413
    chunks = (b"y" * 4096 for _ in range(40))
    answer = voter.http.post(f"{server.url}{path}", content=chunks, headers=form)
    assert answer.status_code == 413
    many = b"&".join(b"a=1" for _ in range(5000))
    assert voter.http.post(f"{server.url}{path}", content=many, headers=form).status_code == 400
    assert ballots(server, path) == {}


def test_only_forms_are_taken(server: Server, voter: Voter) -> None:
    path = voter.join()
    assert voter.http.post(f"{server.url}{path}", json=voter.fields()).status_code == 415
    assert voter.http.post(f"{server.url}{path}", files={"a": b"x"}).status_code == 415
    assert voter.http.put(f"{server.url}{path}", data=voter.fields()).status_code == 405
    assert voter.http.get(f"{server.url}/join").status_code == 405


def test_videos_come_in_ranges(server: Server, voter: Voter) -> None:
    voter.join()
    address = f"{server.url}{voter.videos()[0]}"
    whole = voter.http.get(address)
    assert whole.headers["content-type"] == "video/mp4"
    assert (
        whole.headers["accept-ranges"] == "bytes" and "immutable" in whole.headers["cache-control"]
    )
    part = voter.http.get(address, headers={"Range": "bytes=10-29"})
    assert part.status_code == 206 and part.content == whole.content[10:30]
    assert part.headers["content-range"] == f"bytes 10-29/{len(whole.content)}"
    assert voter.http.get(address, headers={"Range": "bytes=999999-"}).status_code == 416


def test_results_need_their_key(server: Server, voter: Voter) -> None:
    for address in ("/results", "/results?key=", "/results?key=%ff", "/results/votes.csv"):
        answer = voter.http.get(f"{server.url}{address}")
        assert answer.status_code == 403 and "Comparisons answered" not in answer.text
    page = voter.http.get(server.results)
    assert page.status_code == 200 and "key=" not in str(page.url)
    votes = voter.http.get(f"{server.url}/results/votes.csv")
    assert votes.text.startswith("rater,position,kind") and "attachment" in str(votes.headers)
    assert voter.http.get(f"{server.url}/results/secret").status_code == 404
    assert "httponly" in page.history[0].headers["set-cookie"].lower()


def test_a_trusted_proxy_says_where_the_study_is(server: Server) -> None:
    headers = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "study.example",
        "X-Forwarded-Prefix": "/lab",
    }
    with Voter(server.url, **headers) as voter:
        voter.http.cookies.jar.clear()
        front = voter.http.get(f"{server.url}/")
        assert 'action="/lab/join"' in front.text
        cookie = front.headers["set-cookie"]
        assert "Secure" in cookie and "Path=/lab/" in cookie
        visit = re.findall("visit=([^;]*)", cookie)[0]
        voter.page = front.text
        answer = voter.http.post(
            f"{server.url}/join",
            data={"form": voter.form(), "consent": "yes"},
            headers={"Cookie": f"visit={visit}"},
            follow_redirects=False,
        )
        place = answer.headers["location"]
        assert answer.status_code == 303 and place.startswith("/lab/r/")
        # Whether or not the proxy takes the prefix away, the page is found.
        for path in (place, place.removeprefix("/lab")):
            page = voter.http.get(f"{server.url}{path}")
            assert f"https://study.example{place}" in page.text
            assert 'src="/lab/media/' in page.text


def test_nobody_else_is_believed(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", prompts=2, per_rater=3)
    with serving(folder, "--root-path", "/lab") as server:
        assert server.url.endswith("/lab")
        headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}
        with Voter(server.url, **headers) as voter:
            path = voter.join()
            assert path.startswith("/lab/r/") and "evil.example" not in voter.page
            assert f"{server.url}{path.removeprefix('/lab')}" in voter.page


def test_nothing_is_taken_when_it_is_full_or_over(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", prompts=2, per_rater=3, most_raters=1)
    with serving(folder) as server, Voter(server.url) as voter, Voter(server.url) as late:
        assert (folder / "secret").stat().st_mode & 0o077 == 0, "others may read the secret"
        path = voter.join()
        late.page = late.http.get(f"{server.url}/").text
        data = {"form": late.form(), "consent": "yes"}
        answer = late.http.post(f"{server.url}/join", data=data)
        assert answer.status_code == 403 and "Enough people" in answer.text
        with Store(folder) as store:
            close(store)
        answer = voter.vote(path)
        assert answer.status_code == 403 and "has ended" in answer.text
        assert "has ended" in late.http.post(f"{server.url}/join", data=data).text
        assert voter.http.get(f"{server.url}/").status_code == 403
        assert ballots(server, path) == {}
        assert "Voting has ended" in voter.http.get(server.results).text


def test_it_listens_on_this_machine_alone_unless_told(server: Server) -> None:
    assert server.url.startswith("http://127.0.0.1:")
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", port), timeout=2):
        pass


def test_a_taken_port_is_told(server: Server) -> None:
    from tests.surroundings import run_cli

    port = server.url.rpartition(":")[2]
    result = run_cli("study", "serve", str(server.folder), "--port", port)
    assert result.exit_code == 2 and "choose another --port" in result.stderr
    result = run_cli("study", "serve", str(server.folder), "--proxy", "nonsense")
    assert result.exit_code == 2 and "no proxy's address" in result.stderr
    assert (server.folder / PLAN).is_file()


def test_prefixes_that_are_no_path_are_ignored() -> None:
    for prefix, path in (("lab/", "/lab"), ("/a/b", "/a/b"), ("/<x>", ""), ("/..", ""), ("", "")):
        scope = {"type": "http", "path": "/r/x", "headers": [], "client": ("10.0.0.1", 1)}
        BehindProxy(None, trusted_networks(["10.0.0.0/8"]), prefix)._tell(scope)  # type: ignore[arg-type]
        assert (scope["root_path"], scope["path"]) == (path, f"{path}/r/x")
