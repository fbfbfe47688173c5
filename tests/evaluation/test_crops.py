"""The cut, and scores from crops through `evaluate`, with looks that are plain colours."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from customvideo.evaluation.crops import CropJudge, Crops, cut_out
from customvideo.evaluation.encoders import Pictures
from customvideo.evaluation.evaluate import Encoders, Scores, evaluate
from customvideo.evaluation.instances import InstanceSegmenter
from customvideo.subjects.prompt import LearnedWord, Prompt
from customvideo.subjects.subject import Subject
from customvideo.video import Video
from tests.evaluation.finders import Colour, ColourFinder, draw

RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (127, 127, 127)
CAT, DOG, OTHER_CAT = (255, 250, 0), (0, 250, 255), (250, 0, 255)
"""Outlines by which the finder knows what a thing is."""
FINDER = ColourFinder({CAT: "cat", DOG: "dog", OTHER_CAT: "cat"})


class LookEncoder:
    """A picture's feature is the mean of (colour − grey) over the picture, at unit length.

    So grey scores nothing, and only what lies inside the masks can.
    """

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        return torch.nn.functional.normalize(torch.ones(len(texts), 3), dim=-1)

    def encode_images(self, images: Pictures) -> Tensor:
        means = torch.from_numpy(images.astype(np.float32).mean((1, 2)) - 127)
        return torch.nn.functional.normalize(means, dim=-1)


ROUNDING = 1e-4
"""Of a resized square's edges to whole pixel values."""
ENCODERS = Encoders(LookEncoder(), LookEncoder())


def toward(one: Colour, other: Colour) -> float:
    """The cosine the encoder sees between two looks."""
    a, b = (np.array(colour, float) - 127 for colour in (one, other))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def subject(name: str, category: str, look: Colour, ground: Colour = GREEN) -> Subject:
    image = np.full((40, 60, 3), ground, np.uint8)
    mask = np.zeros((40, 60), np.float32)
    mask[8:30, 12:36] = 1
    image[mask > 0] = look
    return Subject(name, f"<{name}>", category, (image,), (mask,), ("1.png",))


TOM, REX = subject("tom", "cat", RED), subject("rex", "dog", BLUE, ground=RED)
WORDS = (LearnedWord("tom", "cat"), LearnedWord("rex", "dog"), LearnedWord("mia", "cat"))
BOTH = Prompt("a <tom> cat and a <rex> dog", WORDS)

Frame = tuple[tuple[Colour, Colour], ...]
"""(outline, look) of each thing, left to right."""


def video(*frames: Frame, ground: Colour = GREEN) -> Video:
    pixels = np.full((len(frames), 20, 60, 3), ground, np.uint8)
    for frame, things in zip(pixels, frames, strict=True):
        for index, (outline, look) in enumerate(things):
            draw(frame, outline, look, left=2 + 18 * index)
    return Video(pixels)


def score(
    clip: Video,
    prompt: Prompt = BOTH,
    subjects: Sequence[Subject] = (TOM, REX),
    segmenter: InstanceSegmenter | Crops = FINDER,
) -> Scores:
    return evaluate([clip], [prompt], subjects, ENCODERS, segmenter=segmenter)


GOOD: Frame = ((CAT, RED), (DOG, BLUE))
SWAPPED: Frame = ((CAT, BLUE), (DOG, RED))


def test_what_is_there_as_it_should_be_scores_one() -> None:
    rows = score(video(GOOD, GOOD[::-1])).rows
    for row in rows:
        assert row.dino_i_crop == row.clip_i_crop == pytest.approx(1)
        assert (row.rank1, row.co_occurrence, row.bleed) == (1, 1, 0)
        assert row.binding_margin == pytest.approx(1 - toward(RED, BLUE), abs=ROUNDING)


def test_each_subject_looking_like_the_other_bleeds() -> None:
    rows = score(video(SWAPPED)).rows
    for row in rows:
        assert row.dino_i_crop == pytest.approx(toward(RED, BLUE), abs=ROUNDING)
        assert (row.rank1, row.co_occurrence, row.bleed) == (0, 1, 1)


def test_both_of_one_look_bleed() -> None:
    tom, rex = score(video(((CAT, RED), (DOG, RED)))).rows
    assert tom.bleed == rex.bleed == 1
    assert tom.binding_margin is not None and tom.binding_margin < 0
    assert (tom.rank1, rex.rank1) == (1, 0)
    alike = [subject("tom", "cat", RED), subject("rex", "dog", RED, ground=BLUE)]
    row = score(video(GOOD), subjects=alike).rows[0]
    assert row.binding_margin == pytest.approx(0, abs=1e-6)
    assert row.bleed == 1


def test_a_missing_subject_scores_nothing_and_shows_in_co_occurrence() -> None:
    scores = score(video(GOOD, ((CAT, RED),), ()))
    tom, rex = scores.rows
    assert (tom.dino_i_crop, rex.dino_i_crop) == pytest.approx((2 / 3, 1 / 3))
    assert tom.co_occurrence == rex.co_occurrence == pytest.approx(1 / 3)
    assert tom.bleed == 0 and tom.rank1 == rex.rank1 == 1
    nothing = score(video((), ())).rows[0]
    assert (nothing.dino_i_crop, nothing.clip_i_crop, nothing.co_occurrence) == (0, 0, 0)
    assert nothing.bleed is None and nothing.rank1 is None and nothing.binding_margin is None


def test_of_two_cats_each_is_who_it_looks_like() -> None:
    mia = subject("mia", "cat", BLUE)
    prompt = Prompt("a <tom> cat and a <mia> cat", WORDS)
    for frame in (((CAT, RED), (OTHER_CAT, BLUE)), ((CAT, BLUE), (OTHER_CAT, RED))):
        for row in score(video(frame), prompt, (TOM, mia)).rows:
            assert row.dino_i_crop == pytest.approx(1)
            assert (row.co_occurrence, row.bleed) == (1, 0)
    for row in score(video(((CAT, RED), (DOG, BLUE))), prompt, (TOM, mia)).rows:
        assert row.co_occurrence == 0


def test_neither_the_finder_s_order_nor_place_nor_ground_changes_a_number() -> None:
    frames = (GOOD, SWAPPED, ((DOG, (200, 30, 90)), (CAT, (90, 60, 255)), (OTHER_CAT, RED)))
    expected = list(score(video(*frames)).rows)
    backwards = ColourFinder(FINDER.categories, backwards=True)
    assert list(score(video(*frames), segmenter=backwards).rows) == expected
    crops = (
        "dino_i_crop",
        "clip_i_crop",
        "rank1",
        "present",
        "correct",
        "headline",
        "co_occurrence",
        "bleed",
        "binding_margin",
        "detect_and_compare",
        "blend",
        "drop",
    )
    mirrored = [tuple(reversed(frame)) for frame in frames]
    for changed in (video(*frames, ground=BLUE), video(*mirrored)):
        for row, other in zip(score(changed).rows, expected, strict=True):
            for name in crops:
                assert getattr(row, name) == pytest.approx(getattr(other, name), abs=1e-6)


def test_only_the_subjects_a_prompt_mentions_are_looked_for() -> None:
    (row,) = score(video(((DOG, BLUE), (CAT, RED))), Prompt("a <tom>", WORDS)).rows
    assert row.dino_i_crop == pytest.approx(1)
    assert row.co_occurrence == 1 and row.bleed is None and row.rank1 is None


def test_a_gallery_is_who_a_subject_can_be_mistaken_for() -> None:
    double = subject("mia", "cat", (255, 40, 40))
    clip = video(((CAT, (255, 60, 60)), (DOG, BLUE)))
    assert [row.rank1 for row in score(clip).rows] == [1, 1]
    # Whoever is both subject and in the gallery is not measured against itself.
    wide = score(clip, segmenter=Crops(FINDER, [TOM, REX, double]))
    assert [row.rank1 for row in wide.rows] == [0, 1]
    assert wide.rows[0].bleed == 0


def test_summaries_are_means_over_videos_and_skip_what_is_unknown() -> None:
    clips = [video(GOOD, SWAPPED), video(((CAT, RED),))]
    scores = evaluate(clips, [BOTH, BOTH], [TOM, REX], ENCODERS, segmenter=FINDER)
    summary = scores.summary()
    half = (1 + toward(RED, BLUE)) / 2
    assert summary["dino_i_crop"] == pytest.approx((half + (1 + 0) / 2) / 2, abs=ROUNDING)
    assert summary["dino_i_crop_min"] == pytest.approx((half + 0) / 2, abs=ROUNDING)
    assert summary["co_occurrence"] == pytest.approx((1 + 0) / 2)
    # The second video never shows both.
    assert summary["bleed"] == pytest.approx(0.5)
    assert summary["rank1"] == pytest.approx((0.5 + 1) / 2)
    rex = scores.per_subject()["rex"]
    assert rex["dino_i_crop"] == pytest.approx((half + 0) / 2, abs=ROUNDING) and rex["rank1"] == 0.5
    written = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert {"dino_i_crop", "clip_i_crop", "co_occurrence", "bleed", "rank1"} <= set(written)


def test_without_a_segmenter_everything_is_as_it_was() -> None:
    scores = evaluate([video(GOOD)], [BOTH], [TOM, REX], ENCODERS)
    row = scores.rows[0]
    assert row.dino_i_crop is row.co_occurrence is row.bleed is row.rank1 is None
    assert not any("crop" in name or "bleed" in name for name in scores.summary())
    assert set(scores.per_subject()["tom"]) == {"clip_i", "dino_i"}
    full = score(video(GOOD)).rows[0]
    assert (full.clip_i, full.dino_i, full.clip_t) == (row.clip_i, row.dino_i, row.clip_t)


def test_a_video_s_failures_are_told_apart() -> None:
    both_red: Frame = ((CAT, RED), (DOG, RED))
    # Two colours of one cat, half red and half blue: like both.
    mixture: Frame = ((CAT, (255, 0, 255)), (DOG, BLUE))
    flags = {
        name: [(row.blend, row.drop) for row in score(video(*frames)).rows]
        for name, frames in {
            "good": (GOOD, GOOD),
            "swapped": (SWAPPED, SWAPPED),
            "one look": (both_red, both_red),
            "mixture": (mixture, mixture),
            "absent": (((CAT, RED),), ((CAT, RED),), GOOD),
            "nobody": ((), ()),
        }.items()
    }
    fine, mixed, dropped = (False, False), (True, False), (False, True)
    assert flags == {
        "good": [fine, fine],
        "swapped": [mixed, mixed],
        "one look": [fine, mixed],
        "mixture": [mixed, fine],
        "absent": [fine, dropped],
        "nobody": [dropped, dropped],
    }


def test_the_row_says_whom_each_slot_s_crop_looks_like() -> None:
    scores = score(video(GOOD, GOOD, SWAPPED, ((CAT, RED),)))
    tom, rex = scores.rows
    assert tom.seen_as == {"tom": 3, "rex": 1} and rex.seen_as == {"tom": 1, "rex": 2}
    assert (tom.present, rex.present) == (1, 3 / 4)
    assert (tom.correct, rex.correct) == (3 / 4, 2 / 4)
    assert tom.headline == pytest.approx((tom.dino_i_crop or 0) * 3 / 4)
    assert scores.confusion()["rex"] == pytest.approx({"tom": 1 / 3, "rex": 2 / 3})


class GroundEncoder(LookEncoder):
    """A picture's feature is the colour of its corners: the ground of a view."""

    def encode_images(self, images: Pictures) -> Tensor:
        corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1]].astype(np.float32).mean(1) - 127
        return torch.nn.functional.normalize(torch.from_numpy(corners), dim=-1)


def test_a_view_that_is_a_photo_s_is_a_copy() -> None:
    grounds = [GREEN, (255, 255, 0), (0, 255, 255)]
    photos = [subject("tom", "cat", RED, ground) for ground in grounds]
    tom = Subject(
        "tom",
        "<tom>",
        "cat",
        tuple(one.images[0] for one in photos),
        tuple(one.masks[0] for one in photos),
        ("1.png", "2.png", "3.png"),
    )
    encoders = Encoders(GroundEncoder(), LookEncoder())
    prompt = Prompt("a <tom>", WORDS)
    frames: Frame = ((CAT, RED),)
    for ground, copy in [(GREEN, True), ((255, 0, 255), False), ((127, 255, 60), False)]:
        clip = video(frames, frames, ground=ground)
        (row,) = evaluate([clip], [prompt], [tom], encoders, segmenter=FINDER).rows
        assert row.copy is copy, ground
        assert row.nearness == pytest.approx(max(toward(ground, one) for one in grounds), abs=0.01)
        assert row.closest_pair == pytest.approx(toward(GREEN, grounds[1]))
    # Who is never seen copies nothing, and one photo has no pair.
    (row,) = evaluate([video(())], [prompt], [tom], encoders, segmenter=FINDER).rows
    assert row.nearness is row.copy is None
    (row,) = evaluate([clip], [prompt], [TOM], encoders, segmenter=FINDER).rows
    assert row.closest_pair is row.copy is None and row.nearness is not None


def test_slots_are_the_things_from_left_to_right() -> None:
    judge = CropJudge(Crops(FINDER), LookEncoder(), LookEncoder())
    frames = video(GOOD, GOOD[::-1], ((CAT, RED),)).frames
    left, right = judge.slots(frames, [TOM, REX])
    red, blue = (judge.look(one).dino for one in (TOM, REX))
    # The frame that shows one thing only is passed over.
    torch.testing.assert_close(left, torch.cat([red, blue]), atol=1e-3, rtol=0)
    torch.testing.assert_close(right, torch.cat([blue, red]), atol=1e-3, rtol=0)
    assert [len(slot) for slot in judge.slots(video(()).frames, [TOM, REX])] == [0, 0]


def test_a_finder_of_nouns_is_told_the_prompt_s_categories() -> None:
    class Listener(ColourFinder):
        told: tuple[str, ...] = ()

        def looking_for(self, nouns: Sequence[str]) -> ColourFinder:
            self.told = tuple(nouns)
            return FINDER

    listener = Listener({})
    assert score(video(GOOD), segmenter=listener).rows[0].co_occurrence == 1
    assert listener.told == ("cat", "dog") and listener.asked == []


def test_references_are_encoded_once_and_frames_in_one_call() -> None:
    calls: list[int] = []

    class Counting(LookEncoder):
        def encode_images(self, images: Pictures) -> Tensor:
            calls.append(len(images))
            return super().encode_images(images)

    judge = CropJudge(Crops(FINDER), LookEncoder(), Counting())
    for _ in range(2):
        judge.bind(video(GOOD, GOOD).frames, [TOM, REX])
    assert calls == [4, 1, 1, 4]


def test_a_judge_can_be_kept_and_knows_subjects_by_their_photos() -> None:
    calls: list[int] = []

    class Counting(LookEncoder):
        def encode_images(self, images: Pictures) -> Tensor:
            calls.append(len(images))
            return super().encode_images(images)

    encoders = Encoders(LookEncoder(), Counting())
    judge = CropJudge(Crops(FINDER, [TOM, REX]), encoders.clip, encoders.dino)
    clip, prompt = video(GOOD), Prompt("a <tom>", WORDS)
    first, again = (
        evaluate([clip], [prompt], [TOM], encoders, segmenter=judge).rows for _ in range(2)
    )
    assert first == again == evaluate([clip], [prompt], [TOM], ENCODERS, segmenter=judge.crops).rows
    # Each call encodes the whole frame, the photo behind `dino_i` and the crops; only the first
    # one the cut-outs of both subjects.
    assert len(calls) == 5 + 3
    blue = subject("tom", "cat", BLUE)
    (row,) = evaluate([clip], [prompt], [blue], encoders, segmenter=judge).rows
    assert row.dino_i_crop == pytest.approx(toward(RED, BLUE), abs=ROUNDING)


def test_the_cut_shows_the_subject_alone_centred_and_in_proportion() -> None:
    image = np.full((50, 80, 3), GREEN, np.uint8)
    mask = np.zeros((50, 80), bool)
    mask[10:20, 5:45] = True
    mask[10:15, 5:25] = False
    image[mask] = RED
    cut = cut_out(image, mask)
    assert cut.shape == (224, 224, 3)
    rows, columns = np.nonzero((cut[..., 0] > 191) & (cut[..., 1] < 64))
    # 40 wide, 10 high, in a square of 48: 40/48 and 10/48 of 224 pixels.
    assert np.ptp(columns) + 1 == pytest.approx(224 * 40 / 48, abs=1)
    assert np.ptp(rows) + 1 == pytest.approx(224 * 10 / 48, abs=1)
    assert columns.min() + columns.max() == pytest.approx(223, abs=1)
    # Green is nowhere, nor in the corner of the box that the mask leaves out.
    assert (cut[..., 1] < 160).all()
    assert (cut[92:102, 30:90] == GREY).all()


def test_the_cut_stands_in_grey_where_the_picture_ends() -> None:
    image = np.full((20, 20, 3), RED, np.uint8)
    cut = cut_out(image, np.ones((20, 20), bool))
    assert (cut[0] == GREY).all() and (cut[:, -1] == GREY).all()
    assert (cut[112, 112] == RED).all()
