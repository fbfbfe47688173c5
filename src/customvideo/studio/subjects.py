"""The page on which subjects are brought in: photos, their masks, and what is wrong with them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from customvideo.errors import StorageError, SubjectError
from customvideo.reels import KINDS
from customvideo.studio.desk import Desk, Page, told, warn
from customvideo.studio.look import render
from customvideo.studio.parts import brush, panel
from customvideo.workspace import StoredSubject
from customvideo.workspace.uploads import require_few

__all__ = ["build"]

_PHOTOS = [".jpg", ".jpeg", ".png", ".webp"]
_PREFIX = "data:image/png;base64,"
_NOBODY = render(
    "empty",
    title="Who shall be in your videos?",
    lines=[
        "Give a short name, which becomes a word of your prompts, and say what it is: tom, a cat.",
        "Then drop photos. A mask, which says where the subject is, is made at once for each.",
    ],
)


@dataclass(frozen=True, eq=False)
class _Parts:
    """The page's components."""

    who: Any
    nobody: Any
    name: Any
    category: Any
    add: Any
    one: Any
    files: Any
    strip: Any
    easel: Any
    brush: Any
    photo: Any
    change: Any
    noun: Any
    remove: Any


def build(desk: Desk) -> Page:
    """Lay the page out, and wire it."""
    parts = _lay_out()
    outputs = [parts.who, parts.nobody, parts.one, parts.strip, parts.noun, parts.easel]

    def show(project: str | None, name: str | None = None) -> list[Any]:
        """The page, with the subject `name` or the first one chosen."""
        subjects = desk.workspace.shelf(project).list() if project else ()
        names = [one.name for one in subjects]
        chosen = name if name in names else next(iter(names), None)
        found = next((one for one in subjects if one.name == chosen), None)
        choices = [(f"{one.name} ({one.category})", one.name) for one in subjects]
        return [
            gr.Radio(choices=choices, value=chosen, visible=bool(names)),
            gr.update(visible=not names),
            gr.Column(visible=found is not None),
            _strip(desk, found),
            found.category if found else "",
            gr.Column(visible=False),
        ]

    _wire_subject(desk, parts, show, outputs)
    _wire_photos(desk, parts, outputs)
    return Page(show, outputs)


def _lay_out() -> _Parts:
    nobody = panel(_NOBODY)
    who = gr.Radio(choices=[], label="Subjects of this project", visible=False)
    with gr.Row(elem_classes=["form-line"]):
        name = gr.Textbox(label="Name", placeholder="tom", max_length=32, scale=2)
        category = gr.Textbox(label="What it is", placeholder="cat", max_length=60, scale=2)
        add = gr.Button("Add subject", variant="primary", scale=1)
    with gr.Column(visible=False) as one:
        files = gr.File(
            label="Photos, or a clip",
            file_count="multiple",
            file_types=[*_PHOTOS, *KINDS],
            height=150,
            elem_id="photos",
        )
        with gr.Column(visible=False, elem_classes=["easel-box"]) as easel:
            canvas = brush(elem_id="brush")
        strip = panel(elem_id="strip")
        with gr.Accordion("Change or remove this subject", open=False), gr.Row():
            noun = gr.Textbox(label="What it is", max_length=60)
            change = gr.Button("Save")
            remove = gr.Button("Remove subject", variant="stop")
    return _Parts(
        who, nobody, name, category, add, one, files, strip, easel, canvas, gr.State(""), change,
        noun, remove,
    )  # fmt: skip


def _strip(desk: Desk, subject: StoredSubject | None) -> str:
    return desk.show("photos", subject=subject) if subject else ""


def _wire_subject(desk: Desk, parts: _Parts, show: Any, outputs: list[Any]) -> None:
    @told
    def add(project: str, name: str, category: str) -> list[Any]:
        desk.workspace.shelf(project).add(name.strip().strip("<>").lower(), category.strip())
        return [*show(project, name.strip().strip("<>").lower()), "", ""]

    @told
    def rename(project: str, name: str, noun: str) -> list[Any]:
        desk.workspace.shelf(project).set_category(name, noun.strip())
        gr.Info("Saved.", duration=3)
        return list(show(project, name))

    @told
    def remove(project: str, name: str) -> list[Any]:
        entry = desk.workspace.shelf(project).remove(name)
        return [*show(project), desk.deleted(entry)]

    given = [desk.project, parts.name, parts.category]
    gr.on(
        [parts.add.click, parts.name.submit, parts.category.submit],
        add,
        given,
        [*outputs, parts.name, parts.category],
    )
    # Chosen by a person only: what the page itself chooses is shown already.
    parts.who.input(told(show), [desk.project, parts.who], outputs, show_progress="hidden")
    parts.change.click(rename, [desk.project, parts.who, parts.noun], outputs)
    parts.remove.click(remove, [desk.project, parts.who], [*outputs, desk.undo])


def _wire_photos(desk: Desk, parts: _Parts, outputs: list[Any]) -> None:
    @told
    def take(project: str, name: str, files: list[str] | None) -> list[Any]:
        try:
            refused = _take(desk, project, name, [Path(file) for file in files or ()])
        finally:
            # They are in the workspace now, or refused; uploads are not kept a second time.
            for file in files or ():
                Path(file).unlink(missing_ok=True)
        warn(refused)
        return [_strip(desk, desk.workspace.shelf(project).get(name)), None]

    @told
    def act(project: str, name: str, event: gr.EventData) -> list[Any]:
        pressed: dict[str, str] = event._data
        shelf, photo = desk.workspace.shelf(project), pressed["photo"]
        if pressed["do"] == "mend":
            return [gr.skip(), gr.skip(), *_on_easel(desk, shelf.get(name), photo)]
        undo = gr.skip()
        if pressed["do"] == "again":
            shelf.find_again(name, photo)
        else:
            undo = desk.deleted(shelf.remove_photo(name, photo))
        return [_strip(desk, shelf.get(name)), undo, gr.Column(visible=False), gr.skip(), ""]

    @told
    def mended(project: str, name: str, photo: str, event: gr.EventData) -> list[Any]:
        subject = desk.workspace.shelf(project).replace_mask(name, photo, _png(event))
        gr.Info("The mask is saved.", duration=3)
        return [_strip(desk, subject), gr.Column(visible=False)]

    chosen = [desk.project, parts.who]
    parts.files.upload(take, [*chosen, parts.files], [parts.strip, parts.files])
    parts.strip.click(act, chosen, [parts.strip, desk.undo, parts.easel, parts.brush, parts.photo])
    parts.brush.submit(mended, [*chosen, parts.photo], [parts.strip, parts.easel])
    parts.brush.clear(lambda: gr.Column(visible=False), None, parts.easel)


def _take(desk: Desk, project: str, name: str, files: Sequence[Path]) -> list[str]:
    """Hand photos and clips to the shelf; a sentence for each that was refused."""
    shelf = desk.workspace.shelf(project)
    photos = [file for file in files if file.suffix.lower() not in KINDS]
    refused: list[str] = []
    # Counted before anything is read.
    require_few(len(photos), sum(file.stat().st_size for file in photos))
    if photos:
        uploads = [(file.name, file.read_bytes()) for file in photos]
        refused += shelf.add_photos(name, uploads).refused
    for clip in (file for file in files if file not in photos):
        refused += shelf.add_clip(name, (clip.name, clip.read_bytes())).refused
    return refused


def _on_easel(desk: Desk, subject: StoredSubject, name: str) -> list[Any]:
    """Easel, brush and photo's name, for mending its mask."""
    for number, photo in enumerate(subject.photos, start=1):
        if photo.name == name:
            value = {
                "photo": desk.address(photo.file),
                "mask": desk.address(photo.mask) if photo.mask else "",
                "label": f"Photo {number} of {subject.word}, its mask in pink",
            }
            return [gr.Column(visible=True), value, name]
    raise StorageError("That photo is gone; load the page again.")


def _png(event: gr.EventData) -> bytes:
    text = str(event._data.get("mask", ""))
    try:
        return base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SubjectError("The mask did not arrive whole; save it again.") from error
