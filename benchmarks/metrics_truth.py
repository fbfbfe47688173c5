"""How well each metric tells what it is meant to tell, where the truth is known.

    python benchmarks/metrics_truth.py                        # CustomStudio's pairs
    python benchmarks/metrics_truth.py --edition development  # those thresholds were chosen on

The toybox's renderer shows a pair as it should be, and with one thing wrong at a time: a subject
missing, strangers of the same categories, one painted as the other, both half painted, a frozen
clip, a repeated photo, photos in panels, frames out of order. The toybox's judges score the clips
and each metric is asked to tell the right ones from the wrong ones. True renders, not a model's
videos: what a metric misses here it misses everywhere. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from customvideo.evaluation.comparison import slot_equivariance, slot_similarity
from customvideo.evaluation.evaluate import CropJudge, Crops, Encoders, Row, Scores, evaluate
from customvideo.subjects.prompt import LearnedWord, Prompt
from customvideo.subjects.scene import compose
from customvideo.subjects.subject import Subject
from customvideo.toybox.captions import PLACE_PHRASES
from customvideo.toybox.customstudio import StudioSubject, reference_photos, studio
from customvideo.toybox.development import development_pairs
from customvideo.toybox.judges import ToySegmenter
from customvideo.toybox.models import SIZE
from customvideo.toybox.render import render
from customvideo.toybox.world import PLACES, Individual, World, sample_world
from customvideo.video import Video

Frames = NDArray[np.uint8]
Pair = tuple[StudioSubject, StudioSubject]
FRAMES, PHOTOS, PHOTO_SIZE = 8, 4, (120, 192)
MIXTURES = (0, 2, 4, 6, 8)
"""In how many of the frames both subjects are themselves, the others showing strangers."""
SPEEDS = (0.0, 0.25, 0.5, 1.0)


@dataclass(frozen=True, eq=False)
class Case:
    """One clip of a pair: what was done to it, and how much of that (a share or a speed)."""

    kind: str
    pair: Pair
    frames: Frames
    prompt: Prompt
    amount: float = 1.0


@dataclass(frozen=True)
class Judged:
    """One row and the case it came from; `slot` is the subject's index in the pair."""

    case: Case
    row: Row
    slot: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--edition", choices=("studio", "development"), default="studio")
    parser.add_argument("--gallery", type=int, default=26, help="subjects to be told apart")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    began = time.perf_counter()
    rng = np.random.default_rng(options.seed)
    pairs = chosen_pairs(options.edition, options.pairs)
    cases = [case for pair in pairs for case in cases_of(pair, rng)]
    crops = Crops(ToySegmenter(), gallery(pairs, options.gallery))
    encoders = Encoders.named("toybox-clip", "toybox-dino", "cpu")
    scores, rows = judged(cases, crops, encoders)
    report = {
        "edition": options.edition,
        "pairs": len(pairs),
        "clips": len(cases),
        "gallery": len(crops.gallery),
        "frames": FRAMES,
        "size": list(SIZE),
        "agreement": agreement(rows, against_base(scores, rows)),
        "swap_test": swap_test(pairs, CropJudge(crops, encoders.clip, encoders.dino), rng),
        "threads": torch.get_num_threads(),
        "seconds": round(time.perf_counter() - began),
    }
    print(json.dumps(report, indent=2))


def chosen_pairs(edition: str, count: int) -> list[Pair]:
    """So many pairs, evenly from the whole list, whose first are of one category."""
    if edition == "development":
        every = list(development_pairs())
        return [every[k % len(every)] for k in range(count)]
    known = studio()
    every = [tuple(known.subject(name) for name in group.names) for group in known.pairs]
    return [every[k * len(every) // count] for k in range(count)]


def gallery(pairs: Sequence[Pair], count: int) -> list[Subject]:
    """The pairs' subjects first, then others, `count` in all."""
    everyone = {one.name: one for one in [*(s for pair in pairs for s in pair), *studio().subjects]}
    needed = max(count, len({one.name for pair in pairs for one in pair}))
    return [photographed(one) for one in list(everyone.values())[:needed]]


_PHOTOGRAPHED: dict[str, Subject] = {}


def photographed(one: StudioSubject) -> Subject:
    """The subject as a user would give it, its masks exact."""
    if one.name not in _PHOTOGRAPHED:
        photos = reference_photos(one.individual, one.name, PHOTOS, *PHOTO_SIZE)
        images, masks = zip(*photos, strict=True)
        files = tuple(f"{index}.png" for index in range(PHOTOS))
        _PHOTOGRAPHED[one.name] = Subject(
            one.name, f"<{one.name}>", one.category, images, masks, files
        )
    return _PHOTOGRAPHED[one.name]


def cases_of(pair: Pair, rng: np.random.Generator) -> list[Case]:
    """One pair in one place, as it should be and with one thing wrong at a time."""
    one, other = (subject.individual for subject in pair)
    world = sample_world(rng, individuals=[one, other])
    prompt = asked(pair, world.place)
    strangers = tuple(stranger(subject, rng) for subject in pair)
    right, strange = film(cast(world, one, other)), film(cast(world, *strangers))
    photo = photographed(pair[0]).images[int(rng.integers(PHOTOS))]
    panels = compose([photographed(s) for s in pair], rng, SIZE, style="panel").image
    elsewhere = PLACES[(PLACES.index(world.place) + 1 + int(rng.integers(8))) % len(PLACES)]
    made: list[tuple[str, Frames]] = [
        ("right", right),
        ("strangers", strange),
        ("missing", film(sample_world(rng, individuals=[one], place=world.place))),
        ("painted", film(cast(world, one, painted(other, one)))),
        ("blended", film(cast(world, blended(one, other), blended(other, one)))),
        ("photo", drifting(photo)),
        ("panels", drifting(panels)),
        ("shuffled", right[rng.permutation(FRAMES)]),
    ]
    cases = [Case(kind, pair, frames, prompt) for kind, frames in made]
    cases.append(Case("elsewhere", pair, right, asked(pair, elsewhere)))
    for count in MIXTURES:
        frames = np.concatenate([right[:count], strange[count:]])
        cases.append(Case("mixture", pair, frames, prompt, count / FRAMES))
    for speed in SPEEDS:
        cases.append(Case("speed", pair, slowed(world, speed, rng), prompt, speed))
    return cases


def asked(pair: Pair, place: str) -> Prompt:
    words = tuple(LearnedWord(subject.name, subject.category) for subject in pair)
    subjects = " and ".join(f"a {subject.phrase}" for subject in pair)
    return Prompt(f"{subjects} {PLACE_PHRASES[place][0]}", words)


def stranger(subject: StudioSubject, rng: np.random.Generator) -> Individual:
    """Somebody else of the category, of those known by name."""
    others = [
        one.individual
        for one in studio().subjects
        if one.category == subject.category and one.individual != subject.individual
    ]
    return others[int(rng.integers(len(others)))]


def painted(one: Individual, other: Individual) -> Individual:
    """`one`'s body in `other`'s colours, pattern and accessory."""
    return replace(other, category=one.category, proportions=one.proportions)


def blended(one: Individual, other: Individual) -> Individual:
    """`one` with its head and limbs, and its marks, in `other`'s colours."""
    body, _, _, trim = one.colours
    return replace(one, colours=(body, other.main, other.second, trim), pattern_colour=other.main)


def cast(world: World, *individuals: Individual) -> World:
    """The same clip played by others."""
    return replace(world, individuals=individuals)


def film(world: World, frames: int = FRAMES) -> Frames:
    clip: Frames = render(world, frames=frames, height=SIZE[0], width=SIZE[1]).frames.numpy()
    return clip


def slowed(world: World, speed: float, rng: np.random.Generator) -> Frames:
    """The clip at a share of its speed; standing still, it keeps the noise of a codec."""
    if speed > 0:
        return film(world, round(FRAMES / speed))[:FRAMES]
    still = np.repeat(film(world, 1), FRAMES, axis=0).astype(np.int16)
    return np.clip(still + rng.integers(-2, 3, still.shape), 0, 255).astype(np.uint8)


def drifting(picture: Frames) -> Frames:
    """A camera sliding over one picture (height, width, 3): (frame, height, width, 3)."""
    height, width = SIZE
    large = Image.fromarray(picture).resize((width + FRAMES, height), Image.Resampling.BICUBIC)
    return np.stack([np.asarray(large)[:, k : k + width] for k in range(FRAMES)])


def judged(cases: Sequence[Case], crops: Crops, encoders: Encoders) -> tuple[Scores, list[Judged]]:
    """All cases' rows; case by case, for no prompt may mention a subject that is not given."""
    judge = CropJudge(crops, encoders.clip, encoders.dino)
    found = []
    for index, case in enumerate(cases):
        names = [one.name for one in case.pair]
        subjects = [photographed(one) for one in case.pair]
        scores = evaluate([Video(case.frames)], [case.prompt], subjects, encoders, segmenter=judge)
        found += [
            Judged(case, replace(row, video=index), names.index(row.subject)) for row in scores.rows
        ]
    return Scores(tuple(one.row for one in found)), found


def against_base(scores: Scores, rows: Sequence[Judged]) -> list[Judged]:
    """The rows again, `freeze` and `copy` decided against clips of strangers: a base model's."""
    base = Scores(tuple(one.row for one in rows if one.case.kind == "strangers"))
    changed = scores.against(base).rows
    return [replace(one, row=row) for one, row in zip(rows, changed, strict=True)]


def agreement(rows: Sequence[Judged], with_base: Sequence[Judged]) -> dict[str, Any]:
    """Metric -> what it was asked to tell, how it was measured, and how well it did."""
    wrong = ("blended", "painted")
    table: dict[str, Any] = {}
    for name in ("clip_i", "dino_i", "clip_i_crop", "dino_i_crop", "rank1", "rank1_category"):
        table[name] = area(rows, name, ["strangers"], "right individuals from strangers")
    for name in ("binding_margin", "detect_and_compare", "bleed", "headline", "correct"):
        kinds = "right pairs from blended or painted ones"
        table[name] = area(rows, name, wrong, kinds, higher=name != "bleed")
    table["headline_mixture"] = order(rows, "headline", "mixture", "share of right frames")
    for name in ("co_occurrence", "present"):
        table[name] = area(rows, name, ["missing"], "both there from one missing")
    table["clip_t"] = area(rows, "clip_t", ["elsewhere"], "the right place from another")
    for name in ("t_cons", "motion_smoothness"):
        table[name] = area(rows, name, ["shuffled"], "frames in order from shuffled ones")
    for name in ("motion", "frame_change"):
        table[name] = order(rows, name, "speed", "speed")
    table["dynamic_degree"] = flag(rows, "dynamic_degree", moves, "moving")
    table["seams"] = flag(rows, "seams", lambda one: truth(one, "panels"), "panels")
    table["blend"] = flag(rows, "blend", is_blended, "blended or painted")
    strangers = mean(one.row.blend for one in rows if one.case.kind == "strangers")
    table["blend_of_strangers"] = {"measure": "rate", "value": strangers}
    table["drop"] = flag(rows, "drop", is_missing, "missing")
    table["seen_as"] = flag(rows, "seen_as", is_foreign, "a crop of the other subject")
    for suffix, of in (("", rows), ("_with_base", with_base)):
        table[f"copy{suffix}"] = flag(of, "copy", is_copied, "a repeated photo")
        table[f"freeze{suffix}"] = flag(of, "freeze", is_frozen, "standing still")
    return table


def is_blended(one: Judged) -> bool | None:
    if one.case.kind == "painted":
        return one.slot == 1
    return truth(one, "blended")


def is_missing(one: Judged) -> bool | None:
    if one.case.kind == "missing":
        return one.slot == 1
    return truth(one, "missing")


def is_foreign(one: Judged) -> bool | None:
    """Who is painted as the first subject looks like the first, whoever it is matched with."""
    return one.slot == 1 if one.case.kind == "painted" else truth(one, "painted")


def is_copied(one: Judged) -> bool | None:
    if one.case.kind == "photo":
        # The second subject is not in the photo.
        return True if one.slot == 0 else None
    return False if one.case.kind in ("right", "strangers") else None


def is_frozen(one: Judged) -> bool | None:
    moving = moves(one)
    return None if moving is None else not moving


def moves(one: Judged) -> bool | None:
    """At full speed or not at all; what is slower is neither."""
    at_an_end = one.case.kind == "speed" and one.case.amount in (0.0, 1.0)
    return one.case.amount > 0 if at_an_end else None


def truth(one: Judged, kind: str) -> bool | None:
    return one.case.kind == kind if one.case.kind in ("right", kind) else None


def said(one: Judged, name: str) -> bool | None:
    value = getattr(one.row, name)
    if name == "seen_as":
        others = sum(count for subject, count in value.items() if subject != one.row.subject)
        return others > value[one.row.subject] if sum(value.values()) else None
    return None if value is None else value > 0.5


def area(
    rows: Sequence[Judged],
    name: str,
    wrong: Sequence[str],
    question: str,
    *,
    higher: bool = True,
) -> dict[str, Any]:
    """Area under the ROC curve: how often a right row scores above a wrong one, ties half."""

    def values(kinds: Iterable[str], slots: Sequence[int]) -> list[float]:
        return [
            float(value) if higher else -float(value)
            for one in rows
            if one.case.kind in kinds and one.slot in slots
            if (value := getattr(one.row, name)) is not None
        ]

    # Of a painted or a missing pair the first subject is as it should be.
    slots = (1,) if {"painted", "missing"} & set(wrong) else (0, 1)
    good, bad = (
        values(["right"], (0, 1)),
        values(wrong, slots),
    )
    wins = [(a > b) + (a == b) / 2 for a in good for b in bad]
    return {"tells": question, "measure": "AUC", "value": mean(wins), "rows": len(good) + len(bad)}


def order(rows: Sequence[Judged], name: str, kind: str, question: str) -> dict[str, Any]:
    """Spearman's rank correlation with the amount within each pair, averaged over the pairs."""
    groups: dict[tuple[Pair, int], list[Judged]] = {}
    for one in rows:
        if one.case.kind == kind:
            groups.setdefault((one.case.pair, one.slot), []).append(one)
    found = []
    for group in groups.values():
        given = ranks([one.case.amount for one in group])
        scored = ranks([getattr(one.row, name) for one in group])
        found.append(float(np.corrcoef(given, scored)[0, 1]) if scored.std() else 0.0)
    return {"tells": question, "measure": "Spearman", "value": mean(found), "rows": len(found)}


def flag(
    rows: Sequence[Judged], name: str, true: Callable[[Judged], bool | None], question: str
) -> dict[str, Any]:
    """Share of the true ones found and of the others passed over, and the mean of both."""
    known = [(truth, one) for one in rows if (truth := true(one)) is not None]
    hits = [said(one, name) is True for truth, one in known if truth]
    passed = [said(one, name) is not True for truth, one in known if not truth]
    found, left = mean(hits), mean(passed)
    return {
        "tells": question,
        "measure": "balanced accuracy",
        "value": None if found is None or left is None else round((found + left) / 2, 3),
        "found": found,
        "passed": left,
        "rows": len(known),
    }


def swap_test(pairs: Sequence[Pair], judge: CropJudge, rng: np.random.Generator) -> dict[str, Any]:
    """Slot equivariance where two subjects do change places, and where they do not."""
    changed, kept = [], []
    for pair in pairs:
        one, other = (subject.individual for subject in pair)
        world = sample_world(rng, individuals=[one, other])
        subjects = [photographed(subject) for subject in pair]
        references = [judge.look(subject).dino for subject in subjects]
        again = replace(world, phases=tuple(rng.uniform(0, 1, 2)))
        before, after, same = (
            slot_similarity(judge.slots(film(clip), subjects), references)
            for clip in (world, cast(world, other, one), again)
        )
        changed.append(slot_equivariance(before, after, [1, 0]))
        kept.append(slot_equivariance(before, same, [1, 0]))
    return {"exchanged": mean(changed), "not_exchanged": mean(kept)}


def ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Ranks from 0; equal values share their mean rank."""
    found = np.array(values)
    return np.array([((found < v).sum() + (found <= v).sum() - 1) / 2 for v in found])


def mean(values: Iterable[float | bool | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return round(float(np.mean(known)), 3) if known else None


if __name__ == "__main__":
    main()
