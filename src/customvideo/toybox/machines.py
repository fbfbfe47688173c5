"""Body plans of the things: car, train, teapot.

Geometry only; every number is in body units (see `bodies`), scaled by the toy's proportions.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from customvideo.toybox.bodies import Anchor, Body, face_eyes


def _wheels(body: Body, at_x: float, y: float, radius: float, joint: str) -> None:
    """Two wheels on one axle; the bar across each hub makes the turning visible."""
    body.hinge(joint + "_", (at_x, y, radius))
    body.pair("tyre", (at_x, y, radius), (radius, 0.1, radius), joint + "_")
    body.pair("limbs", (at_x, y + 0.05, radius), (0.62 * radius, 0.07, 0.62 * radius), joint + "_")
    body.pair("chalk", (at_x, y + 0.1, radius), (0.5 * radius, 0.045, 0.13 * radius), joint + "_")


def car(body: Body) -> None:
    s = body.shape
    half, g = 0.86 * s.length, 0.42 * (0.5 + 0.5 * s.girth)
    wheel = 0.22 * s.legs**0.6
    z = wheel + 0.2
    deck = 0.27 * (0.6 + 0.4 * s.girth)
    body.wheel = wheel
    body.add("body", (0.0, 0.0, z), (half, g, deck))
    body.add("body", (0.0, 0.0, z - 0.08), (0.94 * half, 1.02 * g, 0.62 * deck))
    roof = 0.36 * s.head
    x = -0.14 * half
    body.hinge("head", (x, 0.0, z + deck))
    top = z + 0.62 * deck
    body.add("glass", (x, 0.0, top + 0.36 * roof), (0.5 * half, 0.8 * g, 0.85 * roof))
    body.add("head", (x, 0.0, top + 0.78 * roof), (0.42 * half, 0.74 * g, 0.52 * roof))
    body.add("head", (x - 0.12 * half, 0.0, top + 0.5 * roof), (0.1 * half, 0.86 * g, 0.62 * roof))
    for joint, wx in (("wheel_f", 0.56 * half), ("wheel_b", -0.58 * half)):
        _wheels(body, wx, 0.98 * g, wheel, joint)
    face_eyes(body, (0.84 * half, 0.56 * g, z + 0.12), 0.13 * s.snout**0.5, "body", 0.25)
    body.add("steel", (0.96 * half, 0.0, z - 0.5 * deck), (0.1, 0.85 * g, 0.07))
    body.add("ink", (0.97 * half, 0.0, z - 0.06), (0.06, 0.3 * g, 0.06 * s.snout))
    body.add("steel", (-0.96 * half, 0.0, z - 0.5 * deck), (0.1, 0.85 * g, 0.07))
    wing = 0.2 * s.trim
    body.add("trim", (-0.92 * half, 0.0, z + deck + 0.5 * wing), (0.16, 1.0 * g, 0.05))
    body.limbs(
        "trim",
        (-0.84 * half, 0.5 * g, z + 0.1),
        (-0.9 * half, 0.5 * g, z + deck + 0.5 * wing),
        0.06,
    )
    body.add(
        "trim",
        (0.5 * half, 0.0, z + 0.83 * deck),
        (0.34 * half, 0.16 * g, 0.1 * deck),
        "body",
        (0, 0.2, 0),
    )
    body.anchors["hat"] = Anchor((x, 0.0, top + 1.2 * roof), 0.3, "body", 0.0)
    body.anchors["neck"] = Anchor((x, 0.0, top + 0.14 * roof), 0.5 * half, "body", 0.0)
    body.anchors["back"] = Anchor((-0.74 * half, 0.0, z + 0.9 * deck), 0.3, "body", -0.1)


def train(body: Body) -> None:
    s = body.shape
    half, g = 0.8 * s.length, 0.32 * (0.5 + 0.5 * s.girth)
    wheel = 0.19 * s.legs**0.5
    z = 1.5 * wheel + 0.9 * g
    body.wheel = wheel
    body.add("limbs", (0.0, 0.0, 1.5 * wheel), (1.08 * half, 0.9 * g, 0.12))
    for k in range(3):
        body.add("body", ((0.1 + 0.3 * k) * half, 0.0, z + 0.06), (0.42 * half, g, g))
    front = 1.08 * half
    body.add("steel", (front, 0.0, z + 0.06), (0.1, 0.86 * g, 0.86 * g))
    body.add("body", (front + 0.04, 0.0, z + 0.06), (0.1, 0.72 * g, 0.72 * g))
    for dx in (-0.86, -0.56):
        body.add("head", (dx * half, 0.0, z + 0.34), (0.26 * half, 1.12 * g, 0.62))
    body.pair("glass", (-0.7 * half, 1.02 * g, z + 0.5), (0.17 * half, 0.09, 0.2))
    body.add("trim", (-0.7 * half, 0.0, z + 0.98), (0.5 * half, 1.3 * g, 0.1))
    stack = 0.42 * s.trim**0.7
    base = z + 0.9 * g
    body.limb("trim", (0.74 * half, 0.0, base - 0.05), (0.74 * half, 0.0, base + stack), 0.1)
    body.add("trim", (0.74 * half, 0.0, base + stack + 0.04), (0.19, 0.19, 0.1))
    body.add("ink", (0.74 * half, 0.0, base + stack + 0.12), (0.12, 0.12, 0.05))
    body.add("trim", (0.16 * half, 0.0, base + 0.1), (0.15, 0.15, 0.15 * s.head))
    for k, dx in enumerate((0.66, 0.06, -0.62)):
        _wheels(body, dx * half, 0.92 * g, wheel * (1.25 if k == 2 else 1.0), f"wheel_{k}")
    body.add(
        "trim",
        (front + 0.05, 0.0, 0.8 * wheel),
        (0.2 * s.snout, 0.95 * g, 0.16),
        "body",
        (0, 0.5, 0),
    )
    face_eyes(body, (front + 0.08, 0.36 * g, z + 0.14), 0.12, "body", 0.15)
    body.add("nose", (front + 0.12, 0.0, z - 0.2 * g), (0.05, 0.3 * g, 0.045))
    body.anchors["hat"] = Anchor((-0.7 * half, 0.0, z + 1.06), 0.32, "body", 0.0)
    body.anchors["neck"] = Anchor((0.94 * half, 0.0, z + 0.04), 1.02 * g, "body", 1.5)
    body.anchors["back"] = Anchor((-1.02 * half, 0.0, z + 0.3), 0.32, "body", -1.57)


def _bow(body: Body, centre_x: float, centre_z: float, radius: float) -> None:
    """The teapot's handle: beads along a half circle opening forward."""
    for angle in np.linspace(0.5 * np.pi, 1.5 * np.pi, 7):
        at = (
            centre_x + 0.85 * radius * float(np.cos(angle)),
            0.0,
            centre_z + radius * float(np.sin(angle)),
        )
        body.add(
            "trim",
            at,
            (0.11, 0.1, 0.3 * radius),
            "body",
            (0, 0.5 * np.pi - float(angle) + 0.5 * np.pi, 0),
        )


def teapot(body: Body) -> None:
    s = body.shape
    r, tall = 0.58 * s.girth, 0.52 * s.length
    foot = 0.1
    z = foot + 0.92 * tall
    body.grain = (0.25, 0.0, 1.0)
    body.upright = True
    body.add("limbs", (0.0, 0.0, 0.09), (0.62 * r, 0.62 * r, 0.1))
    body.add("body", (0.0, 0.0, z), (r, r, tall))
    body.hinge("head", (-0.4 * r, 0.0, z + 0.8 * tall))
    body.add("limbs", (0.0, 0.0, z + 0.8 * tall), (0.68 * r, 0.68 * r, 0.1), "head")
    body.add("head", (0.0, 0.0, z + 0.88 * tall), (0.6 * r, 0.6 * r, 0.3 * s.head), "head")
    body.add("trim", (0.0, 0.0, z + 0.88 * tall + 0.32 * s.head), (0.13, 0.13, 0.13), "head")
    reach = 0.5 * s.snout
    path = (
        (0.8 * r, z - 0.25 * tall),
        (r + 0.45 * reach, z + 0.05 * tall),
        (r + 0.8 * reach, z + 0.5 * tall),
        (r + 1.15 * reach, z + 0.72 * tall),
    )
    for ((ax, az), (bx, bz)), radius in zip(pairwise(path), (0.17, 0.13, 0.1), strict=True):
        body.limb("limbs", (ax, 0.0, az), (bx, 0.0, bz), radius)
    body.add("limbs", (path[-1][0], 0.0, path[-1][1]), (0.14, 0.14, 0.08), "body", (0, 0.6, 0))
    body.add(
        "ink",
        (path[-1][0] + 0.03, 0.0, path[-1][1] + 0.05),
        (0.08, 0.08, 0.05),
        "body",
        (0, 0.6, 0),
    )
    _bow(body, -0.84 * r, z + 0.08 * tall, 0.42 * s.trim**0.6)
    face_eyes(body, (0.74 * r, 0.56 * r, z + 0.3 * tall), 0.14, "body", 0.65)
    body.anchors["hat"] = Anchor((0.0, 0.0, z + 0.88 * tall + 0.3 * s.head), 0.34, "head", -0.1)
    body.anchors["neck"] = Anchor((0.0, 0.0, z + 0.6 * tall), 0.82 * r, "body", 0.0)
    body.anchors["back"] = Anchor((-0.55 * r, 0.0, z + 0.62 * tall), 0.32, "body", -0.75)
