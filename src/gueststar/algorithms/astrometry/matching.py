"""Nearest neighbours in a plane, one to one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


class Pairs(NamedTuple):
    """Rows that belong together."""

    point: Indices
    star: Indices
    distance: Floats


def match_one_to_one(points: Floats, tree: cKDTree, *, radius: float) -> Pairs:
    """Return pairs of points ``[n, 2]`` and the tree's stars nearer than ``radius``.

    Each point takes its nearest star; of the points that want one star, the nearest keeps it.
    """
    if points.shape[0] == 0 or tree.n == 0:
        empty = np.zeros(0, dtype=np.intp)
        return Pairs(empty, empty, np.zeros(0))
    distance, star = tree.query(points, distance_upper_bound=radius)
    point = np.flatnonzero(np.isfinite(distance))
    point = point[np.argsort(distance[point], kind="stable")]
    _, first = np.unique(star[point], return_index=True)
    point = np.sort(point[first])
    return Pairs(point, star[point], distance[point])
