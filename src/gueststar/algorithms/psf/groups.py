"""Groups of sources that must be solved together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

MAX_CUTS = 12
"""How often the linking length of an oversized group is shortened before it is taken apart."""

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
    a shorter length (four fifths, again and again), so that they part at their widest gaps.
    """
    label = np.arange(len(x))
    loose = np.arange(len(x))
    for _ in range(MAX_CUTS):
        found = _linked(x[loose], y[loose], link)
        is_large = np.bincount(found, minlength=1)[found] > max_size
        label[loose[~is_large]] = len(x) * (1 + label.max(initial=0)) + found[~is_large]
        label = np.unique(label, return_inverse=True)[1]
        loose = loose[is_large]
        if loose.size == 0:
            break
        label[loose] = label.max() + 1 + np.arange(loose.size)
        link *= 0.8
    return _in_order(label, x, y, flux)


def _linked(x: NDArray[np.float64], y: NDArray[np.float64], link: float) -> NDArray[np.int64]:
    n = len(x)
    pairs = cKDTree(np.column_stack([x, y])).query_pairs(link, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


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
    label = np.unique(label, return_inverse=True)[1]
    by_flux = np.lexsort((-flux, label))
    starts = np.flatnonzero(np.diff(label[by_flux], prepend=-1))
    brightest = by_flux[starts]
    order = order_in_place(x=x[brightest], y=y[brightest])
    rank = np.empty(order.size, dtype=np.int64)
    rank[order] = np.arange(order.size)
    members = np.lexsort((-flux, rank[label]))
    sizes = np.bincount(rank[label], minlength=order.size)
    return Groups(members.astype(np.int64), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
