"""Files made to break whoever opens them, and a few spoiled ones through every door.

`docs/reliability.md` has the figures of many more, thrown by `benchmarks/fuzz.py`.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import customvideo
from customvideo.adapters.adapter import Adapter
from customvideo.adapters.header import AdapterHeader, WordRecord, metadata
from customvideo.backbones.base import load_backbone
from customvideo.benchmark.editions import load_edition
from customvideo.benchmark.fetch import fetch
from customvideo.config import load_recipe
from customvideo.errors import (
    AdapterError,
    BackboneError,
    BenchmarkError,
    ConfigError,
    PromptError,
    StorageError,
    StudyError,
    SubjectError,
    UserError,
)
from customvideo.records import parse_json, parse_toml
from customvideo.reels import Limits, read_clip
from customvideo.subjects.folders import load_subjects
from customvideo.subjects.pictures import read_picture
from customvideo.subjects.prompt import Prompt
from customvideo.training.checkpoint import newest_valid
from customvideo.userstudy.items import read_items
from customvideo.video import Video, plays_everywhere
from customvideo.workspace.workspace import Workspace

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from doors import DOORS, spoiled  # type: ignore[import-not-found]  # noqa: E402
from places import archives  # type: ignore[import-not-found]  # noqa: E402

SLOW = ("upload", "model folder: index", "model folder: card", "command line")
"""Doors behind which a process starts or a model loads for every input."""


# Every door


@pytest.mark.parametrize("name", [name for name in DOORS if name not in SLOW])
def test_spoiled_input_is_taken_or_refused(name: str, tmp_path: Path) -> None:
    door = DOORS[name]
    for index in range(8):
        (tmp_path / door.file).write_bytes(spoiled(door, 11, index))
        began = time.process_time()
        try:
            door.enter(tmp_path)
        except UserError as error:
            assert 0 < len(str(error)) < 2_000
            str(error).encode()
        assert time.process_time() - began < 5, f"{name}, input {index}"


# Bombs


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A picture that says it is so large, and has hardly any pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(bytes(1_000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )


def gif(width: int, height: int) -> bytes:
    """An animation on so large a canvas, all of whose frames are a single pixel."""
    memory = io.BytesIO()
    frames = [Image.new("P", (1, 1), colour) for colour in range(3)]
    frames[0].save(memory, "GIF", save_all=True, append_images=frames[1:], duration=50)
    data = bytearray(memory.getvalue())
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


@pytest.mark.parametrize("size", [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (15_000, 8_000)])
def test_a_picture_that_would_fill_the_memory_is_refused(
    size: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(*size))
    for read in (read_picture, Video.load):
        with pytest.raises(UserError, match=r"bomb\.png"):
            read(path)


def test_no_decoder_of_pictures_starts_another_program(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    for read in (read_picture, Video.load):
        with pytest.raises(UserError, match=r"a\.png"):
            read(path)


@pytest.mark.parametrize(
    "text", ["#EXTM3U\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile {}\n"]
)
def test_a_playlist_leads_nowhere(text: str, tmp_path: Path) -> None:
    secret = Video(np.full((3, 32, 32, 3), 200, np.uint8)).save(tmp_path / "secret.mp4")
    path = tmp_path / "list.mp4"
    path.write_text(text.format(secret.name))
    with pytest.raises(UserError, match=r"list\.mp4"):
        Video.load(path)
    with pytest.raises(UserError, match=r"list\.mp4"):
        read_clip(path, Limits())
    assert not plays_everywhere(path) and plays_everywhere(secret)


def test_a_text_in_a_picture_is_not_unpacked_without_end(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    packed = zlib.compress(bytes(20_000_000), 9)
    path.write_bytes(png(64, 64, (b"zTXt", b"a\0\0" + packed)))
    began = time.process_time()
    with pytest.raises(SubjectError, match="damaged"):
        read_picture(path)
    assert time.process_time() - began < 1


def test_an_animation_with_a_canvas_like_a_wall_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gif"
    path.write_bytes(gif(65_535, 65_535))
    for read in (lambda path: read_clip(path, Limits()), Video.load):
        with pytest.raises(UserError, match=r"bomb\.gif"):
            read(path)


def test_a_member_of_an_archive_that_is_no_photo_is_not_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from customvideo.benchmark.fetch import _member
    from customvideo.benchmark.manifest import FileEntry

    monkeypatch.setattr("customvideo.benchmark.fetch._LARGEST", 1 << 20)
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(2 << 20))
    entry = FileEntry(file="a.png", source="here", path="a.png")
    with zipfile.ZipFile(memory) as archive, pytest.raises(BenchmarkError, match="over 1 MB"):
        _member(archive, entry)
    locked = bytearray(archives()[0])
    # The bit that says that a password is needed, in both headers.
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(mark) + place] |= 1
    with zipfile.ZipFile(io.BytesIO(locked)) as archive, pytest.raises(BenchmarkError):
        _member(archive, entry.model_copy(update={"path": "a/1.png"}))


@pytest.mark.parametrize("shape", [(4, 4, 1), (4,), (), (0, 4)])
def test_weights_of_another_shape_are_no_adapter(shape: tuple[int, ...], tmp_path: Path) -> None:
    header = AdapterHeader(
        method="m",
        family="f",
        backbone="b",
        fingerprint="0",
        words=(WordRecord(name="tom", category="cat"),),
    )
    tensors = {"words": torch.ones(1, 4), "deltas.unet.to_k.weight": torch.ones(shape)}
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors.torch.save(tensors, metadata(header)))
    if shape == (0, 4):
        assert Adapter.load(path).words
        return
    with pytest.raises(AdapterError, match=r"a\.safetensors"):
        Adapter.load(path)


# Nesting and numbers without end


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 101 + "]" * 101])
def test_json_nested_without_end_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"nested|Expecting"):
        parse_json(text)


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "a = " + "[" * 101 + "]" * 101,
        "a." * 100_000 + "a = 1",
        "a = " + "9" * 100_000,
        "a = '\ud800'",
    ],
)
def test_toml_without_end_is_a_value_error_at_once(text: str) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match=r"deep|dots|digits|encode"):
        parse_toml(text)
    assert time.process_time() - began < 2


def test_half_a_character_in_json_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        parse_json('{"a": ["\\ud800"]}')
    assert parse_json('{"a": ["\\ud83d\\ude00"]}') == {"a": ["😀"]}


@pytest.mark.parametrize("value", ["[" * 5_000, "9" * 5_000, '"\\ud800"'])
def test_headers_and_recipes_of_that_kind_are_refused(value: str, tmp_path: Path) -> None:
    text = f'{{"format_version": {value}}}'.encode()
    header = json.dumps({"__metadata__": {"customvideo_adapter": text.decode()}}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(AdapterError, match=r"a\.safetensors"):
        Adapter.load(tmp_path / "a.safetensors")
    (tmp_path / "r.toml").write_text(f"steps = {value}")
    with pytest.raises(ConfigError, match=r"r\.toml"):
        load_recipe(tmp_path / "r.toml")


def test_a_concepts_list_of_a_thousand_is_not_paired(tmp_path: Path) -> None:
    keys = ("instance_prompt", "class_prompt", "instance_data_dir")
    told = [dict(zip(keys, (f"a <s{n}> cat", "cat", "x"), strict=True)) for n in range(1_000)]
    (tmp_path / "c.json").write_text(json.dumps(told))
    with pytest.raises(BenchmarkError, match="1000 subjects"):
        load_edition(tmp_path / "c.json")


# Ways out of a folder


@pytest.mark.parametrize("place", ["../outside", "/etc", "a/../../outside"])
def test_a_manifest_puts_nothing_outside_of_its_folder(place: str, tmp_path: Path) -> None:
    source = {"addresses": ["http://127.0.0.1:9/"], "licence": "CC0"}
    subjects = [
        {"name": name, "category": "cat", "folder": place, "images": [image]}
        for name, image in (
            ("tom", {"file": "1.png", "source": "here", "path": "1.png"}),
            ("rex", {"file": "2.png", "source": "here", "path": "2.png"}),
        )
    ]
    pair = {"subjects": ["tom", "rex"], "prompts": ["a <tom> cat and a <rex> cat"]}
    told = {"name": "n", "version": "1", "sources": {"here": source}}
    own = tmp_path / "own"
    own.mkdir()
    (own / "customstudio.json").write_text(
        json.dumps({**told, "subjects": subjects, "combinations": [pair]})
    )
    with pytest.raises(BenchmarkError, match="outside"):
        fetch(own)
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b.mp4", "..", "a\0b", "x" * 5_000])
def test_a_study_shows_no_file_but_its_own(name: str, tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "secret").write_text("nobody's business")
    item = {"key": "k", "prompt": "", "videos": {"a": name}, "size": [8, 8], "references": []}
    told = {"version": 1, "methods": ["a"], "items": [item]}
    (tmp_path / "items.json").write_text(json.dumps(told))
    with pytest.raises(StudyError, match=r"items\.json"):
        read_items(tmp_path)


def test_what_the_trash_says_leads_nowhere_else(tmp_path: Path) -> None:
    root = tmp_path / "room"
    space = Workspace(root)
    folder = root / "trash" / "video-00000000"
    (folder / "content0").mkdir(parents=True)
    origins: list[Any] = [[["..", "..", "outside"]], [["/etc"]], ["videos"], "videos", None, [[]]]
    for origin in origins:
        told = {"format": 1, "kind": "video", "name": "n", "deleted": "", "from": origin}
        (folder / "entry.json").write_text(json.dumps(told))
        with pytest.raises(StorageError):
            space.trash.restore(folder.name)
    assert (folder / "content0").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["room"]


def test_a_marker_that_names_other_files_makes_no_checkpoint(tmp_path: Path) -> None:
    place = tmp_path / "checkpoints" / "5"
    place.mkdir(parents=True)
    for name in ("adapter.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json"):
        (place / name).write_bytes(b"")
    (place / "COMPLETE").write_text(json.dumps(dict.fromkeys(["../../x", "/dev/zero"], "0")))
    found = newest_valid(place.parent)
    assert found.newest is None and len(found.broken) == 1


# Texts


@pytest.mark.parametrize("text", ["\ud800", "a <tom> cat \udfff", "\udc80<tom>"])
def test_half_a_character_is_no_prompt(text: str) -> None:
    with pytest.raises(PromptError, match="broken character"):
        Prompt(text)


@pytest.mark.parametrize("text", ["<" * 1_000_000, "<a" * 500_000, "a " * 500_000, "<>" * 500_000])
def test_a_prompt_without_end_is_read_in_no_time(text: str) -> None:
    began = time.process_time()
    asked = Prompt(text)
    _ = asked.canonical, asked.plain, asked.encoded, asked.unknown
    assert time.process_time() - began < 3


def test_a_message_about_a_text_without_end_has_an_end() -> None:
    with pytest.raises(UserError) as caught:
        load_subjects("x" * 1_000_000 + "=")
    assert len(str(caught.value)) < 2_000


@pytest.mark.parametrize(
    "read",
    [
        Adapter.load,
        Video.load,
        load_edition,
        load_recipe,
        lambda place: load_subjects([f"tom:cat={place}"]),
    ],
)
@pytest.mark.parametrize("place", ["a" * 5_000, "a\0b", "\ud800", "~nobody-of-that-name/x"])
def test_paths_that_are_none(read: Callable[[str], object], place: str) -> None:
    with pytest.raises(UserError):
        read(place)


# Pages; `test_report`, `test_preparing`, `benchmark/test_page`, `userstudy/test_site` and
# `studio/test_pages` look at whole ones.

NASTY = "<script>alert(1)</script>\"><img src=x onerror='alert(1)'>"


def test_the_studio_writes_whatever_it_is_told_as_text() -> None:
    from customvideo.studio.look import render
    from customvideo.workspace.records import AdapterEntry, Discarded, Job, Progress, VideoEntry

    here = Path("video.mp4")
    video = VideoEntry(
        *("a-00000000", here, here, {NASTY: here}, NASTY, 0, NASTY, NASTY, NASTY, NASTY),
        *({NASTY: NASTY}, NASTY, 1.0, (NASTY,)),
    )
    adapter = AdapterEntry(
        *("a-00000000", NASTY, ((NASTY, NASTY),), NASTY, NASTY, NASTY, 5, here, here),
        origin=NASTY,
        scores={NASTY: 1.0},
    )
    job = Job("a-00000000", "train", NASTY, NASTY, {}, "running", NASTY, warnings=(NASTY,))
    failed = Job("b-00000000", "generate", NASTY, NASTY, {}, "failed", NASTY)
    moving = Progress(NASTY, 1, 2, note=NASTY)
    jobs = [(job, moving), (failed, moving)]
    thrown = Discarded("a-00000000", "video", NASTY, "", 5)
    told: dict[str, dict[str, Any]] = {
        "gallery": {"videos": [video], "drawing": jobs, "hint": NASTY, "broken": [NASTY]},
        "adapters": {"adapters": [(adapter, video), (adapter, None)], "broken": [NASTY]},
        "jobs": {"jobs": jobs, "results": {job.id: [Path(NASTY)]}, "watched": NASTY},
        "trash": {"entries": [thrown], "use": {NASTY: 5}},
        "undo": {"entry": thrown},
        "estimate": {"problem": NASTY, "found": None},
        "empty": {"title": NASTY, "lines": [NASTY]},
    }
    for name, values in told.items():
        values |= {"address": str, "shown": lambda one: one.settings.items()}
        page = render(name, **values)
        assert "&lt;script&gt;" in page, name
        assert "<script" not in page and "<img" not in page and "onerror='" not in page, name


def test_no_template_takes_what_it_is_told_for_markup() -> None:
    package = Path(customvideo.__file__).parent
    told = [
        line.strip()
        for path in sorted(package.rglob("*.j2"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if ("safe" in line and "|" in line) or "autoescape" in line
    ]
    assert told == ["{{ css|safe }}"], "the package's own style sheet is the only markup"


def test_a_folder_of_pickled_weights_is_refused(tiny_zeroscope: Path, tmp_path: Path) -> None:
    """What its unpickling would do is up to whoever made it."""
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_zeroscope, folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(safetensors.torch.load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(BackboneError, match="pickled weights"):
        load_backbone(str(folder), "cpu")
