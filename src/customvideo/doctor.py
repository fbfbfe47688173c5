"""What is there and what is not: versions, devices, codecs, space, optional parts and their way in.

Every finding is a line with a mark: `ok`, `no` (optional, and how to get it) or `!!` (nothing works
until it is mended). It loads no model, fetches nothing, and writes nothing but a probe in a
temporary folder.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from customvideo import __version__
from customvideo.files import storage_error

__all__ = ["Finding", "examine", "tell"]

Mark = Literal["ok", "no", "!!"]

_EXTRAS = {
    "export": "diffusers' own LoRA loader, for export --verify",
    "ray": "batches and benchmarks on many machines",
    "study": "the user study's pages",
    "tensorboard": "losses on TensorBoard",
    "trackio": "losses on a local trackio board",
    "wandb": "losses on Weights & Biases",
    "web": "the studio in the browser",
}
_LITTLE = 2_000_000_000
"""Bytes of free space below which a run of any published model may not be kept."""
_CODED = (("h264", "libx264", ".mp4"), ("gif", "gif", ".gif"))


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    mark: Mark
    what: str
    found: str

    def __str__(self) -> str:
        return f"{self.mark:<3} {self.what:<22} {self.found}"


def examine() -> list[Finding]:
    """Everything that decides whether and how the program works here."""
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _program,
        _packages,
        _devices,
        _codecs,
        _places,
        _toybox,
        _extras,
    )
    return [finding for look in looks for finding in look()]


def tell(findings: list[Finding], *, as_json: bool = False) -> str:
    """The findings as lines for people, or as JSON for programs."""
    if as_json:
        return json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False)
    broken = sum(finding.mark == "!!" for finding in findings)
    end = (
        f"{broken} to be mended before anything works."
        if broken
        else "All that is needed is there. Try: customvideo demo"
    )
    return "\n".join([*map(str, findings), "", end])


def _program() -> Iterator[Finding]:
    yield Finding("ok", "customvideo", __version__)
    old = sys.version_info < (3, 11)
    yield Finding("!!" if old else "ok", "Python", f"{platform.python_version()} at {sys.prefix}")
    yield Finding("ok", "system", f"{platform.platform()}, {os.cpu_count()} processor threads")
    yield Finding("ok", "memory", _gigabytes(memory) if (memory := _memory()) else "not told")


def _packages() -> Iterator[Finding]:
    for need in _needs():
        if "extra" in str(need.marker or "") or (need.marker and not need.marker.evaluate()):
            continue
        found = _version(need.name)
        if found is None:
            yield Finding("!!", need.name, f"missing; pip install '{need}'")
        elif not need.specifier.contains(found, prereleases=True):
            yield Finding("!!", need.name, f"{found} does not fit {need.specifier}; pip install -U")
        else:
            yield Finding("ok", need.name, found)


def _devices() -> Iterator[Finding]:
    import torch

    yield Finding("ok", "cpu", f"{torch.get_num_threads()} threads used by torch")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(index)
            half = "bf16" if torch.cuda.is_bf16_supported() else "fp16 only"
            text = f"{card.name}, {_gigabytes(card.total_memory)}, {half}"
            yield Finding("ok", f"cuda:{index}", text)
    elif torch.backends.mps.is_available():
        yield Finding("no", "mps", "an Apple GPU; not tried, --device cpu works")
    else:
        yield Finding("no", "GPU", "none that torch sees; the toybox needs none, other models do")


def _codecs() -> Iterator[Finding]:
    import numpy as np

    from customvideo.video import Video

    video = Video(np.stack([np.full((32, 32, 3), shade, np.uint8) for shade in (0, 255)]))
    with tempfile.TemporaryDirectory() as folder:
        for name, codec, suffix in _CODED:
            path = Path(folder) / f"probe{suffix}"
            try:
                video.save(path)
                frames = len(Video.load(path).frames)
            except Exception as error:
                yield Finding("!!", f"codec {name}", f"{error}; reinstall the package 'av'")
            else:
                good: Mark = "ok" if frames == 2 else "!!"
                yield Finding(good, f"codec {name}", f"{codec} writes and reads {suffix}")


def _places() -> Iterator[Finding]:
    from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE

    models = "models from the hub" + (", offline" if HF_HUB_OFFLINE else "")
    here = {
        "this folder": Path.cwd(),
        "temporary files": Path(tempfile.gettempdir()),
        models: Path(HF_HUB_CACHE),
    }
    for what, place in here.items():
        there = next(path for path in (place, *place.parents) if path.exists())
        free = shutil.disk_usage(there).free
        mark: Mark = "ok" if free > _LITTLE else "no"
        yield Finding(mark, what, f"{_gigabytes(free)} free at {place}")
    try:
        with tempfile.TemporaryFile(dir=Path.cwd()) as probe:
            probe.write(b"0")
    except OSError as error:
        yield Finding("no", "writing here", str(storage_error(error, Path.cwd())))


def _toybox() -> Iterator[Finding]:
    weights = Path(__file__).parent / "toybox" / "weights"
    needed = ("model/unet", "model/vae", "model/text_encoder", "clip", "dino", "segmenter")
    missing = [name for name in needed if not list((weights / name).glob("*.safetensors"))]
    if missing:
        text = f"weights missing ({', '.join(missing)}); reinstall customvideo"
        yield Finding("!!", "toybox", text)
    else:
        size = sum(file.stat().st_size for file in weights.rglob("*.safetensors"))
        yield Finding("ok", "toybox", f"weights there, {size / 1e6:.0f} MB")


def _extras() -> Iterator[Finding]:
    for extra, brings in _EXTRAS.items():
        needs = [need for need in _needs() if _belongs(need, extra)]
        missing = [need.name for need in needs if _version(need.name) is None]
        if not missing:
            found = ", ".join(f"{need.name} {_version(need.name)}" for need in needs)
            yield Finding("ok", f"[{extra}]", found or "part of this installation")
        else:
            way = f"pip install 'customvideo[{extra}]'"
            yield Finding("no", f"[{extra}]", f"{brings}: {way}")


def _needs() -> list[Requirement]:
    return [Requirement(text) for text in requires("customvideo") or ()]


def _belongs(need: Requirement, extra: str) -> bool:
    return re.search(rf"extra == ['\"]{extra}['\"]", str(need.marker or "")) is not None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _memory() -> int | None:
    """Bytes of this computer's memory, where the system tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
