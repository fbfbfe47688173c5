"""Ground, sky, skyline and light of every place, as functions of position and direction.

Procedural colour only: shadows, fog and the toys themselves are the renderer's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Rgb = tuple[float, float, float]
Field = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class Place:
    """Colours in [0, 1].

    `texture` maps ground x, y (metres of body units) to a weight of `mark` over `ground`;
    `skyline` maps azimuth and elevation (radians) to a weight of `far` over the sky.
    """

    ground: Rgb
    mark: Rgb
    horizon: Rgb
    zenith: Rgb
    far: Rgb
    texture: Field
    skyline: Field
    ambient: float = 0.5
    sun: Rgb = (0.62, 0.6, 0.55)
    shadow: float = 0.5


def _noise(x: Tensor, y: Tensor, seed: float) -> Tensor:
    """A smooth field in about [-1, 1] made of four incommensurate waves."""
    value = torch.sin(1.7 * x + 0.9 * y + seed) + torch.sin(-1.1 * x + 2.3 * y + 1.7 * seed)
    value = value + torch.sin(3.1 * x - 1.9 * y + 2.9 * seed) + torch.sin(2.2 * x + 3.7 * y - seed)
    return 0.25 * value


def _step(value: Tensor, width: float) -> Tensor:
    return (value / width + 0.5).clamp(0, 1)


def _grain(x: Tensor, y: Tensor, seed: float) -> Tensor:
    return 0.5 + 0.35 * _noise(3 * x, 3 * y, seed) + 0.15 * _noise(9 * x, 9 * y, seed)


def _ripples(x: Tensor, y: Tensor, seed: float) -> Tensor:
    return 0.5 + 0.5 * torch.sin(7 * y + 1.6 * torch.sin(0.8 * x + seed) + 0.6 * torch.sin(2.1 * x))


def _mown(x: Tensor, y: Tensor, seed: float) -> Tensor:
    tufts = _noise(11 * x, 11 * y, seed)
    return (0.5 + 0.3 * _noise(1.2 * x, 1.2 * y, seed) + 0.3 * tufts).clamp(0, 1)


def _drifts(x: Tensor, y: Tensor, seed: float) -> Tensor:
    return 0.5 + 0.5 * _noise(0.9 * x, 0.9 * y, seed)


def _lanes(x: Tensor, y: Tensor, seed: float) -> Tensor:
    """Dashed lines of a road that runs to the side."""
    band = _step(0.09 - (torch.remainder(y + 1.4, 2.8) - 1.4 + 0.9).abs(), 0.06)
    return band * _step(torch.sin(2.2 * x + seed) + 0.25, 0.2)


def _weave(x: Tensor, y: Tensor, seed: float) -> Tensor:
    """A carpet's border stripes and small diamonds."""
    stripe = _step(0.12 - (torch.remainder(y + 1.1 + seed, 3.2) - 1.6).abs(), 0.08)
    diamonds = _step(torch.cos(3.2 * x) * torch.cos(3.2 * y) - 0.8, 0.15)
    return torch.maximum(stripe, 0.8 * diamonds)


def _scratches(x: Tensor, y: Tensor, seed: float) -> Tensor:
    one = torch.sin(2.0 * x + 3.1 * y + seed + 1.2 * torch.sin(0.7 * x))
    two = torch.sin(-2.7 * x + 1.3 * y + 2 * seed)
    return torch.maximum(_step(one - 0.97, 0.05), _step(two - 0.975, 0.05))


def _planks(x: Tensor, y: Tensor, seed: float) -> Tensor:
    row = torch.floor(y / 0.6)
    seam = _step(0.03 - (torch.remainder(y, 0.6) - 0.3).abs() + 0.27 - 0.27, 0.03)
    joint = _step(0.03 - (torch.remainder(x + 1.37 * row + seed, 2.6) - 1.3).abs(), 0.03)
    tone = 0.25 + 0.25 * torch.sin(12.9 * row + seed)
    return torch.maximum(torch.maximum(seam, joint), tone)


def _craters(x: Tensor, y: Tensor, seed: float) -> Tensor:
    cell_x, cell_y = torch.floor(x / 1.6), torch.floor(y / 1.6)
    hash_ = torch.sin(12.9898 * cell_x + 78.233 * cell_y + seed)
    dx = torch.remainder(x, 1.6) - 0.8 - 0.3 * hash_
    dy = torch.remainder(y, 1.6) - 0.8 + 0.3 * torch.cos(9 * hash_)
    distance = (dx * dx + dy * dy).sqrt()
    return _step(0.26 + 0.14 * hash_ - distance, 0.1) * (hash_ > -0.5)


def _litter(x: Tensor, y: Tensor, seed: float) -> Tensor:
    return _step(_noise(2.3 * x, 2.3 * y, seed) + 0.5 * _noise(7 * x, 7 * y, seed), 0.6)


def _band(height: float) -> Field:
    """A strip above the horizon: the sea."""
    return lambda azimuth, elevation, seed: _step(height - elevation, 0.012)


def _ridge(height: float, frequency: float, sharp: bool) -> Field:
    """Hills (smooth) or peaks (sharp)."""

    def weight(azimuth: Tensor, elevation: Tensor, seed: float) -> Tensor:
        phase = frequency * azimuth + seed
        if sharp:
            saw = 2 * (torch.remainder(phase / 6.283, 1.0) - 0.5).abs()
            saw = 0.65 * saw + 0.35 * 2 * (torch.remainder(phase / 2.71, 1.0) - 0.5).abs()
            return _step(height * saw - elevation, 0.02)
        wave = 0.6 + 0.25 * torch.sin(phase) + 0.15 * torch.sin(2.3 * phase)
        return _step(height * wave - elevation, 0.02)

    return weight


def _houses(azimuth: Tensor, elevation: Tensor, seed: float) -> Tensor:
    """Dark blocks with lit windows, as a signed weight: windows stay sky-bright."""
    column = torch.floor(azimuth / 0.13 + seed)
    height = 0.12 + 0.07 * torch.sin(7.1 * column + seed)
    inside = _step(height - elevation, 0.01)
    window = _step(torch.sin(150 * azimuth) - 0.2, 0.6) * _step(
        torch.sin(170 * elevation) - 0.2, 0.6
    )
    lit = torch.sin(37 * torch.floor(azimuth / 0.042) + 91 * torch.floor(elevation / 0.037)) > 0.1
    return inside * (1 - 1.9 * window * lit)


def _trees(azimuth: Tensor, elevation: Tensor, seed: float) -> Tensor:
    """Trunks in front of a dark green depth."""
    wave = torch.sin(23 * azimuth + seed + 0.7 * torch.sin(9 * azimuth))
    return _step(wave - 0.55, 0.25) * _step(0.9 - elevation, 0.1)


def _stars(azimuth: Tensor, elevation: Tensor, seed: float) -> Tensor:
    """Sparse bright dots."""
    cell_a, cell_e = torch.floor(azimuth / 0.07), torch.floor(elevation / 0.07)
    hash_ = torch.frac(43758.5 * torch.sin(12.98 * cell_a + 78.2 * cell_e + seed)).abs()
    da = torch.remainder(azimuth, 0.07) - 0.035
    de = torch.remainder(elevation, 0.07) - 0.035
    return _step(0.011 - (da * da + de * de).sqrt(), 0.012) * (hash_ > 0.6)


def _wainscot(azimuth: Tensor, elevation: Tensor, seed: float) -> Tensor:
    """A skirting board along the wall."""
    return _step(0.035 - elevation, 0.01)


def _wallpaper(azimuth: Tensor, elevation: Tensor, seed: float) -> Tensor:
    stripes = 0.5 * _step(torch.sin(26 * azimuth + seed), 0.4)
    return torch.maximum(stripes, _step(0.03 - elevation, 0.01))


PLACES: dict[str, Place] = {
    "beach": Place(
        (0.93, 0.83, 0.6),
        (0.85, 0.73, 0.49),
        (0.74, 0.9, 0.99),
        (0.36, 0.7, 0.97),
        (0.1, 0.48, 0.76),
        _grain,
        _band(0.055),
    ),
    "meadow": Place(
        (0.42, 0.72, 0.24),
        (0.3, 0.6, 0.17),
        (0.78, 0.91, 1.0),
        (0.4, 0.68, 0.98),
        (0.25, 0.52, 0.3),
        _mown,
        _ridge(0.09, 5.0, False),
    ),
    "snow": Place(
        (0.95, 0.97, 1.0),
        (0.85, 0.9, 0.97),
        (0.8, 0.85, 0.91),
        (0.6, 0.68, 0.79),
        (0.53, 0.6, 0.7),
        _drifts,
        _ridge(0.15, 7.0, True),
        0.52,
        (0.5, 0.5, 0.5),
        0.4,
    ),
    "desert": Place(
        (0.89, 0.56, 0.27),
        (0.8, 0.46, 0.2),
        (0.99, 0.9, 0.7),
        (0.96, 0.76, 0.48),
        (0.74, 0.39, 0.22),
        _ripples,
        _ridge(0.1, 4.0, True),
    ),
    "street": Place(
        (0.2, 0.21, 0.26),
        (0.92, 0.86, 0.55),
        (0.12, 0.12, 0.32),
        (0.03, 0.03, 0.14),
        (0.06, 0.05, 0.11),
        _lanes,
        _houses,
        0.46,
        (0.56, 0.54, 0.52),
        0.55,
    ),
    "carpet": Place(
        (0.68, 0.08, 0.12),
        (0.9, 0.68, 0.26),
        (0.95, 0.9, 0.8),
        (0.87, 0.8, 0.68),
        (0.55, 0.34, 0.2),
        _weave,
        _wainscot,
    ),
    "ice": Place(
        (0.42, 0.8, 0.86),
        (0.88, 0.98, 1.0),
        (0.93, 0.84, 0.95),
        (0.62, 0.55, 0.84),
        (0.3, 0.42, 0.66),
        _scratches,
        _ridge(0.08, 9.0, True),
        0.52,
        (0.52, 0.5, 0.5),
        0.4,
    ),
    "floor": Place(
        (0.74, 0.5, 0.3),
        (0.54, 0.34, 0.19),
        (0.66, 0.86, 0.74),
        (0.5, 0.76, 0.64),
        (0.93, 0.95, 0.9),
        _planks,
        _wallpaper,
    ),
    "moon": Place(
        (0.6, 0.6, 0.63),
        (0.42, 0.42, 0.46),
        (0.05, 0.05, 0.07),
        (0.01, 0.01, 0.03),
        (0.95, 0.95, 0.85),
        _craters,
        _stars,
        0.4,
        (0.66, 0.66, 0.68),
        0.65,
    ),
    "forest": Place(
        (0.2, 0.36, 0.15),
        (0.36, 0.25, 0.12),
        (0.17, 0.42, 0.23),
        (0.06, 0.22, 0.12),
        (0.24, 0.15, 0.08),
        _litter,
        _trees,
        0.5,
        (0.56, 0.58, 0.42),
        0.5,
    ),
}


def _blend(low: Rgb, high: Rgb, weight: Tensor) -> Tensor:
    a, b = weight.new_tensor(low), weight.new_tensor(high)
    return a + (b - a) * weight[..., None]


def ground_colour(place: Place, x: Tensor, y: Tensor, seed: float, clarity: Tensor) -> Tensor:
    """Unlit ground colour in [0, 1] at positions x, y (any shape): (..., 3).

    `clarity` (same shape, 0 to 1) fades the texture where a pixel would see many of its waves.
    """
    return _blend(place.ground, place.mark, place.texture(x, y, seed) * clarity)


def sky_colour(place: Place, azimuth: Tensor, elevation: Tensor, seed: float) -> Tensor:
    """Sky colour at directions in radians (any shape): (..., 3)."""
    sky = _blend(place.horizon, place.zenith, (2.2 * elevation).clamp(0, 1))
    weight = place.skyline(azimuth, elevation.clamp_min(0), seed)[..., None]
    far = weight.new_tensor(place.far)
    lamps = weight.new_tensor((0.9, 0.75, 0.35))
    return torch.lerp(torch.lerp(sky, far, weight.clamp(0, 1)), lamps, (-weight).clamp(0, 1))
