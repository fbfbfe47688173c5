"""What some doors of `doors.py` need around the file that is spoiled: a room of the studio, a job
of a benchmark, a study, an edition with photos, an archive; and what reads them.

A function that makes such a door takes the place of the file and returns what enters.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = [
    "ADDRESS",
    "EDITION",
    "JOB_FILES",
    "ROOM",
    "address",
    "answers",
    "archive",
    "archives",
    "bench_job",
    "command",
    "edition",
    "masked",
    "room",
    "sorted_photo",
    "study",
    "study_items",
    "upload",
    "written_mask",
]

Enter = Callable[[Path], object]
ONE = "one-00000000"
ADDRESS = "adapter.safetensors"

_VIDEO = {
    **{"words": ["tom"], "prompt": "a cat", "seed": 0, "adapter": "", "label": "l", "project": ""},
    **{"job": "", "settings": {}, "seconds": 1.0, "warnings": [], "fps": 8, "frames": 2},
}
ROOM: dict[str, dict[str, Any]] = {
    f"projects/{ONE}/project.json": {"name": "one", "subjects": [["tom", "cat"]], "settings": {}},
    f"adapters/{ONE}/library.json": {"name": "one", "project": "", "backbone": "toybox"},
    f"videos/{ONE}/settings.json": _VIDEO,
    f"jobs/{ONE}/job.json": {"kind": "train", "settings": {"adapter": "a"}, "videos": ["a"]},
    f"jobs/{ONE}/state.json": {"state": "queued", "place": 1, "warnings": ["w"], "message": "m"},
    f"jobs/{ONE}/progress.json": {"phase": "p", "step": 1, "of": 2, "seconds_left": 3.0},
    f"jobs/{ONE}/result.json": {"outcome": "done", "message": "", "warnings": []},
    f"trash/{ONE}/entry.json": {"kind": "video", "name": "n", "from": [["videos", ONE]]},
    "workspace.json": {"models": ["/nowhere"]},
}
"""The files of a room of the studio -> what they tell."""
for _told in ROOM.values():
    _told |= {"format": 1, "created": "2030", "deleted": "2030"}


def room(place: str) -> Enter:
    """A room in which the file at `place` is spoiled, and all that may be asked of it."""

    def enter(folder: Path) -> object:
        from customvideo.workspace.workspace import Workspace

        root = folder / "room"
        for name, told in ROOM.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(json.dumps(told))
        (root / "adapters" / ONE / ADDRESS).write_bytes(b"")
        (root / "trash" / ONE / "content0").mkdir(exist_ok=True)
        (root / place).write_bytes((folder / Path(place).name).read_bytes())
        found = Workspace(root)
        looks = (
            *(found.projects.list, lambda: found.projects.get(ONE), found.library.adapters),
            *(found.library.videos, lambda: found.library.video(ONE)),
            *(lambda: found.library.source(ONE), found.library.disk_use, found.queue.list),
            *(lambda: found.queue.get(ONE), lambda: found.queue.progress(ONE), found.trash.list),
            *(lambda: found.shelf(ONE).list(), lambda: found.models),
            *(lambda: found.projects.update(ONE, {"a": 1}), lambda: found.trash.restore(ONE)),
        )
        return _all(looks)

    return enter


def _all(looks: Sequence[Callable[[], object]]) -> int:
    """Do one after the other, whatever was refused; how many were."""
    from customvideo.errors import UserError

    refused = 0
    for look in looks:
        try:
            look()
        except UserError as error:
            assert str(error)
            refused += 1
    return refused


# A benchmark: a job's files, an edition with photos.

JOB_FILES: dict[str, dict[str, Any]] = {
    "job.json": {
        **{"results": 1, "kind": "trained", "method": "a", "combination": "tom+rex"},
        **{"subjects": [{"name": "tom", "category": "cat", "photos": "0"}], "samples": [[0, 1]]},
        **{"prompts": ["a <tom> cat"], "backbone": "0", "precision": "float32", "recipe": {}},
    },
    "rows.json": {"scoring": "a", "samples": [[0, 0]], "small": ["tom"], "rows": []},
    "failed.json": {"message": "m", "error": "e", "trace": "t"},
    "costs.json": {"train_seconds": 1.0},
}


def bench_job(name: str) -> Enter:
    """A folder of results with one job, of which the file `name` is spoiled."""

    def enter(folder: Path) -> object:
        from customvideo.benchmark.gallery import kept_jobs
        from customvideo.benchmark.store import JobFolder, Store

        place = folder / "results" / "jobs" / "one"
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes((folder / name).read_bytes())
        job = JobFolder(place)
        kept_jobs(folder / "results")
        Store(folder / "results").found()
        return job.job(), job.scored, job.failure, job.costs(), job.probed

    return enter


EDITION = {
    **{"format": 1, "name": "own", "version": "1"},
    "sources": {"here": {"addresses": ["https://example.org/"], "licence": "CC0"}},
    "subjects": [
        {"name": "tom", "category": "cat", "images": [{"file": "a.png"}]},
        {"name": "rex", "category": "dog", "folder": "d/rex", "masks": [{"file": "masks/a.png"}]},
    ],
    "combinations": [{"subjects": ["tom", "rex"], "prompts": ["a <tom> cat and a <rex> dog"]}],
}


def edition(name: str) -> Enter:
    """An edition with photos, whose file `name` is spoiled: checked, and loaded."""

    def enter(folder: Path) -> object:
        from customvideo.benchmark.check import check
        from customvideo.benchmark.editions import load_edition

        own = folder / "own"
        if not own.exists():
            for place in ("tom", "d/rex"):
                _photographed(own / place)
            (own / "customstudio.json").write_text(json.dumps(EDITION))
        (own / name).write_bytes((folder / name).read_bytes())
        check(own)
        found = load_edition(own)
        return [found.load(one.subjects) for one in found.combinations[:1]]

    return enter


def _photographed(folder: Path) -> Path:
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(3).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    (folder / "masks" / "a.png").write_bytes(written_mask()[0])
    return folder


def written_mask() -> Sequence[bytes]:
    """A mask of a photo of 48x40 pixels, in two kinds of file."""
    pixels = np.zeros((40, 48), np.uint8)
    pixels[10:30, 10:30] = 255
    found = []
    for mode in ("L", "1"):
        memory = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(memory, "PNG")
        found.append(memory.getvalue())
    return found


def masked(folder: Path) -> object:
    """A subject whose only mask is spoiled."""
    from customvideo.subjects.folders import load_subjects

    own = folder / "tom"
    if not own.exists():
        _photographed(own)
    (own / "masks" / "a.png").write_bytes((folder / "a.png").read_bytes())
    return load_subjects([f"tom:cat={own}"])


def sorted_photo(folder: Path) -> object:
    """A folder of photos, one of them spoiled, looked through before learning."""
    from customvideo.subjects.sorting import sort_folder

    own = _photographed(folder / "tom")
    (own / "b.png").write_bytes((folder / "b.png").read_bytes())
    return sort_folder(own)


def upload(folder: Path) -> object:
    """A photo from a browser, decoded in the process with limits."""
    from customvideo.workspace.uploads import decode_photos

    return decode_photos([("a.png", (folder / "u.png").read_bytes())])


# A study.


def study_items() -> Sequence[bytes]:
    """`items.json` with something in it."""
    item = {
        **{"key": "k", "prompt": "a cat", "videos": {"a": "a.mp4", "b": "b.mp4"}, "size": [64, 64]},
        **{"references": [{"word": "<tom>", "category": "cat", "photos": ["c.png"]}]},
        **{"spoiled": "d.mp4", "checks": "a"},
    }
    return [json.dumps({"version": 1, "methods": ["a", "b"], "items": [item]}).encode()]


def study(folder: Path) -> object:
    """A study whose items are spoiled."""
    from customvideo.userstudy.items import read_items

    if not (folder / "media").exists():
        (folder / "media").mkdir()
        for name in ("a.mp4", "b.mp4", "c.png", "d.mp4"):
            (folder / "media" / name).touch()
    found = read_items(folder)
    return found.digest, found.pairs, found.checks


def answers(folder: Path) -> object:
    """What a browser sends back of the forms that it was given."""
    from customvideo.userstudy.tokens import Forged, Keys

    text = (folder / "form").read_bytes().decode("utf-8", "surrogatepass")
    keys = Keys.of(folder)
    for attempt in (
        lambda: keys.joined(text, text),
        lambda: keys.joined(keys.joining("a"), text),
        lambda: keys.voted(text, 1),
        lambda: keys.opens_results(text),
    ):
        try:
            attempt()
        except Forged:
            continue
    return None


# Texts: paths, whole commands.


def address(folder: Path) -> object:
    """A path to something that is not there, or is no path at all."""
    from customvideo.adapters.adapter import Adapter
    from customvideo.backbones.base import called, family_of, recipes_of
    from customvideo.batch.plan import load_plan
    from customvideo.benchmark.editions import load_edition
    from customvideo.benchmark.rows import read_rows
    from customvideo.config import compose_recipe
    from customvideo.exports.reading import read_weights
    from customvideo.reels import Limits, read_clip
    from customvideo.subjects.folders import load_subjects
    from customvideo.subjects.groups import GroupSpec, read_group
    from customvideo.userstudy.plan import read_plan
    from customvideo.video import Video

    text = (folder / "path").read_bytes().decode("utf-8", "surrogatepass")
    place = Path(f"{folder}/{text}")
    readers: Sequence[Callable[[Path], object]] = (
        *(Adapter.load, Video.load, load_edition, load_plan, read_plan, read_rows, read_weights),
        lambda path: read_clip(path.with_suffix(".mp4") if path.name else path, Limits()),
        lambda path: compose_recipe([], path),
        lambda path: load_subjects([f"tom:cat={path}"]),
        lambda path: read_group(GroupSpec(("tom", "rex"), path), ["tom", "rex"]),
        *(lambda path: family_of(str(path)), lambda path: recipes_of(str(path))),
        lambda path: called(str(path)),
    )
    return _all([lambda read=read: read(place) for read in readers])  # type: ignore[misc]


def command(folder: Path) -> object:
    """A word of a command line."""
    from typer.testing import CliRunner

    from customvideo.cli import app

    # What a shell cannot pass is no word.
    text = (folder / "word").read_bytes().decode("utf-8", "surrogatepass").replace("\0", "")
    adapter, out = str(folder / "none.safetensors"), str(folder / "out")
    commands = (
        ("generate", text, "--adapter", adapter, "--out", out),
        ("generate", "a cat", "--adapter", text, "--out", out),
        ("train", "--subject", text, "--out", out),
        ("train", "--subject", f"tom:cat={folder}", "--set", text, "--out", out),
        ("train", "--recipe", text, "--out", out),
        ("bench", "check", text),
    )
    ended = CliRunner().invoke(app, list(commands[len(text) % len(commands)]))
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    assert "Traceback" not in ended.output
    return ended.exit_code


# The archive that an edition's photos may come in.


def archives() -> Sequence[bytes]:
    """A zip file with a photo in it, packed and not."""
    found = []
    for kind in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w", kind) as archive:
            archive.writestr("a/1.png", written_mask()[0])
            archive.writestr("a/2.png", b"0" * 1_000)
        found.append(memory.getvalue())
    return found


def archive(folder: Path) -> object:
    """An archive from which one file is wanted."""
    from customvideo.benchmark import fetch
    from customvideo.benchmark.manifest import FileEntry, Source

    source = Source(addresses=("https://example.org/a.zip",), archive=True, licence="CC0")
    with (
        (folder / "a.zip").open("rb") as file,
        fetch._archive(file, source) as found,
    ):
        return fetch._member(found, FileEntry(file="1.png", source="s", path="a/1.png"))
