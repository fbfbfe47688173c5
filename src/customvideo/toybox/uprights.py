"""Body plans of those on two legs: bear, rabbit, duck, dinosaur, robot.

Geometry only; every number is in body units (see `bodies`), scaled by the toy's proportions.
"""

from __future__ import annotations

from itertools import pairwise

from customvideo.toybox.bodies import Anchor, Body, face_eyes


def _torso(body: Body, height: float, girth: float, legs: float, arm: float) -> tuple[float, float]:
    """Belly, two legs with feet, two arms; returns (girth, height of the shoulders)."""
    s = body.shape
    g, leg, tall = girth * s.girth, legs * s.legs, height * s.length
    middle = leg + 0.86 * tall
    body.upright, body.grain = True, (0.25, 0.0, 1.0)
    body.add("body", (0.0, 0.0, middle), (0.92 * g, g, tall))
    hip = (0.0, 0.52 * g, leg + 0.3 * tall)
    body.hinge("leg_", hip)
    body.limbs("limbs", hip, (0.04, 0.55 * g, 0.08), 0.36 * g, "leg_")
    body.pair("limbs", (0.16 * g + 0.08, 0.55 * g, 0.1), (0.55 * g, 0.36 * g, 0.12), "leg_")
    shoulder = (0.02, 0.86 * g, middle + 0.52 * tall)
    body.hinge("arm_", shoulder)
    hand = (0.14, 1.18 * g + 0.1, shoulder[2] - arm)
    body.limbs("limbs", shoulder, hand, 0.27 * g, "arm_")
    body.pair("limbs", hand, (0.24 * g, 0.24 * g, 0.25 * g), "arm_")
    body.anchors["back"] = Anchor((-0.8 * g, 0.0, middle + 0.1 * tall), 0.62 * g, "body", -1.57)
    return g, middle + tall


def bear(body: Body) -> None:
    s = body.shape
    g, top = _torso(body, 0.46, 0.54, 0.24, 0.42)
    body.add("trim", (0.42 * g, 0.0, top - 0.62 * s.length), (0.56 * g, 0.68 * g, 0.36 * s.length))
    r = 0.5 * s.head
    hz = top + 0.72 * r
    body.hinge("head", (0.0, 0.0, top - 0.05))
    body.add("head", (0.02, 0.0, hz), (0.94 * r, 1.04 * r, 0.94 * r), "head")
    ear = 0.32 * r * s.trim**0.5
    body.pair("head", (-0.05, 0.78 * r, hz + 0.72 * r), (0.6 * ear, ear, ear), "head", (-0.5, 0, 0))
    body.pair(
        "trim",
        (-0.05 + 0.4 * ear, 0.8 * r, hz + 0.74 * r),
        (0.35 * ear, 0.6 * ear, 0.6 * ear),
        "head",
        (-0.5, 0, 0),
    )
    snout = 0.4 * r * s.snout
    body.add("trim", (0.86 * r, 0.0, hz - 0.26 * r), (snout, 0.46 * r, 0.36 * r), "head")
    body.add("nose", (0.82 * r + snout, 0.0, hz - 0.12 * r), (0.14 * r, 0.18 * r, 0.13 * r), "head")
    face_eyes(body, (0.78 * r, 0.44 * r, hz + 0.2 * r), 0.2 * r, outward=0.5)
    body.add("trim", (-0.95 * g, 0.0, top - 0.85 * s.length), (0.2, 0.2, 0.2))
    body.anchors["hat"] = Anchor((-0.02, 0.0, hz + 0.86 * r), 0.58 * r, "head", -0.05)
    body.anchors["neck"] = Anchor((0.02, 0.0, top - 0.08), 0.72 * g, "body", 0.1)


def rabbit(body: Body) -> None:
    s = body.shape
    g, top = _torso(body, 0.44, 0.5, 0.22, 0.36)
    body.pair("limbs", (0.24, 0.55 * g, 0.1), (0.34 * s.legs**0.5, 0.14, 0.11), "leg_")
    r = 0.46 * s.head
    hz = top + 0.7 * r
    body.hinge("head", (0.0, 0.0, top - 0.05))
    body.add("head", (0.03, 0.0, hz), (0.96 * r, 0.98 * r, 0.94 * r), "head")
    ear = 0.33 * s.trim**0.8
    body.hinge("ear_", (0.0, 0.35 * r, hz + 0.8 * r))
    body.pair(
        "head",
        (-0.06, 0.5 * r, hz + 0.72 * r + 0.85 * ear),
        (0.1, 0.14, ear),
        "head",
        (-0.2, -0.12, 0),
    )
    body.pair(
        "trim",
        (0.0, 0.5 * r, hz + 0.72 * r + 0.85 * ear),
        (0.07, 0.09, 0.8 * ear),
        "head",
        (-0.2, -0.12, 0),
    )
    body.pair(
        "chalk", (0.84 * r, 0.2 * r, hz - 0.3 * r), (0.22 * r * s.snout, 0.26 * r, 0.2 * r), "head"
    )
    body.add("nose", (1.06 * r, 0.0, hz - 0.12 * r), (0.1 * r, 0.14 * r, 0.1 * r), "head")
    body.add("chalk", (0.9 * r, 0.0, hz - 0.52 * r), (0.1 * r, 0.14 * r, 0.14 * r), "head")
    face_eyes(body, (0.74 * r, 0.5 * r, hz + 0.2 * r), 0.24 * r, outward=0.6)
    body.add("trim", (-g - 0.08, 0.0, top - 0.72 * s.length), (0.19, 0.2, 0.2))
    body.anchors["hat"] = Anchor((0.1 * r, 0.0, hz + 0.84 * r), 0.6 * r, "head", 0.1)
    body.anchors["neck"] = Anchor((0.02, 0.0, top - 0.08), 0.7 * g, "body", 0.1)


def duck(body: Body) -> None:
    s = body.shape
    half, g = 0.6 * s.length, 0.42 * s.girth
    leg = 0.16 * s.legs
    z = leg + 0.85 * g
    body.upright = True
    body.add("body", (0.0, 0.0, z), (half, g, 0.92 * g), "body", (0, -0.12, 0))
    body.hinge("leg_", (0.0, 0.45 * g, z - 0.4 * g))
    body.limbs("beak", (0.0, 0.45 * g, z - 0.5 * g), (0.03, 0.45 * g, 0.06), 0.09, "leg_")
    body.pair("beak", (0.14, 0.45 * g, 0.05), (0.24, 0.18, 0.06), "leg_")
    wing = 0.46 * s.trim**0.5
    shoulder = (0.18 * half, 0.9 * g, z + 0.25 * g)
    body.hinge("arm_", shoulder)
    body.pair(
        "trim",
        (-0.12 * half, 0.96 * g, z + 0.06),
        (0.95 * wing, 0.12, 0.55 * wing),
        "arm_",
        (0, 0.25, 0.1),
    )
    tail = (-half - 0.04, 0.0, z + 0.36 * g)
    body.hinge("tail", (-half + 0.1, 0.0, z + 0.2 * g))
    body.add("trim", tail, (0.3 * s.trim**0.5, 0.2, 0.13), "tail", (0, 0.6, 0))
    body.anchors["back"] = Anchor((-0.25 * half, 0.0, z + 0.82 * g), 0.7 * g, "body", -0.25)
    _duck_head(body, half, g, z)


def _duck_head(body: Body, half: float, g: float, z: float) -> None:
    s = body.shape
    r = 0.35 * s.head
    x, hz = 0.66 * half, z + 0.62 * g + 0.95 * r
    body.hinge("head", (0.55 * half, 0.0, z + 0.4 * g))
    body.limb("limbs", (0.5 * half, 0.0, z + 0.3 * g), (x, 0.0, hz), 0.62 * r, "head")
    body.add("head", (x, 0.0, hz), (r, 0.95 * r, r), "head")
    bill = 0.5 * r * s.snout
    body.add(
        "beak",
        (x + 0.8 * r + 0.6 * bill, 0.0, hz - 0.1 * r),
        (0.2 * r + bill, 0.42 * r, 0.14 * r),
        "head",
        (0, -0.12, 0),
    )
    body.add(
        "beak",
        (x + 0.75 * r + 0.5 * bill, 0.0, hz - 0.28 * r),
        (0.15 * r + 0.8 * bill, 0.34 * r, 0.11 * r),
        "head",
        (0, 0.15, 0),
    )
    face_eyes(body, (x + 0.6 * r, 0.58 * r, hz + 0.26 * r), 0.23 * r, outward=0.75)
    body.anchors["hat"] = Anchor((x - 0.05 * r, 0.0, hz + 0.86 * r), 0.62 * r, "head", -0.05)
    body.anchors["neck"] = Anchor((x - 0.03, 0.0, z + 0.62 * g + 0.12 * r), 0.76 * r, "body", 0.15)


def dinosaur(body: Body) -> None:
    s = body.shape
    g, leg = 0.38 * s.girth, 0.5 * s.legs
    z = leg + 0.55 * g
    body.upright, body.grain = True, (0.9, 0.0, 0.4)
    body.add("body", (-0.02, 0.0, z + 0.12), (0.5 * s.length, g, 0.5), "body", (0, -0.55, 0))
    body.hinge("leg_", (-0.08, 0.62 * g, z + 0.02))
    body.limbs("limbs", (-0.08, 0.68 * g, z + 0.05), (-0.1, 0.74 * g, 0.3 * leg), 0.21, "leg_")
    body.limbs("limbs", (-0.12, 0.74 * g, 0.4 * leg), (-0.04, 0.74 * g, 0.08), 0.13, "leg_")
    body.pair("limbs", (0.1, 0.74 * g, 0.08), (0.25, 0.15, 0.1), "leg_")
    body.hinge("arm_", (0.36 * s.length, 0.75 * g, z + 0.26))
    body.limbs(
        "limbs",
        (0.34 * s.length, 0.75 * g, z + 0.28),
        (0.36 * s.length + 0.3, 0.9 * g, z + 0.16),
        0.09,
        "arm_",
    )
    body.anchors["back"] = Anchor((-0.34 * s.length, 0.0, z + 0.36), 0.32, "body", -0.95)
    _dinosaur_head(body, z)
    _dinosaur_tail(body, z)
    _spikes(body, z)


def _dinosaur_head(body: Body, z: float) -> None:
    s = body.shape
    x, hz = 0.36 * s.length + 0.16, z + 0.86
    r = 0.34 * s.head
    body.hinge("head", (0.3 * s.length, 0.0, z + 0.42))
    body.limb("body", (0.22 * s.length, 0.0, z + 0.3), (x - 0.02, 0.0, hz), 0.24, "head")
    body.add("head", (x, 0.0, hz + 0.06), (r, 0.84 * r, 0.82 * r), "head")
    jaw = 0.75 * r * s.snout
    body.add(
        "head",
        (x + 0.6 * r + 0.4 * jaw, 0.0, hz + 0.02),
        (0.35 * r + 0.8 * jaw, 0.66 * r, 0.42 * r),
        "head",
        (0, 0.06, 0),
    )
    body.add(
        "trim",
        (x + 0.5 * r + 0.35 * jaw, 0.0, hz - 0.32 * r),
        (0.3 * r + 0.7 * jaw, 0.56 * r, 0.22 * r),
        "head",
        (0, 0.3, 0),
    )
    body.pair(
        "ink", (x + 0.85 * r + 1.05 * jaw, 0.25 * r, hz + 0.2 * r), (0.06, 0.04, 0.04), "head"
    )
    face_eyes(body, (x + 0.35 * r, 0.6 * r, hz + 0.55 * r), 0.27 * r, outward=0.85)
    body.anchors["hat"] = Anchor((x - 0.1 * r, 0.0, hz + 0.86 * r), 0.66 * r, "head", -0.1)
    body.anchors["neck"] = Anchor((x - 0.1, 0.0, z + 0.56), 0.29, "head", 0.35)


def _dinosaur_tail(body: Body, z: float) -> None:
    s = body.shape
    body.hinge("tail", (-0.35 * s.length, 0.0, z))
    tail = 0.5 * (0.4 + 0.6 * s.trim)
    path = [
        (-0.25 * s.length, z),
        (-0.3 * s.length - tail, z - 0.24),
        (-0.3 * s.length - 1.8 * tail, z - 0.26),
        (-0.3 * s.length - 2.4 * tail, z - 0.1),
    ]
    for ((ax, az), (bx, bz)), radius in zip(pairwise(path), (0.3, 0.19, 0.11), strict=True):
        body.limb(
            "body",
            (ax, 0.0, max(az, 0.12)),
            (bx, 0.0, max(bz, 0.12)),
            radius * (0.5 + 0.5 * s.girth),
            "tail",
        )


def _spikes(body: Body, z: float) -> None:
    """A row of them from the head to the tail."""
    s = body.shape
    spikes = (
        (0.3, 1.1, "head"),
        (0.04, 0.72, "body"),
        (-0.24, 0.5, "body"),
        (-0.5, 0.27, "tail"),
        (-0.8, 0.1, "tail"),
    )
    for dx, dz, joint in spikes:
        size = 0.17 * (0.5 + 0.5 * s.trim)
        body.add(
            "trim",
            (dx * s.length - (0.04 if joint != "head" else 0.1), 0.0, z + dz),
            (size, 0.06, 1.15 * size),
            joint,
            (0, -0.5, 0),
        )


def robot(body: Body) -> None:
    s = body.shape
    g, leg, tall = 0.5 * s.girth, 0.3 * s.legs, 0.44 * s.length
    z = leg + 0.8 * tall
    body.upright, body.grain = True, (0.0, 0.0, 1.0)
    body.add("body", (0.0, 0.0, z), (0.86 * g, g, tall))
    body.add("steel", (0.0, 0.0, z - 0.72 * tall), (0.72 * g, 0.82 * g, 0.16 * tall))
    body.add(
        "chalk",
        (0.76 * g, 0.0, z + 0.08 * tall),
        (0.16 * g, 0.5 * g, 0.42 * tall),
        "body",
        (0, -0.1, 0),
    )
    for y, dz, paint in ((0.22, 0.2, "trim"), (-0.22, 0.2, "lamp"), (0.0, -0.12, "limbs")):
        body.add(paint, (0.92 * g, y * g, z + dz * tall), (0.06, 0.15 * g, 0.15 * g))
    body.hinge("leg_", (0.0, 0.45 * g, leg + 0.2))
    for k in range(3):
        body.pair(
            "steel" if k % 2 else "limbs",
            (0.0, 0.48 * g, leg * (0.95 - 0.36 * k)),
            (0.13, 0.13, 0.2 * leg + 0.05),
            "leg_",
        )
    body.pair("limbs", (0.08, 0.48 * g, 0.09), (0.26, 0.18, 0.11), "leg_")
    shoulder = (0.0, g + 0.02, z + 0.5 * tall)
    body.hinge("arm_", shoulder)
    body.pair("trim", shoulder, (0.16, 0.14, 0.16), "arm_")
    hand = (0.12, g + 0.2, z - 0.5 * tall)
    body.limbs("limbs", shoulder, hand, 0.14, "arm_")
    body.pair("steel", hand, (0.17, 0.15, 0.17), "arm_")
    body.anchors["neck"] = Anchor((0.0, 0.0, z + tall - 0.04), 0.62 * g, "body", 0.05)
    body.anchors["back"] = Anchor((-0.72 * g, 0.0, z + 0.1 * tall), 0.66 * g, "body", -1.57)
    _robot_head(body, z + tall)


def _robot_head(body: Body, top: float) -> None:
    s = body.shape
    r = 0.44 * s.head
    hz = top + 0.78 * r
    body.hinge("head", (0.0, 0.0, top))
    body.add("steel", (0.0, 0.0, top + 0.02), (0.14, 0.14, 0.14), "head")
    body.add("head", (0.0, 0.0, hz), (0.92 * r, 1.12 * r, 0.82 * r), "head")
    body.pair("steel", (0.0, 1.12 * r, hz), (0.2 * r, 0.14 * r, 0.26 * r), "head")
    body.add("ink", (0.66 * r, 0.0, hz + 0.06 * r), (0.3 * r, 0.86 * r, 0.42 * r), "head")
    body.pair("lamp", (0.9 * r, 0.34 * r, hz + 0.1 * r), (0.12 * r, 0.22 * r, 0.22 * r), "head")
    body.pair("ink", (1.0 * r, 0.34 * r, hz + 0.1 * r), (0.06 * r, 0.09 * r, 0.1 * r), "head")
    tip = hz + 0.8 * r + 0.18 * s.trim
    body.limb("ink", (0.0, 0.0, hz + 0.6 * r), (0.0, 0.0, tip), 0.035, "head")
    body.add("trim", (0.0, 0.0, tip), (0.12, 0.12, 0.12), "head")
    body.anchors["eyes"] = Anchor((0.8 * r, 0.38 * r, hz + 0.1 * r), 0.24 * r, "head", 0.2)
    body.anchors["hat"] = Anchor((0.0, 0.0, hz + 0.74 * r), 0.66 * r, "head", -0.05)
