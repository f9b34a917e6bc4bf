"""Sums of an image along all straight lines that cross it (Brady 1998, SIAM J. Comput. 27, 107)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

ToImage = Callable[[float, float], tuple[float, float]]
"""Carries x and y in a turned image back to the image."""


class Line(NamedTuple):
    """A straight line through two points, pixels."""

    x1: float
    y1: float
    x2: float
    y2: float
    significance: float
    """Sum along it over the noise of that sum."""


def strongest_line(values: NDArray[np.float32], *, min_length: float) -> Line | None:
    """Return the line with the largest sum for its noise, of an image of unit white noise.

    Lines shorter than ``min_length`` within the image are left out; None if there is no other. Ends are
    where the line enters and leaves the image, to about a pixel.
    """
    best: Line | None = None
    for turned, to_image in _quadrants(values):
        start, run, significance = _best_of_quadrant(turned, min_length)
        if significance > 0 and (best is None or significance > best.significance):
            (x1, y1), (x2, y2) = to_image(start, 0.0), to_image(start + run, turned.shape[0] - 1.0)
            best = Line(x1, y1, x2, y2, significance)
    return best


def _quadrants(values: NDArray[np.float32]) -> Iterator[tuple[NDArray[np.float32], ToImage]]:
    """Yield the image turned so that lines in each range of directions lean by 0 to 45 degrees from the vertical."""
    ny, nx = values.shape
    yield values, lambda x, y: (x, y)
    yield values[:, ::-1], lambda x, y: (nx - 1 - x, y)
    yield values.T, lambda x, y: (y, x)
    yield values.T[:, ::-1], lambda x, y: (y, ny - 1 - x)


def _best_of_quadrant(values: NDArray[np.float32], min_length: float) -> tuple[float, float, float]:
    """Return start column, columns moved from first to last row, and significance of the best line."""
    ny, nx = values.shape
    n_rows = 1 << max(math.ceil(math.log2(max(ny, 2))), 1)
    padded = np.zeros((n_rows, n_rows + nx), np.float32)
    padded[:ny, n_rows:] = values
    sums = padded
    height = 1
    while height < n_rows:
        sums = _joined_strips(sums, height)
        height *= 2
    shift, column, significance = _strongest(sums, ny, nx, n_rows, min_length)
    run = shift * (ny - 1) / (n_rows - 1)
    return column - n_rows, run, significance


@numba.njit(cache=True)
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


@numba.njit(cache=True)
def _strongest(sums, ny, nx, n_rows, min_length):  # type: ignore[no-untyped-def]
    """Return shift, padded start column and significance of the line with the largest sum for its length."""
    best_shift, best_column, best = 0, 0, 0.0  # best: signed square of the significance
    for shift in range(n_rows):
        slope = shift / (n_rows - 1.0)
        per_slope = 1.0 / slope if slope > 0 else 0.0
        n_least = min_length / math.sqrt(1.0 + slope * slope)
        least = np.float32(math.sqrt(best * n_least) * (1.0 - 1e-6))  # no smaller sum can be stronger
        for column in range(sums.shape[1]):
            total = sums[shift, column]
            if total <= least:
                continue
            start = column - n_rows
            if slope > 0:  # rows of the image for which 0 <= start + slope * row < nx
                n = min(ny - 1.0, (nx - 1.0 - start) * per_slope) - max(0.0, -start * per_slope) + 1.0
            else:
                n = float(ny) if start >= 0 else 0.0
            if n >= n_least and total * total > best * n:
                best_shift, best_column, best = shift, column, total * total / n
                least = np.float32(math.sqrt(best * n_least) * (1.0 - 1e-6))
    return best_shift, best_column, math.sqrt(best)
