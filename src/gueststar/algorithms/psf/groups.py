"""Groups of sources that must be solved together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

MAX_CUTS = 12
"""How often the linking length of an oversized group is shortened before it is taken apart."""

CELLS_PER_SOURCE = 2.0
"""Cells in which friends are looked for, about: more would be emptied and counted in vain."""

BAND = 16.0
"""Height in pixels of the bands along which sources are visited."""


class Groups(NamedTuple):
    """Sources in groups: those of group g are ``members[starts[g]:starts[g + 1]]``."""

    members: NDArray[np.int64]
    starts: NDArray[np.int64]


def group_sources(
    *, x: NDArray[np.float64], y: NDArray[np.float64], flux: NDArray[np.float64], link: float, max_size: int
) -> Groups:
    """Return friends-of-friends groups in order of place: neighbours follow each other in memory.

    Sources nearer than ``link`` pixels are friends. Groups of more than ``max_size`` are linked again with
    a shorter length (four fifths, again and again), so that they part at their widest gaps. Raises ValueError for
    positions that are not finite.
    """
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("positions of sources must be finite")
    label = _linked(x, y, link)
    for _ in range(MAX_CUTS):
        is_large = np.bincount(label, minlength=1)[label] > max_size
        if not is_large.any():
            break
        link *= 0.8
        label[is_large] = label.max() + 1 + _linked(x[is_large], y[is_large], link)
    else:
        is_large = np.bincount(label, minlength=1)[label] > max_size
        label[is_large] = label.max(initial=0) + 1 + np.arange(np.count_nonzero(is_large))
    return _in_order(label, x, y, flux)


@njit(cache=True, error_model="numpy")
def _linked(x: NDArray[np.float64], y: NDArray[np.float64], link: float) -> NDArray[np.int64]:
    """Return labels, from 0 in order of each group's first member; friends are looked for in neighbouring cells."""
    n = x.size
    parent = np.arange(n)
    if n == 0:
        return parent
    left, low = np.min(x), np.min(y)
    wide, high = np.max(x) - left, np.max(y) - low
    cell = max(link, np.sqrt(wide * high / (CELLS_PER_SOURCE * n)), max(wide, high) / (CELLS_PER_SOURCE * n), 1e-9)
    columns, rows = int(wide / cell) + 1, int(high / cell) + 1
    place = np.empty(n, np.int64)
    starts = np.zeros(rows * columns + 1, np.int64)
    for k in range(n):
        place[k] = int((y[k] - low) / cell) * columns + int((x[k] - left) / cell)
        starts[place[k] + 1] += 1
    starts = np.cumsum(starts)
    members, filled = np.empty(n, np.int64), starts.copy()
    for k in range(n):
        members[filled[place[k]]] = k
        filled[place[k]] += 1
    for k in range(n):
        row, column = place[k] // columns, place[k] % columns
        for j in range(row, min(row + 2, rows)):
            first, last = max(column - 1, 0), min(column + 1, columns - 1)
            for m in members[starts[j * columns + first] : starts[j * columns + last + 1]]:
                if (x[m] - x[k]) ** 2 + (y[m] - y[k]) ** 2 <= link * link:
                    a, b = _root(parent, k), _root(parent, m)
                    parent[max(a, b)] = min(a, b)
    label, count = np.empty(n, np.int64), 0
    for k in range(n):
        root = _root(parent, k)
        if root == k:
            label[k], count = count, count + 1
        else:
            label[k] = label[root]
    return label


@njit(cache=True, error_model="numpy")
def _root(parent: NDArray[np.int64], k: int) -> int:
    while parent[k] != k:
        parent[k] = parent[parent[k]]
        k = parent[k]
    return k


def visiting_order(*, x: NDArray[np.float64], y: NDArray[np.float64], flux: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the order in which to visit sources: by factors of four in flux, within each along bands of the image."""
    brightness = np.floor(np.log(np.maximum(flux, 1e-30)) / np.log(4.0))
    band = np.floor(y / BAND)
    return np.lexsort((x, band, -brightness)).astype(np.int64)


def order_in_place(*, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the order of positions along bands of the image, so that neighbours follow each other."""
    return np.lexsort((x, np.floor(y / BAND))).astype(np.int64)


def _in_order(
    label: NDArray[np.int64], x: NDArray[np.float64], y: NDArray[np.float64], flux: NDArray[np.float64]
) -> Groups:
    """Return groups in order of the places of their brightest members, which come first."""
    flux = np.where(np.isnan(flux), -np.inf, flux)
    brightest = _brightest_of(label, flux)
    brightest = brightest[brightest >= 0]
    order = order_in_place(x=x[brightest], y=y[brightest])
    return Groups(*_laid_out(label, flux, label[brightest[order]]))


@njit(cache=True, error_model="numpy")
def _brightest_of(label: NDArray[np.int64], flux: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the brightest member of each label, the first of equals; -1 for labels that nobody bears."""
    best = np.full(np.max(label) + 1 if label.size else 0, -1)
    for k in range(label.size):
        if best[label[k]] < 0 or flux[k] > flux[best[label[k]]]:
            best[label[k]] = k
    return best


@njit(cache=True, error_model="numpy")
def _laid_out(
    label: NDArray[np.int64], flux: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return members and starts of the groups of ``labels`` in this order, members by falling flux."""
    n = label.size
    rank = np.empty(np.max(label) + 1 if n else 0, np.int64)
    for g in range(labels.size):
        rank[labels[g]] = g
    starts = np.zeros(labels.size + 1, np.int64)
    for k in range(n):
        starts[rank[label[k]] + 1] += 1
    starts = np.cumsum(starts)
    members, filled = np.empty(n, np.int64), starts.copy()
    for k in range(n):
        g = rank[label[k]]
        at = filled[g]
        while at > starts[g] and flux[members[at - 1]] < flux[k]:
            members[at] = members[at - 1]
            at -= 1
        members[at] = k
        filled[g] += 1
    return members, starts
