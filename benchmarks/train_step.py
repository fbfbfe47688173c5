"""What a training step costs: attention control's share, the stock loop, and each lever.

    python benchmarks/train_step.py                                  # attention control, toybox
    python benchmarks/train_step.py --compare stock --compare pooled
    python benchmarks/train_step.py --backbone wan --size tiny --compare stock
    python benchmarks/train_step.py --backbone wan-1.3b --size true --device cuda --compare stock
    python benchmarks/train_step.py --clock cpu                      # on a busy machine, one thread

Each comparison is one line of JSON: the time of ours over the time of the other, step against step
in alternating pairs (which comes first alternates, too), warm-up excluded, as the median with its
quartiles; peak memory and work of one step of each; the share of what a large matrix product
reaches on the same device. All sides have the same model, type, rows and class prior.

attention: ours over ours without attention control; the exit code is 1 if its share misses its bar.
stock: ours, attention control included, over diffusers' way: pictures and prior pictures encoded in
every step, the keys' and values' own weights trained by AdamW, no attention control.
pooled: scenes encoded once over scenes encoded for every row.
checkpointing: recomputed activations over kept ones. compile: compiled blocks over plain ones.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from models import (
    add_model_options,
    compared,
    load_model,
    model_folder,
    print_line,
    surroundings,
)
from torch import Tensor, nn

from customvideo.config import Recipe, default_recipe
from customvideo.methods.base import PriorPlan, load_method
from customvideo.subjects.subject import Subject
from customvideo.training.batch import Batches, ScenePool, WordFinder, Workshop
from customvideo.training.compiling import compiled
from customvideo.training.config import TrainerConfig
from customvideo.training.prior import PriorPool
from customvideo.training.session import Session, Task, build_accelerator

SHARE_BAR = 0.05
COMPARISONS = ("attention", "stock", "pooled", "checkpointing", "compile")
SCENES = 8
PROMPT = "photo of a cat and a dog"

Step = Callable[[], Any]


def make_subject(name: str, category: str, colour: tuple[int, int, int]) -> Subject:
    """A disc on grey: what is drawn does not change the time a step takes."""
    rows, columns = np.mgrid[-1:1:128j, -1:1:128j]
    inside = rows**2 + columns**2 < 0.5
    image = np.where(inside[..., None], colour, 128).astype(np.uint8)
    mask = inside.astype(np.float32)
    return Subject(name, f"<{name}>", category, (image,), (mask,), ("disc.png",))


@dataclass(frozen=True, eq=False)
class Bench:
    """A model, the recipe of its family, and the subjects."""

    backbone: Any
    recipe: Recipe
    options: argparse.Namespace
    cast: Sequence[Subject]

    @property
    def canvas(self) -> tuple[int, int]:
        size: tuple[int, int] = self.recipe.canvas or self.backbone.size
        return tuple(self.options.canvas) if self.options.canvas else size

    @property
    def rows(self) -> int:
        """Scenes and prior pictures of a step."""
        return self.recipe.batch_size + self.prior_rows

    @property
    def prior_rows(self) -> int:
        if self.options.no_prior:
            return 0
        return int(self.recipe.method_options.get("prior_rows", 0))

    def ours(self, *, watched: bool = True, around: Any = nullcontext, **changes: Any) -> Step:
        """A step of ours with some of the trainer's settings changed; `around` is entered for
        it."""
        backbone, recipe = self.backbone, self.recipe
        method = load_method(recipe.method, recipe.method_options)
        settings = {name: getattr(recipe, name) for name in TrainerConfig.model_fields}
        config = TrainerConfig(**{**settings, "pool": SCENES, **changes})
        adapter = method.trainable(backbone, self.cast)
        workshop = Workshop(backbone, method, self.cast, self.canvas, config.seed)
        pool = ScenePool(workshop, config.pool)
        sites = method.watches(backbone, pool.frames, *self.canvas) if watched else []
        task = Task(backbone, method, adapter, sites)
        batches = Batches(pool, WordFinder(backbone, adapter), self._prior(method), config)
        session = Session(task, batches, config, build_accelerator(config, backbone, None))

        def step() -> None:
            with adapter.attach(backbone), self._recomputing(config), around():
                session.train_step()

        return step

    def stock(self, denoise: Callable[[Tensor, Tensor], Tensor], network: nn.Module) -> Step:
        """A step as diffusers' example trainers do it; `denoise` calls the stock `network` with
        noisy latents and times."""
        backbone = self.backbone
        trained = [
            parameter
            for path in backbone.layers("text_kv")
            for parameter in network.get_submodule(path).parameters()
        ]
        for parameter in trained:
            parameter.requires_grad_(True)
        optimizer = torch.optim.AdamW(trained, lr=1e-8, weight_decay=0.0)
        half = backbone.dtype != torch.float32
        pictures = torch.rand(self.rows, 1, 3, *self.canvas, device=backbone.device) * 2 - 1
        again = self.recipe.gradient_checkpointing
        if again and network is not backbone.denoiser:
            network.enable_gradient_checkpointing()

        def step() -> None:
            backbone.checkpointed = again
            with torch.autocast(backbone.device.type, backbone.dtype, enabled=half):
                latents = torch.cat([backbone.encode_frames(row[None]) for row in pictures])
                noise = torch.randn_like(latents)
                times = backbone.noise.draw_times(self.rows, torch.Generator()).to(latents.device)
                noisy = backbone.noise.mix(latents, noise, times)
                found = denoise(noisy, times)
                wanted = backbone.noise.target(latents, noise, times)
                loss = (found.float() - wanted.float()).square().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return step

    def _prior(self, method: Any) -> PriorPool | None:
        """Random latents in the place of class-prior samples, whose making is no part of a step."""
        plan: PriorPlan | None = method.prior(self.backbone, self.cast)
        if plan is None or not self.prior_rows:
            return None
        shape = self.backbone.latent_shape(1, *self.canvas)
        return PriorPool(plan, {one: torch.randn(2, *shape) for one in plan.categories}, {})

    def _recomputing(self, config: TrainerConfig) -> AbstractContextManager[None]:
        self.backbone.checkpointed = config.gradient_checkpointing
        return nullcontext()


def stock_step(bench: Bench, folder: str, make: Callable[..., Any]) -> Step:
    """The stock step: with diffusers' own network, apart from ours where ours changes it."""
    backbone = bench.backbone
    texts = [PROMPT] * bench.rows
    if backbone.family != "unet3d":

        def predict(noisy: Tensor, times: Tensor) -> Tensor:
            found: Tensor = backbone.predict(noisy, times, backbone.encode_prompt(texts))
            return found

        return bench.stock(predict, backbone.denoiser)
    from diffusers import UNet3DConditionModel

    unet = make(
        lambda: UNet3DConditionModel.from_pretrained(
            folder, subfolder="unet", torch_dtype=backbone.dtype
        ),
        str(backbone.device),
    )
    unet.to(backbone.device).requires_grad_(False).eval()

    def call(noisy: Tensor, times: Tensor) -> Tensor:
        text = backbone.encode_prompt(texts).states.to(backbone.dtype)
        found: Tensor = unet(noisy.to(backbone.dtype), times, text).sample
        return found

    return bench.stock(call, unet)


def sides(name: str, bench: Bench, folder: str, make: Callable[..., Any]) -> dict[str, Step]:
    """Ours, then what it is compared with."""
    if name == "attention":
        return {"with": bench.ours(), "without": bench.ours(watched=False)}
    if name == "stock":
        return {"ours": bench.ours(), "stock": stock_step(bench, folder, make)}
    if name == "pooled":
        return {"pooled": bench.ours(), "anew": bench.ours(pool=0)}
    if name == "checkpointing":
        kept = bench.ours(gradient_checkpointing=False)
        return {"recomputed": bench.ours(gradient_checkpointing=True), "kept": kept}
    texts = bench.backbone.layers("text_kv")
    around = lambda: compiled(bench.backbone, texts, True)  # noqa: E731
    return {"compiled": bench.ours(around=around), "plain": bench.ours()}


def main() -> int:
    options = parse_options()
    if options.threads:
        torch.set_num_threads(options.threads)
    passed = True
    with model_folder(options) as (folder, make):
        backbone = load_model(options, folder, make)
        named = options.backbone if options.size == "own" else folder
        recipe = default_recipe(backbone=named)
        if options.scenes:
            recipe = recipe.model_copy(update={"batch_size": options.scenes})
        if options.no_prior:
            values = {**recipe.method_options, "prior_weight": 0.0}
            recipe = recipe.model_copy(update={"method_options": values})
        cast = [
            make_subject("tom", "cat", (200, 80, 40)),
            make_subject("rex", "dog", (40, 90, 200)),
        ]
        bench = Bench(backbone, recipe, options, cast)
        for name in options.compare or ["attention"]:
            report = compared(sides(name, bench, folder, make), options, backbone)
            if name == "attention":
                share = 1 - 1 / report["ratio"]
                report |= {"attention_control_share": round(share, 4), "bar": SHARE_BAR}
                report["passed"] = share <= SHARE_BAR or options.size != "own"
                passed = passed and report["passed"]
            rows = {"rows": bench.rows, "canvas": bench.canvas}
            print_line({"compare": name, **surroundings(options, backbone), **rows, **report})
    return 0 if passed else 1


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_model_options(parser)
    parser.add_argument("--compare", action="append", choices=COMPARISONS, help="repeat for more")
    parser.add_argument("--no-prior", action="store_true", help="without class-prior rows")
    parser.add_argument("--canvas", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--scenes", type=int, default=0, help="a step; 0 for the recipe's own")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--warm-up", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
