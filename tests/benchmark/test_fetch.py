"""Fetching, from a local server that behaves as badly as real ones do."""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from customvideo.benchmark import fetch as fetching
from customvideo.benchmark.check import check
from customvideo.benchmark.download import Unreachable
from customvideo.benchmark.editions import load_edition
from customvideo.benchmark.fetch import Patience, fetch
from customvideo.errors import BenchmarkError

QUICK = Patience(attempts=3, pause=0.0, timeout=5.0, jobs=2)


def picture(seed: int) -> bytes:
    """A PNG of noise, a few thousand bytes, so that it can be cut in the middle."""
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="PNG")
    return data.getvalue()


def checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Web:
    """A server's files and its moods; `asked` holds what was asked of it, with the range."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: Counter[str] = field(default_factory=Counter)
    """How often a file is cut off after a third of what is left."""
    answers: dict[str, list[int]] = field(default_factory=dict)
    """Status codes a file answers with before it is sent."""
    ranges: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)
    sent: int = 0

    def count(self, name: str) -> int:
        return sum(asked == name for asked, _ in self.asked)


@pytest.fixture
def web() -> Iterator[Web]:
    state = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = unquote(self.path.removeprefix("/"))
            wanted = self.headers.get("Range", "")
            state.asked.append((name, wanted))
            if state.answers.get(name):
                self.answer(state.answers[name].pop(0))
            elif name not in state.files:
                self.answer(404)
            else:
                self.send(name, wanted)

        def answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send(self, name: str, wanted: str) -> None:
            data = state.files[name]
            tag, size = f'"{checksum(data)[:8]}"', len(data)
            found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
            if found and state.ranges and self.headers.get("If-Range", tag) == tag:
                first = int(found[1])
                last = min(int(found[2] or size - 1), size - 1)
                data = data[first : last + 1]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", tag)
            self.end_headers()
            if state.cuts[name] > 0:
                state.cuts[name] -= 1
                data = data[: len(data) // 3]
                self.close_connection = True
            state.sent += len(data)
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def edition(folder: Path, web: Web, **changes: Any) -> Path:
    """A manifest file of two subjects, one photo each, that the server has."""
    for index, name in enumerate(("tom", "rex")):
        web.files.setdefault(f"{name}.png", picture(index))
    values: dict[str, Any] = {
        "name": "mine",
        "version": "1",
        "sources": {"web": {"addresses": [web.address], "licence": "CC0"}},
        "subjects": [
            {"name": name, "category": kind, "images": [photo(f"{name}.png")]}
            for name, kind in (("tom", "cat"), ("rex", "dog"))
        ],
        "combinations": [
            {"subjects": ["tom", "rex"], "prompts": ["a <tom> cat and a <rex> dog running"]}
        ],
    }
    path = folder / "edition.json"
    path.write_text(json.dumps(values | changes), encoding="utf-8")
    return path


def photo(path: str, **more: str) -> dict[str, str]:
    return {"file": "1.png", "source": "web", "path": path, **more}


def two(tom: dict[str, str], rex: dict[str, str] | None = None) -> list[dict[str, Any]]:
    return [
        {"name": "tom", "category": "cat", "images": [tom]},
        {"name": "rex", "category": "dog", "images": [rex or photo("rex.png")]},
    ]


def leftovers(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if ".part" in path.name)


def test_a_fetched_folder_is_the_same_edition(tmp_path: Path, web: Web) -> None:
    said: list[str] = []
    mine = edition(tmp_path, web)
    out = fetch(mine, tmp_path / "out", patience=QUICK, say=said.append)
    assert (out / "tom" / "1.png").read_bytes() == web.files["tom.png"]
    sums = json.loads((out / "checksums.json").read_text())
    assert sums == {f"{n}/1.png": checksum(web.files[f"{n}.png"]) for n in ("rex", "tom")}
    assert check(out).sound, check(out)
    assert load_edition(out).digest == load_edition(mine).digest
    assert "2 files fetched" in said[-1] and not leftovers(out)


def test_nothing_is_fetched_twice(tmp_path: Path, web: Web) -> None:
    mine = edition(tmp_path, web)
    fetch(mine, tmp_path / "out", names=["tom"], patience=QUICK)
    assert web.count("tom.png") == 1 and web.count("rex.png") == 0
    fetch(mine, tmp_path / "out", patience=QUICK)
    fetch(mine, tmp_path / "out", patience=QUICK)
    assert web.count("tom.png") == web.count("rex.png") == 1


def test_a_cut_connection_is_gone_on_with(tmp_path: Path, web: Web) -> None:
    mine = edition(tmp_path, web)
    web.cuts["tom.png"] = 4  # more than there are attempts: progress earns new ones
    out = fetch(mine, tmp_path / "out", patience=QUICK)
    assert (out / "tom" / "1.png").read_bytes() == web.files["tom.png"]
    starts = [asked for name, asked in web.asked if name == "tom.png"]
    assert starts[0] == "" and all(asked.startswith("bytes=") for asked in starts[1:])
    # Nothing was sent twice.
    assert web.sent == sum(map(len, web.files.values()))
    assert not leftovers(out)


def test_a_server_without_ranges_sends_it_all_again(tmp_path: Path, web: Web) -> None:
    mine = edition(tmp_path, web)
    web.ranges, web.cuts["tom.png"] = False, 2
    out = fetch(mine, tmp_path / "out", patience=QUICK)
    assert (out / "tom" / "1.png").read_bytes() == web.files["tom.png"]


def test_a_later_run_goes_on_unless_the_file_has_changed(tmp_path: Path, web: Web) -> None:
    mine, out = edition(tmp_path, web), tmp_path / "out"
    once = Patience(attempts=1, pause=0.0, jobs=1)
    data = web.files["tom.png"]
    part = out / "tom" / "1.png.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(data[:1000])
    part.with_name("1.png.part.etag").write_text(f'"{checksum(data)[:8]}"')
    fetch(mine, out, names=["tom"], patience=once)
    assert web.asked == [("tom.png", "bytes=1000-")]
    (out / "tom" / "1.png").unlink()
    (out / "checksums.json").unlink()
    part.write_bytes(data[:1000])
    part.with_name("1.png.part.etag").write_text('"another"')
    fetch(mine, out, names=["tom"], patience=once)
    assert (out / "tom" / "1.png").read_bytes() == data


def test_a_part_longer_than_the_file_is_dropped(tmp_path: Path, web: Web) -> None:
    mine, out = edition(tmp_path, web), tmp_path / "out"
    part = out / "tom" / "1.png.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 99_999)
    part.with_name("1.png.part.etag").write_text("old")
    web.answers["tom.png"] = [416]
    fetch(mine, out, names=["tom"], patience=QUICK)
    assert (out / "tom" / "1.png").read_bytes() == web.files["tom.png"]


def test_a_busy_server_is_asked_again(tmp_path: Path, web: Web) -> None:
    mine = edition(tmp_path, web)
    web.answers["tom.png"] = [503, 429]
    fetch(mine, tmp_path / "out", patience=QUICK)
    assert web.count("tom.png") == 3
    web.answers["rex.png"] = [500] * 9
    (tmp_path / "out" / "rex" / "1.png").unlink()
    with pytest.raises(BenchmarkError, match=r"rex\.png' answers 500"):
        fetch(mine, tmp_path / "out", patience=QUICK)


def test_what_is_gone_is_told_after_all_else_has_come(tmp_path: Path, web: Web) -> None:
    mine = edition(tmp_path, web, subjects=two(photo("no/where.png")))
    with pytest.raises(BenchmarkError, match=r"no/where\.png' answers 404"):
        fetch(mine, tmp_path / "out", patience=QUICK)
    assert web.count("no/where.png") == 1
    assert (tmp_path / "out" / "rex" / "1.png").is_file()
    assert "rex/1.png" in json.loads((tmp_path / "out" / "checksums.json").read_text())


def test_the_next_address_is_asked_when_the_first_has_nothing(tmp_path: Path, web: Web) -> None:
    web.files |= {"b/tom.png": picture(0), "b/rex.png": picture(1)}
    source = {"addresses": [f"{web.address}a/", f"{web.address}b/"], "licence": "CC0"}
    out = fetch(edition(tmp_path, web, sources={"web": source}), tmp_path / "out", patience=QUICK)
    assert (out / "tom" / "1.png").read_bytes() == picture(0)
    assert web.count("a/tom.png") == web.count("b/tom.png") == 1


def test_wrong_bytes_are_refused(tmp_path: Path, web: Web) -> None:
    good = checksum(picture(0))
    mine = edition(tmp_path, web, subjects=two(photo("tom.png", sha256=good)))
    web.files["tom.png"] = picture(7)
    with pytest.raises(BenchmarkError, match=f"should have the SHA-256 {good[:12]}"):
        fetch(mine, tmp_path / "out", patience=QUICK)
    assert not (tmp_path / "out" / "tom" / "1.png").exists() and not leftovers(tmp_path)
    web.files["tom.png"] = picture(0)
    fetch(mine, tmp_path / "out", patience=QUICK)


def test_a_file_that_changed_since_its_first_fetch_is_refused(tmp_path: Path, web: Web) -> None:
    mine, out = edition(tmp_path, web), tmp_path / "out"
    fetch(mine, out, patience=QUICK)
    (out / "tom" / "1.png").unlink()
    web.files["tom.png"] = picture(7)
    with pytest.raises(BenchmarkError, match="its source has changed"):
        fetch(mine, out, patience=QUICK)
    (out / "tom" / "1.png").write_bytes(picture(8))
    assert any("its first fetch knows" in problem for problem in check(out).problems)


def test_a_login_page_is_no_photo(tmp_path: Path, web: Web) -> None:
    mine = edition(tmp_path, web)
    web.files["tom.png"] = b"<html>Welcome to the hotel</html>"
    with pytest.raises(BenchmarkError, match="login page"):
        fetch(mine, tmp_path / "out", patience=QUICK)
    assert not (tmp_path / "out" / "tom" / "1.png").exists()
    assert "tom/1.png" not in json.loads((tmp_path / "out" / "checksums.json").read_text())


def test_without_a_connection_it_stops_at_once(tmp_path: Path, web: Web) -> None:
    closed = {"web": {"addresses": ["http://127.0.0.1:9/"], "licence": "CC0"}}
    mine = edition(tmp_path, web, sources=closed)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9 cannot be reached.*fetch again"):
        fetch(mine, tmp_path / "out", patience=QUICK)


def test_only_the_web_is_fetched_from(tmp_path: Path, web: Web) -> None:
    secret = tmp_path / "tom.png"
    secret.write_bytes(picture(0))
    files = {"web": {"addresses": [f"file://{tmp_path}/"], "licence": "CC0"}}
    with pytest.raises(BenchmarkError, match="is no web address"):
        fetch(edition(tmp_path, web, sources=files), tmp_path / "out", patience=QUICK)


@pytest.mark.parametrize("place", ["../elsewhere", "/elsewhere"])
def test_nothing_is_written_outside_the_folder(tmp_path: Path, web: Web, place: str) -> None:
    subjects = two(photo("tom.png"))
    subjects[0]["folder"] = place
    with pytest.raises(BenchmarkError, match="outside the edition's folder"):
        fetch(edition(tmp_path, web, subjects=subjects), tmp_path / "out", patience=QUICK)
    assert not (tmp_path / "elsewhere").exists()


def test_another_edition_s_folder_is_left_alone(tmp_path: Path, web: Web) -> None:
    fetch(edition(tmp_path, web), tmp_path / "out", patience=QUICK)
    with pytest.raises(BenchmarkError, match="holds the edition 'mine' already"):
        fetch(edition(tmp_path, web, name="yours"), tmp_path / "out", patience=QUICK)


def zipped(web: Web, **members: bytes) -> dict[str, Any]:
    """A source that is an archive with much else in it, besides `members`."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("set/padding.bin", np.random.default_rng(3).bytes(200_000))
        for name, content in members.items():
            archive.writestr(f"set/{name}.png", content)
        archive.writestr("../../outside.png", picture(5))
    web.files["set.zip"] = data.getvalue()
    return {"addresses": [f"{web.address}set.zip"], "archive": True, "licence": "CC0"}


def from_archive(folder: Path, web: Web, **changes: Any) -> Path:
    source = zipped(web, tom=picture(0), rex=picture(1))
    subjects = two(photo("set/tom.png"), photo("set/rex.png"))
    return edition(folder, web, **({"sources": {"web": source}, "subjects": subjects} | changes))


def test_only_the_wanted_members_of_an_archive_are_read(
    tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_READ_AHEAD", 4096)
    mine = from_archive(tmp_path, web)
    web.cuts["set.zip"] = 1
    out = fetch(mine, tmp_path / "out", patience=QUICK)
    assert (out / "tom" / "1.png").read_bytes() == picture(0)
    assert check(out).sound
    assert web.sent < len(web.files["set.zip"]) / 4
    assert not (tmp_path / "outside.png").exists()


def test_an_archive_is_fetched_whole_where_parts_are_not_sent(tmp_path: Path, web: Web) -> None:
    mine, said = from_archive(tmp_path, web), []
    web.ranges, web.cuts["set.zip"] = False, 1
    out = fetch(mine, tmp_path / "out", patience=QUICK, say=said.append)
    assert (out / "rex" / "1.png").read_bytes() == picture(1)
    assert any("as a whole only" in text for text in said)
    assert not list(out.rglob("*.zip*")) and check(out).sound


def test_a_member_that_is_not_there_or_damaged_is_told(tmp_path: Path, web: Web) -> None:
    mine = from_archive(tmp_path, web, subjects=two(photo("set/no.png"), photo("set/rex.png")))
    with pytest.raises(BenchmarkError, match=r"'set/no\.png' of the archive .* is not there"):
        fetch(mine, tmp_path / "out", patience=QUICK)
    assert (tmp_path / "out" / "rex" / "1.png").is_file()
    mine = from_archive(tmp_path, web)
    data, at = web.files["set.zip"], web.files["set.zip"].index(picture(0)) + 500
    web.files["set.zip"] = data[:at] + b"damage" + data[at + 6 :]
    with pytest.raises(BenchmarkError, match=r"set/tom\.png' .* is damaged"):
        fetch(mine, tmp_path / "out", patience=QUICK)
    web.files["set.zip"] = b"no archive at all" * 100
    with pytest.raises(BenchmarkError, match="is no zip archive"):
        fetch(mine, tmp_path / "out", patience=QUICK)


def test_drawn_editions_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("customvideo.toybox.edition._PHOTOS", 1)
    out = fetch("toybox-development", tmp_path / "out", names=["ash"])
    assert [path.name for path in (out / "ash").glob("*.png")] == ["1.png"]
    (subject,) = load_edition("toybox-development", out).load(["ash"])
    assert subject.category == "cat" and len(subject.masks) == 1
    # The folder is the edition to everybody, without the toybox's own knowledge.
    assert load_edition(out).combinations == load_edition("toybox-development").combinations


def test_the_owner_s_manifest_stays_as_written(tmp_path: Path, web: Web) -> None:
    written = edition(tmp_path, web).rename(tmp_path / "customstudio.json").read_text()
    fetch(tmp_path, patience=QUICK)
    assert (tmp_path / "tom" / "1.png").is_file()
    assert (tmp_path / "customstudio.json").read_text() == written


def test_a_new_version_of_an_edition_replaces_the_old_one(tmp_path: Path, web: Web) -> None:
    fetch(edition(tmp_path, web), tmp_path / "out", patience=QUICK)
    fetch(edition(tmp_path, web, version="2"), tmp_path / "out", patience=QUICK)
    assert load_edition(tmp_path / "out").manifest.version == "2"


def test_unknown_names_are_told_before_anything_is_asked(tmp_path: Path, web: Web) -> None:
    with pytest.raises(BenchmarkError, match="no subject 'tim'"):
        fetch(edition(tmp_path, web), tmp_path / "out", names=["tim"], patience=QUICK)
    assert not web.asked
