"""Sums of an image along all straight lines that cross it (Brady 1998, SIAM J. Comput. 27, 107)."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray


class Line(NamedTuple):
    """A straight line through two points, pixels."""

    x1: float
    y1: float
    x2: float
    y2: float
    significance: float
    """Sum along it over the noise of that sum."""


class LineSums:
    """Digital lines of an image whose sums are significant."""

    def __init__(self, table: NDArray[np.float64]) -> None:
        self.table = table
        """``[n, 5]``: quadrant (`_turned`); column of the turned image in its first row, negative where the line enters
        from the side; columns by which it moves in as many rows as the next power of two has; sum over the noise of
        that sum; the sum itself."""
        self._order = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self.table)

    def strongest(self, n: int) -> NDArray[np.int64]:
        """Return the rows of at least ``n`` of the most significant lines, the strongest first; all if they are fewer.

        Of hundreds of thousands in a crowded field a few thousand are ever looked at: only these are put in order.
        """
        n = min(n, len(self))
        if self._order.size < n:
            significance = self.table[:, 3]
            rows = np.flatnonzero(significance >= np.partition(significance, -n)[-n])
            self._order = rows[np.argsort(-significance[rows], kind="stable")]
        return self._order


_ROOM = 4096
"""Lines of a quadrant that there is room for; where there are more, as about a bright trail, all are sought again."""
_FIRST = 16384
"""Lines that are put in order at first."""


def significant_lines(values: NDArray[np.float32], *, min_length: float, threshold: float) -> LineSums:
    """Return the lines whose sum is at least ``threshold`` times its noise, of an image of unit white noise.

    Lines shorter than ``min_length`` within the image are left out.
    """
    parts = []
    for quadrant in range(_N_QUADRANTS):
        turned = _turned(values, quadrant)
        sums = _sums_of(turned)
        found, n = _significant(sums, quadrant, *turned.shape, min_length, threshold, _ROOM)
        if n > _ROOM:
            found, n = _significant(sums, quadrant, *turned.shape, min_length, threshold, n)
        parts.append(found)
    return LineSums(np.concatenate(parts))


def strongest_standing(values: NDArray[np.float32], lines: LineSums) -> Line | None:
    """Return the line that is the most significant now that parts of the image were set to 0; None if none is left.

    Ends are where the line enters and leaves the image, to about a pixel.
    """
    n = _FIRST
    passed = [_columns_passed(int(_whole_power(side))) for side in values.shape]
    while True:
        rows = lines.strongest(n)
        best, significance = _strongest_standing(values, lines.table, rows, *passed)
        if rows.size == len(lines) or lines.table[rows[-1], 3] <= significance:
            break
        n *= 8
    if best < 0:
        return None
    quadrant, (start, shift) = int(lines.table[best, 0]), lines.table[best, 1:3].tolist()
    ny = _turned(values, quadrant).shape[0]
    run = shift * (ny - 1) / (_whole_power(ny) - 1)
    (x1, y1), (x2, y2) = (_to_image(quadrant, x, y, values.shape) for x, y in ((start, 0.0), (start + run, ny - 1.0)))
    return Line(x1, y1, x2, y2, float(significance))


_N_QUADRANTS = 4


def _turned(values: NDArray[np.float32], quadrant: int) -> NDArray[np.float32]:
    """Return a view in which the lines of a quadrant lean by 0 to 45 degrees from the vertical, to the right."""
    upright = values if quadrant < 2 else values.T
    return upright if quadrant % 2 == 0 else upright[:, ::-1]


def _to_image(quadrant: int, x: float, y: float, shape: tuple[int, ...]) -> tuple[float, float]:
    """Return x and y in an image of ``shape`` of a place in its turned view."""
    along = x if quadrant % 2 == 0 else (shape[1] if quadrant < 2 else shape[0]) - 1 - x
    return (along, y) if quadrant < 2 else (y, along)


@numba.njit(cache=True, error_model="numpy")
def _whole_power(n):  # type: ignore[no-untyped-def]
    """Return the smallest power of two, 2 at least, that is not smaller than ``n``."""
    power = 2
    while power < n:
        power *= 2
    return power


def _sums_of(turned: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the sums along all lines, by shift and padded start column."""
    (ny, nx), n_rows = turned.shape, int(_whole_power(turned.shape[0]))
    sums = np.zeros((n_rows, n_rows + nx), np.float32)
    sums[:ny, n_rows:] = turned
    height = 1
    while height < n_rows:
        sums = _joined_strips(sums, height)
        height *= 2
    return sums


@numba.njit(cache=True, error_model="numpy")
def _joined_strips(sums, height):  # type: ignore[no-untyped-def]
    """Join pairs of strips of ``height`` rows; row ``strip * height + shift`` holds the sums of lines moving
    ``shift`` columns within the strip, by starting column."""
    n_rows, width = sums.shape
    joined = np.empty_like(sums)
    for strip in range(0, n_rows, 2 * height):
        for shift in range(2 * height):
            half = shift // 2
            step = (shift + 1) // 2
            lower, upper = sums[strip + half], sums[strip + height + half]
            out = joined[strip + shift]
            for x in range(width - step):
                out[x] = lower[x] + upper[x + step]
            for x in range(width - step, width):
                out[x] = lower[x]
    return joined


@numba.njit(cache=True, error_model="numpy")
def _significant(sums, quadrant, ny, nx, min_length, threshold, room):  # type: ignore[no-untyped-def]
    """Return the table (see `LineSums`) of lines of a quadrant beyond the threshold, and how many there are."""
    found = np.empty((room, 5))
    n_rows, k = sums.shape[0], 0
    for shift in range(n_rows):
        slope = shift / (n_rows - 1.0)
        per_slope = 1.0 / slope if slope > 0 else 0.0
        n_least = max(min_length / math.sqrt(1.0 + slope * slope), 1.0)
        least = np.float32(threshold * math.sqrt(n_least) * (1.0 - 1e-6))  # no smaller sum can be strong enough
        for column in range(sums.shape[1]):
            total = sums[shift, column]
            if total <= least:
                continue
            start = column - n_rows
            if slope > 0:  # rows of the image for which 0 <= start + slope * row < nx
                n = min(ny - 1.0, (nx - 1.0 - start) * per_slope) - max(0.0, -start * per_slope) + 1.0
            else:
                n = float(ny) if start >= 0 else 0.0
            if n >= n_least and total >= threshold * math.sqrt(n):
                if k < room:
                    found[k, 0], found[k, 1], found[k, 2] = quadrant, start, shift
                    found[k, 3], found[k, 4] = total / math.sqrt(n), total
                k += 1
    return found[: min(k, room)], k


@cache
def _columns_passed(n_rows: int) -> NDArray[np.int16]:
    """Return ``[shift, row]`` by how many columns a digital line has moved in each row, as the strips are joined."""
    rest = np.broadcast_to(np.arange(n_rows), (n_rows, n_rows)).copy()
    shift = np.arange(n_rows)[:, None]
    passed, height = np.zeros((n_rows, n_rows), np.int16), n_rows
    while height > 1:
        height //= 2
        is_upper = rest >= height
        rest -= height * is_upper
        passed += (is_upper * ((shift + 1) // 2)).astype(np.int16)
        shift = shift // 2
    passed.flags.writeable = False
    return passed


@numba.njit(cache=True, error_model="numpy")
def _strongest_standing(values, table, rows, passed_upright, passed_lying):  # type: ignore[no-untyped-def]
    """Return the row of the line that is strongest by what is left along it, and its significance; -1: none."""
    best, most = -1, 0.0
    for k in rows:
        if table[k, 3] <= most:  # nor are those that follow: what was taken out made none stronger
            break
        quadrant, column, shift = int(table[k, 0]), int(table[k, 1]), int(table[k, 2])
        passed = passed_upright[shift] if quadrant < 2 else passed_lying[shift]
        left = table[k, 3] * _sum_along(values, passed, quadrant, column) / table[k, 4]
        if left > most:
            best, most = k, left
    return best, most


@numba.njit(cache=True, error_model="numpy", _nrt=False)
def _sum_along(values, passed, quadrant, column):  # type: ignore[no-untyped-def]
    """Return the sum along one digital line."""
    is_upright, is_mirrored = quadrant < 2, quadrant % 2 == 1
    ny, nx = values.shape if is_upright else (values.shape[1], values.shape[0])
    total = 0.0
    for row in range(ny):
        x = column + passed[row]
        if 0 <= x < nx:
            along = nx - 1 - x if is_mirrored else x
            total += values[row, along] if is_upright else values[along, row]
    return total
