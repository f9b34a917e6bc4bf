"""The image in which lines are summed: a score image binned, clipped, flattened, of unit noise everywhere."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.stats.select import median_of
from gueststar.algorithms.streaks.readout import shared_by_lines

Float32Image = NDArray[np.float32]

CELLS_PER_FWHM = 1.25
"""Cells as fine as this lose about a tenth of the signal to noise of a line."""
MOST_CELLS = 2048
"""Cells along one side at most."""


class SearchCells(NamedTuple):
    """A binned score image."""

    values: Float32Image
    """Unit noise; 0 where nothing is known."""
    factor: int
    """Pixels along one side of a cell."""

    def on_pixels(self, ends: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """Return x1, y1, x2, y2 in pixels of a segment given in cells."""
        half = (self.factor - 1) / 2.0
        x1, y1, x2, y2 = (value * self.factor + half for value in ends)
        return x1, y1, x2, y2


def make_cells(score: Float32Image, *, fwhm: float, clip: float = 4.0, box: int = 64) -> SearchCells:
    """Bin a score image (0 where unusable) for the search for lines.

    Pixels count for at most ``clip`` sigma, so that a star is no line. From the cells a level that varies over boxes of
    ``box`` cells is subtracted, and where their scatter is above that of the image they are divided by it: residuals in
    crowded places then weigh no more than noise elsewhere.
    """
    factor = max(1, round(fwhm / CELLS_PER_FWHM), math.ceil(max(score.shape) / MOST_CELLS))
    cells = _binned(score, factor, clip)
    known = cells[cells != 0]
    if known.size < 100:
        return SearchCells(np.zeros_like(cells), factor)
    cells /= np.float32(max(median_of(np.abs(known)) / 0.6745, 1e-6))
    level, scatter = _box_statistics(cells, box)
    _flatten_in_place(cells, level, np.maximum(scatter, 1.0), box)
    for axis in (0, 1):
        if (shared := shared_by_lines(cells, cells != 0, scale=1.0, axis=axis)) is not None:
            cells -= np.where(cells != 0, np.expand_dims(shared, 1 - axis), np.float32(0.0))
    return SearchCells(cells, factor)


def coarser(cells: SearchCells, factor: int) -> SearchCells:
    """Return sums over ``factor`` x ``factor`` cells, of unit noise again."""
    sums = _binned(cells.values, factor, np.inf)
    known = sums[sums != 0]
    if known.size:
        sums /= np.float32(max(median_of(np.abs(known)) / 0.6745, 1e-6))
    return SearchCells(sums, cells.factor * factor)


def erase_in_place(cells: SearchCells, *, x1: float, y1: float, x2: float, y2: float, half_width: float) -> None:
    """Set to 0 the cells within ``half_width`` pixels of a segment given in pixels, and a cell more."""
    f = float(cells.factor)
    half = (cells.factor - 1) / 2.0
    _erase(cells.values, (x1 - half) / f, (y1 - half) / f, (x2 - half) / f, (y2 - half) / f, half_width / f + 1.0)


def hide_in_place(usable: NDArray[np.bool_], x1: float, y1: float, x2: float, y2: float, *, half_width: float) -> None:
    """Set to False the pixels within ``half_width`` of a segment."""
    _erase(usable.view(np.uint8), x1, y1, x2, y2, half_width)


@njit(cache=True)
def _binned(score, factor, clip):  # type: ignore[no-untyped-def]
    ny, nx = score.shape
    rows, columns = (ny + factor - 1) // factor, (nx + factor - 1) // factor
    cells = np.zeros((rows, columns), np.float32)
    high, low = np.float32(clip), np.float32(-clip)
    buffer = np.empty(columns * factor, np.float32)
    for row in range(rows):
        buffer[:] = np.float32(0.0)
        for y in range(row * factor, min((row + 1) * factor, ny)):
            line = score[y]
            for x in range(nx):
                buffer[x] += min(max(line[x], low), high)
        for column in range(columns):
            total = np.float32(0.0)
            for k in range(factor):
                total += buffer[column * factor + k]
            cells[row, column] = total
    return cells


@njit(cache=True)
def _box_statistics(cells, box):  # type: ignore[no-untyped-def]
    """Return level and scatter of boxes: means of clipped values, and of their sizes, where there are enough."""
    ny, nx = cells.shape
    rows, columns = max(1, (ny + box // 2) // box), max(1, (nx + box // 2) // box)
    level, scatter = np.zeros((rows, columns)), np.ones((rows, columns))
    for j in range(rows):
        for i in range(columns):
            total = size = 0.0
            n = 0
            for y in range(j * ny // rows, (j + 1) * ny // rows):
                for x in range(i * nx // columns, (i + 1) * nx // columns):
                    value = cells[y, x]
                    if value != 0.0:
                        total += min(max(value, -1.5), 1.5)
                        size += min(abs(value), 3.0)
                        n += 1
            if n > box:
                level[j, i] = total / n
                scatter[j, i] = 1.2533 * size / n
    return level, scatter


@njit(cache=True)
def _flatten_in_place(cells, level, scatter, box):  # type: ignore[no-untyped-def]
    """Subtract the level and divide by the scatter, both interpolated between the middles of the boxes."""
    ny, nx = cells.shape
    rows, columns = level.shape
    fractions, lefts = np.empty(nx), np.empty(nx, np.int64)
    for x in range(nx):
        u = min(max((x + 0.5) * columns / nx - 0.5, 0.0), columns - 1.0)
        lefts[x] = min(int(u), max(columns - 2, 0))
        fractions[x] = u - lefts[x]
    for y in range(ny):
        v = min(max((y + 0.5) * rows / ny - 0.5, 0.0), rows - 1.0)
        j = min(int(v), max(rows - 2, 0))
        fy, j1 = v - j, min(j + 1, rows - 1)
        stop = 0
        while stop < nx:  # cells between the same middles, many at once
            start, i = stop, lefts[stop]
            while stop < nx and lefts[stop] == i:
                stop += 1
            i1 = min(i + 1, columns - 1)
            _flatten_line(
                cells[y, start:stop], fractions[start:stop], fy, level[j, i], level[j, i1], level[j1, i],
                level[j1, i1], scatter[j, i], scatter[j, i1], scatter[j1, i], scatter[j1, i1],
            )  # fmt: skip


@njit(cache=True, error_model="numpy")
def _flatten_line(cells, fractions, fy, a, b, c, d, e, f, g, h):  # type: ignore[no-untyped-def]
    """Flatten cells of a row between four middles of boxes: levels ``a`` to ``d``, scatters ``e`` to ``h``."""
    for x in range(cells.size):
        fx, value = fractions[x], cells[x]
        middle = (1 - fy) * ((1 - fx) * a + fx * b)
        middle += fy * ((1 - fx) * c + fx * d)
        width = (1 - fy) * ((1 - fx) * e + fx * f)
        width += fy * ((1 - fx) * g + fx * h)
        cells[x] = value if value == np.float32(0.0) else np.float32((value - middle) / width)


@njit(cache=True)
def _erase(cells, x1, y1, x2, y2, half_width):  # type: ignore[no-untyped-def]
    ny, nx = cells.shape
    length = max(np.hypot(x2 - x1, y2 - y1), 1e-6)
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    for y in range(max(int(min(y1, y2) - half_width), 0), min(int(max(y1, y2) + half_width) + 1, ny - 1) + 1):
        left, right = min(x1, x2) - half_width, max(x1, x2) + half_width
        if abs(uy) > 1e-6:
            middle = x1 + (y - y1) * ux / uy
            left = max(left, middle - (half_width + 1.0) / abs(uy))
            right = min(right, middle + (half_width + 1.0) / abs(uy))
        for x in range(max(int(left), 0), min(int(right) + 1, nx - 1) + 1):
            along = (x - x1) * ux + (y - y1) * uy
            across = (y - y1) * ux - (x - x1) * uy
            if abs(across) <= half_width and -half_width <= along <= length + half_width:
                cells[y, x] = 0
