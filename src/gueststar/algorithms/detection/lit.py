"""Pixels above a threshold: they are few, and what is asked of them should not be asked of all."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

_AT_ONCE = 32
"""Pixels of a row that are looked at together: nearly everywhere none of them is lit."""


class LitPixels(NamedTuple):
    """Positions in reading order."""

    y: NDArray[np.int32]
    x: NDArray[np.int32]


def lit_pixels(score: NDArray[np.float32], threshold: float, *, sign: float = 1.0, border: int = 0) -> LitPixels:
    """Return the pixels whose ``score`` times ``sign`` reaches the threshold, not within ``border`` of the edge."""
    return LitPixels(*_lit_pixels(score, np.float32(threshold), np.float32(sign), border))


def local_maxima(score: NDArray[np.float32], threshold: float, *, sign: float = 1.0, border: int = 0) -> LitPixels:
    """Return those of `lit_pixels` that exceed their eight neighbours; of equal ones the first in reading order."""
    lit = lit_pixels(score, threshold, sign=sign, border=border)
    is_highest = _are_highest(score, np.float32(sign), *lit)
    return LitPixels(lit.y[is_highest], lit.x[is_highest])


@njit(cache=True, error_model="numpy")
def _lit_pixels(score, threshold, sign, border):  # type: ignore[no-untyped-def]
    ny, nx = score.shape
    ys, xs, n = np.empty(1 << 14, np.int32), np.empty(1 << 14, np.int32), 0
    for y in range(border, ny - border):
        row = score[y]
        for x0 in range(border, nx - border, _AT_ONCE):
            x1 = min(x0 + _AT_ONCE, nx - border)
            if _count_lit(row[x0:x1], threshold, sign) == 0:
                continue
            if n + _AT_ONCE > ys.size:
                ys, xs = np.append(ys, np.empty_like(ys)), np.append(xs, np.empty_like(xs))
            for x in range(x0, x1):
                ys[n], xs[n] = y, x
                n += sign * row[x] >= threshold
    return ys[:n].copy(), xs[:n].copy()


@njit(cache=True, error_model="numpy", _nrt=False)
def _count_lit(line, threshold, sign):  # type: ignore[no-untyped-def]
    n = np.int32(0)
    for x in range(line.size):
        n += np.int32(sign * line[x] >= threshold)
    return n


@njit(cache=True, error_model="numpy")
def _are_highest(
    score: NDArray[np.float32], sign: float, ys: NDArray[np.int32], xs: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """Return which pixels exceed their neighbours, or are the first of equal ones."""
    ny, nx = score.shape
    is_peak = np.ones(ys.size, np.bool_)
    for k in range(ys.size):
        y, x = ys[k], xs[k]
        v = sign * score[y, x]
        for dy in range(-1, 2):
            for dx in range(-1, 2):
                yy, xx = y + dy, x + dx
                if (dy == 0 and dx == 0) or yy < 0 or xx < 0 or yy >= ny or xx >= nx:
                    continue
                w = sign * score[yy, xx]
                is_before = dy < 0 or (dy == 0 and dx < 0)
                if w > v or (is_before and w == v):
                    is_peak[k] = False
                    break
            if not is_peak[k]:
                break
    return is_peak
