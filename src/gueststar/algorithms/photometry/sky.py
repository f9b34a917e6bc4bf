"""What is left of the background once the sources are subtracted."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from gueststar.algorithms.psf.scene import Scene

Floats64 = NDArray[np.float64]


def subtract_residual_background_in_place(scene: Scene, *, box: int, step: int = 3) -> float:
    """Subtract the smooth median of ``scene.residual`` from it and from ``scene.image``; return its largest size.

    In crowded fields a background estimated among the stars is too high or too low; when their models are gone the
    median of boxes of ``box`` pixels is right. Every ``step``-th pixel along each axis is looked at; nothing is
    done for ``box`` 0 or where the image is smaller than a box.
    """
    ny, nx = scene.image.shape
    if box == 0 or min(ny, nx) < box:
        return 0.0
    rows, columns = max(1, round(ny / box)), max(1, round(nx / box))
    grid = _box_medians(scene, rows, columns, step)
    if not np.isfinite(grid).any():
        return 0.0
    grid = np.where(np.isfinite(grid), grid, np.nanmedian(grid))
    grid = median_filter(grid, size=3, mode="nearest")
    _subtract_grid(scene.residual, grid)
    _subtract_grid(scene.image, grid)
    return float(np.max(np.abs(grid)))


def _box_medians(scene: Scene, rows: int, columns: int, step: int) -> Floats64:
    ny, nx = scene.image.shape
    edges_y = np.linspace(0, ny, rows + 1).astype(int)
    edges_x = np.linspace(0, nx, columns + 1).astype(int)
    grid = np.full((rows, columns), np.nan)
    for j in range(rows):
        for i in range(columns):
            part = (slice(edges_y[j], edges_y[j + 1], step), slice(edges_x[i], edges_x[i + 1], step))
            values = scene.residual[part][~scene.is_masked[part]]
            if values.size > 50:
                grid[j, i] = np.median(values)
    return grid


@njit(cache=True, error_model="numpy")
def _subtract_grid(image: NDArray[np.float32], grid: Floats64) -> None:
    """Subtract a grid of box values, joined bilinearly between the boxes' middles and flat beyond the outermost."""
    ny, nx = image.shape
    rows, columns = grid.shape
    line = np.empty(columns)
    for y in range(ny):
        v = min(max((y + 0.5) * rows / ny - 0.5, 0.0), rows - 1.0)
        j = min(int(v), max(rows - 2, 0))
        below, above = grid[j], grid[min(j + 1, rows - 1)]
        for c in range(columns):
            line[c] = below[c] + (v - j) * (above[c] - below[c])
        row = image[y]
        for x in range(nx):
            u = min(max((x + 0.5) * columns / nx - 0.5, 0.0), columns - 1.0)
            i = min(int(u), max(columns - 2, 0))
            row[x] -= np.float32(line[i] + (u - i) * (line[min(i + 1, columns - 1)] - line[i]))


def annulus_sky(scene: Scene, *, x: Floats64, y: Floats64, inner: float, outer: float) -> Floats64:
    """Return the mean of the residual image between two radii (pixels), without pixels beyond three sigma.

    NaN where fewer than ten pixels are left.
    """
    level = np.full(len(x), np.nan)
    _annulus(scene, np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), inner, outer, level)
    return level


@njit(cache=True, error_model="numpy")
def _annulus(scene: Scene, x: Floats64, y: Floats64, inner: float, outer: float, level: Floats64) -> None:
    ny, nx = scene.image.shape
    r = int(np.ceil(outer))
    for n in range(x.size):
        if not (np.isfinite(x[n]) and np.isfinite(y[n])):
            continue
        ix, iy = int(np.rint(x[n])), int(np.rint(y[n]))
        total, count = 0.0, 0
        for j in range(max(0, iy - r), min(ny, iy + r + 1)):
            for i in range(max(0, ix - r), min(nx, ix + r + 1)):
                d2 = (i - x[n]) ** 2 + (j - y[n]) ** 2
                if d2 < inner * inner or d2 > outer * outer or scene.is_masked[j, i]:
                    continue
                value = scene.residual[j, i]
                if value * value < 9.0 * scene.sky_variance[j, i]:
                    total += value
                    count += 1
        if count >= 10:
            level[n] = total / count
