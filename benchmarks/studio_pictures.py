"""The pictures of docs/studio.md: the studio's pages with the example project, from a real browser.

    PYTHONPATH=. python benchmarks/studio_pictures.py --workspace runs/studio-pictures

The first run learns the example and draws a video, which takes minutes; later ones only look. Needs
the extras `web` and `dev`, and Chromium.
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path
from typing import Any

from PIL import Image

from customvideo.workspace import Project, Workspace, example_project
from tests.browser import browser, open_page
from tests.studio.conftest import running

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
PROMPT = "an <ida> cat and a <rex> rabbit walking on the beach"
SHOTS = (
    ("mend", "Subjects", 1440, "light"),
    ("train", "Train", 1440, "dark"),
    ("generate", "Generate", 1440, "light"),
    ("phone", "Generate", 390, "dark"),
)
WIDEST = 1000
"""Of a picture that is kept, in pixels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=120)
    given = parser.parse_args()
    _fill(Workspace(given.workspace), given.steps)
    total = 0
    with running(given.workspace) as studio, browser() as chromium:
        for name, page, width, scheme in SHOTS:
            picture = _shot(chromium, studio.url, page, width, scheme)
            file = PICTURES / f"studio-{name}.png"
            picture.save(file, optimize=True)
            total += file.stat().st_size
            print(f"{file}: {file.stat().st_size:,} bytes")
    print(f"{total:,} bytes in all")


def _fill(workspace: Workspace, steps: int) -> None:
    """The example, learned and drawn, unless it is there."""
    found = workspace.projects.list().entries
    project = found[0] if found else example_project(workspace)
    if not workspace.library.adapters().entries:
        _done(workspace, project, "train", {"steps": steps, "preview_every": steps // 3})
    if not workspace.library.videos().entries:
        adapter = workspace.library.adapters().entries[0].id
        wanted = {"prompts": [PROMPT], "adapters": [adapter], "seeds": [0, 1], "attention": True}
        _done(workspace, project, "generate", wanted)


def _done(workspace: Workspace, project: Project, kind: Any, settings: dict[str, Any]) -> None:
    job = workspace.queue.submit(kind, project.id, settings)
    while job.active:
        time.sleep(2)
        job = workspace.queue.get(job.id)
    print(f"{job.title}: {job.state} {job.message}")


def _shot(chromium: Any, url: str, name: str, width: int, scheme: str) -> Image.Image:
    """A page as it looks, in few colours."""
    page = open_page(chromium, url, width=width, scheme=scheme).page
    page.wait_for_selector("#pages >> visible=true")
    page.get_by_role("tab", name=name).click()
    page.wait_for_timeout(1500)
    if name == "Subjects":
        page.click("#strip [data-do=mend] >> nth=0")
        page.wait_for_selector("#brush [data-ready=yes]")
        page.wait_for_timeout(800)
    if name == "Generate":
        page.locator("#prompt textarea").fill(PROMPT)
        page.wait_for_timeout(500)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.context.close()
    picture.thumbnail((min(WIDEST, picture.width), 4000))
    return picture.quantize(48, dither=Image.Dither.NONE)


if __name__ == "__main__":
    main()
