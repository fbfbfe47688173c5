"""Small studies to test with, people who vote in them, and a real server around one."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from customvideo.userstudy.design import Design, Shown
from customvideo.userstudy.items import SPOILED, Item, Items
from customvideo.userstudy.making import new_study
from customvideo.userstudy.plan import StudyPlan
from customvideo.userstudy.sources import Candidate, Found, Person
from customvideo.userstudy.store import Ballot
from customvideo.video import Video

METHODS = ("ours", "other", "third")
NASTY = "<img src=x onerror=alert(1)>"
"""What a method, a word or a prompt may be called by somebody who means ill."""

Chooser = Callable[[Shown, str], str]
"""What is shown, and the question's key -> "left" or "right"."""


def plain_items(methods: Sequence[str] = METHODS, prompts: int = 6, checks: int = 2) -> Items:
    """Items of which there are no files."""
    return Items(
        tuple(methods),
        tuple(
            Item(
                f"item{index}",
                f"a cat number {index}",
                {name: f"{name}{index}.mp4" for name in methods},
                (48, 32),
                spoiled=f"spoiled{index}.mp4" if index < checks else "",
                checks=methods[index % len(methods)] if index < checks else "",
            )
            for index in range(prompts)
        ),
    )


def make_study(
    folder: Path, methods: Sequence[str] = METHODS, prompts: int = 5, **settings: Any
) -> Path:
    """A study of videos that can be played, one still colour for each method."""
    sources = folder.with_name(f"{folder.name}-sources")
    candidates = []
    for index in range(prompts):
        videos = {}
        for place, name in enumerate(methods):
            frames = np.full((4, 32, 48, 3), (60 * place, 40 * index, 90), np.uint8)
            frames[:, 8:24, 8:24] += np.arange(4, dtype=np.uint8)[:, None, None, None] * 20
            videos[name] = Video(frames, 4).save(sources / str(place) / f"{index}.mp4")
        prompt = f"a <tom> cat {index} {NASTY if index == 0 else ''}".strip()
        candidates.append(Candidate(f"item{index}", prompt, videos, ("tom",)))
    photo = np.full((40, 40, 3), 120, np.uint8)
    people = {"tom": Person("<tom>", "cat", (photo,))}
    found = Found(tuple(methods), tuple(candidates), people)
    return new_study(folder, found, settings=settings, say=lambda _: None)


def voters(
    items: Items,
    plan: StudyPlan,
    raters: int,
    choose: Callable[[int], Chooser],
    *,
    seconds: float = 5.0,
) -> list[Ballot]:
    """The ballots of raters who see what the design shows them; `choose` is asked for each."""
    design = Design(items, plan)
    return [
        Ballot(
            rater + 1,
            position,
            shown,
            {question.key: chooser(shown, question.key) for question in plan.questions},
            1_700_000_000_000,
            seconds,
        )
        for rater in range(raters)
        for chooser in [choose(rater)]
        for position, shown in enumerate(design.program(rater))
    ]


def preferring(strengths: Mapping[str, float], rng: np.random.Generator) -> Chooser:
    """Somebody who attends, and prefers by these strengths (Bradley and Terry)."""

    def choose(shown: Shown, _: str) -> str:
        if SPOILED in (shown.left, shown.right):
            return "right" if shown.left == SPOILED else "left"
        lead = strengths[shown.left] - strengths[shown.right]
        return "left" if rng.random() < 1 / (1 + np.exp(-lead)) else "right"

    return choose


@dataclass(frozen=True)
class Server:
    """A study's server, running: its address, the address of its results, its folder."""

    url: str
    results: str
    folder: Path


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[Server]:
    """The real server in a process of its own, on any free port of this machine."""
    command = [sys.executable, "-m", "customvideo", "study", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(
        [*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = []
        try:
            for line in process.stdout:
                said.append(line)
                if line.startswith("Ctrl+C"):
                    break
            found = re.findall(r"https?://\S+", "".join(said))
            assert len(found) == 2, "".join(said)
            yield Server(found[0].rstrip("/"), found[1], folder)
        finally:
            process.terminate()
            process.wait(timeout=20)


class Voter:
    """Somebody's browser without JavaScript: it follows forms and keeps cookies."""

    def __init__(self, url: str, **headers: str) -> None:
        self.url = url
        self.http = httpx.Client(follow_redirects=True, headers=headers, trust_env=False)
        self.page = ""

    def __enter__(self) -> Voter:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def join(self) -> str:
        """Agree and begin; the path of the own page."""
        self.page = self.http.get(f"{self.url}/").text
        answer = self.http.post(f"{self.url}/join", data={"form": self.form(), "consent": "yes"})
        assert answer.status_code == 200, answer.text
        self.page = answer.text
        return answer.url.path

    def form(self) -> str:
        """The signed field of the page."""
        return unescape(re.findall(r'name="form" value="([^"]*)"', self.page)[0])

    def fields(self, side: str = "left") -> dict[str, str]:
        """All fields of the page's form, every question answered with one side."""
        keys = sorted(set(re.findall(r'name="(q-[a-z_]+)"', self.page)))
        return {"form": self.form(), **dict.fromkeys(keys, side)}

    def videos(self) -> list[str]:
        """The addresses of the two videos."""
        return re.findall(r'<video src="([^"]*)"', self.page)

    def vote(self, path: str, side: str = "left") -> httpx.Response:
        """Answer every question of the page with one side."""
        answer = self.http.post(f"{origin(self.url)}{path}", data=self.fields(side))
        self.page = answer.text
        return answer


def origin(url: str) -> str:
    """Scheme, host and port."""
    return str(httpx.URL(url).copy_with(raw_path=b"/")).rstrip("/")
