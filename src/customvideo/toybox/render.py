"""The toybox's only renderer: a ray tracer for ellipsoids over a textured ground.

Rays are cast two by two per pixel where a toy may be and once elsewhere; hits of all frames are lit
together. Nothing here decides what is where (`motion`), what a place looks like (`places`) or how
a ray meets an ellipsoid (`quadrics`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from customvideo.toybox import quadrics as qd
from customvideo.toybox.bodies import Array
from customvideo.toybox.motion import FOCAL, Posed, Scene, stage
from customvideo.toybox.places import PLACES, ground_colour, sky_colour
from customvideo.toybox.world import COLOURS, PATTERNS, SLOTS, World

FPS = 8
_CORNERS = np.array([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)], float)


@dataclass(frozen=True, eq=False)
class Clip:
    """frames (frame, height, width, 3) uint8; masks (frame, subject, height, width) bool."""

    frames: Tensor
    masks: Tensor
    fps: int = FPS


@dataclass(frozen=True, eq=False)
class _Stage:
    """Everything the passes of one clip share; `size` is (height, width) in pixels."""

    world: World
    scene: Scene
    light: Array
    quadrics: qd.Quadrics
    size: tuple[int, int]
    device: torch.device

    @property
    def span(self) -> float:
        """Distance from the camera to the subjects: the unit of fog and fading."""
        middle = self.scene.subjects[0].centre.mean(axis=(0, 1))
        return float(np.linalg.norm(self.scene.camera.origin.mean(axis=0) - middle))

    def axes(self) -> tuple[Tensor, Tensor]:
        """Camera origin (frame, 3) and axes (frame, 3, 3)."""
        camera = self.scene.camera
        return qd.send(camera.origin, self.device), qd.send(camera.axes, self.device)


@dataclass(frozen=True)
class _Window:
    """A rectangle of the picture, in samples."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def rows(self) -> slice:
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        return slice(self.left, self.right)

    def __bool__(self) -> bool:
        return self.bottom > self.top and self.right > self.left


@dataclass(frozen=True, eq=False)
class _Hits:
    """The samples of a window that meet a toy; flat, frame and part are (hit,), points (3, hit).

    `flat` counts samples within the window, frame by frame; `row` counts parts, frame by frame.
    """

    window: _Window
    flat: Tensor
    frame: Tensor
    part: Tensor
    row: Tensor
    points: Tensor


def _grid(height: int, width: int, device: torch.device) -> Tensor:
    """Rays through the sample centres in camera axes, forward component 1: (3, height, width)."""
    y = (1 - (torch.arange(height, device=device) + 0.5) * (2 / height)) / FOCAL
    x = ((torch.arange(width, device=device) + 0.5) * (2 / width) - 1) * (width / height / FOCAL)
    columns, rows = torch.meshgrid(x, y, indexing="xy")
    return torch.stack([columns, rows, torch.ones_like(rows)])


def _turn(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Row-major 3x3 matrices (9, n) times vectors (3, n): (3, n)."""
    x, y, z = vectors
    rows = matrices.view(3, 3, -1)
    return torch.stack([row[0] * x + row[1] * y + row[2] * z for row in rows])


def _windows(points: Array, scene: Scene, size: tuple[int, int]) -> list[_Window]:
    """Per frame, the rectangle of a height x width picture that holds points (frame, point, 3)."""
    height, width = size
    away = points - scene.camera.origin[:, None]
    seen = away @ np.swapaxes(scene.camera.axes, 1, 2)
    at = seen[..., :2] / np.maximum(seen[..., 2:], 0.05) * FOCAL
    x = (at[..., 0] * height / width + 1) * width / 2
    y = (1 - at[..., 1]) * height / 2
    bounds = np.stack([y.min(1), y.max(1), x.min(1), x.max(1)], axis=-1)
    low = np.clip(np.floor(bounds), 0, [height, height, width, width]).astype(int)
    high = np.clip(np.ceil(bounds), 0, [height, height, width, width]).astype(int)
    return [
        _Window(int(a[0]), int(b[1]), int(a[2]), int(b[3])) for a, b in zip(low, high, strict=True)
    ]


def _corners(subject: Posed) -> Array:
    """The corners of every part's own bounding box: (frame, 8 part, 3)."""
    local = _CORNERS * subject.radii[:, None, :]
    points = local @ np.swapaxes(subject.rotation, -1, -2) + subject.centre[:, :, None]
    return np.asarray(points.reshape(len(points), -1, 3))


def _light_direction(world: World) -> Array:
    """Unit vector towards the light: behind the camera, to one side."""
    turn = world.view.azimuth + world.view.sun_azimuth
    flat = np.cos(world.view.sun_height)
    return np.array([np.sin(turn) * flat, -np.cos(turn) * flat, np.sin(world.view.sun_height)])


def _ground_shade(stage_: _Stage, points: Tensor) -> Tensor:
    """Shadow on ground positions (frame, height, width, 3): (frame, height, width) in [0, 1]."""
    shade = torch.zeros_like(points[..., 0])
    corners = np.concatenate([_corners(subject) for subject in stage_.scene.subjects], axis=1)
    cast = corners - corners[..., 2:] / stage_.light[2] * stage_.light
    for frame, window in enumerate(_windows(cast, stage_.scene, stage_.size)):
        if window:
            spots = points[frame, window.rows, window.columns]
            dark = qd.shade(spots.flatten(0, 1).T, stage_.quadrics, frame)
            shade[frame, window.rows, window.columns] = dark.view(spots.shape[:2])
    return shade


def _background(stage_: _Stage) -> Tensor:
    """Ground with soft shadows, and sky: (frame, height, width, 3) in [0, 1]."""
    world, place, seed = stage_.world, PLACES[stage_.world.place], stage_.world.view.texture
    origin, axes = stage_.axes()
    rays = _grid(*stage_.size, stage_.device).flatten(1).T @ axes
    rays = rays.view(-1, *stage_.size, 3)
    elevation = torch.atan2(rays[..., 2], rays[..., :2].norm(dim=-1))
    sky = sky_colour(place, torch.atan2(rays[..., 0], rays[..., 1]), elevation, seed)
    distance = origin[:, None, None, 2] / (-rays[..., 2]).clamp_min(1e-3)
    points = origin[:, None, None, :] + distance[..., None] * rays
    points[..., 2] = 0
    clarity = 1 / (1 + (distance / (1.7 * stage_.span)) ** 4)
    ground = ground_colour(place, points[..., 0], points[..., 1], seed, clarity)
    shade = place.shadow * _ground_shade(stage_, points)
    lit = ground * (world.view.brightness * (1 - shade))[..., None]
    fog = 1 - torch.exp(-((distance / (3.5 * stage_.span)).clamp(0, 40) ** 1.5))
    lit = torch.lerp(lit, rays.new_tensor(place.horizon), (0.75 * fog)[..., None])
    return torch.where(rays[..., 2:] < 0, lit, sky)


def _trace(stage_: _Stage, step: int) -> _Hits:
    """Cast step x step rays per pixel where toys may be; keep the samples that meet one."""
    size = (stage_.size[0] * step, stage_.size[1] * step)
    grid = _grid(*size, stage_.device)
    squares = qd.monomials(grid)
    frames = len(stage_.scene.camera.origin)
    inverse = torch.zeros((frames, *size), device=stage_.device)
    part = torch.zeros((frames, *size), dtype=torch.long, device=stage_.device)
    seen = []
    for subject, parts in zip(stage_.scene.subjects, stage_.quadrics.parts, strict=True):
        for frame, window in enumerate(_windows(_corners(subject), stage_.scene, size)):
            if not window:
                continue
            seen.append(window)
            box = (frame, window.rows, window.columns)
            rays = grid[:, window.rows, window.columns].flatten(1)
            terms = squares[:, window.rows, window.columns].flatten(1)
            value, which = qd.nearest(rays, terms, stage_.quadrics, frame, parts)
            value, which = value.view(inverse[box].shape), which.view(inverse[box].shape)
            closer = value > inverse[box]
            inverse[box] = torch.where(closer, value, inverse[box])
            part[box] = torch.where(closer, which, part[box])
    return _gather(stage_, _union(seen, step), grid, inverse, part)


def _union(windows: Sequence[_Window], step: int) -> _Window:
    """The smallest rectangle of whole pixels around all windows."""
    if not windows:
        return _Window(0, 0, 0, 0)
    return _Window(
        min(w.top for w in windows) // step * step,
        -(-max(w.bottom for w in windows) // step) * step,
        min(w.left for w in windows) // step * step,
        -(-max(w.right for w in windows) // step) * step,
    )


def _gather(stage_: _Stage, window: _Window, grid: Tensor, inverse: Tensor, part: Tensor) -> _Hits:
    """Collect the hits of all frames into one list with their positions."""
    near = inverse[:, window.rows, window.columns].flatten()
    flat = near.nonzero()[:, 0]
    which = part[:, window.rows, window.columns].flatten()[flat]
    area = (window.bottom - window.top) * (window.right - window.left)
    frame = flat // max(area, 1)
    rays = grid[:, window.rows, window.columns].flatten(1)[:, flat - frame * area]
    origin, axes = stage_.axes()
    turned = _turn(axes.mT.flatten(1).T[:, frame], rays)
    points = origin.T[:, frame] + turned / near[flat]
    row = frame * stage_.quadrics.parts[-1].stop + which
    return _Hits(window, flat, frame, which, row, points)


def _paint(subject: Posed) -> Array:
    """Per part: colour 3, pattern colour 3, grain 3, pattern number, pattern phase; (part, 11)."""
    body = subject.body
    toy = body.individual
    phase = float(10 * np.sum(np.abs(toy.proportions)))
    mark = np.array(COLOURS[toy.pattern_colour]) / 255
    rows = []
    for part in body.parts:
        base = np.array(body.colour(part.paint)) / 255
        same = part.paint in SLOTS[:3] and body.colour(part.paint) == body.colour("body")
        number = PATTERNS.index(toy.pattern) if same else 0
        rows.append([*base, *mark, *body.grain, number, phase])
    return np.array(rows)


def _pattern(rest: Tensor, paint: Tensor) -> Tensor:
    """Colour of points in the rest pose (3, hit) with paint columns (11, hit): (3, hit)."""
    number, seed = paint[9], paint[10]
    along = (rest * paint[6:9]).sum(0)
    stripes = torch.sin(17.0 * along + seed + 0.5 * torch.sin(6 * rest[1])) / 0.35
    ahead = rest.roll(1, 0)
    cells = rest / 0.24 + 0.37 * torch.floor(ahead / 0.24) + seed
    spots = (0.34 - (torch.remainder(cells, 1.0) - 0.5).square().sum(0).sqrt()) / 0.06
    shift = seed * rest.new_tensor([[1.0], [1.7], [2.9]])
    patches = (torch.sin(5.1 * rest + 2.3 * ahead + shift).sum(0) - 0.35) / 0.25
    weight = torch.where(number == 1, stripes, torch.where(number == 2, spots, patches))
    weight = (weight + 0.5).clamp(0, 1) * (number > 0)
    return torch.lerp(paint[:3], paint[3:6], weight)


def _albedo(stage_: _Stage, hits: _Hits) -> Tensor:
    """Unlit colour of the hits, the pattern fixed to the body: (3, hit)."""
    subjects = stage_.scene.subjects
    paint = np.concatenate([_paint(subject) for subject in subjects], axis=0)
    turn = np.concatenate([s.joint_rotation for s in subjects], axis=1)
    shift = np.concatenate([s.joint_shift for s in subjects], axis=1)
    away = hits.points - qd.send(shift.reshape(-1, 3).T, stage_.device)[:, hits.row]
    back = np.swapaxes(turn, -1, -2).reshape(-1, 9).T
    rest = _turn(qd.send(back, stage_.device)[:, hits.row], away)
    return _pattern(rest, qd.send(paint.T, stage_.device)[:, hits.part])


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return like.new_tensor(values)[:, None]


def _illuminate(stage_: _Stage, hits: _Hits) -> Tensor:
    """Lambert, ambient light, light from the ground and a soft highlight: (3, hit)."""
    place, quadrics = PLACES[stage_.world.place], stage_.quadrics
    away = hits.points - quadrics.centre[:, hits.row]
    normal = _turn(quadrics.form[:, hits.row], away)
    normal = normal / normal.square().sum(0).sqrt()
    facing = (normal * _column(stage_.light.tolist(), normal)).sum(0).clamp_min(0)
    counts = torch.bincount(hits.frame, minlength=len(quadrics.shadow)).tolist()
    chunks = enumerate(torch.split(hits.points, counts, dim=1))
    lit = 1 - torch.cat([qd.shade(chunk, quadrics, frame) for frame, chunk in chunks])
    albedo = _albedo(stage_, hits)
    sun = facing * (0.15 + 0.85 * lit) * _column(place.sun, normal)
    ambient = place.ambient * (0.86 + 0.24 * normal[2])
    bounce = 0.05 * (1 - normal[2]) * _column(place.ground, normal)
    shine = 0.16 * facing.pow(24) * lit
    colour = albedo * (ambient + sun) + bounce * (0.3 + 0.7 * albedo)
    return (colour * stage_.world.view.brightness + shine).clamp_(0, 1)


def _pool(samples: Tensor, step: int) -> Tensor:
    """Mean over step x step samples of (frame, rows, columns, ...)."""
    total = torch.zeros_like(samples[:, ::step, ::step])
    for row in range(step):
        for column in range(step):
            total += samples[:, row::step, column::step]
    return total / step**2


def _shares(stage_: _Stage, hits: _Hits, shape: tuple[int, int, int], step: int) -> Tensor:
    """Each pixel belongs to whoever owns most of its samples: (frame, subject, rows, columns)."""
    quadrics = stage_.quadrics
    count = len(quadrics.parts)
    sizes = torch.tensor([p.stop - p.start for p in quadrics.parts], device=stage_.device)
    owners = torch.arange(count, device=stage_.device).repeat_interleave(sizes)
    owner = torch.full(shape, count, device=stage_.device)
    owner.view(-1)[hits.flat] = owners[hits.part]
    votes = torch.stack([_pool((owner == k).float(), step) for k in range(count + 1)])
    most = votes.amax(dim=0)
    taken = torch.zeros_like(most, dtype=torch.bool)
    masks = []
    for share in votes[:-1]:
        masks.append((share == most) & ~taken)
        taken = taken | masks[-1]
    return torch.stack(masks, dim=1)


@torch.no_grad()
def render(
    world: World,
    frames: int = 8,
    height: int = 64,
    width: int = 96,
    device: str | torch.device = "cpu",
    supersample: int = 2,
) -> Clip:
    """Render a world as `frames` frames of height x width pixels; deterministic on one device.

    Each pixel is the mean of supersample² rays where a toy is, one ray elsewhere.
    """
    device = torch.device(device)
    scene, light = stage(world, frames, width / height), _light_direction(world)
    with torch.autocast(device.type, enabled=False):
        quadrics = qd.prepare(scene, light, device)
        return _render(_Stage(world, scene, light, quadrics, (height, width), device), supersample)


def _render(stage_: _Stage, step: int) -> Clip:
    picture = _background(stage_)
    hits = _trace(stage_, step)
    window = hits.window
    rows = slice(window.top // step, window.bottom // step)
    columns = slice(window.left // step, window.right // step)
    masks = torch.zeros(
        (len(picture), len(stage_.world.individuals), *stage_.size),
        dtype=torch.bool,
        device=stage_.device,
    )
    if window:
        behind = picture[:, rows, columns]
        samples = behind.repeat_interleave(step, 1).repeat_interleave(step, 2)
        shape = (samples.shape[0], samples.shape[1], samples.shape[2])
        samples.view(-1, 3)[hits.flat] = _illuminate(stage_, hits).T
        picture[:, rows, columns] = _pool(samples, step)
        masks[:, :, rows, columns] = _shares(stage_, hits, shape, step)
    return Clip((picture.clamp(0, 1) * 255 + 0.5).to(torch.uint8), masks)
