"""Generation time against the stock pipeline's, at equal output.

    python benchmarks/generate.py                       # the toybox
    python benchmarks/generate.py --backbone FOLDER     # any TextToVideoSDPipeline folder
    python benchmarks/generate.py --tiny                # a random model, for a quick look

Both sides do the whole job from the same latents: encode the prompt, denoise, decode. Runs
alternate in pairs (which side goes first alternates, too), the first pair is a warm-up and not
counted, and the ratio is the median over pairs, so that a machine that slows down meanwhile
bears on both sides alike. Prints one JSON object; the exit code is 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from customvideo.backbones.sampling import SOLVERS, denoise
from customvideo.backbones.unet3d import UNet3D, load_folder

RATIO_BAR = 0.92
DIFFERENCE_BAR = 1e-4
PROMPT = "a cat and a dog on the beach"


def main() -> int:
    options = parse_options()
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = find_folder(options, Path(temporary))
        backbone = load_folder(folder, device=options.device)
        stock = load_stock(folder, options.device, options.solver)
        report = compare(backbone, stock, options)
    print(json.dumps({"model": "tiny" if options.tiny else backbone.name} | report, indent=2))
    return 0 if report["passed"] else 1


def compare(backbone: UNet3D, stock: Any, options: argparse.Namespace) -> dict[str, Any]:
    shape = backbone.latent_shape(options.frames or backbone.frames, *backbone.size)
    latents = torch.randn(1, *shape, generator=torch.Generator().manual_seed(options.seed))
    latents = latents.to(backbone.device)
    sides: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: run_ours(backbone, latents, options),
        "stock": lambda: run_stock(stock, latents, options),
    }
    walls: dict[str, list[float]] = {side: [] for side in sides}
    cpus: dict[str, list[float]] = {side: [] for side in sides}
    outputs: dict[str, Tensor] = {}
    for pair in range(options.pairs + 1):
        for side in sorted(sides, reverse=bool(pair % 2)):
            wall, cpu, outputs[side] = timed(sides[side], backbone.device)
            if pair:
                walls[side].append(wall)
                cpus[side].append(cpu)
    ratio = median_ratio(walls)
    difference = float((outputs["ours"] - outputs["stock"]).abs().max())
    bar = None if options.tiny else RATIO_BAR
    return {
        "clip": list(latents.shape[2:]),
        "steps": options.steps,
        "solver": options.solver,
        "device": str(backbone.device),
        "threads": torch.get_num_threads(),
        "pairs": options.pairs,
        "ours_seconds": round(statistics.median(walls["ours"]), 4),
        "stock_seconds": round(statistics.median(walls["stock"]), 4),
        "ratio": round(ratio, 4),
        "cpu_ratio": round(median_ratio(cpus), 4),
        "ratio_bar": bar,
        "max_abs_difference": difference,
        "difference_bar": DIFFERENCE_BAR,
        "passed": (bar is None or ratio <= bar) and difference <= DIFFERENCE_BAR,
    }


@torch.no_grad()
def run_ours(backbone: UNet3D, latents: Tensor, options: argparse.Namespace) -> Tensor:
    """Frames (row, frame, 3, height, width) in [0, 1]."""
    text = backbone.encode_prompt([PROMPT])
    clean = denoise(
        backbone,
        latents,
        text,
        steps=options.steps,
        guidance=options.guidance,
        solver=options.solver,
    )
    return (backbone.decode_frames(clean) / 2 + 0.5).clamp(0, 1)


def run_stock(stock: Any, latents: Tensor, options: argparse.Namespace) -> Tensor:
    """Frames (row, frame, 3, height, width) in [0, 1]."""
    height, width = (stock.vae_scale_factor * side for side in latents.shape[-2:])
    frames: Tensor = stock(
        PROMPT,
        height=height,
        width=width,
        num_frames=latents.shape[2],
        latents=latents,
        num_inference_steps=options.steps,
        guidance_scale=options.guidance,
        output_type="pt",
    ).frames
    return frames


def timed(run: Callable[[], Tensor], device: torch.device) -> tuple[float, float, Tensor]:
    """Seconds on the wall and on the processor, and the output."""
    wall, cpu = time.perf_counter(), time.process_time()
    output = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - wall, time.process_time() - cpu, output


def median_ratio(seconds: dict[str, list[float]]) -> float:
    pairs = zip(seconds["ours"], seconds["stock"], strict=True)
    return statistics.median(ours / stock for ours, stock in pairs)


def load_stock(folder: Path, device: str, solver: str) -> Any:
    from diffusers import TextToVideoSDPipeline

    logging.getLogger("diffusers").setLevel(logging.ERROR)
    pipeline = TextToVideoSDPipeline.from_pretrained(folder).to(device)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = SOLVERS[solver].from_config(pipeline.scheduler.config)
    return pipeline


def find_folder(options: argparse.Namespace, temporary: Path) -> Path:
    if options.tiny:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from tests.tiny import build_tiny_zeroscope

        return build_tiny_zeroscope(temporary / "tiny")
    if options.backbone:
        return Path(options.backbone)
    from customvideo.toybox.backbone import WEIGHTS

    return WEIGHTS / "model"


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", help="a diffusers folder; default: the toybox")
    parser.add_argument("--tiny", action="store_true", help="a tiny random model instead")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="0 for torch's own choice")
    parser.add_argument("--frames", type=int, default=0, help="0 for the model's own")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument(
        "--solver",
        choices=[name for name in SOLVERS if name not in ("native", "euler")],
        default="ddim",
    )
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
