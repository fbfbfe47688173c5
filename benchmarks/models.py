"""What the speed benchmarks share: models of any family, pairs of runs, and the machine's limits.

A model is the real one, a tiny random one of the same classes, or one of the true size with random
weights, made from the published configs on the device: speed does not depend on what weights say.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from customvideo.backbones.base import load_backbone
from customvideo.backbones.blank import without_weights
from customvideo.backbones.sizes import PUBLISHED
from customvideo.runs.ledger import Ledger
from customvideo.runs.preflight import measured_peak

TINY = {
    "unet3d": "tests.tiny:build_tiny_zeroscope",
    "animatediff": "tests.tiny_animatediff:build_tiny_animatediff",
    "wan": "tests.tiny_wan:build_tiny_wan",
    "ltx": "tests.tiny_ltx:build_tiny_ltx",
    "cogvideox": "tests.tiny_cogvideox:build_tiny_cogvideox",
    "hunyuan": "tests.tiny_hunyuan:build_tiny_hunyuan",
}
"""Family -> who writes a tiny random model of its classes."""
USUAL = {"unet3d": "zeroscope", "wan": "wan-1.3b", "cogvideox": "cogvideox-2b"}
"""Family -> the published model that stands for it, where its name is another."""
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options that `model_folder` and the measurements read."""
    names = sorted({*TINY, *PUBLISHED})
    parser.add_argument(
        "--backbone", default="toybox", help=f"toybox, a folder, or with --size {', '.join(names)}"
    )
    parser.add_argument(
        "--size",
        choices=("own", "tiny", "true"),
        default="own",
        help="own: its weights; tiny: small and random; true: of the published size and random",
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("auto", *TYPES), default="auto")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's choice")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")


@contextmanager
def model_folder(options: argparse.Namespace) -> Iterator[tuple[str, Callable[..., Any]]]:
    """What `load_backbone` takes for the model, and who loads it: with its weights or without."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        if options.size == "tiny":
            sys.path.insert(0, str(Path(__file__).parents[1]))
            module, _, builder = tiny_builder(options.backbone).partition(":")
            yield str(getattr(importlib.import_module(module), builder)(folder)), read
        elif options.size == "true":
            PUBLISHED[USUAL.get(options.backbone, options.backbone)].write(folder)
            yield str(folder), drawn
        elif options.backbone == "toybox":
            from customvideo.toybox.backbone import WEIGHTS

            yield str(WEIGHTS / "model"), read
        else:
            yield options.backbone, read


def tiny_builder(name: str) -> str:
    """Who builds the tiny model of the family called `name`, or of a published model's."""
    if name in TINY:
        return TINY[name]
    found = [family for family in TINY if USUAL.get(family) == name or name.startswith(family)]
    return TINY[found[0]] if found else TINY["unet3d"]


def read(load: Callable[[], Any], _device: str) -> Any:
    """What `load` reads."""
    return load()


def drawn(load: Callable[[], Any], device: str) -> Any:
    """What `load` makes where networks are drawn on `device` instead of being read."""
    where = "cuda" if device == "auto" and torch.cuda.is_available() else device
    with without_weights("cpu" if where == "auto" else where):
        return load()


def load_model(options: argparse.Namespace, folder: str, make: Callable[..., Any]) -> Any:
    """The backbone in `folder`."""
    name = "toybox" if options.size == "own" and options.backbone == "toybox" else folder
    dtype = options.dtype
    if options.size == "true" and dtype == "auto":
        dtype = "bf16"
    return make(lambda: load_backbone(name, options.device, dtype), options.device)


def measure_pairs(
    sides: Mapping[str, Callable[[], Any]], options: argparse.Namespace, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each side, in alternating pairs; which goes first alternates, too. The first
    pairs are a warm-up and not in the result."""
    clock, seconds = CLOCKS[options.clock], {side: list[float]() for side in sides}
    for pair in range(options.warm_up + options.pairs):
        for side in sorted(sides, reverse=bool(pair % 2)):
            began = clock()
            sides[side]()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[side].append(clock() - began)
    return {side: found[options.warm_up :] for side, found in seconds.items()}


def measure_once(run: Callable[[], Any], device: torch.device) -> dict[str, int]:
    """Peak bytes beside what was there before, and multiplications, of one run."""
    ledger, reserved = Ledger(), 0
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        reserved = torch.cuda.max_memory_allocated(device) - before
    with ledger:
        run()
    peak = ledger.peak if device.type == "cpu" else reserved
    return {"peak_bytes": peak, "flops": ledger.flops}


def device_peak(device: torch.device, dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """Multiplications and additions a second of a large matrix product on the device."""
    if device.type == "cpu":
        return measured_peak(1.0, clock)
    side, count = 8192, 20
    left = torch.randn(side, side, device=device, dtype=dtype)
    right = torch.randn(side, side, device=device, dtype=dtype)
    left @ right
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    for _ in range(count):
        left @ right
    torch.cuda.synchronize(device)
    return 2 * side**3 * count / (time.perf_counter() - began)


def compared(
    sides: Mapping[str, Callable[[], Any]], options: argparse.Namespace, backbone: Any
) -> dict[str, Any]:
    """The two sides' times, their ratio (first over second) with its quartiles, memory and work."""
    first, second = sides
    seconds = measure_pairs(sides, options, backbone.device)
    ratios = [one / other for one, other in zip(seconds[first], seconds[second], strict=True)]
    cuts = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    peak = device_peak(backbone.device, backbone.dtype, CLOCKS[options.clock])
    report: dict[str, Any] = {
        "ratio": round(statistics.median(ratios), 4),
        "quartiles": [round(cuts[0], 4), round(cuts[2], 4)],
        "pairs": len(ratios),
    }
    for side, run in sides.items():
        middle, once = statistics.median(seconds[side]), measure_once(run, backbone.device)
        report[side] = {
            "seconds": round(middle, 5),
            **once,
            "share_of_peak": round(once["flops"] / middle / peak, 4),
        }
    report["peak_flops_per_second"] = round(peak)
    return report


def surroundings(options: argparse.Namespace, backbone: Any) -> dict[str, Any]:
    """Which model on which machine."""
    name = backbone.name if options.size == "own" else f"{options.backbone}, {options.size}, random"
    device = backbone.device
    return {
        "model": name,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "clock": options.clock,
    }


@contextmanager
def compiled(backbone: Any) -> Iterator[None]:
    """The network is compiled inside: the stock module, or our forward pass over it."""
    if backbone.family == "unet3d":
        from customvideo.backbones import unet3d

        owner, name = unet3d, "forward"
    else:
        owner = getattr(backbone, "_pipeline", None) or backbone
        name = "transformer" if hasattr(owner, "transformer") else "_unet"
    before = getattr(owner, name)
    setattr(owner, name, torch.compile(before))
    try:
        yield
    finally:
        setattr(owner, name, before)


def print_line(report: Mapping[str, Any]) -> None:
    """One JSON object on a line of its own."""
    print(json.dumps(report), flush=True)
