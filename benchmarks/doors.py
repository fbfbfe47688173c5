"""Where strangers' bytes come in, each with whole specimens, and ways to spoil them.

A door is a public function of the package that reads a file or a text. It may take what it gets or
refuse it by a `UserError`; anything else is a fault. `fuzz.py` throws the spoiled specimens at
them by the hundred thousand, `tests/test_hostile.py` a few.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import places
from PIL import Image

__all__ = ["DOORS", "Door", "spoiled"]

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
Spoil = Callable[[random.Random, Sequence[bytes]], bytes]


@dataclass(frozen=True)
class Door:
    """One way in.

    Attributes:
        name: what people call it.
        file: the name under which it looks for what it reads.
        specimens: whole files that it takes.
        enter: reads what lies in a folder under `file`.
        spoil: how specimens are changed.
        share: how many of all inputs are for it, beside the others' shares.
    """

    name: str
    file: str
    specimens: Callable[[], Sequence[bytes]]
    enter: Callable[[Path], object]
    spoil: Spoil
    share: float = 1.0


def spoiled(door: Door, seed: int, index: int) -> bytes:
    """Input number `index` of the campaign `seed`."""
    rng = random.Random(f"{door.name}/{seed}/{index}")
    return door.spoil(rng, _specimens(door.name))


@cache
def _specimens(name: str) -> Sequence[bytes]:
    return DOORS[name].specimens()


# Ways to spoil.

NASTY: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        -(2**63),
        10**30,
        10**400,
        0.0,
        -0.0,
        1e308,
        5e-324,
    ),
    *(float("nan"), float("inf"), float("-inf")),
    *("", " ", "\0", "a" * 5_000, "\ud800", "😀", "\u202e", "\x1b[31m", "{}", "%s%n", "<b>", "'\""),
    *("..", "../../etc/passwd", "/etc/passwd", "/dev/zero", "C:\\x", "~", "~root", "a/b", "con"),
    *([], [[]], {}, {"": {}}, [None], ["a"] * 200, {"a": 1, "b": [1, 2]}, [0] * 5),
)
PIECES = (
    *(b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r\n", b"\n", b"=", b"[", b"]", b"{"),
    *(b"}", b'"', b"'''", b",", b"[[a]]\n", b"a.b.c = 1\n", b"a = 1e999\n", b"#", b"\\u0000"),
    *(
        b"[" * 3_000,
        b'{"a":' * 3_000,
        b"9" * 6_000,
        b"nan",
        b"-inf",
        b"\\ud800",
        b"0x",
        b"1979-05-27",
    ),
)


def bytewise(rng: random.Random, specimens: Sequence[bytes]) -> bytes:
    """A few bytes, or stretches of them, changed, doubled, left out or from elsewhere."""
    data = bytearray(rng.choice(specimens))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8, 30))):
        _change(rng, data, specimens)
    return bytes(data)


def _change(rng: random.Random, data: bytearray, specimens: Sequence[bytes]) -> None:
    # Beginnings say how the rest is to be read.
    near = rng.random() < 0.4
    place = rng.randrange(1 + min(len(data), 64 if near else len(data)))
    length = min(rng.choice((1, 1, 2, 4, 8, 64, 1024)), max(1, len(data)))
    kind = rng.randrange(8)
    if kind == 0 and data:
        data[min(place, len(data) - 1)] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[place : place + length] = rng.randbytes(length)
    elif kind == 2:
        del data[place : place + length]
    elif kind == 3:
        data[place:place] = data[place : place + length]
    elif kind == 4:
        del data[place:]
    elif kind == 5:
        other = rng.choice(specimens)
        at = rng.randrange(1 + len(other))
        data[place : place + length] = other[at : at + length]
    elif kind == 6:
        number = rng.choice(
            (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1)
        )
        form = rng.choice((">H", "<H", ">I", "<I", "<Q", ">Q"))
        packed = struct.pack(form, number & ((1 << 8 * struct.calcsize(form)) - 1))
        data[place : place + len(packed)] = packed
    else:
        data[place:place] = rng.choice(PIECES)


def of_json(rng: random.Random, specimens: Sequence[bytes]) -> bytes:
    """Values of another kind, keys too many or too few, nesting without end; or `bytewise`."""
    if rng.random() < 0.35:
        return bytewise(rng, specimens)
    try:
        told = _twisted(rng, json.loads(rng.choice(specimens)))
    except ValueError:
        return bytewise(rng, specimens)
    if rng.random() < 0.02:
        told = _deep(told)
    try:
        text = json.dumps(told, ensure_ascii=rng.random() < 0.5)
    except (ValueError, RecursionError):
        # More digits than Python writes.
        text = (
            json.dumps(told, default=str, skipkeys=True)
            if not isinstance(told, int)
            else "9" * 5_000
        )
    return text.encode("utf-8", "surrogatepass")


def of_jsonl(rng: random.Random, specimens: Sequence[bytes]) -> bytes:
    """`of_json` in one line of several."""
    lines = rng.choice(specimens).splitlines()
    place = rng.randrange(len(lines))
    lines[place] = of_json(rng, [lines[place]])
    return b"\n".join(lines)


def of_toml(rng: random.Random, specimens: Sequence[bytes]) -> bytes:
    """As `of_json`, of what TOML can say."""
    import tomllib

    import tomli_w

    if rng.random() < 0.35:
        return bytewise(rng, specimens)
    told = _twisted(rng, tomllib.loads(rng.choice(specimens).decode()))
    try:
        return tomli_w.dumps(told).encode("utf-8", "surrogatepass")
    except Exception:
        return bytewise(rng, specimens)


def of_tensors(rng: random.Random, specimens: Sequence[bytes]) -> bytes:
    """The header of a safetensors file twisted, its length a lie, its tensors others."""
    if rng.random() < 0.4:
        return bytewise(rng, specimens)
    data = rng.choice(specimens)
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    kind = rng.randrange(4)
    names = [name for name in header if name != "__metadata__"]
    if kind == 0 and "__metadata__" in header:
        for key, text in header["__metadata__"].items():
            header["__metadata__"][key] = of_json(rng, [text.encode()]).decode("utf-8", "replace")
    elif kind == 1 and names:
        entry = header[rng.choice(names)]
        entry[rng.choice(list(entry))] = rng.choice(
            (
                "F64",
                "I8",
                "BOOL",
                "F8_E4M3",
                "X",
                [],
                [0],
                [2**40],
                [-1],
                [1, 2, 3, 4, 5, 6],
                [0, 0],
                None,
            )
        )
    elif kind == 2 and names:
        renamed = rng.choice(names)
        header[rng.choice((renamed + "x", "", "a.b.c", "deltas/x/../../y.up", "\0"))] = header.pop(
            renamed
        )
    else:
        header = _twisted(rng, header)
    try:
        text = json.dumps(header).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return bytewise(rng, specimens)
    said = rng.choice((len(text),) * 8 + (0, len(text) + 1, 2**63, 2**32))
    return struct.pack("<Q", said) + text + body


def of_prompt(rng: random.Random, specimens: Sequence[bytes]) -> bytes:
    """Words, brackets, and what no keyboard has, in any order."""
    parts = [
        *(
            "<tom>",
            "<Tom>",
            "< tom >",
            "<tom",
            "tom>",
            "<<tom>>",
            "<rex> dog",
            "<>",
            "< >",
            "<tim>",
        ),
        *("a ", "an ", "A ", "cat", "cats", " and ", ",", ".", "{subjects}", "{", "}", "%s", "\\"),
        *(
            "\ud800",
            "\udfff",
            "\0",
            "\n",
            "\t",
            "\u200b",
            "\u202e",
            "é",
            "猫",
            "😀",
            "\ufffe",
            "İ",
            "ß",
        ),
        *(" " * 3_000, "<" * 3_000, ">" * 300, "a" * 3_000, "<a" * 1_000, "9" * 4_400, "tom:cat="),
    ]
    text = "".join(rng.choice(parts) for _ in range(rng.choice((1, 3, 8, 30))))
    if rng.random() < 0.3:
        text = rng.choice(specimens).decode() + text
    return text.encode("utf-8", "surrogatepass")


def _twisted(rng: random.Random, told: Any) -> Any:
    for _ in range(rng.choice((1, 1, 2, 5))):
        told = _twist(rng, told, rng.randrange(6))
    return told


def _twist(rng: random.Random, told: Any, depth: int) -> Any:
    """`told` with one place in it, so deep at the most, changed."""
    if depth and isinstance(told, dict) and told:
        key = rng.choice(list(told))
        kind = rng.random()
        if kind < 0.1:
            return {name: value for name, value in told.items() if name != key}
        if kind < 0.2:
            return {
                **told,
                rng.choice(("", "x", "__class__", "a" * 300, key + " ")): rng.choice(NASTY),
            }
        return {**told, key: _twist(rng, told[key], depth - 1)}
    if depth and isinstance(told, list) and told:
        place = rng.randrange(len(told))
        changed = _twist(rng, told[place], depth - 1)
        return [*told[:place], changed, *told[place + rng.randrange(2) :]]
    return rng.choice(NASTY)


def _deep(told: Any) -> Any:
    for _ in range(900):
        told = [told]
    return told


# Specimens.


def _text(*texts: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [text.encode() for text in texts]


def _golden(*patterns: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [
        path.read_bytes() for pattern in patterns for path in sorted(GOLDEN.glob(pattern))
    ]


def _pictures() -> Sequence[bytes]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (48, 64, 3), np.uint8)
    pixels[8:40, 8:56] = (200, 40, 30)
    colour = Image.fromarray(pixels)
    clear = colour.convert("RGBA")
    clear.putalpha(128)
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(rng.integers(0, 2**16, (48, 64)).astype(np.uint16))
    found = [
        _saved(colour, "PNG"),
        _saved(clear, "PNG"),
        _saved(colour.convert("P"), "PNG", transparency=3),
        _saved(deep, "PNG"),
        _saved(colour.convert("1"), "PNG"),
        _saved(colour, "JPEG", exif=exif),
        _saved(colour.convert("CMYK"), "JPEG"),
        _saved(colour, "JPEG", progressive=True),
        _saved(clear, "WEBP"),
        _saved(colour, "WEBP", lossless=True, save_all=True, append_images=[clear]),
    ]
    return found


def _saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    memory = io.BytesIO()
    picture.save(memory, kind, **options)
    return memory.getvalue()


def _clips(suffix: str) -> Callable[[], Sequence[bytes]]:
    def made() -> Sequence[bytes]:
        import tempfile

        from customvideo.video import Video

        frames = np.zeros((6, 48, 64, 3), np.uint8)
        for index in range(6):
            frames[index, 8:32, 4 * index : 4 * index + 20] = (40 * index, 200, 90)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"clip{suffix}"
            if suffix == ".webm":
                _webm(path, frames)
            else:
                Video(frames, 8.0).save(path)
            return [path.read_bytes()]

    return made


def _webm(path: Path, frames: Any) -> None:
    import av

    with av.open(str(path), "w") as output:
        stream = output.add_stream("libvpx", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for pixels in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        output.mux(stream.encode(None))


def _lora() -> Sequence[bytes]:
    import torch
    from safetensors.torch import save

    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    width = _toybox().denoiser.down_blocks[0].attentions[0].transformer_blocks[0].attn2.to_k.weight
    tensors = {
        f"{layer}.lora_A.weight": torch.ones(2, width.shape[1]),
        f"{layer}.lora_B.weight": torch.ones(width.shape[0], 2),
        f"{layer}.alpha": torch.tensor(2.0),
    }
    return [save(tensors, {"format": "pt"})]


@cache
def _tiny() -> Path:
    """A whole folder of a tiny random model; parts of it are spoiled."""
    import tempfile

    from tests.tiny import build_tiny_zeroscope

    return build_tiny_zeroscope(Path(tempfile.mkdtemp(prefix="fuzz-tiny-")) / "tiny")


def _index() -> Sequence[bytes]:
    return [(_tiny() / "model_index.json").read_bytes()]


def _config() -> Sequence[bytes]:
    return [(_tiny() / "unet" / "config.json").read_bytes()]


@cache
def _toybox() -> Any:
    from customvideo.backbones.base import load_backbone

    return load_backbone("toybox", "cpu")


STUDY = """title = "Two cats"
seed = 3
per_rater = 6
closes = 2030-01-31T18:00:00Z
[checks]
repeats = 2
[[questions]]
key = "motion"
title = "Motion"
text = "Which moves better?"
"""
BOXES = '[{"label": "tom", "bbox": [0.1, 0.2, 0.5, 0.9]}, {"label": "rex", "bbox": [0.5, 0, 1, 1]}]'
MANIFEST = json.dumps(
    {
        "version": "1",
        "name": "mine",
        "subjects": [
            {"name": "tom", "category": "cat", "folder": "tom"},
            {"name": "rex", "category": "dog", "folder": "rex"},
        ],
        "combinations": [{"subjects": ["tom", "rex"], "prompts": ["a <tom> cat and a <rex> dog"]}],
    }
)
CONCEPTS = json.dumps(
    [
        {
            "instance_prompt": "photo of a <new1> cat",
            "class_prompt": "cat",
            "instance_data_dir": "./tom",
            "class_data_dir": "./cats",
        }
    ]
)
PLAN = """prompts = ["{subjects} on the beach"]
seeds = [0, 1]
[changes]
backbone = "toybox"
steps = 20
[runs.pets]
subjects = { tom = "tom" }
[runs.more]
subjects = { rex = { folder = "rex", category = "dog" } }
method = "custom_diffusion"
"""
BENCH = """edition = "toybox"
prompts = 2
seeds = 1
[changes]
steps = 20
[entries.ours]
method = "customvideo"
[entries.theirs]
method = "custom_diffusion"
"""
CARD = json.dumps({"name": "mine", "recipes": "toybox", "fps": 8, "frames": 8, "size": [64, 96]})


# Doors: what is done with the file once it lies there.


def _recipe(folder: Path) -> object:
    from customvideo.config import dump_toml, load_recipe

    return dump_toml(load_recipe(folder / "recipe.toml"))


def _batch(folder: Path) -> object:
    from customvideo.batch.plan import load_plan

    return [run.digest for run in load_plan(folder / "plan.toml")]


def _bench(folder: Path) -> object:
    from customvideo.benchmark.plan import compose_plan, resolve

    return resolve(compose_plan(folder / "bench.toml"), "toybox")


def _subject(folder: Path) -> object:
    from customvideo.subjects.folders import SubjectSpec, stated_category

    return stated_category(SubjectSpec("tom", folder))


def _group(folder: Path) -> object:
    from customvideo.subjects.groups import GroupSpec, read_group

    if not (folder / "both.png").exists():
        (folder / "both.png").write_bytes(_pictures()[0])
    return read_group(GroupSpec.parse(f"tom+rex={folder}"), ("tom", "rex"))


def _caption(folder: Path) -> object:
    from customvideo.subjects.captions import read_caption
    from customvideo.subjects.prompt import LearnedWord

    return read_caption(folder / "0.png", (LearnedWord("tom", "cat"),))


def _adapter(folder: Path) -> object:
    from customvideo.adapters.adapter import Adapter
    from customvideo.errors import UserError

    adapter = Adapter.load(folder / "adapter.safetensors")
    try:
        adapter.check_fits(_toybox())
    except UserError:
        return None
    return adapter


def _foreign(folder: Path) -> object:
    from customvideo.exports.reading import read_deltas

    return read_deltas(folder / "lora.safetensors", _toybox())


def _checkpoint(name: str) -> Callable[[Path], object]:
    def enter(folder: Path) -> object:
        """The file is spoiled, and its checksum with it: somebody else made it so."""
        import hashlib

        from customvideo.training.checkpoint import best_checkpoint, newest_valid

        place = folder / "checkpoints"
        data = (folder / name).read_bytes()
        if not place.exists():
            shutil.copytree(GOLDEN / "checkpoints", place)
        last = max(path for path in place.iterdir() if path.name.isdecimal())
        (last / name).write_bytes(data)
        if name != "COMPLETE":
            sums = json.loads((GOLDEN / "checkpoints" / last.name / "COMPLETE").read_text())
            sums[name] = hashlib.sha256(data).hexdigest()
            (last / "COMPLETE").write_text(json.dumps(sums))
        found = newest_valid(place).newest
        best_checkpoint(place)
        return found and (found.state, found.optimizer(), found.rng())

    return enter


def _model(folder: Path) -> object:
    from customvideo.backbones.base import called, family_of, load_backbone, recipes_of

    for piece in _tiny().iterdir():
        if not (folder / piece.name).exists():
            (folder / piece.name).symlink_to(piece)
    told = called(str(folder)), family_of(str(folder)), recipes_of(str(folder))
    load_backbone(str(folder), "cpu")
    return told


def _prompt(folder: Path) -> object:
    from customvideo.config import apply_sets, default_recipe
    from customvideo.errors import UserError
    from customvideo.subjects.captions import with_words
    from customvideo.subjects.folders import SubjectSpec
    from customvideo.subjects.groups import GroupSpec
    from customvideo.subjects.prompt import LearnedWord, Prompt
    from customvideo.workspace.places import check_id, clean_name, inside, slug
    from customvideo.workspace.prompts import check_prompt, complete

    text = (folder / "prompt").read_bytes().decode("utf-8", "surrogatepass")
    words = (LearnedWord("tom", "cat"), LearnedWord("rex", "dog", 2))
    with_words(text, words)
    complete(None, text)
    slug(text)
    refused = 0
    for reader in (
        lambda text: _asked(Prompt(text, words)),
        lambda text: check_prompt(None, text),
        SubjectSpec.parse,
        GroupSpec.parse,
        check_id,
        lambda name: clean_name(name, "name"),
        lambda name: _within(inside(folder, name), folder),
        lambda words: apply_sets(default_recipe(), [words]),
        lambda words: _toybox().encode_prompt([Prompt(words).encoded]),
    ):
        try:
            reader(text)
        except UserError:
            refused += 1
    return refused


def _asked(prompt: Any) -> None:
    _ = prompt.canonical, prompt.plain, prompt.encoded, prompt.mentioned, prompt.unknown


def _within(found: Path, folder: Path) -> None:
    assert found.resolve().is_relative_to(folder.resolve()), found


def _one(
    module: str, function: str, *, of_folder: bool = False, file: str
) -> Callable[[Path], object]:
    def enter(folder: Path) -> object:
        from importlib import import_module

        return getattr(import_module(f"customvideo.{module}"), function)(
            folder if of_folder else folder / file
        )

    return enter


def _steps(folder: Path) -> object:
    from customvideo.workspace.jobs import JobFolder

    job = JobFolder(folder, places.ONE)
    job.path.mkdir(parents=True, exist_ok=True)
    job.steps.write_bytes((folder / "steps.jsonl").read_bytes())
    return job.progress(None)


def _clip(file: str) -> Callable[[Path], object]:
    def enter(folder: Path) -> object:
        from customvideo.reels import Limits, read_clip

        return read_clip(folder / file, Limits(decoded=100_000_000))

    return enter


def _video(file: str) -> Callable[[Path], object]:
    def enter(folder: Path) -> object:
        from customvideo.video import Video, plays_everywhere

        return plays_everywhere(folder / file), Video.load(folder / file)

    return enter


def _several(
    kind: str, whole: Mapping[str, Any], around: Callable[[str], Callable[[Path], object]]
) -> Iterator[Door]:
    """A door for each JSON file of a kind, by its place."""
    for place, told in whole.items():
        file = Path(place).name
        yield Door(f"{kind}: {file}", file, _text(json.dumps(told)), around(place), of_json, 0.3)


def _simple(
    name: str, file: str, specimens: Any, spoil: Spoil, where: str, of_folder: bool = False
) -> Door:
    module, _, function = where.rpartition(".")
    return Door(
        name, file, specimens, _one(module, function, of_folder=of_folder, file=file), spoil
    )


_RECIPES = ("recipe-*.toml",)
DOORS: dict[str, Door] = {
    door.name: door
    for door in (
        Door("prompts, words and names", "prompt", _text("a <tom> cat"), _prompt, of_prompt, 2),
        Door("recipe", "recipe.toml", _golden(*_RECIPES), _recipe, of_toml, 1),
        Door("batch plan", "plan.toml", _text(PLAN), _batch, of_toml, 0.5),
        Door("benchmark plan", "bench.toml", _text(BENCH, "prompts = 2\n"), _bench, of_toml, 0.5),
        _simple(
            "study plan", "study.toml", _text(STUDY), of_toml, "userstudy.plan.read_plan", True
        ),
        Door("study items", "items.json", places.study_items, places.study, of_json),
        Door("study forms", "form", _text("x.y", ""), places.answers, of_prompt, 0.5),
        Door(
            "subject.toml",
            "subject.toml",
            _text('word = "<tom>"\ncategory = "cat"\n'),
            _subject,
            of_toml,
        ),
        Door("boxes", "both.bbox", _text(BOXES), _group, of_json),
        Door("caption", "0.txt", _text("a cat on a rug"), _caption, of_prompt, 0.5),
        _simple("manifest", "m.json", _text(MANIFEST), of_json, "benchmark.manifest.read_manifest"),
        _simple(
            "concepts list", "c.json", _text(CONCEPTS), of_json, "benchmark.concepts.read_concepts"
        ),
        _simple(
            "checksums",
            "checksums.json",
            _text('{"a/b.jpg": "00"}'),
            of_json,
            "benchmark.folder.read_checksums",
            True,
        ),
        _simple(
            "table of rows", "rows.csv", _golden("rows-*.csv"), bytewise, "benchmark.rows.read_rows"
        ),
        _simple(
            "record",
            "r.json",
            _text('{"version": 1, "a": {"b": []}}'),
            of_json,
            "records.read_record",
        ),
        _simple(
            "room's file",
            "w.json",
            _text('{"format": 1, "name": "mine"}'),
            of_json,
            "workspace.places.read_json",
        ),
        _simple(
            "losses",
            "losses.jsonl",
            _golden("losses.jsonl"),
            of_jsonl,
            "training.progress.read_losses",
        ),
        Door(
            "adapter",
            "adapter.safetensors",
            _golden("adapter-*.safetensors"),
            _adapter,
            of_tensors,
            2,
        ),
        Door("another trainer's LoRA", "lora.safetensors", _lora, _foreign, of_tensors),
        Door(
            "checkpoint: marker",
            "COMPLETE",
            _golden("checkpoints/*/COMPLETE"),
            _checkpoint("COMPLETE"),
            of_json,
            0.3,
        ),
        Door(
            "checkpoint: state",
            "state.json",
            _golden("checkpoints/*/state.json"),
            _checkpoint("state.json"),
            of_json,
            0.3,
        ),
        Door(
            "checkpoint: optimizer",
            "optimizer.safetensors",
            _golden("checkpoints/*/optimizer.safetensors"),
            _checkpoint("optimizer.safetensors"),
            of_tensors,
            0.3,
        ),
        Door("model folder: index", "model_index.json", _index, _model, of_json, 0.3),
        Door("model folder: card", "customvideo.json", _text(CARD), _model, of_json, 0.3),
        _simple("photo", "p.png", _pictures, bytewise, "subjects.pictures.read_picture"),
        _simple("mask", "m.png", _pictures, bytewise, "subjects.pictures.read_drawing"),
        Door("clip: mp4", "c.mp4", _clips(".mp4"), _clip("c.mp4"), bytewise, 0.5),
        Door("clip: webm", "c.webm", _clips(".webm"), _clip("c.webm"), bytewise, 0.5),
        Door("clip: gif", "c.gif", _clips(".gif"), _clip("c.gif"), bytewise, 0.5),
        Door("video: mp4", "v.mp4", _clips(".mp4"), _video("v.mp4"), bytewise, 0.5),
        Door("video: gif", "v.gif", _clips(".gif"), _video("v.gif"), bytewise, 0.5),
        *_several("room", places.ROOM, places.room),
        *_several("job of a benchmark", places.JOB_FILES, places.bench_job),
        Door(
            "edition",
            "customstudio.json",
            _text(json.dumps(places.EDITION)),
            places.edition("customstudio.json"),
            of_json,
            0.5,
        ),
        Door("steps of a job", "steps.jsonl", _golden("losses.jsonl"), _steps, of_jsonl, 0.5),
        Door("mask of a photo", "a.png", places.written_mask, places.masked, bytewise, 0.5),
        Door("photos looked through", "b.png", _pictures, places.sorted_photo, bytewise, 0.3),
        Door("upload", "u.png", _pictures, places.upload, bytewise, 0.005),
        Door("archive", "a.zip", places.archives, places.archive, bytewise, 0.5),
        Door("path", "path", _text(places.ADDRESS), places.address, of_prompt, 0.5),
        Door("command line", "word", _text("tom"), places.command, of_prompt, 0.1),
    )
}
