"""What is left of the background once the sources are subtracted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, median_filter, uniform_filter

from gueststar.algorithms.psf.scene import Scene
from gueststar.algorithms.stats.select import median_of_line

Floats64 = NDArray[np.float64]


class ResidualBackground(NamedTuple):
    """The background that was left over, in boxes of the image, and its error."""

    level: Floats64
    """``[rows, columns]``; may be empty."""
    error: Floats64
    """How far boxes are off their smoothed neighbourhood: structure that boxes do not resolve, and noise."""
    shape: tuple[int, int]

    def error_at(self, *, x: Floats64, y: Floats64) -> Floats64:
        """Return the error of the background per pixel at positions; 0 where it was not measured."""
        if self.error.size == 0:
            return np.zeros(len(x))
        rows, columns = self.error.shape
        place = [(y + 0.5) * rows / self.shape[0] - 0.5, (x + 0.5) * columns / self.shape[1] - 0.5]
        return np.asarray(map_coordinates(self.error, place, order=1, mode="nearest"))


def subtract_residual_background_in_place(scene: Scene, *, box: int, step: int = 3) -> ResidualBackground:
    """Subtract the smooth median of ``scene.residual`` from it and from ``scene.image``.

    In crowded fields a background estimated among the stars is too high or too low; when their models are gone the
    median of boxes of ``box`` pixels is right. Every ``step``-th pixel along each axis is looked at; nothing is
    done for ``box`` 0 or where the image is smaller than a box. What was subtracted is returned, with its error.
    """
    ny, nx = scene.image.shape
    none = ResidualBackground(np.zeros((0, 0)), np.zeros((0, 0)), (ny, nx))
    if box == 0 or min(ny, nx) < box:
        return none
    rows, columns = max(1, round(ny / box)), max(1, round(nx / box))
    grid = _box_medians(scene, rows, columns, step)
    if not np.isfinite(grid).any():
        return none
    grid = np.where(np.isfinite(grid), grid, np.nanmedian(grid))
    smooth = median_filter(grid, size=3, mode="nearest")
    _subtract_grid(scene, smooth)
    return ResidualBackground(smooth, np.sqrt(uniform_filter((grid - smooth) ** 2, 5, mode="nearest")), (ny, nx))


@njit(cache=True, error_model="numpy")
def _box_medians(scene: Scene, rows: int, columns: int, step: int) -> Floats64:
    """Return medians of the residual image in boxes; NaN where fewer than 50 pixels are usable."""
    ny, nx = scene.image.shape
    grid = np.full((rows, columns), np.nan)
    values = np.empty((ny // (rows * step) + 2) * (nx // (columns * step) + 2), np.float32)
    for j in range(rows):
        for i in range(columns):
            n = 0
            for y in range(j * ny // rows, (j + 1) * ny // rows, step):
                for x in range(i * nx // columns, (i + 1) * nx // columns, step):
                    if not scene.is_masked[y, x]:
                        values[n] = scene.residual[y, x]
                        n += 1
            if n > 50:
                grid[j, i] = median_of_line(values[:n])
    return grid


@njit(cache=True, error_model="numpy")
def _subtract_grid(scene: Scene, grid: Floats64) -> None:
    """Subtract a grid of box values, joined bilinearly between the boxes' middles and flat beyond the outermost."""
    ny, nx = scene.image.shape
    rows, columns = grid.shape
    left, share = np.empty(nx, np.int64), np.empty(nx, np.float32)
    for x in range(nx):
        u = min(max((x + 0.5) * columns / nx - 0.5, 0.0), columns - 1.0)
        left[x] = min(int(u), max(columns - 2, 0))
        share[x] = u - left[x]
    line, level = np.empty(columns + 1, np.float32), np.empty(nx, np.float32)
    for y in range(ny):
        v = min(max((y + 0.5) * rows / ny - 0.5, 0.0), rows - 1.0)
        j = min(int(v), max(rows - 2, 0))
        below, above = grid[j], grid[min(j + 1, rows - 1)]
        for c in range(columns):
            line[c] = below[c] + (v - j) * (above[c] - below[c])
        line[columns] = line[columns - 1]
        for x in range(nx):
            level[x] = line[left[x]] + share[x] * (line[left[x] + 1] - line[left[x]])
        image, residual = scene.image[y], scene.residual[y]
        for x in range(nx):
            image[x] -= level[x]
            residual[x] -= level[x]


def annulus_sky(scene: Scene, *, x: Floats64, y: Floats64, inner: float, outer: float) -> Floats64:
    """Return the mean of the residual image between two radii (pixels), without pixels beyond three sigma.

    NaN where fewer than ten pixels are left.
    """
    level = np.full(len(x), np.nan)
    _annulus(scene, np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), inner, outer, level)
    return level


@njit(cache=True, error_model="numpy", _nrt=False)
def _annulus(scene: Scene, x: Floats64, y: Floats64, inner: float, outer: float, level: Floats64) -> None:
    ny, nx = scene.image.shape
    for n in range(x.size):
        if not (np.isfinite(x[n]) and np.isfinite(y[n])):
            continue
        total, count = 0.0, 0.0
        for j in range(max(0, int(np.ceil(y[n] - outer))), min(ny, int(np.floor(y[n] + outer)) + 1)):
            far = np.sqrt(max(outer * outer - (j - y[n]) ** 2, 0.0))
            near = np.sqrt(max(inner * inner - (j - y[n]) ** 2, 0.0))
            a, d = max(0, int(np.ceil(x[n] - far))), min(nx, int(np.floor(x[n] + far)) + 1)
            b, c = min(max(a, int(np.ceil(x[n] - near))), d), max(min(d, int(np.floor(x[n] + near)) + 1), a)
            for part in (slice(a, b), slice(max(b, c), d)):
                some, used = _clipped_sum(
                    scene.residual[j, part], scene.sky_variance[j, part], scene.is_masked[j, part]
                )
                total += some
                count += used
        if count >= 10:
            level[n] = total / count


@njit(cache=True, error_model="numpy", _nrt=False, fastmath={"reassoc", "contract"})
def _clipped_sum(
    values: NDArray[np.float32], variance: NDArray[np.float32], is_masked: NDArray[np.bool_]
) -> tuple[float, float]:
    """Return sum and number of the values within three sigma of zero that are not masked."""
    total, count = np.float32(0), np.float32(0)
    for i in range(values.size):
        is_used = (not is_masked[i]) & (values[i] * values[i] < np.float32(9) * variance[i])
        total += values[i] if is_used else np.float32(0)
        count += np.float32(1) if is_used else np.float32(0)
    return float(total), float(count)
