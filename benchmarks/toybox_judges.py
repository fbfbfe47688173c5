"""How far the toybox's judges can be trusted: their errors on true renders nobody trained on.

    python benchmarks/toybox_judges.py                # the shipped judges
    python benchmarks/toybox_judges.py --weights DIR  # those of another export
    python benchmarks/toybox_judges.py --backbone DIR # another model's autoencoder

Every figure is given twice: on true frames, and after a round trip through the autoencoder, which
is the sharpest any generated frame can be. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from customvideo.backbones.base import Backbone, load_backbone
from customvideo.backbones.unet3d import load_folder
from customvideo.evaluation.crops import cut_out
from customvideo.evaluation.instances import Instance
from customvideo.toybox.captions import PLACE_PHRASES, noun
from customvideo.toybox.customstudio import reference_photos, studio
from customvideo.toybox.judges import WEIGHTS, ToyActions, ToyClip, ToyDino, ToySegmenter
from customvideo.toybox.models import FRAMES, SIZE
from customvideo.toybox.render import render
from customvideo.toybox.world import CATEGORIES, PLACES, World, sample_world

Frames = NDArray[np.uint8]
MATCHED = 0.5
"""Intersection over union from which a found instance is the true one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--backbone", help="whose autoencoder, instead of the one in --weights")
    parser.add_argument("--worlds", type=int, default=200, help="groups to find subjects in")
    parser.add_argument("--seed", type=int, default=77)
    options = parser.parse_args()
    backbone: Backbone = (
        load_backbone(options.backbone, device="cpu")
        if options.backbone
        else load_folder(options.weights / "model", device="cpu")
    )
    rng = np.random.default_rng(options.seed)
    groups = [sample_world(rng) for _ in range(options.worlds)]
    lone = [sample_world(rng, count=1) for _ in range(options.worlds)]
    report: dict[str, Any] = {"worlds": options.worlds}
    for trip in ("true", "round_trip"):
        through = backbone if trip == "round_trip" else None
        report[trip] = {
            **segmentation(ToySegmenter(options.weights / "segmenter"), groups, through),
            **reading(ToyClip(options.weights / "clip"), lone, through),
            **retrieval(ToyDino(options.weights / "dino"), rng, through),
        }
        judge = ToyActions(options.weights / "actions")
        report[trip]["action"] = acting(judge, groups[: options.worlds // 2], through)
    report["autoencoder_db"] = fidelity(backbone, groups)
    report["autoencoder_db"]["clips"] = moving(backbone, groups[: options.worlds // 4])
    print(json.dumps(report, indent=2))


def drawn(world: World) -> tuple[Frames, NDArray[np.bool_]]:
    """The first frame (1, height, width, 3) and its masks (subject, height, width)."""
    clip = render(world, frames=1, height=SIZE[0], width=SIZE[1])
    return clip.frames.numpy(), clip.masks[0].numpy() > 0


@torch.no_grad()
def seen(frames: Frames, backbone: Backbone | None) -> Frames:
    """`frames`, or what the autoencoder makes of them."""
    if backbone is None:
        return frames
    pictures = torch.from_numpy(frames).movedim(-1, 1)[:, None].float() / 127.5 - 1
    decoded = backbone.decode_frames(backbone.encode_frames(pictures))[:, 0]
    pixels = ((decoded.clamp(-1, 1) + 1) * 127.5).round()
    return pixels.to(torch.uint8).movedim(1, -1).numpy()


def segmentation(
    segmenter: ToySegmenter, worlds: Sequence[World], backbone: Backbone | None
) -> dict[str, float]:
    """Mean mask IoU of the instances found, how many are found, and found as what they are."""
    overlaps, kinds, spurious = [], [], 0
    for world in worlds:
        frames, masks = drawn(world)
        found = segmenter.find(seen(frames, backbone))[0]
        best = [_best(mask, found) for mask in masks]
        overlaps += [iou for iou, _ in best]
        kinds += [
            iou >= MATCHED and one is not None and one.category == individual.category
            for (iou, one), individual in zip(best, world.individuals, strict=True)
        ]
        spurious += max(0, len(found) - len(masks))
    hits = [iou for iou in overlaps if iou >= MATCHED]
    return {
        "mask_iou": round(float(np.mean(hits)), 4),
        "instance_recall": round(len(hits) / len(overlaps), 4),
        "recall_with_category": round(float(np.mean(kinds)), 4),
        "spurious_per_frame": round(spurious / len(worlds), 4),
    }


def _best(mask: NDArray[np.bool_], found: Sequence[Instance]) -> tuple[float, Instance | None]:
    scored = [(float((mask & one.mask).sum() / (mask | one.mask).sum()), one) for one in found]
    return max(scored, key=lambda pair: pair[0], default=(0.0, None))


def reading(clip: ToyClip, worlds: Sequence[World], backbone: Backbone | None) -> dict[str, float]:
    """Share of lone subjects whose category and place CLIP names, from a caption for each."""
    frames = np.concatenate([drawn(world)[0] for world in worlds])
    pictures = clip.encode_images(seen(frames, backbone))
    texts = clip.encode_text(
        [f"a {noun(kind)} {PLACE_PHRASES[place][0]}" for kind in CATEGORIES for place in PLACES]
    )
    best = (pictures @ texts.T).argmax(1)
    kinds = [CATEGORIES[int(index) // len(PLACES)] for index in best]
    places = [PLACES[int(index) % len(PLACES)] for index in best]
    return {
        "clip_category": _share(
            k == w.individuals[0].category for k, w in zip(kinds, worlds, strict=True)
        ),
        "clip_place": _share(p == w.place for p, w in zip(places, worlds, strict=True)),
    }


def retrieval(
    dino: ToyDino, rng: np.random.Generator, backbone: Backbone | None
) -> dict[str, float]:
    """Share of new views of the 63 that are nearest to their own reference photos."""
    subjects = studio().subjects
    gallery = torch.stack([_gallery(dino, subject) for subject in subjects])
    right, within = [], []
    for index, subject in enumerate(subjects):
        for _ in range(2):
            frames, masks = drawn(sample_world(rng, individuals=[subject.individual]))
            cut = cut_out(seen(frames, backbone)[0], masks[0])
            scores = gallery @ dino.encode_images(cut[None])[0]
            right.append(int(scores.argmax()) == index)
            rivals = [k for k, one in enumerate(subjects) if one.category == subject.category]
            within.append(max(rivals, key=lambda k: float(scores[k])) == index)
    return {"dino_rank1_of_63": _share(right), "dino_rank1_within_category": _share(within)}


def acting(judge: ToyActions, worlds: Sequence[World], backbone: Backbone | None) -> float:
    """Share of subjects, lone and in groups, whose action is named, from their true masks."""
    right = []
    for world in worlds:
        clip = render(world, frames=FRAMES, height=SIZE[0], width=SIZE[1])
        frames, masks = seen(clip.frames.numpy(), backbone), clip.masks.numpy() > 0
        right += [
            judge.name(frames, masks[:, index]) == action
            for index, action in enumerate(world.actions)
            if masks[:, index].any()
        ]
    return _share(right)


def _gallery(dino: ToyDino, subject: Any) -> Tensor:
    photos = reference_photos(subject.individual, subject.name, height=120, width=192)
    cuts = np.stack([cut_out(image, mask > 0) for image, mask in photos])
    return dino.encode_images(cuts).mean(0)


def fidelity(backbone: Backbone, worlds: Sequence[World]) -> dict[str, float]:
    """Peak signal-to-noise ratio of the round trip: whole frames, and inside the subjects."""
    whole, inside = [], []
    for world in worlds:
        frames, masks = drawn(world)
        error = ((seen(frames, backbone).astype(float) - frames) / 255) ** 2
        whole.append(error.mean())
        inside.append(error[0][masks.any(0)].mean())
    return {
        "whole": round(float(-10 * np.log10(np.mean(whole))), 2),
        "inside": round(float(-10 * np.log10(np.mean(inside))), 2),
    }


@torch.no_grad()
def moving(backbone: Backbone, worlds: Sequence[World]) -> float:
    """The same of whole clips, encoded as such: frames may share latents."""
    errors = []
    for world in worlds:
        rate = max(backbone.frames, int(backbone.fps))
        clip = render(world, frames=rate, height=SIZE[0], width=SIZE[1])
        frames = clip.frames[: backbone.frames].movedim(-1, 1)[None].float() / 127.5 - 1
        decoded = backbone.decode_frames(backbone.encode_frames(frames)).clamp(-1, 1)
        errors.append(float(((decoded - frames) / 2).square().mean()))
    return round(float(-10 * np.log10(np.mean(errors))), 2)


def _share(flags: Any) -> float:
    return round(float(np.mean(list(flags))), 4)


if __name__ == "__main__":
    main()
