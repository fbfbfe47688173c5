"""Ellipsoids as matrices: every ray meets every ellipsoid in two matrix products.

A primary ray starts at the camera, so the discriminant of its quadratic equation with an ellipsoid
is a quadratic form in the ray's direction: 6 monomials times per-ellipsoid coefficients. A shadow
ray runs along the light, so its discriminant is a quadratic polynomial in its origin: 10 monomials.
Coefficients are prepared in float64 and used in float32. No colour and no pixels here (`render`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from customvideo.toybox.bodies import Array
from customvideo.toybox.motion import Scene

PENUMBRA = 0.3  # depth of the soft edge of a shadow, in squared radii of the occluder
_PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


@dataclass(frozen=True, eq=False)
class Quadrics:
    """Coefficients of all ellipsoids of a scene; subject k owns the ellipsoids parts[k].

    discriminant (frame, part, 6) and slope (frame, part, 3) are for primary rays in camera axes;
    shadow (frame, part, 10) and approach (frame, part, 4) for shadow rays from world positions;
    form (9, frame * part) is the quadratic form and centre (3, frame * part) the middle.
    Rays and positions run along the last axis everywhere: that is several times faster on a CPU.
    """

    discriminant: Tensor
    slope: Tensor
    shadow: Tensor
    approach: Tensor
    form: Tensor
    centre: Tensor
    parts: tuple[slice, ...]


def send(value: Array, device: torch.device) -> Tensor:
    """A float64 array as a float32 tensor on a device."""
    return torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32)).to(device)


def _six(form: Array) -> Array:
    """Symmetric forms (..., 3, 3) as coefficients of the monomials of `monomials`: (..., 6)."""
    return np.stack([form[..., i, j] * (1 if i == j else 2) for i, j in _PAIRS], axis=-1)


def monomials(v: Tensor) -> Tensor:
    """x², y², z², xy, xz, yz of (3, ...): (6, ...)."""
    x, y, z = v
    return torch.stack([x * x, y * y, z * z, x * y, x * z, y * z])


def _outer(v: Array) -> Array:
    return np.asarray(v[..., :, None] * v[..., None, :])


def _apply(form: Array, v: Array) -> Array:
    """Matrices (..., 3, 3) times vectors (..., 3)."""
    return np.asarray((form @ v[..., None])[..., 0])


def _primary(form: Array, centre: Array, scene: Scene) -> tuple[Array, Array]:
    """Discriminant (frame, part, 6) and slope (frame, part, 3) for inverse distances.

    With a d² + 2 b d + c = 0 for the distance d, the nearest hit has
    1/d = -b/c + sqrt(b² - a c)/c, and c depends on the camera and the ellipsoid alone.
    """
    axes = scene.camera.axes[:, None]
    away = scene.camera.origin[:, None] - centre
    slope = _apply(form, away)
    c = (slope * away).sum(axis=-1) - 1
    seen = _apply(axes, slope) / c[..., None]
    turned = axes @ form @ np.swapaxes(axes, -1, -2)
    discriminant = _outer(seen) - turned / c[..., None, None]
    return _six(discriminant), -seen


def _shadow(form: Array, centre: Array, light: Array) -> tuple[Array, Array]:
    """(b² - a c) / a as (frame, part, 10) and b as (frame, part, 4), for the light's direction."""
    toward = form @ light
    a = toward @ light
    quadratic = _outer(toward) / a[..., None, None] - form
    bent = _apply(quadratic, centre)
    constant = 1 + (bent * centre).sum(axis=-1, keepdims=True)
    ten = np.concatenate([_six(quadratic), -2 * bent, constant], axis=-1)
    four = np.concatenate([toward, -(toward * centre).sum(axis=-1, keepdims=True)], axis=-1)
    return ten, four


def prepare(scene: Scene, light: Array, device: torch.device) -> Quadrics:
    """Coefficients of all ellipsoids of a scene under a light from direction `light` (3,)."""
    subjects = scene.subjects
    rotation = np.concatenate([s.rotation for s in subjects], axis=1)
    radii = np.concatenate([s.radii for s in subjects], axis=0)
    centre = np.concatenate([s.centre for s in subjects], axis=1)
    scaled = rotation / radii[None, :, None, :]
    form = scaled @ np.swapaxes(scaled, -1, -2)
    ends = np.cumsum([0, *(len(s.radii) for s in subjects)])
    discriminant, slope = _primary(form, centre, scene)
    shadow, approach = _shadow(form, centre, light)
    return Quadrics(
        discriminant=send(discriminant, device),
        slope=send(slope, device),
        shadow=send(shadow, device),
        approach=send(approach, device),
        form=send(form.reshape(-1, 9).T, device),
        centre=send(centre.reshape(-1, 3).T, device),
        parts=tuple(slice(int(a), int(b)) for a, b in pairwise(ends)),
    )


def _where_positive(value: Tensor) -> Tensor:
    """1 where value > 0, else 0, as numbers; overwrites `value`."""
    return value.mul_(1e20).clamp_(0, 1)


def nearest(
    rays: Tensor, squares: Tensor, quadrics: Quadrics, frame: int, parts: slice
) -> tuple[Tensor, Tensor]:
    """The first ellipsoid among `parts` that each ray meets in one frame.

    rays (3, ray) in camera axes and their monomials squares (6, ray) give the inverse distance in
    ray lengths, 0 for a miss, and the ellipsoid's number: (ray,) each.
    """
    inside = quadrics.discriminant[frame, parts] @ squares
    # A square root is slow on zeros and negative numbers, so misses get a tiny positive one.
    inverse = inside.clamp_min(1e-20).sqrt_().add_(quadrics.slope[frame, parts] @ rays)
    inverse.mul_(_where_positive(inside))
    value = inverse.amax(dim=0)
    part = torch.zeros_like(value, dtype=torch.long)
    hit = value.nonzero()[:, 0]
    part[hit] = inverse[:, hit].argmax(dim=0) + parts.start
    return value, part


def shade(points: Tensor, quadrics: Quadrics, frame: int) -> Tensor:
    """How much of the light the ellipsoids keep from points (3, point): (point,) in [0, 1]."""
    one = torch.ones_like(points[:1])
    depth = quadrics.shadow[frame] @ torch.cat([monomials(points), points, one])
    behind = quadrics.approach[frame].neg() @ torch.cat([points, one])
    return depth.mul_(_where_positive(behind)).amax(dim=0).div_(PENUMBRA).clamp_(0, 1)
