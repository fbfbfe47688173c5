"""The renderer: exact where it can be checked by hand, large, deterministic, patterned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from customvideo.toybox import quadrics as qd
from customvideo.toybox import world as tw
from customvideo.toybox.motion import FOCAL, Scene, stage
from customvideo.toybox.render import Clip, render


def _world(seed: int = 0, **given: object) -> tw.World:
    return tw.sample_world(np.random.default_rng(seed), **given)  # type: ignore[arg-type]


def _toy(category: str, **changes: object) -> tw.Individual:
    toy = tw.sample_individual(np.random.default_rng(4), category)
    return tw.Individual(**{**vars(toy), **changes})  # type: ignore[arg-type]


def _clip(world: tw.World, frames: int = 2) -> Clip:
    return render(world, frames=frames, height=32, width=48)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return stage(_world(2, count=2, action="run"), 2, 1.5)


def test_a_clip_has_the_promised_shapes() -> None:
    clip = render(_world(1, count=3))
    assert clip.frames.shape == (8, 64, 96, 3)
    assert clip.frames.dtype == torch.uint8
    assert clip.masks.shape == (8, 3, 64, 96)
    assert clip.masks.dtype == torch.bool
    assert clip.fps == 8


def test_masks_are_disjoint_and_nobody_is_missing() -> None:
    clip = _clip(_world(5, count=4))
    assert int(clip.masks.sum(dim=1).max()) == 1
    assert bool(clip.masks.flatten(2).any(dim=-1).all())


def test_the_same_world_renders_the_same_bits() -> None:
    one, two = (_clip(_world(6, count=2)) for _ in range(2))
    assert torch.equal(one.frames, two.frames)
    assert torch.equal(one.masks, two.masks)


def test_subjects_are_large() -> None:
    lone, pair = [], []
    for seed in range(10):
        lone.append(_clip(_world(seed, count=1)).masks.float().mean().item())
        pair.append(_clip(_world(seed, count=2)).masks.float().mean().item())
    assert np.mean(lone) >= 0.15
    assert np.mean(pair) >= 0.08


def test_nobody_leaves_the_picture() -> None:
    for seed in range(40):
        scene = stage(_world(seed), 8, 1.5)
        for subject in scene.subjects:
            at = _project(scene, subject.centre)
            assert np.abs(at[..., 0]).max() < 1.5
            assert np.abs(at[..., 1]).max() < 1.0


def _project(scene: Scene, points: np.ndarray) -> np.ndarray:
    """Picture positions of points (frame, point, 3) in half-heights: (frame, point, 2)."""
    away = points - scene.camera.origin[:, None]
    seen = away @ np.swapaxes(scene.camera.axes, 1, 2)
    return seen[..., :2] / seen[..., 2:] * FOCAL


@pytest.mark.parametrize("action", tw.ACTIONS)
def test_every_action_moves(action: str) -> None:
    clip = _clip(_world(7, count=1, action=action), 8)
    change = (clip.frames[1:].float() - clip.frames[:-1].float()).abs()
    assert change.mean().item() > 1.0
    moved = (clip.masks[0] ^ clip.masks[4]).float().mean()
    assert moved.item() > 0.005


def test_no_two_places_look_alike() -> None:
    toy = _toy("cat")
    views = [_clip(_world(3, individuals=[toy], place=place), 1) for place in tw.PLACES]
    away = ~torch.stack([view.masks[0, 0] for view in views]).any(dim=0)
    pixels = torch.stack([view.frames[0][away].float() for view in views])
    distance = (pixels[:, None] - pixels[None]).abs().mean(dim=(2, 3))
    others = distance[~torch.eye(len(views), dtype=torch.bool)]
    assert others.min().item() > 12


@pytest.mark.parametrize("pattern", ["stripes", "spots", "patches"])
def test_a_pattern_shows_its_colour_on_the_body(pattern: str) -> None:
    given = {"main": "white", "colours": ("white",) * 4, "accessory": "none"}
    plain = _toy("pig", pattern="plain", pattern_colour="red", **given)
    marked = _toy("pig", pattern=pattern, pattern_colour="red", **given)
    clips = [_clip(_world(3, individuals=[toy], place="snow"), 1) for toy in (plain, marked)]
    reds = []
    for clip in clips:
        inside = clip.frames[0][clip.masks[0, 0]].float()
        reds.append((inside[:, 0] > inside[:, 1] + 60).float().mean().item())
    assert reds[0] < 0.02
    assert 0.04 < reds[1] < 0.8


def test_a_pattern_is_fixed_to_the_body() -> None:
    toy = _toy("car", pattern="spots")
    scene = stage(_world(3, individuals=[toy], action="walk"), 3, 1.5)
    subject = scene.subjects[0]
    back = np.swapaxes(subject.joint_rotation, -1, -2)
    rest = (back @ (subject.centre - subject.joint_shift)[..., None])[..., 0]
    at = subject.body.scale * np.array([part.at for part in subject.body.parts])
    np.testing.assert_allclose(rest, np.broadcast_to(at, rest.shape), atol=1e-9)


def test_a_toy_casts_a_shadow_on_the_ground() -> None:
    clip = render(_world(3, individuals=[_toy("bear")], place="snow"), frames=1)
    ground = clip.frames[0][~clip.masks[0, 0]].float().mean(dim=-1)
    assert (ground < 0.75 * ground.median()).float().mean().item() > 0.02


def test_everyone_touches_the_ground(scene: Scene) -> None:
    walk = stage(_world(2, count=2, action="walk"), 4, 1.5)
    for subject in walk.subjects:
        low = (subject.centre[..., 2] - subject.reach(np.array([0.0, 0.0, 1.0]))).min(axis=1)
        assert (low > -1e-9).all()
        assert low.min() < 0.12


def test_primary_rays_agree_with_the_quadratic_formula(scene: Scene) -> None:
    """1/d from the two matrix products equals the root computed ray by ray in float64."""
    light = np.array([0.3, -0.5, 0.8]) / np.linalg.norm([0.3, -0.5, 0.8])
    quadrics = qd.prepare(scene, light, torch.device("cpu"))
    rng = np.random.default_rng(0)
    centres = _project(scene, scene.subjects[0].centre)[0] / FOCAL
    spread = rng.uniform(centres.min(axis=0) - 0.1, centres.max(axis=0) + 0.1, (300, 2))
    rays = np.concatenate([spread, np.ones((300, 1))], axis=1)
    near = torch.from_numpy(rays.T.astype(np.float32))
    inverse, part = qd.nearest(near, qd.monomials(near), quadrics, 0, quadrics.parts[0])
    expected, number = _by_formula(scene, rays)
    np.testing.assert_allclose(inverse.numpy(), expected, atol=2e-4)
    hit = expected > 0
    assert 50 < hit.sum() < 300
    assert (part.numpy()[hit] == number[hit]).mean() > 0.97


def _by_formula(scene: Scene, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    subject, camera = scene.subjects[0], scene.camera
    best, number = np.zeros(len(rays)), np.zeros(len(rays), int)
    for index, radii in enumerate(subject.radii):
        back = (subject.rotation[0, index] / radii).T
        origin = back @ (camera.origin[0] - subject.centre[0, index])
        towards = rays @ camera.axes[0] @ back.T
        a, b = (towards**2).sum(1), towards @ origin
        root = b**2 - a * (origin @ origin - 1)
        distance = (-b - np.sqrt(np.maximum(root, 0))) / a
        inverse = np.where(root > 0, 1 / distance, 0.0)
        number = np.where(inverse > best, index, number)
        best = np.maximum(best, inverse)
    return best, number


def test_shade_is_full_under_a_toy_and_none_far_away(scene: Scene) -> None:
    light = np.array([0.0, 0.0, 1.0])
    quadrics = qd.prepare(scene, light, torch.device("cpu"))
    below = scene.subjects[0].centre[0].mean(axis=0) * np.array([1.0, 1.0, 0.0])
    points = torch.from_numpy(np.stack([below, below + 50.0]).T.astype(np.float32))
    points[2] = 0
    shade = qd.shade(points, quadrics, 0)
    assert shade[0].item() == pytest.approx(1.0)
    assert shade[1].item() == 0.0


def test_supersampling_only_smooths() -> None:
    world = _world(8, count=1)
    plain = render(world, frames=1, height=32, width=48, supersample=1)
    smooth = render(world, frames=1, height=32, width=48, supersample=3)
    agree = (plain.masks == smooth.masks).float().mean().item()
    assert agree > 0.97
