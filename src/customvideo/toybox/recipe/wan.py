"""The recipe of the Wan edition: render, autoencoder, denoiser on pictures, coarsely and then
position by position, on clips, export.

`WanPretraining` does every stage that its folder does not hold yet, like the toybox's own
(`pretrain.py`), whose judges serve this edition, too. What it leaves is an ordinary `WanPipeline`
folder with a card.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file

from customvideo.files import ensure_dir, write_text
from customvideo.toybox import models, wan_models
from customvideo.toybox.backbone import WEIGHTS
from customvideo.toybox.captions import CATEGORY_NOUNS, vocabulary
from customvideo.toybox.names import names
from customvideo.toybox.recipe.course import Course, Stage, learned
from customvideo.toybox.recipe.dataset import Shelf, Split, load_split, render_split
from customvideo.toybox.recipe.denoiser import Diet
from customvideo.toybox.recipe.wan_autoencoder import (
    WanAutoencoderStage,
    by_pictures,
    encode_clips,
)
from customvideo.toybox.recipe.wan_denoiser import (
    WanDenoiserStage,
    WanShelf,
    finer,
    quiet_paddings,
)

__all__ = ["RECIPES", "WAN_STAGES", "WanConfig", "WanPretraining"]

Progress = Callable[[str], None]
WAN_STAGES = ("render", "autoencoder", "coarse", "denoiser", "motion")
RECIPES = "toybox-wan"
"""How the packaged recipes for it are called, after the method's name."""
_SCALE = "latents.json"
_COARSE = 2
"""Positions a side that the denoiser reads as one in the beginning."""
_MEASURED = 1_000
"""Pictures from which the latents' means and deviation are taken."""


class WanConfig(BaseModel):
    """Sizes of the Wan edition's recipe; the defaults take a free CPU core about two
    hours, by count."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 2024
    lone: int = Field(12_000, ge=1)
    """One-frame worlds with one subject."""
    pictures: int = Field(16_000, ge=1)
    """One-frame worlds with one to four subjects."""
    clips: int = Field(1_000, ge=1)
    """Worlds of nine frames, sixteen a second."""
    batch: int = Field(1, ge=1)
    """Multiplies every stage's batch: 1 fills a CPU core, 8 is still little for a GPU."""
    autoencoder_steps: int = Field(1_500, ge=1)
    coarse_steps: int = Field(2_500, ge=1)
    denoiser_steps: int = Field(2_500, ge=1)
    motion_steps: int = Field(200, ge=1)

    @classmethod
    def sized_for(cls, device: str, changes: dict[str, int]) -> WanConfig:
        """The defaults, or on a GPU more of everything; `changes` win over both."""
        return cls(**({**_ON_GPU, **changes} if device.startswith("cuda") else changes))

    def splits(self) -> dict[str, Split]:
        """The parts of the training set by name."""
        return {
            "lone": Split("lone", self.lone, 1, kind="lone"),
            "pictures": Split("pictures", self.pictures, 1),
            "clips": Split(
                "halves", self.clips, int(wan_models.FPS), kind="moves", kept=wan_models.FRAMES
            ),
        }


_ON_GPU = {
    "lone": 24_000,
    "pictures": 48_000,
    "clips": 8_000,
    "batch": 4,
    "autoencoder_steps": 10_000,
    "coarse_steps": 5_000,
    "denoiser_steps": 20_000,
    "motion_steps": 5_000,
}


class WanPretraining:
    """One run in the folder `work`; each stage loads what earlier ones left there."""

    def __init__(
        self, config: WanConfig, work: Path, device: str, progress: Progress = print
    ) -> None:
        self.config, self.work, self.progress = config, work, progress
        self.device = torch.device(device)
        self.words = sorted({*vocabulary(), *names()})
        self.tokenizer = wan_models.build_tokenizer(self.words)
        self._latents: dict[str, WanShelf] = {}
        ensure_dir(work)
        torch.manual_seed(config.seed)

    def run(self, until: str = WAN_STAGES[-1]) -> None:
        """Every stage up to and including `until`."""
        for stage in WAN_STAGES[: WAN_STAGES.index(until) + 1]:
            getattr(self, stage)()

    def render(self) -> None:
        """Render the training set."""
        for split in self.config.splits().values():
            render_split(split, self.config.seed, self._data, str(self.device), self.progress)

    def autoencoder(self) -> Any:
        """Train (or load) the autoencoder's decoder; the config says how latents are scaled."""
        vae, steps = wan_models.build_autoencoder().to(self.device), self.config.autoencoder_steps

        def stage() -> Stage:
            shelves = {name: self._shelf(name) for name in ("pictures", "clips")}
            return WanAutoencoderStage(vae, shelves, self.config.seed, steps, self.config.batch)

        course = Course(name="wan-autoencoder", steps=steps, learning_rate=2e-3, ema=_ema(steps))
        self._learn(course, {"vae": vae}, stage)
        vae.register_to_config(**self._scale(by_pictures(vae)))
        return vae

    def coarse(self) -> dict[str, Any]:
        """Train (or load) denoiser and text encoder on pictures in patches of 2x2, a fourth of the
        work: places, colours, and who stands where."""
        return self._on_pictures("wan-coarse", self._model(_COARSE), self.config.coarse_steps)

    def denoiser(self) -> dict[str, Any]:
        """Train (or load) both on pictures position by position, from where the coarse ended: who
        it is that stands there."""
        parts = self._model()

        def begin() -> None:
            known = self.coarse()
            channels = parts["transformer"].config.in_channels
            parts["transformer"].load_state_dict(finer(known["transformer"].state_dict(), channels))
            parts["text_encoder"].load_state_dict(known["text_encoder"].state_dict())

        return self._on_pictures("wan-denoiser", parts, self.config.denoiser_steps, begin)

    def _on_pictures(
        self, name: str, parts: dict[str, Any], steps: int, begin: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        def stage() -> Stage:
            begin()
            return self._denoising(parts, steps, ("lone", "pictures"), clip_share=0.0)

        course = Course(
            name=name,
            steps=steps,
            learning_rate=1.5e-3,
            warmup=min(100, steps // 10 + 1),
            ema=_ema(steps),
        )
        return self._learn(course, parts, stage)

    def motion(self) -> dict[str, Any]:
        """Train (or load) both on clips too, from where the pictures left them."""
        parts, steps = self._model(), self.config.motion_steps

        def stage() -> Stage:
            for name, module in self.denoiser().items():
                parts[name].load_state_dict(module.state_dict())
            return self._denoising(parts, steps, ("lone", "pictures", "clips"), clip_share=0.7)

        course = Course(
            name="wan-motion",
            steps=steps,
            learning_rate=7e-4,
            warmup=min(20, steps // 5 + 1),
            ema=_ema(steps),
        )
        return self._learn(course, parts, stage)

    def export(self, folder: Path) -> None:
        """Write what was learned as a `WanPipeline` folder with a card, all of it or nothing."""
        fresh = folder.with_name(folder.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        parts = {
            **self.motion(),
            "vae": self.autoencoder(),
            "tokenizer": self.tokenizer,
            "scheduler": wan_models.build_scheduler(),
        }
        card = {
            "name": "toybox-wan",
            "licence": "apache-2.0",
            "fps": wan_models.FPS,
            "frames": wan_models.FRAMES,
            "size": list(models.SIZE),
            "recipes": RECIPES,
            "known_nouns": sorted(CATEGORY_NOUNS.values()),
            "known_words": self.words,
        }
        wan_models.save_pipeline(fresh, parts, card)
        if (self.work / "log.jsonl").is_file():
            shutil.copyfile(self.work / "log.jsonl", fresh / "training-log.jsonl")
        shutil.rmtree(folder, ignore_errors=True)
        fresh.replace(folder)

    @property
    def _data(self) -> Path:
        """Folder of rendered shards; pictures are the very ones of the toybox's own recipe."""
        return self.work / "data"

    def _shelf(self, name: str) -> Shelf:
        return load_split(self.config.splits()[name], self.config.seed, self._data)

    def _scale(self, vae: Any) -> dict[str, list[float]]:
        """The latents' means by channel, and one deviation for all: coarse channels stay louder
        than fine ones, as diffusion likes it."""
        path = self.work / _SCALE
        if not path.exists():
            latents = encode_clips(vae, self._shelf("pictures").frames[:_MEASURED])
            deviation = float((latents - latents.mean((0, 2, 3, 4), keepdim=True)).std())
            found = {
                "latents_mean": latents.mean((0, 2, 3, 4)).tolist(),
                "latents_std": [deviation] * latents.shape[1],
            }
            write_text(path, json.dumps(found))
        read: dict[str, list[float]] = json.loads(path.read_text(encoding="utf-8"))
        return read

    def _model(self, patch: int = 1) -> dict[str, Any]:
        """Fresh networks; words start where the toybox's own text encoder left them."""
        transformer = wan_models.build_denoiser(patch)
        quiet_paddings(transformer)
        torch.nn.init.zeros_(transformer.proj_out.weight)
        text = wan_models.build_text_encoder(self.tokenizer)
        known = load_file(WEIGHTS / "model" / "text_encoder" / "model.safetensors")
        table = next(
            value for name, value in known.items() if name.endswith("token_embedding.weight")
        )
        with torch.no_grad():
            text.encoder.embed_tokens.weight.copy_(table.float())
        return {
            "transformer": transformer.to(self.device),
            "text_encoder": text.to(self.device),
        }

    def _denoising(
        self, parts: dict[str, Any], steps: int, shelves: tuple[str, ...], *, clip_share: float
    ) -> WanDenoiserStage:
        vae, batch = self.autoencoder(), self.config.batch
        for name in shelves:
            if name not in self._latents:
                self._latents[name] = WanShelf(self._shelf(name), vae)
        diet = Diet(pictures=48 * batch, clips=16 * batch, clip_share=clip_share)
        return WanDenoiserStage(
            (parts["transformer"], parts["text_encoder"], self.tokenizer),
            self._latents,
            self.config.seed,
            steps,
            diet,
        )

    def _learn(
        self, course: Course, modules: dict[str, Any], make_stage: Callable[[], Stage]
    ) -> dict[str, Any]:
        return learned(course, modules, self.work, make_stage, self.progress)


def _ema(steps: int) -> float:
    """A short course must not remember, in its average, where it began."""
    return max(0.0, min(0.998, 1 - 5 / steps))
