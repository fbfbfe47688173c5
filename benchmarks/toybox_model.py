"""What the toybox's base model can show, by judges whose own error `toybox_judges.py` prints.

    python benchmarks/toybox_model.py                      # the shipped model, clips of 8 frames
    python benchmarks/toybox_model.py --frames 1           # pictures: eight times faster
    python benchmarks/toybox_model.py --sheet sheet.png    # and look at what was judged
    python benchmarks/toybox_model.py --backbone FOLDER    # another model of the same world

Prompts are drawn from a seed no training scene used. Every row also has the figure true renders of
the same prompts get, so that the judges' errors can be told from the model's. Prints one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from customvideo.backbones.base import Backbone, load_backbone
from customvideo.backbones.sampling import denoise
from customvideo.backbones.unet3d import UNet3D, load_folder
from customvideo.evaluation.crops import cut_out
from customvideo.evaluation.instances import Instance
from customvideo.toybox.captions import PLACE_PHRASES, caption, noun, verb
from customvideo.toybox.customstudio import reference_photos, studio
from customvideo.toybox.judges import WEIGHTS, ToyActions, ToyClip, ToyDino, ToySegmenter
from customvideo.toybox.models import FRAMES, SIZE
from customvideo.toybox.render import render
from customvideo.toybox.world import (
    ACTIONS,
    COLOURS,
    PLACES,
    Individual,
    World,
    sample_world,
)
from customvideo.video import Video

Frames = NDArray[np.uint8]


@dataclass
class Judged:
    """What one prompt asked for, and the clip that answers it (frame, height, width, 3)."""

    text: str
    individuals: tuple[Individual, ...]
    place: str
    world: World
    frames: Frames = field(default_factory=lambda: np.zeros((0, 0, 0, 3), np.uint8))


@dataclass(frozen=True)
class Judges:
    """The toybox's own."""

    clip: ToyClip
    dino: ToyDino
    segmenter: ToySegmenter
    actions: ToyActions


def main() -> None:
    options = parse_options()
    backbone: Backbone = (
        load_backbone(options.backbone, device=options.device)
        if options.backbone
        else load_folder(options.weights / "model", device=options.device)
    )
    options.frames = options.frames or backbone.frames
    # A world lasts a second, of which the clip may be a part.
    options.rate = max(options.frames, int(backbone.fps)) if options.frames > 1 else 1
    if options.frames == 1 and isinstance(backbone, UNet3D):
        backbone.single_frame = "skip"
    judges = Judges(
        ToyClip(options.weights / "clip"),
        ToyDino(options.weights / "dino"),
        ToySegmenter(options.weights / "segmenter"),
        ToyActions(options.weights / "actions"),
    )
    asked = {count: prompts(count, options.prompts, options.seed) for count in (1, 2, 3)}
    asked[0] = descriptions(options.seed)
    report: dict[str, Any] = {"frames": options.frames, "prompts": options.prompts}
    for side in ("model", "true"):
        began, total = time.perf_counter(), sum(map(len, asked.values()))
        for group in asked.values():
            answer(group, None if side == "true" else backbone, options)
        report[side] = judged(asked, judges)
        report[side]["seconds_per_prompt"] = round((time.perf_counter() - began) / total, 3)
        if side == "model" and options.sheet:
            shown = [one for count in (1, 2, 3) for one in asked[count][:12]]
            save_sheet(shown, options.sheet)
    print(json.dumps(report, indent=2))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--backbone", help="instead of the model in --weights")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--prompts", type=int, default=39, help="for one, two and three subjects")
    parser.add_argument("--frames", type=int, help="the model's own, if not said")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=4711)
    parser.add_argument("--sheet", type=Path)
    return parser.parse_args()


def prompts(count: int, number: int, seed: int) -> list[Judged]:
    """`number` prompts with a colour for each of `count` subjects, categories taking turns."""
    rng = np.random.default_rng([seed, count])
    made = []
    for index in range(number):
        world = sample_world(rng, count=count, same_category=False, action=ACTIONS[index % 6])
        phrases = [f"a {one.main} {noun(one.category)}" for one in world.individuals]
        listed = phrases[0] if count == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]
        doing = verb(world.individuals[0].category, world.actions[0])
        text = f"{listed} {doing} {PLACE_PHRASES[world.place][0]}".replace("a orange", "an orange")
        made.append(Judged(text, world.individuals, world.place, world))
    return made


def descriptions(seed: int) -> list[Judged]:
    """Each of the benchmark's 63 described in full: the oracle of what a word could carry."""
    rng = np.random.default_rng([seed, 63])
    made = []
    for subject in studio().subjects:
        world = sample_world(rng, individuals=[subject.individual], action="walk")
        text = caption(world, rng, detail="full")
        made.append(Judged(text, world.individuals, world.place, world))
    return made


@torch.no_grad()
def answer(group: Sequence[Judged], backbone: Backbone | None, options: argparse.Namespace) -> None:
    """Fill in the frames: the model's, or true renders if there is none."""
    for start in range(0, len(group), 8):
        part = group[start : start + 8]
        if backbone is None:
            for one in part:
                clip = render(one.world, frames=options.rate, height=SIZE[0], width=SIZE[1])
                one.frames = clip.frames[: options.frames].numpy()
            continue
        noise = torch.randn(
            (len(part), *backbone.latent_shape(options.frames, *SIZE)),
            generator=torch.Generator().manual_seed(options.seed + start),
        ).to(backbone.device)
        text = backbone.encode_prompt([one.text for one in part])
        empty = backbone.encode_prompt([""])
        latents = denoise(
            backbone,
            noise,
            text,
            empty,
            steps=options.steps,
            guidance=options.guidance,
            solver="native",
        )
        for one, decoded in zip(part, backbone.decode_frames(latents), strict=True):
            pixels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
            one.frames = pixels.movedim(1, -1).cpu().numpy()


def judged(asked: dict[int, list[Judged]], judges: Judges) -> dict[str, Any]:
    """The table's rows; shares of prompts."""
    every = [one for count in (1, 2, 3) for one in asked[count]]
    found = {id(one): judges.segmenter.find(one.frames) for one in (*every, *asked[0])}
    rows: dict[str, Any] = {}
    for count, name in ((1, "category_one"), (2, "category_two"), (3, "category_three")):
        rows[name] = _share(_all_there(one, found[id(one)]) for one in asked[count])
    rows["place"] = _share(_place(one, judges.clip) == one.place for one in every)
    bound = [_bound(one, found[id(one)]) for one in asked[2]]
    rows["colours_bound"] = _share(flag for flag in bound if flag is not None)
    rows["oracle_of_63"] = _oracle(asked[0], found, judges.dino)
    rows["action"] = _acting(asked[1], found, judges.actions)
    rows["motion"] = _motion(asked[1], found)
    return rows


def _acting(asked: Sequence[Judged], found: dict[int, Any], judge: ToyActions) -> float | None:
    """Share of lone subjects seen doing what was asked; None for clips of another length than the
    judge's."""
    right = []
    for one in asked:
        if len(one.frames) != FRAMES:
            return None
        # The largest find of each frame; whoever is never found does nothing.
        masks = np.stack(
            [
                max((i.mask for i in instances), key=np.count_nonzero, default=_nowhere(one))
                for instances in found[id(one)]
            ]
        )
        right.append(masks.any() and judge.name(one.frames, masks) == one.world.actions[0])
    return _share(right)


def _nowhere(one: Judged) -> NDArray[np.bool_]:
    return np.zeros(one.frames.shape[1:3], np.bool_)


def _motion(asked: Sequence[Judged], found: dict[int, Any]) -> dict[str, float]:
    """Mean optical flow inside the subjects for each action, in pixels a frame."""
    flows: dict[str, list[float]] = {}
    for one in asked:
        pairs = zip(one.frames, one.frames[1:], found[id(one)], strict=False)
        for before, after, instances in pairs:
            if instances:
                inside = np.any([instance.mask for instance in instances], axis=0)
                flows.setdefault(one.world.actions[0], []).append(
                    _flow(before, after)[inside].mean()
                )
    return {action: round(float(np.mean(values)), 3) for action, values in sorted(flows.items())}


def _flow(before: Frames, after: Frames) -> NDArray[np.float32]:
    """How far each pixel moves (height, width); Farneback's method."""
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before, after)]
    flow = cv2.calcOpticalFlowFarneback(*grey, None, 0.5, 3, 9, 3, 5, 1.1, 0)  # type: ignore
    return np.linalg.norm(flow, axis=-1)


def _all_there(one: Judged, found: Sequence[Sequence[Instance]]) -> bool:
    """Whether more than half of the frames show every category asked for."""
    wanted = sorted(individual.category for individual in one.individuals)
    hits = []
    for instances in found:
        left = [instance.category for instance in instances]
        hits.append(all(kind in left for kind in wanted))
    return bool(np.mean(hits) > 0.5)


def _place(one: Judged, clip: ToyClip) -> str:
    kinds = " and ".join(f"a {noun(individual.category)}" for individual in one.individuals)
    texts = clip.encode_text([f"{kinds} {PLACE_PHRASES[place][0]}" for place in PLACES])
    return PLACES[int((clip.encode_images(one.frames).mean(0) @ texts.T).argmax())]


def _bound(one: Judged, found: Sequence[Sequence[Instance]]) -> bool | None:
    """Whether a pair's colours fit their own subjects better than each other's.

    Parts have other colours than the body, so only the sum over both says who has which. None if
    no frame shows both: what is missing is counted elsewhere.
    """
    first, second = one.individuals
    if first.main == second.main:
        return None
    votes = []
    for frame, instances in zip(one.frames, found, strict=True):
        by_kind = {instance.category: instance for instance in reversed(instances)}
        if not {first.category, second.category} <= set(by_kind):
            continue
        own, swapped = (
            sum(_distance(frame[by_kind[who.category].mask], colour) for who, colour in given)
            for given in (
                ((first, first.main), (second, second.main)),
                ((first, second.main), (second, first.main)),
            )
        )
        votes.append(own < swapped)
    return bool(np.mean(votes) > 0.5) if votes else None


def _distance(pixels: Frames, colour: str) -> float:
    """Mean distance of pixels (n, 3) from a named colour."""
    away = _flat(pixels.astype(float)) - _flat(np.array([COLOURS[colour]], float))
    return float(np.linalg.norm(away, axis=1).mean())


def _flat(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours with brightness scaled down by three: light and shade are not colour."""
    grey = pixels.mean(1, keepdims=True)
    return (pixels - grey) + grey / 3


def _oracle(asked: Sequence[Judged], found: dict[int, Any], dino: ToyDino) -> float:
    """Share of full descriptions whose picture is nearest to the individual described, of 63."""
    subjects = studio().subjects
    gallery = torch.stack([_gallery(dino, subject) for subject in subjects])
    right = []
    for index, one in enumerate(asked):
        cuts = [
            cut_out(frame, max(instances, key=lambda i: int(i.mask.sum())).mask)
            for frame, instances in zip(one.frames, found[id(one)], strict=True)
            if instances
        ]
        if not cuts:
            right.append(False)
            continue
        scores = gallery @ dino.encode_images(np.stack(cuts)).mean(0)
        right.append(int(scores.argmax()) == index)
    return _share(right)


def _gallery(dino: ToyDino, subject: Any) -> Tensor:
    photos = reference_photos(subject.individual, subject.name, height=120, width=192)
    return dino.encode_images(np.stack([cut_out(image, mask > 0) for image, mask in photos])).mean(
        0
    )


def save_sheet(shown: Sequence[Judged], path: Path) -> None:
    """All clips side by side, six in a row: a video, or the first frames if `path` is a picture."""
    count = 1 if path.suffix.lower() == ".png" else len(shown[0].frames)
    pages = [Video(np.stack([one.frames[k] for one in shown])).sheet(6) for k in range(count)]
    Video(np.stack(pages), 8.0).save(path)


def _share(flags: Any) -> float:
    values = list(flags)
    return round(float(np.mean(values)), 4) if values else float("nan")


if __name__ == "__main__":
    main()
