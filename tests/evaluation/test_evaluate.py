"""Rows and summaries, with encoders whose features can be read off a picture's colour."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from customvideo.errors import EvaluationError
from customvideo.evaluation.encoders import ClipEncoder, DinoEncoder, Pictures
from customvideo.evaluation.evaluate import Crops, Encoders, Row, Scores, evaluate
from customvideo.subjects.prompt import LearnedWord, Prompt
from customvideo.subjects.subject import Subject
from customvideo.video import Video
from tests.evaluation.finders import HalvesFinder

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
WORDS = (LearnedWord("tom", "cat"), LearnedWord("rex", "dog"))


class ColourEncoder:
    """A picture's feature is its mean colour, a text's is in a table; it notes what it reads."""

    def __init__(self, texts: dict[str, tuple[float, float, float]] | None = None) -> None:
        self.texts = texts or {}

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        return torch.nn.functional.normalize(torch.tensor([self.texts[t] for t in texts]), dim=-1)

    def encode_images(self, images: Pictures) -> Tensor:
        colours = torch.from_numpy(images.astype(np.float32).mean((1, 2)))
        return torch.nn.functional.normalize(colours, dim=-1)


def subject(name: str, category: str, *colours: tuple[int, int, int]) -> Subject:
    """Photos of a coloured square on white; they differ in size."""
    images, masks = [], []
    for index, colour in enumerate(colours):
        image = np.full((40 + index, 48, 3), 255, np.uint8)
        mask = np.zeros(image.shape[:2], np.float32)
        mask[10:30, 12:36] = 1
        image[mask > 0] = colour
        images.append(image)
        masks.append(mask)
    files = tuple(f"{index}.png" for index in range(len(colours)))
    return Subject(name, f"<{name}>", category, tuple(images), tuple(masks), files)


def video(*colours: tuple[int, int, int]) -> Video:
    return Video(np.stack([np.full((16, 24, 3), colour, np.uint8) for colour in colours]))


TOM, REX = subject("tom", "cat", RED, RED), subject("rex", "dog", BLUE)
TEXTS = {"a cat and a dog": (1.0, 0.0, 1.0), "a cat": (1.0, 0.0, 0.0), "grass": (0.0, 1.0, 0.0)}


@pytest.fixture
def colours() -> Encoders:
    return Encoders(ColourEncoder(TEXTS), ColourEncoder())


def both(text: str = "a <tom> cat and a <rex> dog") -> Prompt:
    return Prompt(text, WORDS)


def test_one_row_per_video_and_subject_with_known_scores(colours: Encoders) -> None:
    scores = evaluate([video(RED, BLUE)], [both()], [TOM, REX], colours, references="crop")
    tom, rex = scores.rows
    assert (tom.subject, rex.subject) == ("tom", "rex")
    assert tom.prompt == "a cat and a dog"
    assert tom.clip_t == pytest.approx(0.5**0.5)
    assert tom.clip_t_scaled == pytest.approx(2.5 * 0.5**0.5)
    assert tom.clip_i == tom.dino_i == pytest.approx(0.5)
    assert tom.t_cons == pytest.approx(0)
    assert tom.frame_change == pytest.approx(2 / 3)
    # Flat colours do not flow, and two frames have none between them.
    assert (tom.motion, tom.dynamic_degree, tom.freeze) == (0, 0, True)
    assert tom.motion_smoothness is None and tom.seams == 0
    assert tom.present is tom.headline is tom.seen_as is tom.blend is tom.copy is None


def test_only_the_subjects_a_prompt_mentions_are_scored(colours: Encoders) -> None:
    prompts = [both("a <tom>"), both("grass")]
    scores = evaluate([video(RED), video(GREEN)], prompts, [REX, TOM], colours)
    assert [(row.video, row.subject) for row in scores.rows] == [(0, "tom"), (1, "rex"), (1, "tom")]


def test_references_can_be_photos_crops_or_cutouts(colours: Encoders) -> None:
    alignment = {
        name: evaluate([video(RED)], [both("a <tom>")], [TOM], colours, references=name)
        for name in ("photo", "crop", "cutout")
    }
    scores = {name: result.rows[0].clip_i for name, result in alignment.items()}
    assert scores["crop"] == pytest.approx(1)
    assert scores["photo"] < scores["cutout"] < scores["crop"]
    assert alignment["cutout"].references == "cutout"


def test_summaries_are_means_over_videos_of_means_over_subjects(colours: Encoders) -> None:
    videos = [video(RED, RED), video(RED)]
    scores = evaluate(videos, [both(), both("a <tom> cat")], [TOM, REX], colours, references="crop")
    summary = scores.summary()
    # The first video has tom and no rex: 1 and 0; the second has tom alone: 1.
    assert summary["clip_i"] == summary["dino_i"] == pytest.approx((0.5 + 1) / 2)
    assert summary["clip_i_min"] == pytest.approx((0 + 1) / 2)
    assert summary["clip_t"] == pytest.approx((0.5**0.5 + 1) / 2)
    # The second has a single frame and no consistency.
    assert summary["t_cons"] == pytest.approx(1)
    assert scores.per_subject()["tom"] == {"clip_i": pytest.approx(1), "dino_i": pytest.approx(1)}
    assert scores.per_subject()["rex"]["clip_i"] == pytest.approx(0)


def test_the_dictionary_is_json_with_the_published_keys(colours: Encoders) -> None:
    scores = evaluate([video(RED)], [both("a <tom>")], [TOM], colours)
    written = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert {"clip_t", "clip_i", "dino_i", "t_cons", "rows", "per_subject"} <= set(written)
    assert written["t_cons"] is None
    assert written["rows"][0]["subject"] == "tom"
    assert written["encoders"] == {"clip": "ColourEncoder", "dino": "ColourEncoder"}


def test_neither_order_nor_company_nor_batch_size_changes_a_number(
    tiny_clip: Path, tiny_dino: Path
) -> None:
    rng = np.random.default_rng(0)
    videos = [Video(rng.integers(0, 256, (n, 40, 48, 3), dtype=np.uint8)) for n in (3, 5, 2)]
    prompts = [both(), both("a <tom> on the beach"), both("a <rex> on grass")]

    def scores(order: Sequence[int], batch_size: int) -> Scores:
        encoders = Encoders(
            ClipEncoder(tiny_clip, batch_size=batch_size),
            DinoEncoder(tiny_dino, batch_size=batch_size),
        )
        return evaluate(
            [videos[i] for i in order], [prompts[i] for i in order], [TOM, REX], encoders
        )

    expected = scores((0, 1, 2), 32)
    for order, batch_size in itertools.product([(0, 1, 2), (2, 0, 1)], (1, 2)):
        summary = scores(order, batch_size).summary()
        for key, value in expected.summary().items():
            assert summary[key] == pytest.approx(value, abs=1e-6)
    alone = scores((1,), 32).rows[0]
    company = next(row for row in expected.rows if row.video == 1)
    assert alone.clip_i == company.clip_i and alone.dino_i == company.dino_i


def test_neither_batches_nor_processes_change_a_row(tiny_clip: Path, tiny_dino: Path) -> None:
    """Every column, with a finder; and videos scored one by one, as several processes would."""
    rng = np.random.default_rng(1)
    videos = [Video(rng.integers(0, 256, (4, 40, 48, 3), dtype=np.uint8)) for _ in range(3)]
    prompts = [both(), both("a <rex> on grass"), both()]

    def rows(indices: Sequence[int], batch_size: int) -> list[dict[str, object]]:
        encoders = Encoders(
            ClipEncoder(tiny_clip, batch_size=batch_size),
            DinoEncoder(tiny_dino, batch_size=batch_size),
        )
        crops = Crops(HalvesFinder("cat", "dog"), [TOM, REX])
        chosen = [videos[i] for i in indices], [prompts[i] for i in indices]
        scores = evaluate(*chosen, [TOM, REX], encoders, segmenter=crops)
        return [{**asdict(row), "video": indices[row.video]} for row in scores.rows]

    expected = rows((0, 1, 2), 32)
    known = {name for row in expected for name, value in row.items() if value is not None}
    # With nobody else of their category in the gallery, this alone is unknown.
    assert {field.name for field in fields(Row)} - known == {"rank1_category"}
    for batch_size in (1, 3):
        for row, other in zip(rows((0, 1, 2), batch_size), expected, strict=True):
            for name, value in other.items():
                close = isinstance(value, float)
                assert row[name] == (pytest.approx(value, abs=1e-6) if close else value), name
    assert [row for index in (0, 1, 2) for row in rows((index,), 32)] == expected


def test_wrong_input_is_one_sentence(colours: Encoders) -> None:
    for call, message in [
        (([], [], [TOM]), "no video to evaluate"),
        (([video(RED)], [both()], []), "no subject to evaluate"),
        (([video(RED)], [], [TOM]), "1 videos cannot be scored against 0 prompts"),
        (([video(RED)], [both()], [TOM]), "mentions 'rex', but the subjects are tom"),
        (([video(RED)], [both("a <tim>")], [TOM]), "mentions '<tim>'"),
    ]:
        with pytest.raises(EvaluationError, match=message):
            evaluate(*call, colours)
