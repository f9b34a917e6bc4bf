"""Connected regions of a score image, divided between their significant peaks at the saddles."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.detection.peaks import Peaks, refine_peaks


class Footprints(NamedTuple):
    """The pixels of each detection."""

    labels: NDArray[np.int32]
    """``[y, x]``: 0 for sky, i + 1 for the pixels of peak i."""
    peaks: Peaks
    """Significant peaks, highest first."""
    parent: NDArray[np.int32]
    """Number of the connected region of each peak, the same for blended peaks."""
    area: NDArray[np.int32]
    """Pixels of each peak."""
    is_blended: NDArray[np.bool_]
    """Shares its region with another peak."""


def find_footprints(
    score: NDArray[np.float32],
    threshold: float,
    *,
    min_contrast: float = 2.5,
    min_contrast_fraction: float = 0.0,
    poisson_growth: float = 0.0,
) -> Footprints:
    """Return the regions (8-connected) at or above ``threshold``, divided between their peaks.

    Every pixel belongs to the peak that steepest ascent leads to. Where two peaks' regions touch, from the highest
    such saddle down, the lower peak stays only if it stands above the saddle s by
    ``min_contrast * sqrt(1 + poisson_growth * s) + min_contrast_fraction * s`` (topological persistence:
    Edelsbrunner et al. 2002), else its pixels join the higher one. ``poisson_growth`` says by how much the score's
    variance grows per unit of score on top of a source.
    """
    uphill = _uphill(score, np.float32(threshold))
    tops = _climb_in_place(uphill.ravel())
    tops = tops[np.argsort(-score.ravel()[tops], kind="stable")]
    number = np.empty(score.size, dtype=np.int32)  # of tops; nothing else is read
    number[tops] = np.arange(tops.size, dtype=np.int32)
    level, place, one, other = _saddles(score, uphill, number, tops.size)
    order = np.lexsort((place, -level))
    basin, region = _merged(
        score.ravel()[tops], level[order], one[order], other[order],
        float(min_contrast), float(min_contrast_fraction), float(poisson_growth),
    )  # fmt: skip
    kept, serial = np.unique(basin, return_inverse=True)
    labels, area = _labelled(uphill, number, serial.astype(np.int32), kept.size)
    _, parent = np.unique(region[kept], return_inverse=True)
    y, x = np.divmod(tops[kept], score.shape[1])
    return Footprints(
        labels,
        Peaks(*refine_peaks(score, x, y), score[y, x]),
        parent.astype(np.int32),
        area,
        np.bincount(parent, minlength=1)[parent] > 1,
    )


@njit(cache=True, error_model="numpy")
def _uphill(score: NDArray[np.float32], threshold: float) -> NDArray[np.int32]:
    """Return for each pixel at or above threshold the flat index of the highest of it and its neighbours, -1 elsewhere.

    Of equal heights the first in reading order is the higher one: the neighbours before a pixel need only be as high.
    """
    ny, nx = score.shape
    uphill = np.empty((ny, nx), np.int32)
    rows = np.full((3, nx + 2), -np.inf, np.float32)  # with a pixel more at both ends
    rows[1, 1:-1] = score[0]
    height, step = np.empty(nx, np.float32), np.empty(nx, np.int32)
    for y in range(ny):
        above, own, below = rows[y % 3], rows[(y + 1) % 3], rows[(y + 2) % 3]
        below[1:-1] = -np.inf
        if y + 1 < ny:
            below[1:-1] = score[y + 1]
        height[:], step[:] = -np.inf, 0
        for k in range(3):
            _step_where_higher(above[k : k + nx], k - 1 - nx, height, step)
        _step_where_higher(own[:nx], -1, height, step)
        _stay_where_higher(own[1:-1], height, step)
        _step_where_higher(own[2:], 1, height, step)
        for k in range(3):
            _step_where_higher(below[k : k + nx], k - 1 + nx, height, step)
        _write_steps(own[1:-1], threshold, step, y * nx, uphill[y])
    return uphill


@njit(cache=True, error_model="numpy", _nrt=False)
def _step_where_higher(
    line: NDArray[np.float32], shift: int, height: NDArray[np.float32], step: NDArray[np.int32]
) -> None:
    own = np.int32(shift)
    for x in range(line.size):
        is_higher = line[x] > height[x]
        height[x] = line[x] if is_higher else height[x]
        step[x] = own if is_higher else step[x]


@njit(cache=True, error_model="numpy", _nrt=False)
def _stay_where_higher(line: NDArray[np.float32], height: NDArray[np.float32], step: NDArray[np.int32]) -> None:
    for x in range(line.size):
        is_as_high = height[x] >= line[x]
        height[x] = height[x] if is_as_high else line[x]
        step[x] = step[x] if is_as_high else np.int32(0)


@njit(cache=True, error_model="numpy", _nrt=False)
def _write_steps(
    line: NDArray[np.float32], threshold: float, step: NDArray[np.int32], first: int, uphill: NDArray[np.int32]
) -> None:
    for x in range(line.size):
        uphill[x] = np.int32(first + x + step[x]) if line[x] >= threshold else np.int32(-1)


@njit(cache=True, error_model="numpy")
def _climb_in_place(uphill: NDArray[np.int32]) -> NDArray[np.int32]:
    """Replace the steps of a flat image by where they lead to in the end; return the tops."""
    n = 0
    for k in range(uphill.size):
        n += uphill[k] == k
    tops, n = np.empty(n, np.int32), 0
    for k in range(uphill.size):
        if uphill[k] < 0:
            continue
        top = uphill[k]
        while uphill[top] != top:
            top = uphill[top]
        step = k
        while uphill[step] != top:
            after = uphill[step]
            uphill[step] = top
            step = after
        if top == k:
            tops[n] = k
            n += 1
    return tops


@njit(cache=True, error_model="numpy")
def _saddles(
    score: NDArray[np.float32], uphill: NDArray[np.int32], number: NDArray[np.int32], n_peaks: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Return the highest pair of touching pixels of every two peaks that touch: height, place, and the two peaks.

    The height of a pair is that of its lower pixel. Of equal ones the first in reading order is taken.
    """
    ny, nx = score.shape
    capacity, n = 4096 + 4 * n_peaks, 0
    level, place = np.empty(capacity, np.float32), np.empty(capacity, np.int64)
    one, other = np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    last, before = np.full(n_peaks, -1), np.empty(capacity, np.int64)  # saddles of a peak: the last, and before each
    is_rim = np.empty(nx, np.bool_)
    for y in range(ny):
        _mark_rim(uphill, y, is_rim)
        for x in range(nx):
            if not is_rim[x]:
                continue
            for k in range(4):
                yy, xx = y + (1 if k > 0 else 0), x + (1, -1, 0, 1)[k]
                if yy >= ny or xx < 0 or xx >= nx or uphill[yy, xx] < 0 or uphill[yy, xx] == uphill[y, x]:
                    continue
                a, b = number[uphill[y, x]], number[uphill[yy, xx]]
                low, high, height = max(a, b), min(a, b), min(score[y, x], score[yy, xx])
                known = last[low]
                while known >= 0 and other[known] != high:
                    known = before[known]
                if known < 0:
                    if n == capacity:
                        level, place = np.append(level, level), np.append(place, place)
                        one, other, before = np.append(one, one), np.append(other, other), np.append(before, before)
                        capacity *= 2
                    level[n], place[n], one[n], other[n] = height, 4 * (y * nx + x) + k, low, high
                    before[n], last[low] = last[low], n
                    n += 1
                elif height > level[known]:
                    level[known], place[known] = height, 4 * (y * nx + x) + k
    return level[:n], place[:n], one[:n], other[:n]


@njit(cache=True, error_model="numpy", _nrt=False)
def _mark_rim(uphill: NDArray[np.int32], y: int, is_rim: NDArray[np.bool_]) -> None:
    """Mark the pixels of a row that may touch pixels of another peak after them in reading order."""
    own, below = uphill[y], uphill[min(y + 1, uphill.shape[0] - 1)]
    n = own.size
    for x in range(n):
        is_rim[x] = (own[x] >= 0) & (below[x] >= 0) & (below[x] != own[x])
    for x in range(n - 1):
        is_rim[x] |= (own[x] >= 0) & (own[x + 1] >= 0) & (own[x + 1] != own[x])
        is_rim[x] |= (own[x] >= 0) & (below[x + 1] >= 0) & (below[x + 1] != own[x])
    for x in range(1, n):
        is_rim[x] |= (own[x] >= 0) & (below[x - 1] >= 0) & (below[x - 1] != own[x])


@njit(cache=True, error_model="numpy", _nrt=False)
def _root(parents: NDArray[np.int32], i: int) -> int:
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


@njit(cache=True, error_model="numpy")
def _merged(
    height: NDArray[np.float32],
    level: NDArray[np.float32],
    one: NDArray[np.int32],
    other: NDArray[np.int32],
    min_contrast: float,
    min_fraction: float,
    growth: float,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return for each peak (highest first) the peak it has joined, and the highest peak of its connected region."""
    basin, region = np.arange(height.size).astype(np.int32), np.arange(height.size).astype(np.int32)
    for k in range(level.size):
        a, b = _root(region, one[k]), _root(region, other[k])
        region[max(a, b)] = min(a, b)
        a, b = _root(basin, one[k]), _root(basin, other[k])
        need = min_contrast * np.sqrt(1 + growth * max(level[k], 0)) + min_fraction * abs(level[k])
        if a != b and height[max(a, b)] - level[k] < need:
            basin[max(a, b)] = min(a, b)
    for k in range(height.size):
        basin[k], region[k] = _root(basin, k), _root(region, k)
    return basin, region


@njit(cache=True, error_model="numpy")
def _labelled(
    uphill: NDArray[np.int32], number: NDArray[np.int32], serial: NDArray[np.int32], n: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    labels, area = np.zeros(uphill.shape, np.int32), np.zeros(n, np.int32)
    for y in range(uphill.shape[0]):
        for x in range(uphill.shape[1]):
            if uphill[y, x] >= 0:
                own = serial[number[uphill[y, x]]]
                labels[y, x] = own + 1
                area[own] += 1
    return labels, area
