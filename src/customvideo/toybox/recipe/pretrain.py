"""The recipe that made `weights/`: render, autoencoder, judges, denoiser, export.

`pretrain(config, work)` does every stage that `work` does not hold yet, so a stopped run goes on
with the same command. What a stage minimises is in the file of its name, the loop in `course.py`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save
from torch import Tensor, nn

from customvideo.backbones.sampling import denoise
from customvideo.backbones.unet3d import UNet3D, load_folder
from customvideo.files import ensure_dir, write_bytes, write_text
from customvideo.records import write_record
from customvideo.toybox import models
from customvideo.toybox.animator import wide_tower
from customvideo.toybox.captions import CATEGORY_NOUNS, noun, vocabulary
from customvideo.toybox.names import names
from customvideo.toybox.recipe.actions import ActionStage
from customvideo.toybox.recipe.animator import AnimatorStage
from customvideo.toybox.recipe.autoencoder import AutoencoderStage
from customvideo.toybox.recipe.clip import ClipStage
from customvideo.toybox.recipe.course import Course, Stage, learned
from customvideo.toybox.recipe.dataset import Shelf, Split, load_split, render_split
from customvideo.toybox.recipe.denoiser import DenoiserStage, Diet, LatentShelf, silence_time
from customvideo.toybox.recipe.dino import DinoStage
from customvideo.toybox.recipe.segmenter import SegmenterStage

Progress = Callable[[str], None]

_PRIOR_GUIDANCE = 3.0
_SCALE = "latents.json"
STAGES = (
    "render",
    "autoencoder",
    "segmenter",
    "clip",
    "dino",
    "actions",
    "denoiser",
    "motion",
    "animator",
)


class PretrainConfig(BaseModel):
    """Sizes of the toybox recipe; the defaults are those of the shipped weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 2024
    lone: int = Field(12_000, ge=1)
    """One-frame worlds with one subject."""
    pictures: int = Field(24_000, ge=1)
    """One-frame worlds with one to four subjects."""
    clips: int = Field(2_000, ge=1)
    """Eight-frame worlds."""
    acts: int = Field(2_000, ge=1)
    """Eight-frame worlds with one subject."""
    moves: int = Field(4_000, ge=1)
    """Eight-frame worlds in which every action begins at its beginning."""
    views: int = Field(6_000, ge=2)
    """One-frame worlds of lone subjects, two in a row showing the same individual."""
    batch: int = Field(1, ge=1)
    """Multiplies every stage's batch: 1 fills a CPU core, 8 is still little for a GPU."""
    autoencoder_steps: int = Field(8_000, ge=1)
    segmenter_steps: int = Field(1_500, ge=1)
    clip_steps: int = Field(1_500, ge=1)
    dino_steps: int = Field(1_500, ge=1)
    actions_steps: int = Field(1_500, ge=1)
    denoiser_steps: int = Field(4_000, ge=1)
    motion_steps: int = Field(600, ge=1)
    animator_steps: int = Field(2_200, ge=1)
    prior_pictures: int = Field(4, ge=1)
    """Class-prior samples shipped a category: pictures, and below it clips."""
    prior_clips: int = Field(1, ge=1)
    prior_steps: int = Field(20, ge=1)

    @classmethod
    def sized_for(cls, device: str, changes: dict[str, int]) -> PretrainConfig:
        """The defaults, or on a GPU more of everything; `changes` win over both."""
        return cls(**({**_ON_GPU, **changes} if device.startswith("cuda") else changes))

    def splits(self) -> dict[str, Split]:
        """The parts of the training set by name."""
        return {
            "lone": Split("lone", self.lone, 1, kind="lone"),
            "pictures": Split("pictures", self.pictures, 1),
            "views": Split("views", self.views, 1, kind="views"),
            "clips": Split("clips", self.clips, models.FRAMES),
            "acts": Split("acts", self.acts, models.FRAMES, kind="lone"),
            "moves": Split("moves", self.moves, models.FRAMES, kind="moves"),
        }


_ON_GPU = {
    "lone": 24_000,
    "pictures": 48_000,
    "clips": 8_000,
    "acts": 8_000,
    "moves": 16_000,
    "views": 24_000,
    "batch": 8,
    "autoencoder_steps": 10_000,
    "segmenter_steps": 3_000,
    "clip_steps": 4_000,
    "dino_steps": 4_000,
    "actions_steps": 4_000,
    "denoiser_steps": 10_000,
    "motion_steps": 4_000,
    "animator_steps": 10_000,
}


class Pretraining:
    """One pre-training run in the folder `work`; each stage loads what earlier ones left there."""

    def __init__(
        self, config: PretrainConfig, work: Path, device: str, progress: Progress = print
    ) -> None:
        self.config, self.work, self.progress = config, work, progress
        self.device = torch.device(device)
        self.words = sorted({*vocabulary(), *names()})
        self.tokenizer = models.build_tokenizer(self.words)
        ensure_dir(work)
        torch.manual_seed(config.seed)

    def run(self, until: str = STAGES[-1]) -> None:
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

        def stage() -> Stage:
            steps = self.config.autoencoder_steps
            return AutoencoderStage(
                vae, self.shelf("pictures"), self.config.seed, steps, self.config.batch
            )

        course = Course(name="autoencoder", steps=self.config.autoencoder_steps, learning_rate=2e-3)
        return self._learn(course, {"vae": vae}, stage)["vae"]

    def clip(self) -> Any:
        """Train (or load) the contrastive towers."""
        clip = models.build_clip(self.tokenizer).to(self.device)

        def stage() -> Stage:
            shelves = [self.shelf("lone"), self.shelf("pictures")]
            return ClipStage(clip, self.tokenizer, shelves, self.config.seed, self.config.batch)

        course = Course(name="clip", steps=self.config.clip_steps, learning_rate=1e-3)
        return self._learn(course, {"clip": clip}, stage)["clip"]

    def dino(self) -> Any:
        """Train (or load) the identity judge."""
        dino = models.build_dino().to(self.device)
        head = nn.Sequential(nn.Linear(128, 256), nn.GELU(), nn.Linear(256, 64)).to(self.device)

        def stage() -> Stage:
            return DinoStage(dino, head, self.shelf("views"), self.config.seed, self.config.batch)

        course = Course(name="dino", steps=self.config.dino_steps, learning_rate=1e-3)
        return self._learn(course, {"dino": dino, "head": head}, stage)["dino"]

    def actions(self) -> Any:
        """Train (or load) the judge of actions."""
        judge = models.build_actions().to(self.device)

        def stage() -> Stage:
            shelves, config = [self.shelf("clips"), self.shelf("acts")], self.config
            return ActionStage(judge, shelves, self.autoencoder(), config.seed, config.batch)

        course = Course(name="actions", steps=self.config.actions_steps, learning_rate=1e-3)
        return self._learn(course, {"actions": judge}, stage)["actions"]

    def segmenter(self) -> Any:
        """Train (or load) the instance segmenter."""
        segmenter = models.build_segmenter().to(self.device)

        def stage() -> Stage:
            shelves = [self.shelf("pictures"), self.shelf("lone"), self.shelf("clips")]
            config = self.config
            return SegmenterStage(segmenter, shelves, self.autoencoder(), config.seed, config.batch)

        course = Course(name="segmenter", steps=self.config.segmenter_steps, learning_rate=2e-3)
        return self._learn(course, {"segmenter": segmenter}, stage)["segmenter"]

    def denoiser(self) -> dict[str, Any]:
        """Train (or load) denoiser and text encoder on pictures."""
        parts = self._model()

        def stage() -> Stage:
            silence_time(parts["unet"])
            return self._denoising(parts, self.config.denoiser_steps, clip_share=0.0)

        course = Course(
            name="denoiser", steps=self.config.denoiser_steps, learning_rate=1e-3, warmup=200
        )
        return self._learn(course, parts, stage)

    def motion(self) -> dict[str, Any]:
        """Train (or load) both on clips, from where the pictures left them."""
        parts = self._model()

        def stage() -> Stage:
            for name, module in self.denoiser().items():
                parts[name].load_state_dict(module.state_dict())
            return self._denoising(parts, self.config.motion_steps, clip_share=0.7)

        # A short course must not remember, in its average, where it began.
        ema = min(0.998, 1 - 5 / self.config.motion_steps)
        course = Course(
            name="motion",
            steps=self.config.motion_steps,
            learning_rate=7e-4,
            warmup=20,
            ema=max(0.0, ema),
        )
        return self._learn(course, parts, stage)

    def animator(self) -> Any:
        """Train (or load) what makes a clip of its first picture."""
        animator = models.build_animator().to(self.device)

        def stage() -> Stage:
            vae, tower = self.autoencoder(), wide_tower(self.clip()).to(self.device)
            scale = self._scale()
            shelves = [
                LatentShelf(self.shelf(name), vae, scale=scale) for name in ("clips", "acts")
            ]
            return AnimatorStage(
                (animator, vae), tower, shelves, self.config.seed, self.config.batch
            )

        # A short course must not remember, in its average, where it began.
        ema = max(0.0, min(0.995, 1 - 5 / self.config.animator_steps))
        course = Course(
            name="animator",
            steps=self.config.animator_steps,
            learning_rate=1.5e-3,
            warmup=50,
            ema=ema,
        )
        return self._learn(course, {"animator": animator}, stage)["animator"]

    def _scale(self) -> float:
        """What latents are multiplied by; known as soon as the denoiser has learned."""
        return float(json.loads((self.work / _SCALE).read_text(encoding="utf-8"))["scale"])

    def _model(self) -> dict[str, Any]:
        return {
            "unet": models.build_denoiser().to(self.device).eval(),
            "text_encoder": models.build_text_encoder(self.tokenizer).to(self.device),
        }

    def _denoising(self, parts: dict[str, Any], steps: int, clip_share: float) -> DenoiserStage:
        diet = Diet(
            pictures=32 * self.config.batch, clips=4 * self.config.batch, clip_share=clip_share
        )
        modules = (parts["unet"], parts["text_encoder"], self.tokenizer)
        return DenoiserStage(modules, self._latents(), self.config.seed, steps, diet)

    def _latents(self) -> dict[str, LatentShelf]:
        vae = self.autoencoder()
        lone = LatentShelf(self.shelf("lone"), vae)
        write_text(self.work / _SCALE, json.dumps({"scale": lone.scale}))
        others = ("pictures", "moves")
        return {
            "lone": lone,
            **{name: LatentShelf(self.shelf(name), vae, scale=lone.scale) for name in others},
        }

    def _learn(
        self, course: Course, modules: dict[str, nn.Module], make_stage: Callable[[], Stage]
    ) -> dict[str, nn.Module]:
        return learned(course, modules, self.work, make_stage, self.progress)

    def export(self, folder: Path) -> None:
        """Write everything learned as the package's `weights/` folder, all of it or nothing."""
        fresh = folder.with_name(folder.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        self._export_model(fresh / "model")
        models.save_half(self.clip(), fresh / "clip")
        self.tokenizer.save_pretrained(fresh / "clip")
        models.save_half(self.dino(), fresh / "dino")
        models.save_half(self.segmenter(), fresh / "segmenter")
        models.save_half(self.actions(), fresh / "actions")
        models.save_half(self.animator(), fresh / "animator" / "unet")
        models.build_animator_scheduler().save_pretrained(fresh / "animator" / "scheduler")
        words = {"nouns": sorted(CATEGORY_NOUNS.values()), "words": self.words}
        write_record(fresh / "words.json", words)
        shutil.copyfile(self.work / "log.jsonl", fresh / "training-log.jsonl")
        self.progress("drawing class-prior samples")
        self._export_prior(fresh)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.replace(folder)

    def _export_model(self, folder: Path) -> None:
        vae = self.autoencoder()
        vae.register_to_config(scaling_factor=self._scale())
        parts = {
            **self.motion(),
            "vae": vae,
            "tokenizer": self.tokenizer,
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
        # What the samples were asked for; whoever asks otherwise draws its own.
        request = {
            "prompt": "a {category}",
            "steps": str(self.config.prior_steps),
            "guidance": str(_PRIOR_GUIDANCE),
        }
        write_bytes(folder / "prior.safetensors", save(latents, metadata=request))


@torch.no_grad()
def _draw(
    backbone: UNet3D, category: str, shape: tuple[int, int], config: PretrainConfig
) -> Tensor:
    count, frames = shape
    seed = torch.Generator().manual_seed(config.seed + frames)
    size = (count, *backbone.latent_shape(frames, *models.SIZE))
    noise = torch.randn(size, generator=seed)
    text = backbone.encode_prompt([f"a {noun(category)}"] * count)
    latents = denoise(backbone, noise, text, steps=config.prior_steps, guidance=_PRIOR_GUIDANCE)
    return latents.to(torch.bfloat16).contiguous()
