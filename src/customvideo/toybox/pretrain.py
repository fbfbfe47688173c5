"""The recipe that made `weights/`: render, autoencoder, judges, denoiser, export.

`pretrain(config, work)` does every stage that `work` does not hold yet, so a stopped run goes on
with the same command. The stages themselves are in `stages.py`, the loop in `course.py`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save_file
from torch import Tensor, nn

from customvideo.backbones.sampling import denoise
from customvideo.backbones.unet3d import UNet3D, load_folder
from customvideo.files import atomic_path, ensure_dir, write_text
from customvideo.toybox import models
from customvideo.toybox.captions import CATEGORY_NOUNS, noun, vocabulary
from customvideo.toybox.course import Course, Runner
from customvideo.toybox.dataset import Shelf, Split, load_split, render_split
from customvideo.toybox.stages import (
    AutoencoderStage,
    ClipStage,
    DenoiserStage,
    DinoStage,
    LatentShelf,
)

Progress = Callable[[str], None]

STAGES = ("render", "autoencoder", "clip", "dino", "denoiser")


class PretrainConfig(BaseModel):
    """Sizes of the toybox recipe; the defaults are those of the shipped weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 2024
    pictures: int = Field(6_000, ge=1)
    """One-frame worlds with one to four subjects."""
    clips: int = Field(1_600, ge=1)
    """Eight-frame worlds."""
    views: int = Field(3_000, ge=2)
    """One-frame worlds of lone subjects, two in a row showing the same individual."""
    autoencoder_steps: int = Field(2_600, ge=1)
    clip_steps: int = Field(950, ge=1)
    dino_steps: int = Field(240, ge=1)
    denoiser_steps: int = Field(2_900, ge=1)
    prior_pictures: int = Field(8, ge=1)
    """Class-prior samples shipped a category: pictures, and below it clips."""
    prior_clips: int = Field(1, ge=1)
    prior_steps: int = Field(20, ge=1)

    def splits(self) -> dict[str, Split]:
        """The parts of the training set by name."""
        return {
            "pictures": Split("pictures", self.pictures, 1),
            "views": Split("views", self.views, 1, kind="views"),
            "clips": Split("clips", self.clips, models.FRAMES),
        }


class Pretraining:
    """One pre-training run in the folder `work`; each stage loads what earlier ones left there."""

    def __init__(
        self, config: PretrainConfig, work: Path, device: str, progress: Progress = print
    ) -> None:
        self.config, self.work, self.progress = config, work, progress
        self.device = torch.device(device)
        self.tokenizer = models.build_tokenizer(vocabulary())
        ensure_dir(work)
        torch.manual_seed(config.seed)

    def run(self, until: str = "denoiser") -> None:
        """Every stage up to and including `until`."""
        for stage in STAGES[: STAGES.index(until) + 1]:
            getattr(self, stage)()

    def render(self) -> None:
        """Render the training set."""
        for split in self.config.splits().values():
            render_split(split, self.config.seed, self.data, str(self.device), self.progress)

    @property
    def data(self) -> Path:
        """Folder of rendered shards."""
        return self.work / "data"

    def shelf(self, name: str) -> Shelf:
        """One split of the rendered set."""
        return load_split(self.config.splits()[name], self.config.seed, self.data)

    def autoencoder(self) -> Any:
        """Train (or load) the autoencoder."""
        vae = models.build_autoencoder().to(self.device)
        course = Course(name="autoencoder", steps=self.config.autoencoder_steps, learning_rate=2e-3)
        runner = Runner(course, nn.ModuleDict({"vae": vae}), self.work)
        stage = None
        if not runner.result_path.exists():
            stage = AutoencoderStage(vae, self.shelf("pictures"), self.config.seed, course.steps)
        runner.run(stage or _done, self.progress)
        return vae.eval().requires_grad_(False)

    def clip(self) -> Any:
        """Train (or load) the contrastive towers."""
        clip = models.build_clip(self.tokenizer).to(self.device)
        course = Course(name="clip", steps=self.config.clip_steps, learning_rate=1e-3)
        runner = Runner(course, nn.ModuleDict({"clip": clip}), self.work)
        stage = None
        if not runner.result_path.exists():
            views = self.shelf("views")
            shelves = [views, self.shelf("pictures"), views, self.shelf("clips")]
            stage = ClipStage(clip, self.tokenizer, shelves, self.config.seed)
        runner.run(stage or _done, self.progress)
        return clip.eval().requires_grad_(False)

    def dino(self) -> Any:
        """Train (or load) the identity judge."""
        dino = models.build_dino().to(self.device)
        head = nn.Sequential(nn.Linear(128, 256), nn.GELU(), nn.Linear(256, 64)).to(self.device)
        course = Course(name="dino", steps=self.config.dino_steps, learning_rate=1e-3)
        runner = Runner(course, nn.ModuleDict({"dino": dino, "head": head}), self.work)
        stage = None
        if not runner.result_path.exists():
            stage = DinoStage(dino, head, self.shelf("views"), self.config.seed)
        runner.run(stage or _done, self.progress)
        return dino.eval().requires_grad_(False)

    def denoiser(self) -> tuple[Any, Any, float]:
        """Train (or load) denoiser and text encoder; returns them and the latents' scale."""
        denoiser = models.build_denoiser().to(self.device).eval()
        text = models.build_text_encoder(self.tokenizer).to(self.device)
        course = Course(
            name="denoiser",
            steps=self.config.denoiser_steps,
            learning_rate=1e-3,
            warmup=200,
            ema=0.999,
        )
        runner = Runner(course, nn.ModuleDict({"unet": denoiser, "text_encoder": text}), self.work)
        stage = None
        if not runner.result_path.exists():
            _start_from_clip(text, self.clip())
            shelves = self._latents()
            write_text(self.work / "latents.json", json.dumps({"scale": shelves[0].scale}))
            modules = (denoiser, text, self.tokenizer)
            stage = DenoiserStage(modules, shelves, self.config.seed, course.steps)
        runner.run(stage or _done, self.progress)
        scale = json.loads((self.work / "latents.json").read_text(encoding="utf-8"))["scale"]
        frozen = (module.eval().requires_grad_(False) for module in (denoiser, text))
        return (*frozen, float(scale))

    def _latents(self) -> tuple[LatentShelf, LatentShelf]:
        vae = self.autoencoder()
        pictures = LatentShelf(self.shelf("pictures"), vae, mirrored=True)
        return pictures, LatentShelf(self.shelf("clips"), vae, scale=pictures.scale)

    def export(self, folder: Path) -> None:
        """Write everything learned as the package's `weights/` folder, all of it or nothing."""
        fresh = folder.with_name(folder.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        self._export_model(fresh / "model")
        models.save_half(self.clip(), fresh / "clip")
        self.tokenizer.save_pretrained(fresh / "clip")
        models.save_half(self.dino(), fresh / "dino")
        words = {"nouns": sorted(CATEGORY_NOUNS.values()), "words": vocabulary()}
        write_text(fresh / "words.json", json.dumps(words, indent=1) + "\n")
        shutil.copyfile(self.work / "log.jsonl", fresh / "training-log.jsonl")
        self.progress("drawing class-prior samples")
        self._export_prior(fresh)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.replace(folder)

    def _export_model(self, folder: Path) -> None:
        denoiser, text, scale = self.denoiser()
        vae = self.autoencoder()
        vae.register_to_config(scaling_factor=scale)
        parts = {
            "vae": vae,
            "text_encoder": text,
            "tokenizer": self.tokenizer,
            "unet": denoiser,
            "scheduler": models.build_scheduler(),
        }
        models.save_pipeline(folder, parts)

    def _export_prior(self, folder: Path) -> None:
        """What the model makes of each bare category, shipped so that nobody waits for it.

        Keys are "category/frames"; tensors (sample, channel, frame, height, width), bfloat16.
        """
        backbone = load_folder(folder / "model", device="cpu")
        counts = {1: self.config.prior_pictures, models.FRAMES: self.config.prior_clips}
        latents = {
            f"{category}/{frames}": _draw(backbone, category, (count, frames), self.config)
            for category in CATEGORY_NOUNS
            for frames, count in counts.items()
        }
        with atomic_path(folder / "prior.safetensors") as temporary:
            save_file(latents, temporary)


@torch.no_grad()
def _draw(
    backbone: UNet3D, category: str, shape: tuple[int, int], config: PretrainConfig
) -> Tensor:
    count, frames = shape
    seed = torch.Generator().manual_seed(config.seed + frames)
    size = (count, *backbone.latent_shape(frames, *models.SIZE))
    noise = torch.randn(size, generator=seed)
    text = backbone.encode_prompt([f"a {noun(category)}"] * count)
    latents = denoise(backbone, noise, text, steps=config.prior_steps, guidance=3.0)
    return latents.to(torch.bfloat16).contiguous()


def _start_from_clip(text: nn.Module, clip: nn.Module) -> None:
    prefix = "text_model."
    states = {
        key.removeprefix(prefix): value
        for key, value in clip.state_dict().items()
        if key.startswith(prefix)
    }
    text.load_state_dict(states, strict=False)


def _done(step: int) -> dict[str, Tensor]:
    raise AssertionError("a finished stage has nothing left to learn")
