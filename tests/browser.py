"""A real browser for tests of pages: Debian's Chromium, driven by Playwright, judged by axe.

What a page does and says is the tests' business. Where there is no Chromium the tests that need it
are skipped, and say so; nothing is downloaded.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

__all__ = ["SIZES", "Watched", "browser", "open_page"]

SIZES = (390, 1440)
"""Widths in pixels that a page has to be pleasant at: a phone, and a wide screen."""

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_GRAVE = ("serious", "critical")
_PATIENCE = 60_000


@dataclass(eq=False)
class Watched:
    """A page, and what went wrong on it so far.

    Attributes:
        page: Playwright's.
        wrong: console errors, exceptions, refused answers and requests that left this machine.
    """

    page: Any
    wrong: list[str] = field(default_factory=list)

    def faults(self) -> list[str]:
        """What axe finds serious or critical on the page as it is now."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return [
            f"{one['id']}: {node['html'][:200]}"
            for one in found
            if one["impact"] in _GRAVE
            for node in one["nodes"]
        ]

    def scrolls_sideways(self) -> bool:
        """Whether something is wider than the screen."""
        page = "document.documentElement"
        return bool(self.page.evaluate(f"() => {page}.scrollWidth > {page}.clientWidth + 1"))


@contextmanager
def browser() -> Iterator[Any]:
    """A browser for as long as the context is open; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        # Tests run in containers as well, where Chromium's own sandbox cannot be set up.
        running = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield running
        finally:
            running.close()


def open_page(
    running: Any, url: str, *, width: int, scheme: str = "light", **options: Any
) -> Watched:
    """Open `url` in a fresh profile, as wide as asked for; `scheme` is light or dark.

    `options` are further ones of Playwright's contexts, such as `has_touch`.
    """
    asked_for = {"color_scheme": scheme, "reduced_motion": "reduce", **options}
    context = running.new_context(viewport={"width": width, "height": 900}, **asked_for)
    page = context.new_page()
    page.set_default_timeout(_PATIENCE)
    watched, home = Watched(page), urlsplit(url).netloc

    def asked(request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != home:
            watched.wrong.append(f"left this machine: {request.url}")

    def said(message: Any) -> None:
        if message.type == "error":
            watched.wrong.append(f"console: {message.text}")

    def answered(response: Any) -> None:
        if response.status >= 400:
            watched.wrong.append(f"{response.status}: {response.url}")

    page.on("request", asked)
    page.on("console", said)
    page.on("response", answered)
    page.on("pageerror", lambda error: watched.wrong.append(f"exception: {error}"))
    page.goto(url)
    return watched
