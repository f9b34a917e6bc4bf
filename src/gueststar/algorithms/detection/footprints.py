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

    Pixels are visited from the highest down; where two peaks' regions meet, the lower peak stays only if
    it stands above that saddle s by ``min_contrast * sqrt(1 + poisson_growth * s) + min_contrast_fraction * s``
    (topological persistence: Edelsbrunner et al. 2002), else its pixels join the higher one.
    ``poisson_growth`` says by how much the score's variance grows per unit of score on top of a source.
    """
    where = np.flatnonzero(score >= threshold)
    where = where[np.argsort(-score.ravel()[where], kind="stable")]
    basin, region = _flood(score, where, float(min_contrast), float(min_contrast_fraction), float(poisson_growth))
    tops, number = np.unique(basin, return_inverse=True)
    labels = np.zeros(score.shape, dtype=np.int32)
    labels.ravel()[where] = number + 1
    _, parent = np.unique(region[tops], return_inverse=True)
    y, x = np.divmod(where[tops], score.shape[1])
    return Footprints(
        labels,
        Peaks(*refine_peaks(score, x, y), score[y, x]),
        parent.astype(np.int32),
        np.bincount(number, minlength=tops.size).astype(np.int32),
        np.bincount(parent, minlength=1)[parent] > 1,
    )


@njit(cache=True)
def _root(parents: NDArray[np.int32], i: int) -> int:
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


@njit(cache=True)
def _flood(
    score: NDArray[np.float32],
    where: NDArray[np.int64],
    min_contrast: float,
    min_fraction: float,
    growth: float,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return for each visited pixel the index (into ``where``) of its peak, and of its region's highest pixel."""
    ny, nx = score.shape
    n = where.size
    rank = np.full((ny, nx), n, np.int32)
    basin, region = np.arange(n).astype(np.int32), np.arange(n).astype(np.int32)
    for k in range(n):
        y, x = where[k] // nx, where[k] % nx
        level = score[y, x]
        need = min_contrast * np.sqrt(1 + growth * max(level, 0)) + min_fraction * abs(level)
        y0, y1, x0, x1 = max(y - 1, 0), min(y + 2, ny), max(x - 1, 0), min(x + 2, nx)
        steepest = n
        for yy in range(y0, y1):
            for xx in range(x0, x1):
                steepest = min(steepest, rank[yy, xx])
        rank[y, x] = k
        if steepest == n:
            continue
        basin[k] = _root(basin, steepest)
        for yy in range(y0, y1):
            for xx in range(x0, x1):
                neighbour = rank[yy, xx]
                if neighbour >= k:
                    continue
                _join(region, k, neighbour)
                mine, other = _root(basin, k), _root(basin, neighbour)
                low = where[max(mine, other)]
                if mine != other and score[low // nx, low % nx] - level < need:
                    _join(basin, mine, other)
    for k in range(n):
        basin[k], region[k] = _root(basin, k), _root(region, k)
    return basin, region


@njit(cache=True)
def _join(parents: NDArray[np.int32], i: int, j: int) -> None:
    a, b = _root(parents, i), _root(parents, j)
    parents[max(a, b)] = min(a, b)
