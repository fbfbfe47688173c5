"""What each stage of the toybox recipe minimises. One class a stage, each a function of the step.

Axes: N pictures or clips, F frames, C channels, h and w latent cells. All randomness of a step is
drawn from (seed, stage, step), so a stopped stage goes on exactly where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet3DConditionModel
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer, ViTModel

from customvideo.backbones.noise import Ddpm
from customvideo.toybox.course import Losses
from customvideo.toybox.dataset import Shelf
from customvideo.toybox.models import JUDGE_SIZE, LATENT_CHANNELS, build_scheduler
from customvideo.toybox.world import COLOURS

PATCH = 8


def unit(frames: Tensor) -> Tensor:
    """uint8 (…, height, width, 3) to float (…, 3, height, width) in [-1, 1]."""
    return frames.movedim(-1, -3).float() / 127.5 - 1


def judge_view(frames: Tensor) -> Tensor:
    """float (N, 3, height, width) to the judges' square input (N, 3, 64, 64)."""
    size = (JUDGE_SIZE, JUDGE_SIZE)
    return F.interpolate(frames, size=size, mode="bilinear", antialias=True, align_corners=False)


class Draw:
    """The random numbers of one step."""

    def __init__(self, seed: int, stage: int, step: int) -> None:
        self.numpy = np.random.default_rng([seed, stage, step])
        self.torch = torch.Generator().manual_seed(int(self.numpy.integers(2**62)))

    def indices(self, population: int, count: int) -> list[int]:
        """`count` distinct indices below `population`, or all if there are not as many."""
        chosen = self.numpy.choice(population, min(count, population), replace=False)
        return [int(index) for index in chosen]

    def normal(self, like: Tensor) -> Tensor:
        """Gaussian noise of `like`'s shape, the same on every device."""
        return torch.randn(like.shape, generator=self.torch).to(like.device)

    def chance(self, count: int, probability: float) -> list[bool]:
        """`count` coin flips."""
        return [bool(x) for x in self.numpy.random(count) < probability]


class PatchCode(nn.Module):
    """Linear PCA code of 8x8 patches: the code the autoencoder is taught to start from.

    A 16-channel linear code already keeps 29 dB of the toybox, so its decoder has an informative
    input from the first step. Channels are divided by the square root of their deviation (half
    way to whitening): coarse channels stay louder than fine ones, as diffusion likes it.
    """

    def __init__(self, frames: Tensor) -> None:
        super().__init__()
        patches = F.unfold(unit(frames), PATCH, stride=PATCH).movedim(1, 2).flatten(0, 1)
        mean = patches.mean(0)
        _, values, vectors = torch.linalg.svd(patches - mean, full_matrices=False)
        deviation = values[:LATENT_CHANNELS] / len(patches) ** 0.5
        basis = vectors[:LATENT_CHANNELS] / deviation.sqrt()[:, None]
        basis = basis / (patches - mean).matmul(basis.T).std()
        self.register_buffer("weight", basis.view(LATENT_CHANNELS, 3, PATCH, PATCH))
        self.register_buffer("bias", -basis.matmul(mean))

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, height, width) to (N, 16, height/8, width/8)."""
        return F.conv2d(pictures, self.weight, self.bias, stride=PATCH)  # type: ignore[arg-type]


class AutoencoderStage:
    """Reconstruction, first decoding the patch code, then the encoder's own."""

    def __init__(self, vae: AutoencoderKL, shelf: Shelf, seed: int, steps: int) -> None:
        self.vae, self.seed, self.steps = vae.to(memory_format=torch.channels_last), seed, steps
        self.frames, self.labels = shelf.frames.flatten(0, 1), shelf.labels.flatten(0, 1)
        self.device = next(vae.parameters()).device
        self.code = PatchCode(self.frames[::7][:600]).to(self.device)

    def __call__(self, step: int) -> Losses:
        draw = Draw(self.seed, 1, step)
        whole = step > 0.85 * self.steps
        pictures, inside = self._batch(draw, 8 if whole else 16, None if whole else (32, 48))
        code = self.code(pictures)
        moments = self.vae.encode(pictures).latent_dist
        taught = step < 0.5 * self.steps
        latents = code if taught else moments.mean
        decoded = self.vae.decode(latents + 0.05 * draw.normal(latents)).sample
        error = decoded - pictures
        weight = 1 + 2 * inside
        return {
            "reconstruction": ((error.abs() + 4 * error.square()) * weight).mean(),
            "code": (1.0 if taught else 0.02) * (moments.mean - code).square().mean(),
            "deviation": 1e-3 * (moments.logvar + 8).square().mean(),
        }

    def _batch(self, draw: Draw, count: int, crop: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
        chosen = draw.indices(len(self.frames), count)
        frames, labels = self.frames[chosen], self.labels[chosen]
        if crop:
            top = PATCH * int(draw.numpy.integers((frames.shape[1] - crop[0]) // PATCH + 1))
            left = PATCH * int(draw.numpy.integers((frames.shape[2] - crop[1]) // PATCH + 1))
            frames = frames[:, top : top + crop[0], left : left + crop[1]]
            labels = labels[:, top : top + crop[0], left : left + crop[1]]
        pictures = unit(frames.to(self.device)).contiguous(memory_format=torch.channels_last)
        if draw.chance(1, 0.5)[0]:
            pictures, labels = pictures.flip(-1), labels.flip(-1)
        return pictures, (labels > 0).float()[:, None].to(self.device)


class ClipStage:
    """Contrastive picture-text learning (Radford et al. 2021), colour-swapped captions added.

    The swapped captions are negatives for their own picture: without them the towers learn which
    words occur and not which word belongs to which subject. Three batches in four show one place
    only: otherwise the ground alone tells the pictures of a batch apart, and the subjects are
    never looked at.
    """

    def __init__(
        self, clip: CLIPModel, tokenizer: CLIPTokenizer, shelves: Sequence[Shelf], seed: int
    ) -> None:
        self.clip, self.tokenizer, self.seed = clip, tokenizer, seed
        self.shelves = shelves
        self.places = [_by_place(shelf) for shelf in shelves]
        self.device = next(clip.parameters()).device

    def __call__(self, step: int) -> Losses:
        draw = Draw(self.seed, 2, step)
        source = step % len(self.shelves)
        shelf = self.shelves[source]
        chosen = draw.indices(len(shelf.worlds), 96)
        if draw.chance(1, 0.75)[0]:
            alike = self.places[source][shelf.worlds[chosen[0]].place]
            chosen = [alike[index] for index in draw.indices(len(alike), 96)]
        texts = shelf.captions(chosen, draw.numpy)
        swapped = [swap_colours(text, draw.numpy) for text in texts]
        frame = int(draw.numpy.integers(shelf.frames.shape[1]))
        pictures = judge_view(unit(shelf.frames[chosen, frame].to(self.device)))
        if draw.chance(1, 0.5)[0]:
            pictures = pictures.flip(-1)
        tokens = tokenize(self.tokenizer, texts + swapped).to(self.device)
        out = self.clip(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            pixel_values=pictures,
        )
        logits = out.logits_per_image
        # A caption with fewer than two colours is its own swap: no negative.
        same = torch.tensor([one == other for one, other in zip(texts, swapped, strict=True)])
        blocked = torch.cat([torch.zeros(len(texts), len(texts)), torch.diag(same * -1e4)], dim=1)
        target = torch.arange(len(texts), device=self.device)
        return {
            "to_text": 0.5 * F.cross_entropy(logits + blocked.to(self.device), target),
            "to_picture": 0.5 * F.cross_entropy(logits.T[: len(texts)], target),
        }


def _by_place(shelf: Shelf) -> dict[str, list[int]]:
    """Place -> indices of the worlds there."""
    places: dict[str, list[int]] = {}
    for index, world in enumerate(shelf.worlds):
        places.setdefault(world.place, []).append(index)
    return places


def swap_colours(text: str, rng: np.random.Generator) -> str:
    """`text` with its colour words in another order; unchanged if it has fewer than two."""
    words = text.split()
    places = [i for i, word in enumerate(words) if word.strip(",") in COLOURS]
    names = [words[i].strip(",") for i in places]
    if len(set(names)) < 2:
        return text
    shuffled = list(names)
    while shuffled == names:
        rng.shuffle(shuffled)
    for place, old, new in zip(places, names, shuffled, strict=True):
        words[place] = words[place].replace(old, new)
    return " ".join(words)


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> Any:
    """Padded token ids and mask, each (N, 48)."""
    return tokenizer(
        texts,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )


class DinoStage:
    """Instance discrimination: two views of one individual agree, all others differ.

    The views are separate renders in other light, place and pose; the subject is cropped at
    random and half the time set on another picture's background, so that only the individual
    itself can tell the two apart (the loss is NT-Xent, Chen et al. 2020).
    """

    def __init__(self, dino: ViTModel, head: nn.Module, shelf: Shelf, seed: int) -> None:
        self.dino, self.head, self.seed = dino, head, seed
        self.frames, self.labels = shelf.frames[:, 0], shelf.labels[:, 0]
        self.device = next(dino.parameters()).device

    def __call__(self, step: int) -> Losses:
        draw = Draw(self.seed, 3, step)
        pairs = draw.indices(len(self.frames) // 2, 64)
        views = [2 * p + side for side in (0, 1) for p in pairs]
        pictures = torch.cat([self._view(draw, view) for view in views])
        features = self.head(self.dino(pictures.to(self.device)).last_hidden_state[:, 0])
        features = F.normalize(features, dim=-1)
        logits = features @ features.T / 0.1
        logits = logits - 1e4 * torch.eye(len(views), device=self.device)
        target = torch.arange(len(views), device=self.device).roll(len(pairs))
        return {"instance": F.cross_entropy(logits, target)}

    def _view(self, draw: Draw, index: int) -> Tensor:
        picture = unit(self.frames[index])
        inside = (self.labels[index] > 0).float()
        if draw.chance(1, 0.5)[0]:
            other = unit(self.frames[int(draw.numpy.integers(len(self.frames)))])
            other = other.flip(-1) if draw.chance(1, 0.5)[0] else other
            picture = picture * inside + other.roll(48, -1) * (1 - inside)
        if draw.chance(1, 0.7)[0]:
            picture = crop_box(picture, padded_box(inside, float(draw.numpy.uniform(0, 0.6))))
        if draw.chance(1, 0.5)[0]:
            picture = picture.flip(-1)
        gain = float(draw.numpy.uniform(0.85, 1.15))
        return judge_view((picture * gain).clamp(-1, 1)[None])


def padded_box(inside: Tensor, padding: float) -> tuple[int, int, int, int]:
    """Box (top, bottom, left, right) around a mask (height, width), grown by `padding`."""
    rows, columns = inside.any(1).nonzero()[:, 0], inside.any(0).nonzero()[:, 0]
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    grow_h, grow_w = int(padding * (bottom - top) / 2), int(padding * (right - left) / 2)
    height, width = inside.shape
    return (
        max(0, top - grow_h),
        min(height, bottom + grow_h),
        max(0, left - grow_w),
        min(width, right + grow_w),
    )


def crop_box(picture: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """`picture` (3, height, width) cut to (top, bottom, left, right)."""
    return picture[:, box[0] : box[1], box[2] : box[3]]


class LatentShelf:
    """A shelf's latents, and how much of each cell a subject covers.

    `latents` (side, N, F, C, h, w); `coverage` (side, N, F, h, w) in [0, 1]. There is one side, or
    two if `mirrored`: the pictures as they are, and their mirror images.
    """

    def __init__(
        self,
        shelf: Shelf,
        vae: AutoencoderKL,
        *,
        scale: float | None = None,
        mirrored: bool = False,
    ) -> None:
        cover = shelf.coverage().float() / 255
        latents, covers = [encode_frames(vae, shelf.frames)], [cover]
        if mirrored:
            latents.append(encode_frames(vae, shelf.frames.flip(-2)))
            covers.append(cover.flip(-1))
        self.latents, self.coverage = torch.stack(latents), torch.stack(covers)
        self.scale = scale or float(1 / self.latents.std())
        self.latents *= self.scale
        self.shelf = shelf


@torch.no_grad()
def encode_frames(vae: AutoencoderKL, frames: Tensor) -> Tensor:
    """uint8 (N, F, height, width, 3) to the latents' means (N, F, C, h, w)."""
    device = next(vae.parameters()).device
    vae.to(memory_format=torch.channels_last)
    means = []
    for part in torch.split(frames.flatten(0, 1), 64):
        pictures = unit(part.to(device)).contiguous(memory_format=torch.channels_last)
        means.append(vae.encode(pictures).latent_dist.mean.cpu())
    latents = torch.cat(means)
    return latents.reshape(*frames.shape[:2], *latents.shape[1:])


class DenoiserStage:
    """Text-to-video diffusion: pictures first, then clips and pictures mixed to the end.

    One in ten captions is empty, which makes the unconditional branch "the empty prompt, encoded".
    The loss weighs subjects three times as much as ground and sky.
    """

    def __init__(
        self,
        modules: tuple[UNet3DConditionModel, CLIPTextModel, CLIPTokenizer],
        shelves: tuple[LatentShelf, LatentShelf],
        seed: int,
        steps: int,
    ) -> None:
        self.denoiser, self.text, self.tokenizer = modules
        self.pictures, self.clips = shelves
        self.seed, self.steps = seed, steps
        self.noise = Ddpm(build_scheduler().config)
        self.device = next(self.denoiser.parameters()).device

    def __call__(self, step: int) -> Losses:
        draw = Draw(self.seed, 4, step)
        clip_share = 0.5 if step > 0.55 * self.steps else 0.0
        if draw.chance(1, clip_share)[0]:
            return {"clips": self._loss(draw, self.clips, count=2, frames=8)}
        source = self.clips if draw.chance(1, 0.25)[0] else self.pictures
        return {"pictures": self._loss(draw, source, count=16, frames=1)}

    def _loss(self, draw: Draw, shelf: LatentShelf, *, count: int, frames: int) -> Tensor:
        chosen = draw.indices(len(shelf.shelf.worlds), count)
        count = len(chosen)
        mirror = draw.numpy.integers(len(shelf.latents), size=count).tolist()
        first = 0
        if frames == 1:
            first = int(draw.numpy.integers(shelf.latents.shape[2]))
        span = slice(first, first + frames)
        latents = shelf.latents[mirror, chosen][:, span].movedim(1, 2).to(self.device)
        cover = shelf.coverage[mirror, chosen][:, None, span].to(self.device)
        texts = shelf.shelf.captions(chosen, draw.numpy)
        dropped = draw.chance(count, 0.1)
        texts = ["" if drop else text for drop, text in zip(dropped, texts, strict=True)]
        ids = tokenize(self.tokenizer, texts)["input_ids"].to(self.device)
        states = self.text(ids).last_hidden_state
        noise = draw.normal(latents)
        times = torch.randint(0, 1000, (count,), generator=draw.torch).to(self.device)
        noisy = self.noise.mix(latents, noise, times)
        predicted = self.denoiser(noisy, times, states).sample
        error = (predicted - self.noise.target(latents, noise, times)).square()
        weight = (1 + 2 * cover).expand_as(error)
        total: Tensor = (error * weight).sum() / weight.sum()
        return total
