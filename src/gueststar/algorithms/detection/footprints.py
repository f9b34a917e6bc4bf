"""Connected regions of a score image, divided between their significant peaks at the saddles."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.detection.lit import LitPixels, lit_pixels
from gueststar.algorithms.detection.peaks import Peaks, refine_peaks


class Footprints(NamedTuple):
    """The pixels of each detection."""

    shape: tuple[int, int]
    """Of the image."""
    lit: LitPixels
    """Pixels of all of them."""
    owner: NDArray[np.int32]
    """Number of the peak that each lit pixel belongs to."""
    peaks: Peaks
    """Significant peaks, highest first."""
    parent: NDArray[np.int32]
    """Number of the connected region of each peak, the same for blended peaks."""
    area: NDArray[np.int32]
    """Pixels of each peak."""
    is_blended: NDArray[np.bool_]
    """Shares its region with another peak."""

    def is_detected(self) -> NDArray[np.bool_]:
        """Return where the pixels of detections are, ``[y, x]``."""
        out = np.zeros(self.shape, np.bool_)
        out[self.lit.y, self.lit.x] = True
        return out


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
    lit = lit_pixels(score, threshold)
    uphill = np.empty(score.shape, np.int32)  # of lit pixels; nothing else is read
    _step_uphill(score, *lit, uphill)
    tops = _climb_in_place(uphill.ravel(), *lit, score.shape[1])
    tops = tops[np.argsort(-score.ravel()[tops], kind="stable")]
    number = np.empty(score.size, dtype=np.int32)  # of tops
    number[tops] = np.arange(tops.size, dtype=np.int32)
    level, place, one, other = _saddles(score, np.float32(threshold), *lit, uphill, number, tops.size)
    order = np.lexsort((place, -level))
    basin, region = _merged(
        score.ravel()[tops], level[order], one[order], other[order],
        float(min_contrast), float(min_contrast_fraction), float(poisson_growth),
    )  # fmt: skip
    kept, serial = np.unique(basin, return_inverse=True)
    owner = serial.astype(np.int32)[number[uphill[lit.y, lit.x]]]
    area = np.bincount(owner, minlength=kept.size).astype(np.int32)
    _, parent = np.unique(region[kept], return_inverse=True)
    y, x = np.divmod(tops[kept], score.shape[1])
    return Footprints(
        (score.shape[0], score.shape[1]),
        lit,
        owner,
        Peaks(*refine_peaks(score, x, y), score[y, x]),
        parent.astype(np.int32),
        area,
        np.bincount(parent, minlength=1)[parent] > 1,
    )


@njit(cache=True, error_model="numpy")
def _step_uphill(
    score: NDArray[np.float32], ys: NDArray[np.int32], xs: NDArray[np.int32], uphill: NDArray[np.int32]
) -> None:
    """Write for each lit pixel the flat index of the highest of it and its neighbours.

    Of equal heights the first in reading order is the higher one: the neighbours before a pixel need only be as high.
    """
    ny, nx = score.shape
    for k in range(ys.size):
        y, x = ys[k], xs[k]
        own = score[y, x]
        height, to = own, y * nx + x
        for dy in range(-1, 2):
            for dx in range(-1, 2):
                yy, xx = y + dy, x + dx
                if yy < 0 or xx < 0 or yy >= ny or xx >= nx:
                    continue
                other = score[yy, xx]
                is_first = (dy < 0 or (dy == 0 and dx < 0)) and to == y * nx + x
                if other > height or (is_first and other == own):
                    height, to = other, yy * nx + xx
        uphill[y, x] = to


@njit(cache=True, error_model="numpy")
def _climb_in_place(
    uphill: NDArray[np.int32], ys: NDArray[np.int32], xs: NDArray[np.int32], nx: int
) -> NDArray[np.int32]:
    """Replace the steps of the lit pixels of a flat image by where they lead to in the end; return the tops."""
    n, tops = 0, np.empty(ys.size, np.int32)
    for i in range(ys.size):
        k = ys[i] * nx + xs[i]
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
    return tops[:n].copy()


@njit(cache=True, error_model="numpy")
def _saddles(
    score: NDArray[np.float32],
    threshold: float,
    ys: NDArray[np.int32],
    xs: NDArray[np.int32],
    uphill: NDArray[np.int32],
    number: NDArray[np.int32],
    n_peaks: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Return the highest pair of touching pixels of every two peaks that touch: height, place, and the two peaks.

    The height of a pair is that of its lower pixel. Of equal ones the first in reading order is taken.
    """
    ny, nx = score.shape
    capacity, n = 4096 + 4 * n_peaks, 0
    level, place = np.empty(capacity, np.float32), np.empty(capacity, np.int64)
    one, other = np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    last, before = np.full(n_peaks, -1), np.empty(capacity, np.int64)  # saddles of a peak: the last, and before each
    for i in range(ys.size):
        y, x = ys[i], xs[i]
        for k in range(4):
            yy, xx = y + (1 if k > 0 else 0), x + (1, -1, 0, 1)[k]
            if yy >= ny or xx < 0 or xx >= nx or not score[yy, xx] >= threshold or uphill[yy, xx] == uphill[y, x]:
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
