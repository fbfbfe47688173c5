"""The pages of a filled workspace in a real browser: phone and wide screen, light and dark.

Everything in it is called what a stranger might call it. Nothing is wrong on the console, no other
machine is asked, nothing is serious to axe, nothing is wider than the screen, and no name becomes
an element. How a workspace is filled by hand is not this file's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from customvideo.generation import CustomVideoWarning
from customvideo.workspace import Workspace
from tests.browser import SIZES, Watched, open_page
from tests.studio.conftest import Running, running
from tests.workspace.conftest import Studio

PAGES = ("Subjects", "Train", "Generate", "Compare", "Library")
HOSTILE = "<img src=x onerror=window.hit=1> & ${1+1} {{x}}"
PROMPT = f"a <tom> cat {HOSTILE}"
FILE = "<img src=x onerror=window.hit=1>.png"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, tiny_zeroscope: Path) -> Iterator[Running]:
    """A studio over a workspace with photos, a training and two videos."""
    pytest.importorskip("gradio")
    workspace = Workspace(tmp_path_factory.mktemp("pages") / "workspace")
    workspace.allow_model(tiny_zeroscope)
    project = workspace.projects.create(f"Project {HOSTILE}")
    studio = Studio(workspace, project, tiny_zeroscope)
    shelf = workspace.shelf(project.id)
    shelf.add("tom", "cat")
    photos = tmp_path_factory.mktemp("photos")
    for shade in (90, 160):
        picture = Image.new("RGB", (96, 80), (60, shade, 90))
        picture.paste((220, 60, 30), (30, 20, 60, 60))
        picture.save(photos / f"{shade}.png")
    shelf.add_photos("tom", [(FILE, file.read_bytes()) for file in sorted(photos.iterdir())])
    trained = studio.submit_here("train", **studio.training(preview_every=2, name=HOSTILE))
    # It is longer than the tiny model reads.
    with pytest.warns(CustomVideoWarning, match="longer"):
        studio.submit_here("generate", prompts=[PROMPT], adapters=[trained.adapter], seeds=[0, 1])
    with running(workspace.root) as found:
        yield found


def go(watched: Watched, name: str) -> None:
    watched.page.get_by_role("tab", name=name).click()
    watched.page.wait_for_timeout(400)


def hurt(watched: Watched) -> bool:
    """Whether a name became an element, or ran."""
    asked = "() => window.hit !== undefined || !!document.querySelector('img[src=x]')"
    return bool(watched.page.evaluate(asked))


def refused(watched: Watched) -> str:
    """The sentence that the page says, once it says one."""
    toast = watched.page.locator(".toast-body").last
    toast.wait_for()
    return str(toast.inner_text())


@pytest.mark.parametrize("width", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_whole_and_accessible(
    chromium: Any, filled: Running, width: int, scheme: str
) -> None:
    watched = open_page(chromium, filled.url, width=width, scheme=scheme)
    watched.page.wait_for_selector("#pages >> visible=true")
    for name in PAGES:
        go(watched, name)
        assert not watched.faults(), name
        assert not watched.scrolls_sideways(), name
        assert not hurt(watched), name
    assert not watched.wrong


def test_what_was_chosen_stays_chosen_on_another_page(chromium: Any, filled: Running) -> None:
    watched = open_page(chromium, filled.url, width=SIZES[1])
    watched.page.wait_for_selector("#pages >> visible=true")
    for name, box, at_first in (("Train", "<tom> cat", True), ("Library", HOSTILE, False)):
        go(watched, name)
        if name == "Library":
            watched.page.get_by_text("Merge several into one").click()
        tick = watched.page.get_by_label(box).and_(watched.page.get_by_role("checkbox"))
        assert tick.is_checked() == at_first, name
        tick.click()
        go(watched, "Generate")
        go(watched, name)
        assert tick.is_checked() != at_first, name


def test_names_are_text(chromium: Any, filled: Running) -> None:
    """They are on the pages as they were given, and what cannot be a name is refused as text."""
    watched = open_page(chromium, filled.url, width=SIZES[1])
    page = watched.page
    page.wait_for_selector("#pages >> visible=true")
    assert HOSTILE in page.get_by_label("Project").first.input_value()
    go(watched, "Library")
    assert HOSTILE in page.inner_text("#adapters")
    go(watched, "Generate")
    assert PROMPT in page.inner_text("#gallery")
    go(watched, "Subjects")
    page.get_by_label("Name", exact=True).locator("visible=true").fill(HOSTILE[:32])
    page.get_by_label("What it is").locator("visible=true").first.fill(HOSTILE)
    page.get_by_role("button", name="Add subject").click()
    assert "cannot name a subject" in refused(watched)
    assert not hurt(watched)
    assert not watched.wrong


def test_a_bomb_is_refused_with_a_sentence(chromium: Any, filled: Running, tmp_path: Path) -> None:
    """Few bytes, many pixels, and a file's name that would be an element."""
    bomb = tmp_path / FILE
    Image.new("1", (9000, 9000)).save(bomb)
    watched = open_page(chromium, filled.url, width=SIZES[1])
    page = watched.page
    page.wait_for_selector("#strip img")
    page.set_input_files("#photos input[type=file]", str(bomb))
    assert "too many pixels" in refused(watched)
    assert page.locator("#strip img").count() == 2
    assert not hurt(watched)
    assert not watched.wrong
