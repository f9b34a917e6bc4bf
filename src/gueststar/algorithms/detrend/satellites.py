"""Trails of satellites and aircraft: straight, long, and as bright at one end as at the other."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gueststar.algorithms.detrend.line_sums import Line, significant_lines, strongest_standing
from gueststar.algorithms.detrend.trail_shape import (
    N_PIECES,
    SkyView,
    Trail,
    TrailConfig,
    best_run,
    carried_to_edges,
    measure_trail,
    strip_along,
)
from gueststar.algorithms.stats.robust import median_and_sigma


def find_trails(
    image: NDArray[np.float32],
    level: NDArray[np.float32],
    rms: NDArray[np.float32],
    is_excluded: NDArray[np.bool_],
    *,
    config: TrailConfig | None = None,
) -> list[Trail]:
    """Find trails that cross at least ``min_length`` of the image, or a corner of it.

    The image, less sky and in units of its noise, is binned, freed of what is broad, and clipped;
    all lines are summed; of those that stand out the strongest is followed piece by piece against strips
    beside it, and kept if most pieces are brighter and none outshines the others. It is then taken out and the search
    goes on with what is left. Excluded pixels (saturated, bled, bad) count as sky.
    """
    config = config or TrailConfig()
    factor = max(config.min_cell, math.ceil(max(image.shape) / config.cells))
    cells = _flattened(_binned_significance(image, level, rms, is_excluded, factor), config.clip)
    side = min(image.shape) / factor
    trails: list[Trail] = []
    lines = significant_lines(cells, min_length=config.min_corner_length * side, threshold=config.significance)
    for _ in range(config.max_trails):
        line = strongest_standing(cells, lines)
        if line is None or line.significance < config.significance:
            break
        stretch = _stretch_of(cells, line, side, config)
        if stretch is not None:
            view = SkyView(image, level, rms, is_excluded)
            trail = measure_trail(
                view, _on_pixels(stretch, factor), reach=config.max_half_width + 2 * factor, config=config
            )
            if config.faint_half_width > 0:
                trail = _whole_stretch(trail, carried_to_edges(_on_pixels(stretch, factor), image.shape), config)
            if trail is not None:
                trails.append(trail)
        _erase_in_place(cells, line, half_width=config.max_half_width / factor + 2.0)
    return trails


def _whole_stretch(trail: Trail | None, line: Line, config: TrailConfig) -> Trail:
    """Return the whole stretch of a line as a trail, of the measured width where there is one."""
    length = math.hypot(line.x2 - line.x1, line.y2 - line.y1)
    if trail is not None and math.hypot(trail.x2 - trail.x1, trail.y2 - trail.y1) > 0.9 * length:
        return trail
    width = config.faint_half_width if trail is None else max(trail.half_width, config.faint_half_width)
    return Trail(*line[:4], width, 0.0 if trail is None else trail.brightness)


def trail_pixels(trail: Trail, *, shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return y and x of the pixels within the half width of a trail."""
    return _paint(trail.x1, trail.y1, trail.x2, trail.y2, trail.half_width, shape[0], shape[1])


def _flattened(cells: NDArray[np.float32], clip: float) -> NDArray[np.float32]:
    """Return cells of unit noise around zero, clipped, without what is broader than a few tens of cells."""
    for _ in range(2):
        centre, sigma = median_and_sigma(cells[cells != 0])
        cells = np.where(cells == 0, 0.0, np.clip((cells - centre) / max(sigma, 1e-6), -clip, clip))
    broad = ndimage.uniform_filter(np.clip(cells, -1.0, 1.0), 41, mode="nearest")
    flat = np.where(cells == 0, 0.0, cells - broad)
    return np.asarray(flat / max(float(np.std(flat)), 1e-6), np.float32)


def _stretch_of(cells: NDArray[np.float32], line: Line, side: float, config: TrailConfig) -> Line | None:
    """Return the part of a line along which it is brighter than the strips beside it; None if it is no trail."""
    strip, x, y = strip_along(np.where(cells == 0, np.nan, cells), line, reach=9)
    inside = np.flatnonzero(np.isfinite(strip[8:11]).any(axis=0))
    if inside.size < 8:
        return None
    first, last = inside[0], inside[-1]
    pieces = np.array_split(np.arange(first, last + 1), min(N_PIECES, inside.size // 3 + 1))
    on, off = strip[8:11], np.vstack([strip[:5], strip[14:]])
    pulls = np.array([_pull(on[:, p], off[:, p]) for p in pieces])
    # A piece counts for the trail if it has half of what the brighter pieces have; stars count for one piece.
    ordinary = float(np.clip(0.5 * np.percentile(pulls, 80.0), 1.0, 2.0))
    start, end = best_run(np.minimum(pulls, 4.0) - ordinary)
    if end == start:
        return None
    run = pulls[start:end]
    a, b = pieces[start][0], pieces[end - 1][-1]
    is_whole = b - a + 1 >= 0.7 * inside.size  # from edge to edge, but for what a line a little off the trail loses
    is_trail = (
        (b - a + 1 >= config.min_length * side or is_whole)
        and np.mean(run > 1.0) >= config.min_covered
        and float(np.median(run)) > max(1.5, 6.0 / math.sqrt(run.size))
    )
    return Line(float(x[a]), float(y[a]), float(x[b]), float(y[b]), line.significance) if is_trail else None


def _pull(on: NDArray[np.float32], off: NDArray[np.float32]) -> float:
    """Return by how many sigma the pixels on a line are brighter than those beside it."""
    on, off = on[np.isfinite(on)], off[np.isfinite(off)]
    if on.size < 3 or off.size < 3:
        return 0.0
    return float((on.mean() - off.mean()) / (off.std() * math.sqrt(1.0 / on.size + 1.0 / off.size) + 1e-6))


def _on_pixels(line: Line, factor: int) -> Line:
    """Return a line given in cells of ``factor`` pixels in pixels."""
    x1, y1, x2, y2 = (value * factor + (factor - 1) / 2.0 for value in line[:4])
    return Line(x1, y1, x2, y2, line.significance)


def _erase_in_place(cells: NDArray[np.float32], line: Line, *, half_width: float) -> None:
    """Set the cells within ``half_width`` of a line to zero."""
    y, x = _paint(line.x1, line.y1, line.x2, line.y2, half_width, cells.shape[0], cells.shape[1])
    cells[y, x] = 0.0


@numba.njit(cache=True, error_model="numpy")
def _binned_significance(image, level, rms, is_excluded, factor):  # type: ignore[no-untyped-def]
    """Return the excess over the noise of cells (that of their central pixel); 0 in cells more than half excluded."""
    ny, nx = image.shape
    n_rows, n_columns = (ny + factor - 1) // factor, (nx + factor - 1) // factor
    cells = np.zeros((n_rows, n_columns), np.float32)
    excess, count = np.empty(nx, np.float32), np.empty(nx, np.float32)
    zero, one = np.float32(0.0), np.float32(1.0)
    for row in range(n_rows):
        excess[:] = zero
        count[:] = zero
        last = min((row + 1) * factor, ny)
        for y in range(row * factor, last):
            values, sky, masks = image[y], level[y], is_excluded[y]
            for x in range(nx):
                excess[x] += zero if masks[x] else values[x] - sky[x]
                count[x] += zero if masks[x] else one
        noise = rms[(row * factor + last - 1) // 2]
        for column in range(n_columns):
            total, n = zero, zero
            stop = min((column + 1) * factor, nx)
            for x in range(column * factor, stop):
                total += excess[x]
                n += count[x]
            if 2 * n > factor * factor:
                cells[row, column] = total / (np.float32(math.sqrt(n)) * noise[(column * factor + stop - 1) // 2])
    return cells


@numba.njit(cache=True, error_model="numpy")
def _paint(x1, y1, x2, y2, half_width, ny, nx):  # type: ignore[no-untyped-def]
    """Return the pixels within ``half_width`` of the segment between two points."""
    found_y, found_x = [0 for _ in range(0)], [0 for _ in range(0)]
    length = math.hypot(x2 - x1, y2 - y1)
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    first = max(math.floor(min(y1, y2) - half_width), 0)
    last = min(math.ceil(max(y1, y2) + half_width), ny - 1)
    for y in range(first, last + 1):
        left, right = min(x1, x2) - half_width, max(x1, x2) + half_width
        if abs(uy) > 1e-6:  # where the strip crosses this row
            middle = x1 + (y - y1) * ux / uy
            left = max(left, middle - (half_width + 1.0) / abs(uy))
            right = min(right, middle + (half_width + 1.0) / abs(uy))
        for x in range(max(int(left), 0), min(int(right) + 1, nx - 1) + 1):
            along = (x - x1) * ux + (y - y1) * uy
            across = (y - y1) * ux - (x - x1) * uy
            if abs(across) <= half_width and -half_width <= along <= length + half_width:
                found_y.append(y)
                found_x.append(x)
    return np.array(found_y, np.int64), np.array(found_x, np.int64)
