"""Bodies as lists of ellipsoids hung on joints: the common vocabulary and the accessories.

The plans of the single categories are in `animals` and `machines`; nothing here moves (`motion`).
Body frame: x forward, y to the body's left, z up, ground at z = 0; a body is about 2 units long.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module

import numpy as np
import numpy.typing as npt

from customvideo.toybox.world import COLOURS, PROPORTIONS, SLOTS, Individual

Array = npt.NDArray[np.float64]
Vector = tuple[float, float, float]

SPREADS = {"length": 1.22, "girth": 1.25, "head": 1.2, "legs": 1.4, "trim": 1.5, "snout": 1.35}
FIXED = {
    "ink": (22, 22, 26),
    "chalk": (250, 250, 248),
    "beak": (250, 150, 30),
    "glass": (176, 216, 236),
    "lamp": (255, 244, 180),
    "tyre": (30, 30, 34),
    "steel": (190, 194, 200),
    "nose": (52, 34, 34),
}
BODY_PLANS = {
    "cat": "animals:cat",
    "dog": "animals:dog",
    "pig": "animals:pig",
    "horse": "animals:horse",
    "elephant": "animals:elephant",
    "duck": "uprights:duck",
    "bear": "uprights:bear",
    "rabbit": "uprights:rabbit",
    "dinosaur": "uprights:dinosaur",
    "robot": "uprights:robot",
    "car": "machines:car",
    "train": "machines:train",
    "teapot": "machines:teapot",
}


@dataclass(frozen=True)
class Shape:
    """Proportions as multiplicative factors around 1."""

    length: float
    girth: float
    head: float
    legs: float
    trim: float
    snout: float

    @classmethod
    def of(cls, individual: Individual) -> Shape:
        factors = zip(PROPORTIONS, individual.proportions, strict=True)
        return cls(**{name: float(SPREADS[name] ** value) for name, value in factors})


@dataclass(frozen=True)
class Anchor:
    """Where an accessory sits: a point, a size, and the joint it moves with."""

    at: Vector
    size: float
    joint: str = "body"
    tilt: float = 0.0


@dataclass(frozen=True)
class Part:
    """One ellipsoid; `rotation` (3, 3) maps its own axes to the body frame."""

    paint: str
    at: Vector
    radii: Vector
    joint: str
    rotation: Array = field(compare=False)


@dataclass
class Body:
    """A body plan being filled: parts, joint pivots, accessory anchors."""

    individual: Individual
    shape: Shape
    parts: list[Part] = field(default_factory=list)
    joints: dict[str, Vector] = field(default_factory=lambda: {"body": (0.0, 0.0, 0.0)})
    anchors: dict[str, Anchor] = field(default_factory=dict)
    grain: Vector = (1.0, 0.0, 0.35)
    upright: bool = False
    wheel: float = 0.0
    scale: float = 1.0

    def add(
        self,
        paint: str,
        at: Vector,
        radii: Vector,
        joint: str = "body",
        turn: Vector = (0.0, 0.0, 0.0),
    ) -> None:
        """Add one ellipsoid, turned by (roll, pitch, yaw) in radians; pitch > 0 lowers the nose."""
        self.parts.append(Part(paint, at, radii, joint, euler(*turn)))

    def pair(
        self,
        paint: str,
        at: Vector,
        radii: Vector,
        joint: str = "body",
        turn: Vector = (0.0, 0.0, 0.0),
    ) -> None:
        """Add an ellipsoid on the left and its mirror image; a joint ending in `_` gets l, r."""
        for side, suffix in ((1.0, "l"), (-1.0, "r")):
            name = joint + suffix if joint.endswith("_") else joint
            mirrored = (side * turn[0], turn[1], side * turn[2])
            self.add(paint, (at[0], side * at[1], at[2]), radii, name, mirrored)

    def limb(
        self, paint: str, start: Vector, end: Vector, radius: float, joint: str = "body"
    ) -> None:
        """Add an elongated ellipsoid from `start` to `end`."""
        a, b = np.array(start), np.array(end)
        axis = b - a
        half = 0.5 * float(np.linalg.norm(axis)) + 0.35 * radius
        middle = 0.5 * (a + b)
        at = (float(middle[0]), float(middle[1]), float(middle[2]))
        self.parts.append(Part(paint, at, (radius, radius, half), joint, _align(axis)))

    def limbs(
        self, paint: str, start: Vector, end: Vector, radius: float, joint: str = "body"
    ) -> None:
        """Add a limb on the left and its mirror image, with joints as in `pair`."""
        for side, suffix in ((1.0, "l"), (-1.0, "r")):
            name = joint + suffix if joint.endswith("_") else joint
            a, b = (start[0], side * start[1], start[2]), (end[0], side * end[1], end[2])
            self.limb(paint, a, b, radius, name)

    def hinge(self, name: str, at: Vector) -> None:
        """Declare a joint at a pivot; a name ending in `_` declares the mirrored two."""
        if name.endswith("_"):
            self.joints[name + "l"] = at
            self.joints[name + "r"] = (at[0], -at[1], at[2])
        else:
            self.joints[name] = at

    def colour(self, paint: str) -> tuple[int, int, int]:
        """Red, green and blue in 0..255 of a slot, the accessory or a fixed paint."""
        if paint in SLOTS:
            return COLOURS[self.individual.colours[SLOTS.index(paint)]]
        if paint == "accessory":
            return COLOURS[self.individual.accessory_colour]
        return FIXED[paint]


def euler(roll: float | Array, pitch: float | Array, yaw: float | Array) -> Array:
    """Rotation Rz(yaw) Ry(pitch) Rx(roll); scalars or arrays of one shape give (..., 3, 3)."""
    cr, sr, cp, sp = np.cos(roll), np.sin(roll), np.cos(pitch), np.sin(pitch)
    cy, sy = np.cos(yaw), np.sin(yaw)
    rows = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp + 0 * cy, cp * sr + 0 * cy, cp * cr + 0 * cy],
    ]
    return np.moveaxis(np.array(rows, dtype=np.float64), (0, 1), (-2, -1))


def _align(axis: Array) -> Array:
    """Rotation whose third column points along `axis`."""
    third = axis / max(float(np.linalg.norm(axis)), 1e-9)
    helper = np.array([0.0, 1.0, 0.0]) if abs(third[1]) < 0.9 else np.array([1.0, 0.0, 0.0])
    first = np.cross(helper, third)
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(third, first), third], axis=1)


def face_eyes(
    body: Body, at: Vector, size: float, joint: str = "head", outward: float = 0.5
) -> None:
    """Two eyes with pupils looking forward and `outward` (radians), and the glasses' anchor."""
    dx, dy = float(np.cos(outward)), float(np.sin(outward))
    body.pair("chalk", at, (0.62 * size, 0.85 * size, size), joint, (0.0, 0.0, outward))
    pupil = (at[0] + 0.42 * size * dx, at[1] + 0.42 * size * dy, at[2] - 0.05 * size)
    body.pair("ink", pupil, (0.36 * size, 0.5 * size, 0.64 * size), joint, (0.0, 0.0, outward))
    glint = (
        pupil[0] + 0.3 * size * dx,
        pupil[1] + 0.3 * size * dy - 0.1 * size,
        pupil[2] + 0.28 * size,
    )
    body.pair("chalk", glint, (0.12 * size, 0.17 * size, 0.2 * size), joint)
    body.anchors["eyes"] = Anchor(at, size, joint, outward)


def _hat(body: Body) -> None:
    anchor = body.anchors["hat"]
    x, y, z = anchor.at
    r, tilt = anchor.size, (0.0, anchor.tilt, 0.0)
    up = euler(*tilt)[:, 2]
    crown = (x + 0.42 * r * up[0], y, z + 0.42 * r * up[2])
    band = (x + 0.16 * r * up[0], y, z + 0.16 * r * up[2])
    body.add("accessory", (x, y, z), (1.25 * r, 1.25 * r, 0.16 * r), anchor.joint, tilt)
    body.add("chalk", band, (0.8 * r, 0.8 * r, 0.3 * r), anchor.joint, tilt)
    body.add("accessory", crown, (0.74 * r, 0.74 * r, 0.72 * r), anchor.joint, tilt)


def _scarf(body: Body) -> None:
    anchor = body.anchors["neck"]
    x, y, z = anchor.at
    r, turn = anchor.size, euler(0.0, anchor.tilt, 0.0)
    thick = min(0.36 * r, 0.13)

    def place(angle: float, drop: float) -> Vector:
        ring = turn @ np.array([r * np.cos(angle), r * np.sin(angle), 0.0])
        return (x + float(ring[0]), y + float(ring[1]), z + float(ring[2]) - drop)

    for angle in np.arange(12) * (2 * np.pi / 12):
        bead = (0.9 * thick, max(0.36 * r, thick), thick)
        body.add("accessory", place(float(angle), 0.0), bead, anchor.joint, (0, 0, float(angle)))
    for angle, length in ((0.6, 0.42), (0.95, 0.3)):
        knot, end = place(angle, 0.0), place(angle, length)
        body.limb("accessory", knot, (end[0] + 0.05, end[1], end[2]), thick, anchor.joint)


def _glasses(body: Body) -> None:
    anchor = body.anchors["eyes"]
    x, y, z = anchor.at
    s, out = anchor.size, anchor.tilt
    ahead, side = float(np.cos(out)), float(np.sin(out))
    rim = (x + 0.55 * s * ahead, y + 0.55 * s * side, z)
    lens = (x + 0.78 * s * ahead, y + 0.78 * s * side, z)
    body.pair("accessory", rim, (0.34 * s, 1.5 * s, 1.5 * s), anchor.joint, (0.0, 0.0, out))
    body.pair("ink", lens, (0.26 * s, 1.05 * s, 1.05 * s), anchor.joint, (0.0, 0.0, out))
    shine = (lens[0] + 0.2 * s * ahead, lens[1] + 0.2 * s * side, z + 0.4 * s)
    body.pair("glass", shine, (0.14 * s, 0.36 * s, 0.26 * s), anchor.joint, (0.0, 0.0, out))
    bridge = (x + 0.75 * s, 0.0, z + 0.25 * s)
    body.add("accessory", bridge, (0.24 * s, max(y - 0.4 * s, 0.3 * s), 0.24 * s), anchor.joint)


def _backpack(body: Body) -> None:
    anchor = body.anchors["back"]
    x, y, z = anchor.at
    r = anchor.size
    turn = euler(0.0, anchor.tilt, 0.0)

    def place(dx: float, dy: float, dz: float) -> Vector:
        offset = turn @ np.array([dx * r, dy * r, dz * r])
        return (x + float(offset[0]), y + float(offset[1]), z + float(offset[2]))

    tilt = (0.0, anchor.tilt, 0.0)
    body.add("accessory", place(0, 0, 0.35), (1.0 * r, 0.85 * r, 0.62 * r), anchor.joint, tilt)
    body.add("accessory", place(-0.15, 0, 0.85), (0.66 * r, 0.6 * r, 0.34 * r), anchor.joint, tilt)
    body.add("chalk", place(-0.15, 0, 1.1), (0.22 * r, 0.3 * r, 0.14 * r), anchor.joint, tilt)
    for side in (-1.0, 1.0):
        pocket = place(-0.1, 0.78 * side, 0.3)
        body.add("accessory", pocket, (0.5 * r, 0.3 * r, 0.4 * r), anchor.joint, tilt)
    body.add("tyre", place(0.55, 0, 0.1), (0.12 * r, 1.02 * r, 0.85 * r), anchor.joint, tilt)


_ACCESSORIES = {"hat": _hat, "scarf": _scarf, "glasses": _glasses, "backpack": _backpack}


@lru_cache(maxsize=1024)
def build_body(individual: Individual) -> Body:
    """The body of one toy, in its rest pose. Shared by the cache: treat it as read-only."""
    module, function = BODY_PLANS[individual.category].split(":")
    body = Body(individual, Shape.of(individual))
    getattr(import_module(f"customvideo.toybox.{module}"), function)(body)
    bare = list(body.parts)
    if individual.accessory != "none":
        _ACCESSORIES[individual.accessory](body)
    body.scale = _even_size(bare)
    return body


def _even_size(parts: list[Part]) -> float:
    """A factor that brings the silhouettes of all toys to about one area, most of the way."""
    at = np.array([part.at for part in parts])
    reach = np.stack([np.linalg.norm(part.rotation * part.radii, axis=1) for part in parts])
    extent = (at + reach).max(axis=0) - (at - reach).min(axis=0)
    area = 0.5 * (extent[0] + extent[1]) * extent[2]
    return float((2.4 / area) ** 0.4)
