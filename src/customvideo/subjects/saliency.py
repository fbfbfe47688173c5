"""Where a photo's subject probably is, from its colours alone, without any learned model.

Three independent guesses, each a map in [0, 1]: how little a region is connected to the picture's
border, how unlike the border strip its colour is, and how central it lies. They seed the GrabCut
segmenter (`customvideo.subjects.grabcut`); on their own they are NOT masks.

Axes: height, width; K superpixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["border_contrast", "central_prior", "region_contrast", "to_lab"]

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

_SUPERPIXELS = 300
_SIGMA_COLOUR = 10.0  # a just clearly visible difference in CIELAB
_SIGMA_PLACE = 0.4  # as a fraction of the picture's side


def region_contrast(image: NDArray[np.uint8]) -> Floats:
    """Contrast against regions that are connected to the border; map (height, width) in [0, 1].

    Robust background detection on superpixels: Zhu, Liang, Wei and Sun, "Saliency Optimization
    from Robust Background Detection" (CVPR 2014). Deviations: a grid-initialised k-means in place
    of SLIC, and a centre prior on the foreground weights, since these are photos OF something.
    """
    lab = to_lab(image, blur=1.0)
    regions = _Regions.of(lab)
    background = regions.background()
    contrast = (regions.colour_distance * regions.nearness) @ background
    centred = np.exp(-0.5 * (((regions.place - 0.5) / 0.33) ** 2).sum(axis=1))
    foreground = _unit_range(_unit_range(contrast) * centred)
    levels = _unit_range(regions.smoothed(foreground, background))
    return _stretch(levels[regions.labels].astype(np.float32))


def border_contrast(image: NDArray[np.uint8]) -> Floats:
    """Colour distance to the nearest of six border colours, times a centre prior."""
    lab = to_lab(image, blur=2.0)
    height, width = lab.shape[:2]
    depth = max(3, round(min(height, width) * 0.05))
    inner = np.zeros((height, width), bool)
    inner[depth:-depth, depth:-depth] = True
    border = lab[~inner]
    cv2.setRNGSeed(0)  # k-means++ draws its seeds from OpenCV's global generator
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 0.5)
    _, labels, _ = cv2.kmeans(border, 6, np.empty(0, np.int32), criteria, 2, cv2.KMEANS_PP_CENTERS)
    nearest = np.full((height, width), np.inf, np.float32)
    for label in range(6):
        cluster = border[labels[:, 0] == label]
        if len(cluster) >= 0.04 * len(border):
            nearest = np.minimum(nearest, _mahalanobis(lab, cluster))
    unlike = 1 - np.exp(-nearest / 18)
    return _stretch(unlike.astype(np.float32) * central_prior((height, width), spread=0.33))


def central_prior(shape: tuple[int, ...], spread: float = 0.25) -> Floats:
    """A Gaussian around the middle of `shape` (height, width); `spread` is its deviation.

    The deviation is a fraction of each side.
    """
    height, width = shape
    rows = (np.arange(height) + 0.5) / height - 0.5
    columns = (np.arange(width) + 0.5) / width - 0.5
    squares = (rows[:, None] / spread) ** 2 + (columns[None] / spread) ** 2
    return np.asarray(np.exp(-0.5 * squares), np.float32)


@dataclass(frozen=True, eq=False)
class _Regions:
    """Superpixels of a picture and how they relate.

    Attributes:
        labels: (height, width) superpixel of each pixel.
        place: (K, 2) mean row and column in [0, 1].
        colour_distance: (K, K) in CIELAB.
        nearness: (K, K), 1 for the same place, falling with distance in the picture.
        neighbours: (K, K) bool, touching pairs.
        at_border: (K,) bool.
    """

    labels: Labels
    place: NDArray[np.float64]
    colour_distance: NDArray[np.float64]
    nearness: NDArray[np.float64]
    neighbours: NDArray[np.bool_]
    at_border: NDArray[np.bool_]

    @classmethod
    def of(cls, lab: Floats) -> _Regions:
        height, width = lab.shape[:2]
        labels = _superpixels(lab)
        rows, columns = np.mgrid[:height, :width]
        place = _means(labels, np.stack([rows / height, columns / width], axis=-1))
        frame = np.concatenate([labels[:2].ravel(), labels[-2:].ravel()])
        frame = np.concatenate([frame, labels[:, :2].ravel(), labels[:, -2:].ravel()])
        at_border = np.zeros(len(place), bool)
        at_border[frame] = True
        return cls(
            labels=labels,
            place=place,
            colour_distance=_distances(_means(labels, lab)),
            nearness=np.exp(-0.5 * (_distances(place) / _SIGMA_PLACE) ** 2),
            neighbours=_neighbours(labels),
            at_border=at_border,
        )

    def background(self) -> NDArray[np.float64]:
        """(K,) in [0, 1]: how much of a region's like-coloured surroundings lies at the border.

        Border length over the square root of the area, both counted softly along the cheapest
        path from superpixel to superpixel: small for a subject even where it touches the border.
        """
        path = self._path_lengths()
        same = np.exp(-0.5 * (path / _SIGMA_COLOUR) ** 2)
        connectivity = same[:, self.at_border].sum(axis=1) / np.sqrt(same.sum(axis=1))
        return np.asarray(1 - np.exp(-0.5 * connectivity**2), np.float64)

    def smoothed(
        self, foreground: NDArray[np.float64], background: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """(K,) the least-squares compromise between both weights and smoothness over neighbours."""
        near = self.neighbours | (self.neighbours.astype(np.float64) @ self.neighbours > 0)
        near |= np.outer(self.at_border, self.at_border)
        np.fill_diagonal(near, False)
        tie = near * (np.exp(-0.5 * (self.colour_distance / _SIGMA_COLOUR) ** 2) + 0.1)
        laplacian = np.diag(tie.sum(axis=1)) - tie
        data = np.diag(foreground + 5 * background + 1e-6)
        return np.asarray(np.linalg.solve(data + laplacian, foreground), np.float64)

    def _path_lengths(self) -> NDArray[np.float64]:
        """(K, K) geodesic colour distances (Floyd-Warshall); border regions touch each other."""
        touching = self.neighbours | np.outer(self.at_border, self.at_border)
        # Steps as small as between any two neighbours are texture and cost nothing.
        closest = np.where(self.neighbours, self.colour_distance, np.inf).min(axis=1)
        steps = np.maximum(self.colour_distance - closest[np.isfinite(closest)].mean(), 0)
        path = np.where(touching, steps, np.inf)
        np.fill_diagonal(path, 0)
        for via in range(len(path)):
            path = np.minimum(path, path[:, via : via + 1] + path[via])
        return path


def _superpixels(lab: Floats, compactness: float = 12.0, iterations: int = 6) -> Labels:
    """(height, width) labels 0…K-1: local k-means in colour and place, started on a grid."""
    height, width = lab.shape[:2]
    side = float(np.sqrt(height * width / min(_SUPERPIXELS, height * width // 16)))
    tall, wide = max(2, round(height / side)), max(2, round(width / side))
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    place = np.stack([rows, columns], axis=-1) * np.float32(compactness / side)
    features = np.concatenate([lab, place], axis=-1).reshape(-1, 5)
    cell_row = np.minimum((rows * tall / height).astype(np.int64), tall - 1).ravel()
    cell_column = np.minimum((columns * wide / width).astype(np.int64), wide - 1).ravel()
    labels = cell_row * wide + cell_column
    centres = _means(labels, features, tall * wide)
    for _ in range(iterations):
        labels = _nearest_centre(features, centres, (cell_row, cell_column), (tall, wide))
        moved = _means(labels, features, tall * wide)
        occupied = np.bincount(labels, minlength=tall * wide) > 0
        centres = np.where(occupied[:, None], moved, centres)
    return np.unique(labels, return_inverse=True)[1].reshape(height, width).astype(np.int64)


def _nearest_centre(
    features: Floats,
    centres: NDArray[np.float64],
    cells: tuple[Labels, Labels],
    grid: tuple[int, int],
) -> Labels:
    """The nearest of the 3x3 centres around each pixel's grid cell; labels (pixel,)."""
    compact = centres.astype(np.float32)
    best = np.full(len(features), np.inf, np.float32)
    labels = np.zeros(len(features), np.int64)
    for offset in np.ndindex(3, 3):
        row, column = cells[0] + offset[0] - 1, cells[1] + offset[1] - 1
        inside = (row >= 0) & (row < grid[0]) & (column >= 0) & (column < grid[1])
        label = np.where(inside, row * grid[1] + column, 0)
        distance = np.square(features - compact[label]).sum(axis=1)
        closer = inside & (distance < best)
        best[closer], labels[closer] = distance[closer], label[closer]
    return labels


def _means(
    labels: Labels, values: NDArray[np.floating], count: int | None = None
) -> NDArray[np.float64]:
    """(K, channel) mean of `values` (…, channel) over each label."""
    flat, channels = labels.ravel(), values.reshape(-1, values.shape[-1]).T
    size = count or int(flat.max()) + 1
    sums = np.stack([np.bincount(flat, channel, size) for channel in channels], axis=1)
    return sums / np.maximum(np.bincount(flat, minlength=size), 1)[:, None]


def _neighbours(labels: Labels) -> NDArray[np.bool_]:
    count = int(labels.max()) + 1
    touching = np.zeros((count, count), bool)
    touching[labels[:, :-1], labels[:, 1:]] = True
    touching[labels[:-1], labels[1:]] = True
    touching |= touching.T
    np.fill_diagonal(touching, False)
    return touching


def _distances(points: NDArray[np.float64]) -> NDArray[np.float64]:
    differences = points[:, None] - points[None]
    return np.asarray(np.sqrt(np.square(differences).sum(axis=-1)), np.float64)


def _mahalanobis(lab: Floats, cluster: Floats) -> Floats:
    """Squared distance of every pixel to a cluster of colours, in the cluster's own spread."""
    spread = np.cov(cluster.T) + 20 * np.eye(3)
    away = lab - cluster.mean(axis=0)
    squares = np.einsum("hwi,ij,hwj->hw", away, np.linalg.inv(spread), away)
    return np.asarray(squares, np.float32)


def to_lab(image: NDArray[np.uint8], blur: float) -> Floats:
    """The picture in CIELAB, float32 (height, width, 3), blurred by `blur` pixels first."""
    soft = cv2.GaussianBlur(image, (0, 0), blur).astype(np.float32) / 255
    return np.asarray(cv2.cvtColor(soft, cv2.COLOR_RGB2LAB), np.float32)


def _unit_range(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _stretch(values: Floats) -> Floats:
    """Into [0, 1] so that a few glints do not push the rest of the subject under a threshold."""
    high = max(float(np.percentile(values, 98)), 1e-6)
    return np.asarray(np.sqrt(np.clip(values / high, 0, 1)), np.float32)
