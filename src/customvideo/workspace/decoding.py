"""Decoding pictures and clips from strangers, in a process with limits: `python -m` this module.

    python -m customvideo.workspace.decoding photos|mask|clip FOLDER [COUNT]

It reads `FOLDER/in/*` and writes, for each file in turn, one line of JSON to standard output and
bare pixels to `FOLDER/out/`. Whoever started it (`uploads`) trusts neither: it checks their sizes
and encodes the pixels itself. Where the system has limits on memory, time and files, they are set
before the first byte is read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from customvideo.errors import CustomVideoError

__all__ = ["LARGEST_PIXELS", "MEMORY", "main"]

LARGEST_PIXELS = 64_000_000
"""Of a picture, before it is shrunk: more than any phone's."""
MEMORY = 3 * 2**30
"""Bytes of address space, of which the libraries alone take a third."""
_SECONDS = 20
"""Of the processor, a file."""
_CLIP_SECONDS, _CLIP_RATE = 20.0, 6.0
"""How much of a clip is looked at, and how many frames a second of it."""
_LARGEST_FILE = 512 * 2**20
_FILES = 64


def main(arguments: list[str]) -> None:
    """Decode what lies in the folder; the exit status says nothing, the lines say all."""
    kind, folder = arguments[0], Path(arguments[1])
    count = int(arguments[2]) if len(arguments) > 2 else 1
    _set_limits()
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = LARGEST_PIXELS
    for path in sorted((folder / "in").iterdir()):
        _allow_seconds()
        # Said before it is done: whoever reads knows which file ended the process.
        _say({"begun": path.name})
        try:
            for found in _decode(kind, path, count):
                _say(found(folder / "out", path.name))
        except MemoryError:
            _say({"file": path.name, "error": f"'{path}' needs too much memory; save it smaller."})
        except CustomVideoError as error:
            _say({"file": path.name, "error": str(error)})


class _Pixels:
    """Decoded pixels that are written on call, and described."""

    def __init__(self, index: int, layers: dict[str, Any], **facts: Any) -> None:
        self._index, self._layers, self._facts = index, layers, facts

    def __call__(self, out: Path, file: str) -> dict[str, Any]:
        described: dict[str, Any] = {"file": file, **self._facts}
        for layer, pixels in self._layers.items():
            name = f"{file}-{self._index}.{layer}"
            (out / name).write_bytes(pixels.tobytes())
            described[layer] = {"name": name, "shape": list(pixels.shape)}
        return described


def _decode(kind: str, path: Path, count: int) -> Iterator[_Pixels]:
    import numpy as np

    if kind == "clip":
        yield from _clip(path, count)
        return
    if kind == "mask":
        yield _Pixels(0, {"grey": _painted(path)})
        return
    from customvideo.subjects.pictures import read_picture

    picture = read_picture(path)
    layers = {"rgb": picture.image}
    if picture.alpha is not None:
        layers["grey"] = (picture.alpha * 255).round().astype(np.uint8)
    # Only the format decides how it is kept: what is lossy already may be so again.
    yield _Pixels(0, layers, lossy=path.open("rb").read(2) == b"\xff\xd8")


def _painted(path: Path) -> Any:
    """A mask as grey (height, width); transparent is black."""
    import numpy as np

    from customvideo.subjects.pictures import read_drawing

    return (read_drawing(path) * 255).round().astype(np.uint8)


def _clip(path: Path, count: int) -> Iterator[_Pixels]:
    """Up to `count` frames of a clip, sharp ones that differ most."""
    import numpy as np

    from customvideo.reels import Limits, read_clip
    from customvideo.subjects.picking import pick_frames

    limits = Limits(seconds=_CLIP_SECONDS, fps=_CLIP_RATE, pixels=LARGEST_PIXELS)
    frames = read_clip(path, limits).video.frames
    for index in pick_frames(frames, count, np.ones(len(frames), np.bool_)):
        yield _Pixels(index, {"rgb": frames[index]}, lossy=True)


def _set_limits() -> None:
    """Bound this process where the system knows how to; elsewhere its starter's clock does."""
    try:
        import resource
    except ImportError:
        return
    wanted = {
        "RLIMIT_AS": MEMORY,
        "RLIMIT_FSIZE": _LARGEST_FILE,
        "RLIMIT_NOFILE": _FILES,
        "RLIMIT_CORE": 0,
    }
    for name, value in wanted.items():
        # Not every system has every limit, and none can be raised above one that is set already.
        with suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, name), (value, value))


def _allow_seconds() -> None:
    """Let the next file take its share of the processor's time; over it, the process ends."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    allowed = int(used.ru_utime + used.ru_stime) + 1 + _SECONDS
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (allowed, most))


def _say(values: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
