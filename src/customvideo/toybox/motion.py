"""Where every ellipsoid of a world is in every frame, and where the camera stands to see them.

Kinematics and framing in float64 numpy; no light and no pixels here (`render`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from customvideo.toybox.bodies import Array, Body, build_body, euler
from customvideo.toybox.world import VEHICLES, World

_SPEED = {"walk": 0.6, "run": 1.0, "roll": 0.8}
_TRACKING = 0.9
_GAP = 0.1  # between two subjects, in body units
_OVERLAP = -0.28  # of three or four, who stand in two rows
_ROWS = 0.65
FOCAL = 3.0  # picture half-heights: a vertical field of view of 37 degrees


@dataclass(frozen=True)
class Posed:
    """One subject in all frames.

    rotation (frame, part, 3, 3) and centre (frame, part, 3) map a part's own axes to the world;
    joint_rotation (frame, part, 3, 3) and joint_shift (frame, part, 3) map the rest pose to the
    world, so that patterns stay fixed to the body.
    """

    body: Body
    radii: Array
    rotation: Array
    centre: Array
    joint_rotation: Array
    joint_shift: Array

    def moved(self, offset: Array) -> Posed:
        """The same subject displaced by `offset` (3,)."""
        return Posed(
            self.body,
            self.radii,
            self.rotation,
            self.centre + offset,
            self.joint_rotation,
            self.joint_shift + offset,
        )

    def reach(self, direction: Array) -> Array:
        """Support of every part along a direction (3,): (frame, part)."""
        along = (direction @ self.rotation) * self.radii
        return np.asarray(np.linalg.norm(along, axis=-1))


@dataclass(frozen=True)
class Camera:
    """origin (frame, 3); axes (frame, 3, 3) with rows right, up, forward."""

    origin: Array
    axes: Array


@dataclass(frozen=True)
class Scene:
    """All subjects of a world in all frames, and the camera; times are in [0, 1)."""

    subjects: tuple[Posed, ...]
    camera: Camera


def _cycles(action: str) -> float:
    return {"walk": 1.5, "run": 2.5, "roll": 1.5, "wave": 2.0, "spin": 1.0, "jump": 1.0}[action]


def _leg_swing(joint: str, action: str, wave: Array, arc: Array) -> Array:
    if action in ("walk", "run"):
        diagonal = joint in ("leg_f_l", "leg_b_r", "leg_l", "arm_r")
        return (0.4 if action == "walk" else 0.75) * (wave if diagonal else -wave)
    if action == "jump":
        forward = joint.startswith(("leg_f", "arm"))
        return (-0.7 if forward else 0.7) * arc
    return 0.15 * wave if action == "spin" else 0 * wave


@dataclass(frozen=True)
class _Act:
    """What one body does: its action, the angle of its cycle and the arc of its jump, (frame,).

    `near` is the suffix of the limbs on the camera's side.
    """

    action: str
    angle: Array
    arc: Array
    near: str


def _joint_angles(body: Body, joint: str, act: _Act) -> Array:
    """(roll, pitch, yaw) of one joint over the frames: (3, frame)."""
    action, angle, arc = act.action, act.angle, act.arc
    wave, zero = np.sin(angle), np.zeros_like(angle)
    armed = "arm_l" in body.joints
    side = 1.0 if joint.endswith("l") else -1.0
    if joint.startswith("arm"):
        lift = {"wave": 2.2 + 0.55 * wave, "jump": 1.4 * arc, "spin": 0.8 + zero}.get(action, zero)
        if action == "wave" and not joint.endswith(act.near):
            lift = 0.2 * wave
        return np.stack([side * lift, _leg_swing(joint, action, wave, zero), zero])
    if joint.startswith("leg"):
        return np.stack([zero, _leg_swing(joint, action, wave, arc), zero])
    if joint == "tail":
        return np.stack([zero, -0.3 * arc, 0.45 * np.sin(angle)])
    if joint == "head":
        nod = (0.06 if armed else 0.45) if action == "wave" else 0.05
        return np.stack([0.12 * wave if action == "wave" and armed else zero, nod * wave, zero])
    return np.stack([zero, zero, zero])


@dataclass(frozen=True)
class _Root:
    """Whole-body motion over the frames: angles (3, frame), distance and lift (frame,)."""

    turn: Array
    distance: Array
    lift: Array


def _root_motion(body: Body, action: str, times: Array, phase: float) -> _Root:
    """Rotation about the body's own axes, distance along the heading, height above the ground."""
    zero = np.zeros_like(times)
    angle = 2 * np.pi * (_cycles(action) * times + phase)
    side = 1.0 if phase < 0.5 else -1.0
    wheeled = body.individual.category in VEHICLES
    legs = any(name.startswith("leg") for name in body.joints)
    roll, pitch, yaw, lift = zero, zero, zero, zero
    if action == "spin":
        yaw = side * 2 * np.pi * 0.9 * times
    elif action == "jump":
        swing = np.mod(times + 0.35 * (phase - 0.5), 1.0)
        lift = 2.2 * swing * (1 - swing)
        pitch = -0.3 * np.cos(np.pi * swing) * (0.4 if body.upright else 1.0)
    elif action == "roll" and not wheeled:
        roll = side * 2 * np.pi * times
    elif action == "run":
        lift, pitch = 0.12 * np.abs(np.sin(angle)), 0.07 * np.sin(angle) + 0.08 * body.upright
    elif action == "wave" and not legs:
        pitch = 0.16 * np.sin(angle)
    if action in ("walk", "run") and not legs and not wheeled:
        roll, lift = 0.2 * np.sin(angle), 0.1 * np.abs(np.sin(angle))
    elif action in ("walk", "run") and body.upright:
        roll = 0.09 * np.sin(angle)
    speed = _SPEED.get(action, 0.0) if action != "roll" or wheeled else 0.0
    return _Root(np.stack([roll, pitch, yaw]), speed * (times - 0.5), lift)


def _pose(body: Body, action: str, heading: float, times: Array, phase: float) -> Posed:
    """Pose one body at the origin, feet (or whatever is lowest) on the ground plus the lift."""
    angle = 2 * np.pi * (_cycles(action) * times + phase)
    arc = 4 * np.mod(times + 0.35 * (phase - 0.5), 1.0)
    arc = np.clip(arc * (1 - arc / 4), 0, 1) if action == "jump" else np.zeros_like(times)
    act = _Act(action, angle, arc, "r" if np.cos(heading) > 0 else "l")
    root = _root_motion(body, action, times, phase)
    yaw = heading + root.turn[2]
    base = euler(root.turn[0], root.turn[1], yaw)
    turns: dict[str, Array] = {}
    for joint in body.joints:
        if joint.startswith("wheel"):
            spin = root.distance / (body.scale * max(body.wheel, 1e-3))
            turns[joint] = euler(0 * spin, spin, 0 * spin)
        else:
            turns[joint] = euler(*_joint_angles(body, joint, act))
    local = np.stack([turns[part.joint] for part in body.parts], axis=1)
    pivot = body.scale * np.array([body.joints[part.joint] for part in body.parts])
    hub = np.array([0.0, 0.0, _middle(body)]) if action == "roll" else np.zeros(3)
    world = base[:, None] @ local
    shift = np.einsum("fij,fpj->fpi", base, pivot - np.einsum("fpij,pj->fpi", local, pivot) - hub)
    rest = np.stack([part.rotation for part in body.parts])
    at = body.scale * np.array([part.at for part in body.parts])
    centre = np.einsum("fpij,pj->fpi", world, at) + shift
    radii = body.scale * np.array([part.radii for part in body.parts])
    posed = Posed(body, radii, world @ rest, centre, world, shift)
    low = (centre[..., 2] - posed.reach(np.array([0.0, 0.0, 1.0]))).min(axis=1)
    travel = np.stack(
        [root.distance * np.cos(heading), root.distance * np.sin(heading), root.lift - low], axis=-1
    )
    return posed.moved(travel[:, None, :])


def _middle(body: Body) -> float:
    return body.scale * float(np.mean([part.at[2] for part in body.parts]))


def _arrange(world: World, posed: list[Posed]) -> list[Posed]:
    """Stand the subjects side by side along x, as close as their motion allows.

    Three or four stand alternately in front and behind, so that all stay large.
    """
    right = np.array([1.0, 0.0, 0.0])
    placed: dict[int, Posed] = {}
    edge: Array | None = None
    gap = _GAP if len(posed) < 3 else _OVERLAP
    for rank, index in enumerate(world.order):
        subject = posed[index]
        reach = subject.reach(right)
        low = (subject.centre[..., 0] - reach).min(axis=1)
        high = (subject.centre[..., 0] + reach).max(axis=1)
        offset = 0.0 if edge is None else float((edge - low).max()) + gap
        edge = high + offset
        row = 0.0 if len(posed) < 3 else _ROWS * (2 * (rank % 2) - 1)
        placed[index] = subject.moved(np.array([offset, row + world.depths[index], 0.0]))
    return [placed[index] for index in range(len(posed))]


def _tips(subjects: list[Posed]) -> Array:
    """The six axis tips of every ellipsoid: (frame, point, 3)."""
    groups = []
    for subject in subjects:
        arms = subject.rotation * subject.radii[:, None, :]
        offsets = np.concatenate([arms, -arms], axis=-1)
        points = subject.centre[..., None] + offsets
        groups.append(np.moveaxis(points, -1, 2).reshape(len(points), -1, 3))
    return np.concatenate(groups, axis=1)


def _axes(azimuth: Array, elevation: float) -> Array:
    """Camera axes (frame, 3, 3) looking along +y at azimuth 0, downwards by `elevation`."""
    ce, se = np.cos(elevation), np.sin(elevation)
    ca, sa = np.cos(azimuth), np.sin(azimuth)
    right = np.stack([ca, sa, 0 * ca], axis=-1)
    forward = np.stack([-sa * ce, ca * ce, 0 * ca - se], axis=-1)
    return np.stack([right, np.cross(right, forward), forward], axis=1)


def _frame(world: World, subjects: list[Posed], times: Array, aspect: float) -> Camera:
    """Choose the nearest camera that keeps every ellipsoid in the picture in every frame."""
    view = world.view
    axes = _axes(view.azimuth + view.drift * (times - 0.5), view.elevation)
    tips = _tips(subjects)
    mean = np.mean([s.centre.mean(axis=1) for s in subjects], axis=0)
    follow = _TRACKING * (mean - mean.mean(axis=0)) * np.array([1.0, 1.0, 0.0])
    anchor = mean.mean(axis=0)
    seen = np.einsum("fij,fpj->fpi", axes, tips - (anchor + follow)[:, None, :])
    limit = np.array([0.95 * aspect, 0.93]) / FOCAL
    aim, distance = np.zeros(2), 8.0
    for _ in range(6):
        depth = np.maximum(distance + seen[..., 2], 0.5)
        at = (seen[..., :2] - aim) / depth[..., None]
        low, high = at.min(axis=(0, 1)), at.max(axis=(0, 1))
        aim = aim + 0.5 * (low + high) * distance
        distance *= float(np.max((high - low) / (2 * limit)))
        distance = max(distance, float(-seen[..., 2].min()) + 0.6)
    slack = (
        np.maximum(limit - 0.5 * (high - low), 0.0) * distance + (view.zoom - 1) * limit * distance
    )
    aim = aim + 0.6 * np.array(view.shift) * slack * np.array([1.0, 0.6])
    distance *= view.zoom
    pull = distance * (1 + abs(view.dolly) / 2 + view.dolly * (times - 0.5))
    origin = anchor + follow + np.einsum("k,fkj->fj", aim, axes[:, :2]) - pull[:, None] * axes[:, 2]
    origin[:, 2] = np.maximum(origin[:, 2], 0.12)
    return Camera(origin, axes)


def stage(world: World, frames: int, aspect: float) -> Scene:
    """Pose all subjects of a world over `frames` frames and place the camera.

    `aspect` is picture width over height.
    """
    times = (np.arange(frames) / frames).astype(np.float64)
    posed = [
        _pose(build_body(individual), action, heading, times, phase)
        for individual, action, heading, phase in zip(
            world.individuals, world.actions, world.headings, world.phases, strict=True
        )
    ]
    subjects = _arrange(world, posed)
    return Scene(tuple(subjects), _frame(world, subjects, times, aspect))
