"""What a video costs: against the stock pipeline at equal output, and what each lever brings.

    python benchmarks/generate.py                                      # the toybox
    python benchmarks/generate.py --backbone FOLDER                    # any diffusers folder
    python benchmarks/generate.py --size tiny --backbone wan --compare stock --compare cached
    python benchmarks/generate.py --size true --backbone wan-1.3b --device cuda

Both sides do the whole job from the same noise: encode the prompt, denoise, decode. Runs alternate
in pairs (which side goes first alternates, too), the first pair is a warm-up and not counted, and
the ratio is the median over pairs, so that a machine that slows down meanwhile bears on both sides
alike. Each comparison is one line of JSON, with peak memory, work, and the share of what a large
matrix product reaches on the same device; the exit code is 1 if a bar is missed.

stock: ours over diffusers' pipeline; outputs are compared where the pipeline takes our latents.
cached: keys and values of text made once over made in every step. prefix: what both guidance
halves share computed once over twice (unet3d). compile: a compiled network over a plain one.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from models import (
    add_model_options,
    compared,
    compiled,
    load_model,
    model_folder,
    print_line,
    surroundings,
)
from torch import Tensor

from customvideo.backbones.sampling import SOLVERS, denoise

RATIO_BAR = 0.92
DIFFERENCE_BAR = 1e-4
PROMPT = "a cat and a dog on the beach"
COMPARISONS = ("stock", "cached", "prefix", "compile")
TAKES_LATENTS = ("unet3d", "wan")
"""Families whose stock pipeline starts from latents as ours are."""


class Uncached:
    """A backbone that projects text anew in every step."""

    def __init__(self, backbone: Any) -> None:
        self._backbone = backbone

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def cached_text(self, *_: Any) -> Any:
        return nullcontext()


class Apart(Uncached):
    """A backbone whose guidance halves share nothing."""

    def cached_text(self, *texts: Any) -> Any:
        return nullcontext()

    def predict_guided(
        self, latents: Tensor, time: Tensor, text: Any, negative: Any, guidance: float
    ) -> Tensor:
        times = time.reshape(-1)[:1].expand(len(latents))
        without = self._backbone.predict(latents, times, negative)
        within = self._backbone.predict(latents, times, text)
        found: Tensor = without + guidance * (within - without)
        return found


def main() -> int:
    options = parse_options()
    if options.threads:
        torch.set_num_threads(options.threads)
    passed = True
    with model_folder(options) as (folder, make):
        backbone = load_model(options, folder, make)
        if not options.solver:
            options.solver = "ddim" if backbone.family == "unet3d" else "native"
        for name in options.compare or ["stock"]:
            report = one_comparison(name, backbone, (folder, make), options)
            passed = passed and report.get("passed", True)
            print_line({"compare": name, **surroundings(options, backbone), **report})
    return 0 if passed else 1


def one_comparison(
    name: str, backbone: Any, source: tuple[str, Callable[..., Any]], options: argparse.Namespace
) -> dict[str, Any]:
    size = (options.frames or backbone.frames, *(options.canvas or backbone.size))
    shape = backbone.latent_shape(*size)
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(options.seed))
    latents, kept = noise.to(backbone.device), dict[str, Tensor]()
    sides = make_sides(name, backbone, (*source, size), (latents, kept, options))
    report = {"clip": list(size), "steps": options.steps, "solver": options.solver}
    report |= compared(sides, options, backbone)
    if name == "stock":
        report |= judged(report["ratio"], kept, backbone, options)
    return report


def judged(
    ratio: float, kept: dict[str, Tensor], backbone: Any, options: argparse.Namespace
) -> dict[str, Any]:
    """Whether ours is fast enough and makes the same; None where there is no bar."""
    same = backbone.family in TAKES_LATENTS and backbone.dtype == torch.float32
    bar = RATIO_BAR if options.size == "own" and backbone.family == "unet3d" else None
    difference = float((kept["ours"] - kept["stock"]).abs().max()) if same else None
    fast = bar is None or ratio <= bar
    alike = difference is None or difference <= DIFFERENCE_BAR
    return {"bar": bar, "max_abs_difference": difference, "passed": fast and alike}


def make_sides(
    name: str, backbone: Any, source: tuple[str, Any, tuple[int, int, int]], work: Any
) -> dict[str, Callable[[], Any]]:
    """Ours, then what it is compared with."""
    latents, kept, options = work

    def ours(predictor: Any) -> Callable[[], Any]:
        def run() -> None:
            kept["ours"] = run_ours(backbone, predictor, latents, options)

        return run

    if name == "stock":
        folder, make, size = source
        stock = load_stock(backbone, folder, make, options)

        def run() -> None:
            kept["stock"] = run_stock(stock, backbone, (latents, size), options)

        return {"ours": ours(backbone), "stock": run}
    if name == "cached":
        return {"cached": ours(backbone), "anew": ours(Uncached(backbone))}
    if name == "prefix":
        return {"shared": ours(Uncached(backbone)), "apart": ours(Apart(backbone))}

    def faster() -> None:
        with compiled(backbone):
            run_ours(backbone, backbone, latents, options)

    return {"compiled": faster, "plain": ours(backbone)}


@torch.no_grad()
def run_ours(backbone: Any, predictor: Any, latents: Tensor, options: argparse.Namespace) -> Tensor:
    """Frames (row, frame, 3, height, width) in [0, 1]."""
    text = backbone.encode_prompt([PROMPT])
    clean = denoise(
        predictor,
        latents,
        text,
        steps=options.steps,
        guidance=options.guidance,
        solver=options.solver,
    )
    found: Tensor = (backbone.decode_frames(clean) / 2 + 0.5).clamp(0, 1)
    return found


def run_stock(
    stock: Any, backbone: Any, given: tuple[Tensor, Any], options: argparse.Namespace
) -> Tensor:
    """Frames (row, frame, 3, height, width) in [0, 1]."""
    latents, (frames, height, width) = given
    start: dict[str, Any] = {"generator": torch.Generator().manual_seed(options.seed)}
    if backbone.family in TAKES_LATENTS:
        start = {"latents": latents}
    with quiet():
        made: Tensor = stock(
            PROMPT,
            height=height,
            width=width,
            num_frames=frames,
            num_inference_steps=options.steps,
            guidance_scale=options.guidance,
            output_type="pt",
            **start,
        ).frames
    return made


def load_stock(backbone: Any, folder: str, make: Callable[..., Any], options: Any) -> Any:
    """The stock pipeline: the backbone's own where the backbone leaves its network as it is."""
    stock = getattr(backbone, "_pipeline", None)
    if stock is None:
        from diffusers import DiffusionPipeline

        with quiet():
            stock = make(
                lambda: DiffusionPipeline.from_pretrained(folder, torch_dtype=backbone.dtype),
                options.device,
            ).to(backbone.device)
    stock.set_progress_bar_config(disable=True)
    if options.solver != "native":
        stock.scheduler = SOLVERS[options.solver].from_config(stock.scheduler.config)
    return stock


@contextmanager
def quiet() -> Iterator[None]:
    """Without diffusers' own words about sizes and types."""
    logger = logging.getLogger("diffusers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_model_options(parser)
    parser.add_argument("--compare", action="append", choices=COMPARISONS, help="repeat for more")
    parser.add_argument("--tiny", action="store_true", help="the same as --size tiny")
    parser.add_argument("--frames", type=int, default=0, help="0 for the model's own")
    parser.add_argument("--canvas", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--solver", choices=SOLVERS, help="ddim, or the model's own")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.tiny:
        options.size = "tiny"
        options.backbone = "unet3d" if options.backbone == "toybox" else options.backbone
    return options


if __name__ == "__main__":
    sys.exit(main())
