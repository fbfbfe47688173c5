"""CustomVideo: what trains, what it sees, where it looks, and its loss against the equations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from customvideo.attention.losses import attention_loss
from customvideo.attention.tape import Tape, watch
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.errors import AttentionError, ConfigError
from customvideo.methods.base import Batch, load_method
from customvideo.methods.customvideo import CustomVideo
from customvideo.subjects.groups import GroupPhoto
from customvideo.subjects.subject import Subject
from customvideo.training.batch import Batches, ScenePool, WordFinder, Workshop
from customvideo.training.prior import PriorPool
from tests.cast import CANVAS, make_cast, quick_method, short_run


@pytest.fixture(scope="module")
def backbone(tiny_zeroscope: Path) -> Backbone:
    return load_backbone(tiny_zeroscope, device="cpu")


@pytest.fixture(scope="module")
def cast() -> list[Subject]:
    return make_cast()


@pytest.fixture(scope="module")
def batch(backbone: Backbone, cast: list[Subject]) -> Any:
    """Two scenes and two prior rows, with an untrained adapter attached meanwhile."""
    method = quick_method(prior_weight=1.0)
    plan = method.prior(backbone, cast)
    assert plan is not None
    prior = PriorPool(plan, {name: torch.randn(1, 4, 1, 8, 12) for name in ("cat", "dog")}, {})
    adapter = method.trainable(backbone, cast)
    with adapter.attach(backbone):
        pool = ScenePool(Workshop(backbone, method, cast, CANVAS, seed=0), 2)
        batches = Batches(pool, WordFinder(backbone, adapter), prior, short_run())
        yield batches.passes(1, 0)[0].batch


def losses(method: CustomVideo, backbone: Backbone, batch: Batch) -> dict[str, torch.Tensor]:
    with watch(backbone.denoiser, method.watches(backbone, 1, *CANVAS), batch.words) as tape:
        return method.losses(backbone, batch, tape)


def errors(backbone: Backbone, batch: Batch) -> torch.Tensor:
    """|| e - e_theta(z_t, t, text) ||^2 at every latent position (row, height, width)."""
    with torch.no_grad():
        noisy = backbone.noise.mix(batch.latents, batch.noise, batch.times)
        predicted = backbone.predict(noisy, batch.times, backbone.encode_prompt(batch.texts))
    return (predicted - batch.noise).square().mean(dim=(1, 2))


def test_words_keys_and_values_train_and_nothing_else(
    backbone: Backbone, cast: list[Subject]
) -> None:
    adapter = quick_method(vectors=2).trainable(backbone, cast)
    sites = backbone.sites(1, *CANVAS)
    paths = {path for site in sites for path in (site.key, site.value)}
    assert set(adapter.deltas) == paths
    assert all(".attn2.to_" in path and "temp" not in path for path in paths)
    assert [word.tokens for word in adapter.words] == [("<tom>", "<tom>_1"), ("<rex>", "<rex>_1")]
    assert adapter.header.method == "customvideo"
    assert adapter.header.settings["vectors"] == 2
    full = sum(delta.merged().numel() for delta in adapter.deltas.values())
    assert sum(p.numel() for p in adapter.parameters()) == full + adapter.tokens.value.numel()
    low = quick_method(rank=2).trainable(backbone, cast)
    assert sum(p.numel() for p in low.parameters()) < full


def test_each_step_of_the_ladder_adds_to_the_one_before(
    backbone: Backbone, cast: list[Subject]
) -> None:
    steps = {
        step: quick_method(train=step, rank=2, self_rank=3, bos_rule=True).trainable(backbone, cast)
        for step in ("words", "kv", "kvqo", "kvqo+self")
    }
    groups = [set(), *(set(backbone.layers(group)) for group in ("text_kv", "text_qo", "self"))]
    wanted: set[str] = set()
    for adapter, group in zip(steps.values(), groups, strict=True):
        assert group.isdisjoint(wanted)
        wanted |= group
        assert set(adapter.deltas) == wanted
    assert steps["kv"].header.settings["train"] == "kv"
    ranks = {path: delta.down.shape[0] for path, delta in steps["kvqo+self"].deltas.items()}
    assert {ranks[path] for path in groups[2]} == {2}
    assert {ranks[path] for path in groups[3]} == {3}
    held = {path for path, delta in steps["kvqo+self"].deltas.items() if delta.holds_first}
    assert held == groups[1]
    usual = quick_method().trainable(backbone, cast)
    assert not any(delta.holds_first for delta in usual.deltas.values())


@pytest.mark.parametrize("style", ["paste", "panel", "mixed"])
def test_a_scene_shows_and_names_every_subject(cast: list[Subject], style: str) -> None:
    method = quick_method(compose=style)
    (example,) = method.scenes(cast, np.random.default_rng(3), CANVAS)
    assert example.frames.shape == (1, *CANVAS, 3)
    assert example.frames.dtype == np.uint8
    assert example.masks.shape == (2, *CANVAS)
    assert (example.masks.sum(axis=(1, 2)) > 20).all()
    assert {word.name for word in example.prompt.mentioned} == {"tom", "rex"}
    assert [word.name for word in example.prompt.words] == ["tom", "rex"]
    (again,) = method.scenes(cast, np.random.default_rng(3), CANVAS)
    assert np.array_equal(example.frames, again.frames)
    assert example.prompt == again.prompt


@pytest.mark.parametrize("style", ["separate", "scaled"])
def test_without_composition_a_scene_shows_and_names_one(cast: list[Subject], style: str) -> None:
    rng, seen = np.random.default_rng(0), set()
    for _ in range(12):
        (example,) = quick_method(compose=style, vectors=2).scenes(cast, rng, CANVAS)
        (word,) = example.prompt.mentioned
        assert example.masks.any(axis=(1, 2)).tolist() == [word.name == "tom", word.name == "rex"]
        assert example.prompt.words[0].vectors == 2
        assert ("valid" in example.extra) == (style == "scaled")
        seen.add(word.name)
    assert seen == {"tom", "rex"}


def test_some_scenes_can_show_one_alone(cast: list[Subject]) -> None:
    method, rng = quick_method(alone=0.25, prompts=("see {subjects}",)), np.random.default_rng(0)
    scenes = [method.scenes(cast, rng, CANVAS)[0] for _ in range(200)]
    named = [len(scene.prompt.mentioned) for scene in scenes]
    assert 30 <= named.count(1) <= 70 and named.count(2) == 200 - named.count(1)
    for scene, names in zip(scenes, named, strict=True):
        assert scene.masks.any(axis=(1, 2)).sum() == names
        assert scene.prompt.text.startswith("see a <")


@pytest.mark.parametrize("prompts", [(), ("a cat",), ("{subjects} {place}",)])
def test_prompts_that_name_no_subject_are_refused(prompts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="prompts"):
        load_method("customvideo", {"prompts": prompts})


def test_neither_order_nor_side_is_tied_to_a_subject(cast: list[Subject]) -> None:
    method = quick_method(compose="panel")
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(30):
        (example,) = method.scenes(cast, rng, CANVAS)
        columns = [np.nonzero(mask.sum(axis=0))[0].mean() for mask in example.masks]
        first = example.prompt.mentioned[0].name
        seen.add((first, bool(columns[0] < columns[1])))
    assert len(seen) == 4


def test_intermediate_sites_are_watched(backbone: Backbone) -> None:
    sites = quick_method().watches(backbone, 1, *CANVAS)
    assert {site.grid for site in sites} == {(1, 8, 12)}
    assert len(sites) == 5
    coarse = quick_method(level_low=20, level_high=30).watches(backbone, 1, *CANVAS)
    assert {site.grid for site in coarse} == {(1, 4, 6)}
    assert quick_method(attention_weight=0.0).watches(backbone, 1, *CANVAS) == []


def test_one_level_can_be_watched_alone(backbone: Backbone) -> None:
    every = {site.cells for site in backbone.sites(1, *CANVAS)}
    for number, cells in enumerate(sorted(every, reverse=True), start=1):
        sites = quick_method(level=number).watches(backbone, 1, *CANVAS)
        assert {site.cells for site in sites} == {cells}
    with pytest.raises(AttentionError, match="no attention level 9"):
        quick_method(level=9).watches(backbone, 1, *CANVAS)


def test_a_phrase_is_its_word_and_its_category(batch: Any) -> None:
    word, phrase = (quick_method(reads=reads).columns(batch) for reads in ("word", "phrase"))
    assert torch.equal(word, batch.words)
    named = batch.present
    assert torch.allclose(phrase.sum(-1)[named], torch.ones(int(named.sum())))
    assert not phrase[~named].any()
    for row, own in zip(phrase[named], word[named], strict=True):
        (at,) = own.nonzero().flatten().tolist()
        assert row.nonzero().flatten().tolist() == [at, at + 1]
        assert row[at] == row[at + 1] == 0.5


@pytest.mark.parametrize("style", ["paste", "panel", "separate", "scaled"])
def test_boxes_can_stand_for_masks(cast: list[Subject], style: str) -> None:
    outlines, boxes = (
        quick_method(compose=style, mask_shape=shape).scenes(
            cast, np.random.default_rng(3), CANVAS
        )[0]
        for shape in ("outline", "box")
    )
    # The picture and what is asked of it are the same; only the losses see another shape.
    assert np.array_equal(outlines.frames, boxes.frames) and outlines.prompt == boxes.prompt
    for mask, box in zip(outlines.masks, boxes.masks, strict=True):
        assert set(np.unique(box)) <= {0.0, 1.0}
        assert np.all(box[mask >= 0.5] == 1)
        for axis in (0, 1):
            inside, covered = (np.flatnonzero(one.any(axis=axis)) for one in (mask >= 0.5, box))
            full = range(inside[0], inside[-1] + 1) if len(inside) else []
            assert covered.tolist() == list(full)


def test_the_prior_plan_follows_the_settings(backbone: Backbone, cast: list[Subject]) -> None:
    assert quick_method().prior(backbone, cast) is None
    method = quick_method(prior_weight=1.0, prior_samples=7, prior_clips_every=5)
    plan = method.prior(backbone, [*cast, cast[0]])
    assert plan is not None
    assert plan.categories == ("cat", "dog")
    assert (plan.samples, plan.clips_every, plan.clip_frames) == (7, 5, backbone.frames)


def test_the_losses_are_the_equations(backbone: Backbone, batch: Batch) -> None:
    method = quick_method(prior_weight=0.5, attention_weight=0.3, nu=0.1)
    found = losses(method, backbone, batch)
    error = errors(backbone, batch).mean(dim=(1, 2))
    assert found["reconstruction"].item() == pytest.approx(error[:2].mean().item(), rel=1e-5)
    assert found["prior"].item() == pytest.approx(0.5 * error[2:].mean().item(), rel=1e-5)
    sites = method.watches(backbone, 1, *CANVAS)
    with torch.no_grad(), watch(backbone.denoiser, sites, batch.words) as tape:
        errors(backbone, batch)
        wanted = attention_loss(tape.maps(), batch.masks, batch.present, nu=0.1)
    assert found["attention"].item() == pytest.approx(0.3 * wanted.item(), rel=1e-5)
    assert all(term.requires_grad and term.ndim == 0 for term in found.values())


def test_errors_inside_the_masks_can_count_more(backbone: Backbone, batch: Batch) -> None:
    method = quick_method(masked_weight=3.0)
    error, inside = errors(backbone, batch)[:2], batch.masks[:2].amax(dim=1)
    weights = 1 + 2 * inside
    wanted = ((error * weights).sum(dim=(1, 2)) / weights.sum(dim=(1, 2))).mean()
    found = losses(method, backbone, batch)["reconstruction"]
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_the_score_looks_inside_the_masks_only(backbone: Backbone, batch: Batch) -> None:
    rows = {name: getattr(batch, name)[:2] for name in ("latents", "noise", "times", "texts")}
    more = {name: getattr(batch, name)[:2] for name in ("words", "masks", "present", "prior")}
    scenes = replace(batch, **rows, **more)
    error, inside = errors(backbone, scenes), scenes.masks.amax(dim=1)
    wanted = ((error * inside).sum(dim=(1, 2)) / inside.sum(dim=(1, 2))).mean()
    with torch.no_grad():
        score = quick_method().score(backbone, scenes, None)
    assert score.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_prior_rows_take_no_other_loss(backbone: Backbone, batch: Batch) -> None:
    changed = replace(batch, masks=batch.masks.clone())
    changed.masks[2:] = 1
    method = quick_method(prior_weight=1.0)
    one, other = losses(method, backbone, batch), losses(method, backbone, changed)
    assert {name: term.item() for name, term in one.items()} == {
        name: term.item() for name, term in other.items()
    }


def test_a_map_without_gradient_is_refused_in_training(backbone: Backbone, batch: Batch) -> None:
    class Cut(Tape):
        def maps(self, *, require_grad: bool = False) -> dict[str, torch.Tensor]:
            asked.append(require_grad)
            return super().maps(require_grad=require_grad)

    asked: list[bool] = []
    method = quick_method()
    sites = method.watches(backbone, 1, *CANVAS)
    with watch(backbone.denoiser, sites, batch.words) as tape:
        with torch.no_grad():
            errors(backbone, batch)
            tape.maps()
        with pytest.raises(AttentionError, match="carries no gradient"):
            method.losses(backbone, batch, tape)


@pytest.mark.parametrize("mode", ["run", "skip", "repeat"])
def test_single_frames_pass_as_asked_and_the_backbone_is_restored(
    backbone: Backbone, batch: Batch, mode: str
) -> None:
    backbone.frames, before = 2, backbone.frames
    try:
        method = quick_method(single_frame=mode, prior_weight=1.0)
        found = losses(method, backbone, batch)
        sites = method.watches(backbone, 1, *CANVAS)
    finally:
        backbone.frames = before
    assert all(term.isfinite() for term in found.values())
    assert {site.grid[0] for site in sites} == {2 if mode == "repeat" else 1}
    assert backbone.single_frame == "run"  # type: ignore[attr-defined]


def test_a_backbone_without_single_frame_modes_says_so(batch: Batch) -> None:
    class Plain:
        name = "plain"

    with pytest.raises(ConfigError, match="'plain' knows no single_frame 'skip'"):
        quick_method(single_frame="skip").watches(Plain(), 1, *CANVAS)  # type: ignore[arg-type]


def test_captions_are_the_prompts_of_panels_and_not_of_cut_outs() -> None:
    tom, rex = make_cast()
    tom = replace(tom, captions=("a <tom> cat on a sofa", "a <tom> cat on a sofa"))
    for style, told in (("panel", True), ("paste", False)):
        method = quick_method(compose=style)
        (example,) = method.scenes([tom, rex], np.random.default_rng(0), CANVAS)
        assert ("on a sofa" in example.prompt.text) == told
        assert {word.name for word in example.prompt.mentioned} == {"tom", "rex"}
    method = quick_method(alone=1.0, compose="panel")
    texts = {
        method.scenes([tom, rex], np.random.default_rng(seed), CANVAS)[0].prompt.text
        for seed in range(8)
    }
    assert "a <tom> cat on a sofa" in texts and len(texts) > 1


def test_without_captions_and_groups_nothing_changes() -> None:
    cast = make_cast()
    named = [replace(one, captions=("",) * len(one.images)) for one in cast]
    for style in ("panel", "paste"):
        method = quick_method(compose=style)
        (plain,) = method.scenes(cast, np.random.default_rng(3), CANVAS)
        (empty,) = method.scenes(named, np.random.default_rng(3), CANVAS)
        np.testing.assert_array_equal(plain.frames, empty.frames)
        assert plain.prompt == empty.prompt


@pytest.mark.parametrize("caption", ["", "a <rex> dog chases a <tom> cat"])
def test_group_photos_are_shown_as_they_are(caption: str) -> None:
    image = np.hstack([np.full((48, 48, 3), 200, np.uint8), np.full((48, 48, 3), 20, np.uint8)])
    left = np.zeros((48, 96), np.float32)
    left[8:40, 4:44] = 1
    photo = GroupPhoto("01.jpg", image, {"tom": left, "rex": left[:, ::-1]}, caption)
    cast = [replace(one, together=(photo,)) for one in make_cast()]
    method = quick_method(group_share=1.0)
    (example,) = method.scenes(cast, np.random.default_rng(0), CANVAS)
    assert set(np.unique(example.frames)) <= set(range(20, 201))
    assert (example.masks.max(axis=(1, 2)) > 0.99).all()
    assert {word.name for word in example.prompt.mentioned} == {"tom", "rex"}
    assert example.prompt.text == caption or not caption
    never = quick_method(group_share=0.0)
    (composed,) = never.scenes(cast, np.random.default_rng(0), CANVAS)
    assert not np.array_equal(composed.frames, example.frames)
