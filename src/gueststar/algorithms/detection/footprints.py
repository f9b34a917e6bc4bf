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
    level, one, other = _saddles(score, uphill)
    tops = np.flatnonzero(uphill.ravel() == np.arange(uphill.size, dtype=np.int32))
    tops = tops[np.argsort(-score.ravel()[tops], kind="stable")]
    number = np.full(score.size, -1, dtype=np.int32)
    number[tops] = np.arange(tops.size, dtype=np.int32)
    order = np.argsort(-level, kind="stable")
    basin, region = _merged(
        score.ravel()[tops], level[order], number[one[order]], number[other[order]],
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
    """Return for each pixel at or above threshold the flat index of its peak by steepest ascent, -1 elsewhere."""
    ny, nx = score.shape
    uphill = np.full((ny, nx), -1, np.int32)
    for y in range(ny):
        for x in range(nx):
            if not score[y, x] >= threshold:
                continue
            best, by, bx = score[y, x], y, x
            for yy in range(max(y - 1, 0), min(y + 2, ny)):
                for xx in range(max(x - 1, 0), min(x + 2, nx)):
                    # Of equal heights the first in reading order is the higher one.
                    if score[yy, xx] > best or (score[yy, xx] == best and (yy < by or (yy == by and xx < bx))):
                        best, by, bx = score[yy, xx], yy, xx
            uphill[y, x] = by * nx + bx
    flat = uphill.ravel()
    for k in range(flat.size):
        if flat[k] < 0:
            continue
        top = flat[k]
        while flat[top] != top:
            top = flat[top]
        step = k
        while flat[step] != top:
            after = flat[step]
            flat[step] = top
            step = after
    return uphill


@njit(cache=True, error_model="numpy")
def _saddles(
    score: NDArray[np.float32], uphill: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
    """Return the height and the two peaks of every pair of touching pixels that belong to different peaks."""
    ny, nx = score.shape
    capacity, n = 4096, 0
    level, one, other = np.empty(capacity, np.float32), np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    for y in range(ny):
        for x in range(nx):
            top = uphill[y, x]
            if top < 0:
                continue
            for k in range(4):
                yy, xx = y + (1 if k > 0 else 0), x + (1, -1, 0, 1)[k]
                if yy >= ny or xx < 0 or xx >= nx or uphill[yy, xx] < 0 or uphill[yy, xx] == top:
                    continue
                if n == capacity:
                    capacity *= 2
                    level = np.concatenate((level, np.empty(n, np.float32)))
                    one, other = (
                        np.concatenate((one, np.empty(n, np.int32))),
                        np.concatenate((other, np.empty(n, np.int32))),
                    )
                level[n], one[n], other[n] = min(score[y, x], score[yy, xx]), top, uphill[yy, xx]
                n += 1
    return level[:n], one[:n], other[:n]


@njit(cache=True, error_model="numpy")
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
