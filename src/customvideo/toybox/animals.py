"""Body plans of the four-legged categories: cat, dog, pig, horse, elephant.

Geometry only; every number is in body units (see `bodies`), scaled by the toy's proportions.
"""

from __future__ import annotations

from itertools import pairwise

from customvideo.toybox.bodies import Anchor, Body, Vector, face_eyes


def _trunk(body: Body, length: float, girth: float, legs: float, thick: float) -> Vector:
    """Barrel and four legs of a quadruped; returns (half length, girth, height of the axis)."""
    s = body.shape
    half, g = length * s.length, girth * s.girth
    leg = legs * s.legs
    height = leg + 0.75 * g
    body.add("body", (0.0, 0.0, height), (half, g, 0.95 * g))
    radius = thick * (0.6 + 0.4 * s.girth)
    for joint, x in (("leg_f", 0.62 * half), ("leg_b", -0.66 * half)):
        y = max(g - 0.75 * radius, 0.1)
        body.hinge(joint + "_", (x, y, height - 0.1 * g))
        body.limbs("limbs", (x, y, height - 0.1 * g), (x, y, radius * 0.5), radius, joint + "_")
        foot = (x + 0.35 * radius, y, 0.55 * radius)
        body.pair("limbs", foot, (1.25 * radius, 1.02 * radius, 0.6 * radius), joint + "_")
    body.anchors["back"] = Anchor((-0.05 * half, 0.0, height + 0.85 * g), 0.8 * g)
    return half, g, height


def cat(body: Body) -> None:
    s = body.shape
    half, g, z = _trunk(body, 0.58, 0.36, 0.3, 0.12)
    r = 0.4 * s.head
    x, hz = half + 0.24 * r, z + 0.42 * g + 0.62 * r
    body.hinge("head", (half - 0.1, 0.0, z + 0.3 * g))
    body.add("head", (x, 0.0, hz), (0.92 * r, 1.06 * r, 0.92 * r), "head")
    ear = 0.5 * r * s.trim**0.6
    body.pair(
        "trim",
        (x - 0.1 * r, 0.62 * r, hz + 0.72 * r + 0.35 * ear),
        (0.2 * r, 0.3 * r, ear),
        "head",
        (-0.3, -0.1, 0),
    )
    body.pair(
        "chalk",
        (x + 0.78 * r, 0.2 * r, hz - 0.36 * r),
        (0.24 * r * s.snout, 0.26 * r, 0.2 * r),
        "head",
    )
    body.add("nose", (x + 0.98 * r, 0.0, hz - 0.2 * r), (0.1 * r, 0.13 * r, 0.09 * r), "head")
    face_eyes(body, (x + 0.72 * r, 0.45 * r, hz + 0.12 * r), 0.26 * r, outward=0.5)
    root = (-half + 0.08, 0.0, z + 0.35 * g)
    tail = 0.62 * s.trim
    body.hinge("tail", root)
    middle = (-half - 0.32, 0.0, z + 0.3 * g + 0.45 * tail)
    body.limb("trim", root, middle, 0.1, "tail")
    body.limb("trim", middle, (-half - 0.2, 0.0, middle[2] + 0.65 * tail), 0.1, "tail")
    body.anchors["hat"] = Anchor((x - 0.05 * r, 0.0, hz + 0.85 * r), 0.55 * r, "head", -0.1)
    body.anchors["neck"] = Anchor(
        (half - 0.02, 0.0, z + 0.42 * g), 0.3 * (0.5 * s.girth + 0.5), "body", 0.55
    )


def dog(body: Body) -> None:
    s = body.shape
    half, g, z = _trunk(body, 0.62, 0.35, 0.36, 0.13)
    r = 0.38 * s.head
    x, hz = half + 0.22, z + 0.6 * g + 0.75 * r
    body.hinge("head", (half - 0.1, 0.0, z + 0.3 * g))
    body.limb("body", (half - 0.16, 0.0, z + 0.1), (x - 0.06, 0.0, hz - 0.1), 0.6 * g, "head")
    body.add("head", (x, 0.0, hz), (r, 0.92 * r, 0.92 * r), "head")
    snout = 0.55 * r * s.snout
    body.add(
        "head",
        (x + 0.75 * r + 0.4 * snout, 0.0, hz - 0.26 * r),
        (0.35 * r + 0.7 * snout, 0.5 * r, 0.4 * r),
        "head",
        (0, 0.12, 0),
    )
    tip = x + 1.05 * r + 1.05 * snout
    body.add("nose", (tip, 0.0, hz - 0.2 * r), (0.18 * r, 0.22 * r, 0.18 * r), "head")
    ear = 0.62 * r * s.trim**0.6
    body.pair(
        "trim",
        (x - 0.22 * r, 0.9 * r, hz + 0.3 * r - 0.75 * ear),
        (0.36 * r, 0.16 * r, ear),
        "head",
        (0.25, 0.15, 0),
    )
    face_eyes(body, (x + 0.7 * r, 0.44 * r, hz + 0.28 * r), 0.26 * r, outward=0.5)
    root = (-half + 0.06, 0.0, z + 0.5 * g)
    body.hinge("tail", root)
    body.limb("trim", root, (-half - 0.22 * s.trim, 0.0, z + 0.5 * g + 0.5 * s.trim), 0.09, "tail")
    body.anchors["hat"] = Anchor((x - 0.1 * r, 0.0, hz + 0.82 * r), 0.6 * r, "head", -0.15)
    body.anchors["neck"] = Anchor((half + 0.02, 0.0, z + 0.58 * g), 0.68 * g, "body", 0.5)


def pig(body: Body) -> None:
    s = body.shape
    half, g, z = _trunk(body, 0.64, 0.45, 0.2, 0.13)
    r = 0.38 * s.head
    x, hz = half + 0.12, z + 0.18
    body.hinge("head", (half - 0.15, 0.0, z + 0.1))
    body.add("head", (x, 0.0, hz), (0.92 * r, r, 0.95 * r), "head")
    nose = x + 0.88 * r
    body.add("trim", (nose, 0.0, hz - 0.16 * r), (0.3 * r * s.snout, 0.42 * r, 0.36 * r), "head")
    front = nose + 0.27 * r * s.snout
    body.pair("nose", (front, 0.15 * r, hz - 0.16 * r), (0.06 * r, 0.075 * r, 0.12 * r), "head")
    ear = 0.36 * r * s.trim**0.7
    body.pair(
        "trim",
        (x + 0.05 * r, 0.6 * r, hz + 0.8 * r + 0.3 * ear),
        (0.14 * r, 0.3 * r, 1.15 * ear),
        "head",
        (-0.45, 0.5, 0),
    )
    face_eyes(body, (x + 0.68 * r, 0.5 * r, hz + 0.3 * r), 0.2 * r, outward=0.55)
    body.hinge("tail", (-half, 0.0, z + 0.3 * g))
    curl = 0.12 * s.trim
    for dx, dy, dz in (
        (0.0, 0.0, 0.0),
        (-0.8, 0.7, 0.7),
        (-1.5, 0.0, 1.4),
        (-1.9, -0.7, 0.7),
        (-2.4, 0.0, 0.2),
    ):
        at = (-half + dx * curl, dy * curl, z + 0.35 * g + dz * curl)
        body.add("trim", at, (0.75 * curl, 0.65 * curl, 0.65 * curl), "tail")
    body.anchors["hat"] = Anchor((x - 0.1 * r, 0.0, hz + 0.86 * r), 0.6 * r, "head", -0.12)
    body.anchors["neck"] = Anchor((half - 0.16, 0.0, z + 0.1), 0.8 * g, "body", 1.2)


def horse(body: Body) -> None:
    s = body.shape
    half, g, z = _trunk(body, 0.62, 0.37, 0.6, 0.125)
    neck = 0.5 * (0.7 + 0.3 * s.legs)
    x, hz = half + 0.26, z + 0.5 * g + neck
    body.hinge("head", (half - 0.12, 0.0, z + 0.1))
    body.limb("body", (half - 0.2, 0.0, z), (x - 0.08, 0.0, hz - 0.05), 0.23, "head")
    _horse_head(body, x, hz)
    mane = 0.14 * s.trim
    for k in range(5):
        t = k / 4
        at = (half - 0.28 + t * (x - half + 0.12), 0.0, z + 0.75 * g + t * (hz - z - 0.3 * g))
        body.add("trim", at, (mane, 0.09, 0.17), "head", (0, 0.25, 0))
    root = (-half + 0.05, 0.0, z + 0.4 * g)
    body.hinge("tail", root)
    body.limb("trim", root, (-half - 0.22, 0.0, z + 0.35 * g), 0.1, "tail")
    body.limb(
        "trim", (-half - 0.2, 0.0, z + 0.4 * g), (-half - 0.3, 0.0, z - 0.7 * s.trim), 0.13, "tail"
    )
    body.anchors["neck"] = Anchor((half + 0.04, 0.0, z + 0.75 * g), 0.23, "head", 0.35)


def _horse_head(body: Body, x: float, hz: float) -> None:
    s = body.shape
    r = 0.28 * s.head
    body.add("head", (x, 0.0, hz), (1.1 * r, 0.86 * r, 0.95 * r), "head", (0, 0.3, 0))
    snout = 1.2 * r * s.snout
    body.limb(
        "head",
        (x, 0.0, hz),
        (x + 0.5 * r + snout, 0.0, hz - 0.6 * r - 0.35 * snout),
        0.66 * r,
        "head",
    )
    muzzle = (x + 0.5 * r + snout, 0.0, hz - 0.6 * r - 0.35 * snout)
    body.add("limbs", muzzle, (0.62 * r, 0.66 * r, 0.56 * r), "head", (0, 0.35, 0))
    body.pair(
        "nose",
        (muzzle[0] + 0.42 * r, 0.3 * r, muzzle[2] + 0.15 * r),
        (0.14 * r, 0.14 * r, 0.16 * r),
        "head",
    )
    body.pair(
        "head",
        (x - 0.15 * r, 0.5 * r, hz + 1.15 * r),
        (0.18 * r, 0.2 * r, 0.52 * r),
        "head",
        (-0.15, 0, 0),
    )
    face_eyes(body, (x + 0.48 * r, 0.6 * r, hz + 0.28 * r), 0.3 * r, outward=0.85)
    body.anchors["hat"] = Anchor((x - 0.1 * r, 0.0, hz + 0.9 * r), 0.85 * r, "head", 0.0)


def elephant(body: Body) -> None:
    s = body.shape
    half, g, z = _trunk(body, 0.68, 0.5, 0.36, 0.17)
    r = 0.42 * s.head
    x, hz = half + 0.2, z + 0.38
    body.hinge("head", (half - 0.15, 0.0, z + 0.2))
    body.add("head", (x, 0.0, hz), (0.9 * r, 0.95 * r, r), "head")
    ear = 0.62 * r * s.trim**0.8
    body.pair(
        "trim",
        (x - 0.35 * r, 0.85 * r + 0.55 * ear, hz + 0.05 * r),
        (0.13 * r, ear, 1.25 * ear),
        "head",
        (-0.1, 0, -0.35),
    )
    reach = 0.8 * s.snout
    path = ((0.7, 0.0), (1.05, -0.45), (1.12, -0.95), (1.3, -1.3), (1.65, -1.38))
    joints = [
        (x + r * (0.7 + (dx - 0.7) * reach**0.5), hz + r * (dz * reach - 0.1)) for dx, dz in path
    ]
    body.hinge("trunk", (joints[0][0], 0.0, joints[0][1]))
    for k, ((ax, az), (bx, bz)) in enumerate(pairwise(joints)):
        body.limb("head", (ax, 0.0, az), (bx, 0.0, bz), r * (0.34 - 0.045 * k), "head")
    body.limbs(
        "chalk",
        (x + 0.6 * r, 0.42 * r, hz - 0.45 * r),
        (x + 1.25 * r, 0.5 * r, hz - 0.6 * r),
        0.1 * r,
        "head",
    )
    face_eyes(body, (x + 0.7 * r, 0.5 * r, hz + 0.25 * r), 0.2 * r, outward=0.6)
    root = (-half + 0.05, 0.0, z + 0.3 * g)
    body.hinge("tail", root)
    body.limb("body", root, (-half - 0.16, 0.0, z - 0.35 * g), 0.06, "tail")
    body.add("trim", (-half - 0.17, 0.0, z - 0.45 * g), (0.09, 0.09, 0.13), "tail")
    body.anchors["hat"] = Anchor((x - 0.05 * r, 0.0, hz + 0.92 * r), 0.62 * r, "head", -0.1)
    body.anchors["neck"] = Anchor((half - 0.14, 0.0, z + 0.12), 0.86 * g, "body", 1.15)
