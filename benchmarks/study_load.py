"""How the study's server bears a crowd: voters at once, a second between votes, none lost.

    PYTHONPATH=. python benchmarks/study_load.py [--voters 64] [--seconds 60] [--out FILE]

The real server runs in a process of its own on 127.0.0.1, with a study made for the purpose in a
temporary folder. Each voter is a browser without JavaScript: it agrees, then reads a page, waits a
second, votes, follows to the next page, and begins anew as somebody else when a program ends. A
tenth of the votes are sent twice at once, as impatient people do. The time of a vote is from
sending the form to the answer that sends the browser on, which comes when the vote is on the disk;
that of a page is from asking for it to its last byte. In the end the database is compared with
what was acknowledged, vote by vote.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from customvideo.userstudy.store import Store
from tests.userstudy.studies import make_study, serving

GIVEN_UP = 30.0
"""Seconds after which a request counts as failed."""
TWICE = 0.1


@dataclass
class Heard:
    """What the voters saw: times in seconds, and what was acknowledged."""

    votes: list[float] = field(default_factory=list)
    pages: list[float] = field(default_factory=list)
    acknowledged: Counter[tuple[str, str]] = field(default_factory=Counter)
    doubled: int = 0
    failed: list[str] = field(default_factory=list)


def form_of(page: str) -> str:
    """The signed field of a page's form."""
    return unescape(re.findall(r'name="form" value="([^"]*)"', page)[0])


class Voter:
    """One browser; `pause` is the time between a page and its vote."""

    def __init__(self, url: str, heard: Heard, pause: float, seed: int) -> None:
        self._url, self._heard, self._pause = url, heard, pause
        self._rng = random.Random(seed)

    async def vote_until(self, end: float) -> None:
        """Join and vote, again and again, until the clock says `end`."""
        limits = httpx.Limits(max_connections=2)
        async with httpx.AsyncClient(
            timeout=GIVEN_UP, limits=limits, trust_env=False, base_url=self._url
        ) as http:
            # Not everybody arrives in the same moment.
            await asyncio.sleep(self._rng.random() * self._pause)
            while time.perf_counter() < end:
                try:
                    await self._one_rater(http, end)
                except (httpx.HTTPError, IndexError) as error:
                    self._heard.failed.append(repr(error))
                    await asyncio.sleep(self._pause)

    async def _one_rater(self, http: httpx.AsyncClient, end: float) -> None:
        front = (await http.get("/")).text
        data = {"form": form_of(front), "consent": "yes"}
        place = (await http.post("/join", data=data)).headers["location"]
        page = await self._page(http, place)
        while "ballot" in page and time.perf_counter() < end:
            await asyncio.sleep(self._pause)
            await self._vote(http, place, page)
            page = await self._page(http, place)

    async def _page(self, http: httpx.AsyncClient, place: str) -> str:
        began = time.perf_counter()
        answer = await http.get(place)
        self._heard.pages.append(time.perf_counter() - began)
        return answer.text

    async def _vote(self, http: httpx.AsyncClient, place: str, page: str) -> None:
        form = form_of(page)
        keys = sorted(set(re.findall(r'name="(q-[a-z_]+)"', page)))
        data = {"form": form, **{key: self._rng.choice(["left", "right"]) for key in keys}}
        times = 2 if self._rng.random() < TWICE else 1
        began = time.perf_counter()
        answers = await asyncio.gather(*(http.post(place, data=data) for _ in range(times)))
        self._heard.votes.append(time.perf_counter() - began)
        self._heard.doubled += times - 1
        if all(answer.status_code == 303 for answer in answers):
            self._heard.acknowledged[place.rpartition("/")[2], form] += 1
        else:
            self._heard.failed.append(f"status {[answer.status_code for answer in answers]}")


def kept(folder: Path, heard: Heard) -> dict[str, int]:
    """What the database holds, against what was acknowledged."""
    with Store(folder) as store:
        ballots = store.ballots()
        numbers = {
            token: place.rater
            for token in {token for token, _ in heard.acknowledged}
            if (place := store.place(token))
        }
    own = Counter(one.rater for one in ballots)
    asked = Counter(numbers[token] for token, _ in heard.acknowledged)
    questions = {len(one.answers) for one in ballots}
    assert questions == {4}, f"comparisons with {questions} answers"
    return {
        "acknowledged": sum(heard.acknowledged.values()),
        "kept": len(ballots),
        "lost": sum(max(0, count - own[rater]) for rater, count in asked.items()),
        # A vote whose answer never arrived may be kept all the same: that is no double.
        "doubled": sum(count > 1 for count in heard.acknowledged.values())
        + len(ballots)
        - len({(one.rater, one.position) for one in ballots}),
    }


def quantiles(times: list[float]) -> dict[str, float]:
    """Milliseconds."""
    found = np.quantile(times, [0.5, 0.95, 0.99, 1]) * 1000
    return dict(zip(("median", "p95", "p99", "longest"), map(float, found.round(1)), strict=True))


async def crowd(url: str, voters: int, seconds: float, pause: float) -> Heard:
    """Let them all vote."""
    heard = Heard()
    end = time.perf_counter() + seconds
    await asyncio.gather(
        *(Voter(url, heard, pause, number).vote_until(end) for number in range(voters))
    )
    return heard


def measure(voters: int, seconds: float, pause: float) -> dict[str, Any]:
    """One run, in a folder of its own."""
    with tempfile.TemporaryDirectory() as place:
        folder = make_study(Path(place) / "study", prompts=12, per_rater=20, most_raters=10_000)
        with serving(folder) as server:
            heard = asyncio.run(crowd(server.url, voters, seconds, pause))
        held = kept(folder, heard)
    return {
        "voters": voters,
        "seconds": seconds,
        "votes_a_second": round(len(heard.votes) / seconds, 1),
        "vote_ms": quantiles(heard.votes),
        "page_ms": quantiles(heard.pages),
        "sent_twice": heard.doubled,
        "failed": len(heard.failed),
        "first_failures": heard.failed[:3],
        **held,
        "cores": os.cpu_count(),
        "load_average": [round(one, 1) for one in os.getloadavg()],
    }


def main() -> None:
    """Measure, print and, if asked, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voters", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pause", type=float, default=1.0)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    found = measure(asked.voters, asked.seconds, asked.pause)
    text = json.dumps(found, indent=2)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
