"""Batches: every draw a function of (seed, step, row), and prior rows that take no other loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import Backbone
from customvideo.errors import ConfigError, PromptError
from customvideo.methods.base import Example, PriorPlan
from customvideo.methods.customvideo import CustomVideo
from customvideo.subjects.prompt import LearnedWord, Prompt
from customvideo.subjects.scene import compose
from customvideo.subjects.subject import Subject
from customvideo.training.batch import Batch, Batches, Pass, ScenePool, WordFinder, Workshop
from customvideo.training.prior import PriorPool
from tests.cast import CANVAS, make_subject, quick_method, short_run

FIELDS = ("latents", "noise", "times", "words", "masks", "present", "prior")


@pytest.fixture(scope="module")
def method() -> CustomVideo:
    return quick_method()


@pytest.fixture(scope="module")
def adapter(backbone: Backbone, cast: list[Subject], method: CustomVideo) -> Any:
    adapter = method.trainable(backbone, cast)
    with adapter.attach(backbone):
        yield adapter


@pytest.fixture(scope="module")
def workshop(backbone: Backbone, cast: list[Subject], method: CustomVideo) -> Workshop:
    return Workshop(backbone, method, cast, CANVAS, seed=0)


def make(
    workshop: Workshop, adapter: Adapter, prior: PriorPool | None = None, **changes: Any
) -> Batches:
    config = short_run(**changes)
    pool = ScenePool(workshop, config.pool)
    return Batches(pool, WordFinder(workshop.backbone, adapter), prior, config)


def make_prior(clips_every: int = 0, height: int = 8, frames: int = 3) -> PriorPool:
    plan = PriorPlan(("cat", "dog"), rows=2, clips_every=clips_every)
    pictures = {name: torch.randn(3, 4, 1, height, 12) for name in plan.categories}
    clips = {name: torch.randn(2, 4, frames, 8, 12) for name in plan.categories}
    return PriorPool(plan, pictures, clips if clips_every else {})


def same(one: Batch, other: Batch) -> bool:
    equal = all(torch.equal(getattr(one, name), getattr(other, name)) for name in FIELDS)
    return equal and one.texts == other.texts


def test_a_batch_has_its_axes(workshop: Workshop, adapter: Adapter) -> None:
    (only,) = make(workshop, adapter).passes(1, 0)
    batch = only.batch
    assert only.share == 1
    assert len(batch) == 2
    assert batch.latents.shape == batch.noise.shape == (2, 4, 1, 8, 12)
    assert batch.masks.shape == (2, 2, 8, 12)
    assert batch.times.dtype == torch.int64
    assert batch.times.shape == (2,)
    assert batch.present.all()
    assert not batch.prior.any()
    assert batch.words.shape[:2] == (2, 2)
    assert torch.allclose(batch.words.sum(dim=-1), torch.ones(2, 2))
    assert all("<tom> cat" in text and "<rex> dog" in text for text in batch.texts)


@pytest.mark.parametrize("pool", [0, 4])
def test_a_draw_depends_on_seed_step_and_row_alone(
    workshop: Workshop, adapter: Adapter, pool: int
) -> None:
    batches = make(workshop, adapter, pool=pool)
    first = batches.passes(5, 0)[0].batch
    batches.passes(6, 0)
    assert same(first, make(workshop, adapter, pool=pool).passes(5, 0)[0].batch)
    assert not torch.equal(first.noise, batches.passes(6, 0)[0].batch.noise)
    assert not torch.equal(first.noise[0], first.noise[1])
    other = make(workshop, adapter, pool=pool, seed=1).passes(5, 0)[0].batch
    assert not torch.equal(first.noise, other.noise)


def test_accumulated_rows_are_the_rows_of_one_batch(workshop: Workshop, adapter: Adapter) -> None:
    prior = make_prior()
    whole = make(workshop, adapter, prior, batch_size=4).passes(3, 0)[0].batch
    parts = make(workshop, adapter, prior, batch_size=1, accumulation=4)
    for micro in range(4):
        (part,) = parts.passes(3, micro)
        assert part.share == 0.25
        assert torch.equal(part.batch.noise[0], whole.noise[micro])
        assert part.batch.texts[0] == whole.texts[micro]
    assert parts.passes(3, 1)[0].batch.texts[1] in ("a cat", "a dog")


def test_a_pool_is_used_again_and_no_pool_never(workshop: Workshop, adapter: Adapter) -> None:
    def distinct(pool: int) -> int:
        batches = make(workshop, adapter, pool=pool)
        latents = [batches.passes(step, 0)[0].batch.latents for step in range(1, 6)]
        return len(torch.unique(torch.cat(latents), dim=0))

    assert distinct(2) == 2
    assert distinct(0) == 10


def test_prior_pictures_of_the_same_size_join(workshop: Workshop, adapter: Adapter) -> None:
    (only,) = make(workshop, adapter, make_prior()).passes(1, 0)
    batch = only.batch
    assert batch.prior.tolist() == [False, False, True, True]
    assert set(batch.texts[2:]) <= {"a cat", "a dog"}
    assert not batch.present[2:].any()
    assert not batch.masks[2:].any()
    assert not batch.words[2:].any()


def test_prior_pictures_of_another_size_get_their_own_pass(
    workshop: Workshop, adapter: Adapter
) -> None:
    passes = make(workshop, adapter, make_prior(height=16), accumulation=2).passes(1, 1)
    assert [one.batch.prior.tolist() for one in passes] == [[False, False], [True, True]]
    assert [one.share for one in passes] == [0.5, 0.5]


def test_a_prior_clip_comes_every_few_steps(workshop: Workshop, adapter: Adapter) -> None:
    def clips(step: int, micro: int = 0) -> list[Pass]:
        passes = batches.passes(step, micro)
        return [one for one in passes if one.batch.latents.shape[2] == 3]

    batches = make(workshop, adapter, make_prior(clips_every=3), accumulation=2)
    assert [len(clips(step)) for step in (1, 2, 3, 4, 5, 6)] == [0, 0, 1, 0, 0, 1]
    assert not clips(3, micro=1)
    (clip,) = clips(3)
    assert clip.share == 1
    assert clip.batch.prior.tolist() == [True]
    assert clip.batch.masks.shape == (1, 2, 8, 12)


def test_held_out_scenes_are_none_of_the_pool_and_cover_the_times(
    workshop: Workshop, adapter: Adapter
) -> None:
    batches = make(workshop, adapter, held_out=4)
    (part,), (again,) = batches.held_out(), make(workshop, adapter, held_out=4).held_out()
    batch = part.batch
    assert part.share == 1 and same(batch, again.batch)
    assert batch.times.tolist() == [125, 375, 625, 875]
    pool = torch.stack([scene.latents for scene in ScenePool(workshop, 4).scenes])
    assert not any(torch.equal(one, other) for one in batch.latents for other in pool)


def test_masks_keep_their_area(
    workshop: Workshop, method: CustomVideo, cast: list[Subject]
) -> None:
    (example,) = method.scenes(cast, np.random.default_rng(0), CANVAS)
    (scene,) = workshop.encode([example])
    areas = torch.from_numpy(example.masks).mean(dim=(1, 2))
    assert torch.allclose(scene.masks.mean(dim=(1, 2)), areas, atol=1e-5)
    assert scene.latents.dtype == torch.float32


def test_a_prompt_too_long_for_the_text_encoder_is_refused(backbone: Backbone) -> None:
    method = quick_method(vectors=8)
    cast = [make_subject(name, "cat", 1) for name in ("ann", "bob", "cid")]
    adapter = method.trainable(backbone, cast)
    workshop = Workshop(backbone, method, cast, CANVAS, seed=0)
    with (
        adapter.attach(backbone),
        pytest.raises(PromptError, match=r"too long .* fewer subjects or fewer vectors"),
    ):
        make(workshop, adapter, batch_size=1).passes(1, 0)


def test_moving_keeps_everything(workshop: Workshop, adapter: Adapter) -> None:
    batch = make(workshop, adapter).passes(1, 0)[0].batch
    assert same(batch, batch.to("cpu"))
    assert batch.to("meta").latents.is_meta


def test_the_canvas_is_the_batch_size(workshop: Workshop, tmp_path: Path) -> None:
    assert workshop.frames == 1
    assert ScenePool(workshop, 2).mean_masks.shape == (2, 8, 12)
    assert ScenePool(workshop, 0).mean_masks.shape == (2, 8, 12)


class Separate(CustomVideo):
    """One subject an image, each once a draw, and a picture that says where it is valid."""

    def scenes(self, subjects: Any, rng: np.random.Generator, canvas: tuple[int, int]) -> Any:
        words = tuple(LearnedWord(one.name, one.category) for one in subjects)
        drawn = []
        for index, (subject, word) in enumerate(zip(subjects, words, strict=True)):
            scene = compose([subject], rng, canvas)
            masks = np.zeros((len(subjects), *canvas), np.float32)
            masks[index] = scene.masks[0]
            prompt = Prompt(f"a photo of a {word.word} {word.category}", words)
            extra = {"valid": np.full((2, 3), index + 1, np.float32)}
            drawn.append(Example(scene.image[None], masks, prompt, extra))
        return drawn


def test_one_subject_an_image(backbone: Backbone, cast: list[Subject], adapter: Adapter) -> None:
    method = Separate(quick_method().config)
    workshop = Workshop(backbone, method, cast, CANVAS, seed=0)
    pool = ScenePool(workshop, 6)
    assert [scene.present.tolist() for scene in pool.scenes] == [[True, False], [False, True]] * 3
    # Means over the scenes that show it, or two subjects would look half as large as one.
    assert torch.allclose(
        pool.mean_masks[0], torch.stack([s.masks[0] for s in pool.scenes[::2]]).mean(dim=0)
    )
    together = Batches(pool, WordFinder(backbone, adapter), make_prior(), short_run(batch_size=8))
    (only,) = together.passes(1, 0)
    batch = only.batch
    assert set(batch.present[:8].sum(dim=1).tolist()) == {1}
    assert batch.present[:8].any(dim=0).all()
    assert torch.equal(batch.words.sum(dim=-1) > 0.99, batch.present)
    assert torch.equal(batch.masks.sum(dim=(2, 3)) > 0, batch.present)


def test_extras_travel_with_their_rows(
    backbone: Backbone, cast: list[Subject], adapter: Adapter
) -> None:
    workshop = Workshop(backbone, Separate(quick_method().config), cast, CANVAS, seed=0)
    make_batches = lambda prior: Batches(  # noqa: E731
        ScenePool(workshop, 4), WordFinder(backbone, adapter), prior, short_run(batch_size=4)
    )
    (only,) = make_batches(make_prior()).passes(1, 0)
    valid = only.batch.extra["valid"]
    assert valid.shape == (6, 2, 3) and valid.dtype == torch.float32
    wanted = torch.where(only.batch.present[:4, 0], 1.0, 2.0)
    assert torch.equal(valid[:4], wanted[:, None, None].expand(4, 2, 3))
    assert not valid[4:].any()
    assert only.batch.to("meta").extra["valid"].is_meta
    scenes, prior = make_batches(make_prior(height=16)).passes(1, 0)
    assert set(scenes.batch.extra) == {"valid"} and prior.batch.extra == {}


@pytest.mark.parametrize("seed", range(6))
def test_a_small_pool_still_shows_everybody(
    backbone: Backbone, cast: list[Subject], seed: int
) -> None:
    """Of two scenes with one subject each, both may show the same one, in half of all runs."""
    method = quick_method(compose="separate")
    workshop = Workshop(backbone, method, cast, CANVAS, seed=seed)
    drawn, kept = workshop.make_many(0, 2), ScenePool(workshop, 2)
    assert torch.stack([scene.present for scene in kept.scenes]).any(dim=0).all()
    assert (kept.mean_masks.sum(dim=(1, 2)) > 0).all()
    if torch.stack([scene.present for scene in drawn]).any(dim=0).all():
        # Where chance did it, nothing is changed.
        pairs = zip(drawn, kept.scenes, strict=True)
        assert all(torch.equal(one.latents, other.latents) for one, other in pairs)
    assert (ScenePool(workshop, 0).mean_masks.sum(dim=(1, 2)) > 0).all()


def test_a_pool_that_cannot_show_everybody_is_refused(
    backbone: Backbone, cast: list[Subject]
) -> None:
    workshop = Workshop(backbone, quick_method(compose="separate"), cast, CANVAS, seed=0)
    with pytest.raises(ConfigError, match=r"1 scenes do not show each of the 2 subjects; set pool"):
        ScenePool(workshop, 1)
