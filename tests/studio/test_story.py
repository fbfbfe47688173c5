"""The whole story in a real browser: photos in, a mask mended, a training, a video, a download.

On a wide screen, with the toybox's model; how the pages look is `test_pages.py`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.browser import SIZES, Watched, open_page
from tests.studio.conftest import Running, running

JOB = 600_000
"""Milliseconds that a job may take on a busy machine; on an idle one none takes twenty seconds."""
HOSTILE = "<img src=x onerror=alert(1)> & ${1+1} {{x}}"


@pytest.fixture(scope="module")
def full_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A studio with a workspace of its own, which the story fills."""
    pytest.importorskip("gradio")
    workspace = tmp_path_factory.mktemp("story") / "workspace"
    with running(workspace) as found:
        yield found


def photos(folder: Path, colour: tuple[int, int, int]) -> list[str]:
    """Three photos of a blob on noise, as files."""
    made = []
    for index in range(3):
        noise = np.random.default_rng(index).integers(90, 130, (160, 220, 3), dtype=np.uint8)
        picture = Image.fromarray(noise)
        left = 50 + 15 * index
        ImageDraw.Draw(picture).ellipse((left, 30, left + 90, 130), fill=colour)
        file = folder / f"{index}.png"
        picture.save(file)
        made.append(str(file))
    return made


def go(watched: Watched, name: str) -> None:
    watched.page.get_by_role("tab", name=name).click()
    watched.page.wait_for_timeout(600)


def begin(watched: Watched) -> None:
    page = watched.page
    page.get_by_label("Or name your own project").fill(f"Tom {HOSTILE}")
    page.click("#begin")
    page.wait_for_selector("#pages >> visible=true")


def bring(watched: Watched, name: str, category: str, files: list[str]) -> None:
    page = watched.page
    page.get_by_label("Name", exact=True).locator("visible=true").fill(name)
    page.get_by_label("What it is").locator("visible=true").first.fill(category)
    page.get_by_role("button", name="Add subject").click()
    page.wait_for_selector(f"#strip h3:has-text('<{name}>')")
    page.set_input_files("#photos input[type=file]", files)
    page.wait_for_function("() => document.querySelectorAll('#strip img').length === 3")


def mend(watched: Watched) -> None:
    page = watched.page
    page.click("#strip [data-do=mend] >> nth=0")
    page.wait_for_selector("#brush [data-ready=yes]")
    canvas = page.locator("#brush canvas")
    frame = canvas.bounding_box()
    page.mouse.move(frame["x"] + 10, frame["y"] + 10)
    page.mouse.down()
    page.mouse.move(frame["x"] + 60, frame["y"] + 20, steps=4)
    page.mouse.up()
    canvas.press("ArrowRight")
    canvas.press(" ")
    page.get_by_role("button", name="Save mask").click()
    page.wait_for_selector("#strip figcaption:has-text('mask mended')")


def train(watched: Watched) -> None:
    go(watched, "Train")
    page = watched.page
    page.get_by_role("button", name="More settings").locator("visible=true").click()
    page.get_by_label("Steps", exact=True).fill("3")
    page.get_by_label("Previews every").fill("3")
    page.get_by_label("Previews every").press("Tab")
    page.click("#start")
    page.wait_for_selector("#queue .state.done", timeout=JOB)
    page.wait_for_selector("#live svg")
    page.wait_for_selector("#live video")
    page.wait_for_selector("#live .good")


def draw(watched: Watched) -> None:
    go(watched, "Generate")
    page = watched.page
    area = page.locator("#prompt textarea")
    area.click()
    page.keyboard.type("a <to")
    page.keyboard.press("Enter")
    assert area.input_value() == "a <tom> cat"
    page.keyboard.type(" and a <rexx> dog")
    assert "Not learned: <rexx>" in page.inner_text("#prompt .note")
    area.fill("a <tom> cat and a <rex> dog on the beach")
    page.get_by_role("button", name="More settings").locator("visible=true").click()
    page.get_by_label("Denoising steps").fill("3")
    page.get_by_label("Denoising steps").press("Tab")
    page.get_by_label("Also draw where each word looks").check()
    page.click("#draw")
    page.wait_for_selector("#gallery video", timeout=JOB)
    playing = "v => v.play().then(() => v.videoWidth > 0)"
    assert page.eval_on_selector("#gallery video", playing)
    page.wait_for_function("() => document.querySelector('#gallery video').currentTime > 0")
    page.get_by_role("button", name="<tom>", exact=True).locator("visible=true").last.click()
    page.wait_for_function(
        "() => document.querySelector('#gallery video').src.includes('attention-tom')"
    )


def compare(watched: Watched) -> None:
    """Two seeds side by side, and both at the same frame."""
    page = watched.page
    page.get_by_role("button", name="Another seed").first.click()
    page.wait_for_function(
        "() => document.querySelectorAll('#gallery .card').length === 2", timeout=JOB
    )
    go(watched, "Compare")
    for _ in range(2):
        page.get_by_label("Videos to compare").click()
        page.get_by_role("option", selected=False).first.click()
    page.wait_for_function("() => document.querySelectorAll('#players video').length === 2")
    page.wait_for_selector("#players [data-ready=yes]")
    page.get_by_role("button", name="One frame on").click()
    page.wait_for_selector("#players [data-frame='1']")
    times = page.eval_on_selector_all("#players video", "all => all.map(v => v.currentTime)")
    assert times[0] == times[1] > 0


def take_away(watched: Watched, folder: Path) -> None:
    go(watched, "Library")
    page = watched.page
    page.get_by_role("button", name="Write one for another program").click()
    page.get_by_role("button", name="Export", exact=True).click()
    page.wait_for_selector("#library-jobs a.button", timeout=JOB)
    with page.expect_download() as caught:
        page.click("#library-jobs a.button")
    export = folder / caught.value.suggested_filename
    caught.value.save_as(export)
    assert any(one.endswith(".safetensors") for one in zipfile.ZipFile(export).namelist())
    page.click("#adapters [data-do=delete]")
    page.click("#undo .undo button")
    page.wait_for_selector("#adapters .card")


def test_the_whole_story(chromium: Any, full_studio: Running, tmp_path: Path) -> None:
    watched = open_page(chromium, full_studio.url, width=SIZES[1])
    begin(watched)
    assert HOSTILE in watched.page.get_by_label("Project").first.input_value()
    for name, noun, colour in (("tom", "cat", (220, 60, 30)), ("rex", "dog", (30, 60, 220))):
        (tmp_path / name).mkdir()
        bring(watched, name, noun, photos(tmp_path / name, colour))
        mend(watched)
    train(watched)
    draw(watched)
    compare(watched)
    take_away(watched, tmp_path)
    assert not watched.wrong
