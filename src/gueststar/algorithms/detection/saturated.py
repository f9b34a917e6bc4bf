"""Where saturated stars are: they have no peak of their own."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage


class SaturatedCores(NamedTuple):
    """Centres of saturated regions."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    radius: NDArray[np.float64]
    """Radius of the largest disc that fits into the region, pixels."""
    labels: NDArray[np.int32]
    """``[y, x]``: number of the region from 1, 0 elsewhere."""


def find_saturated_cores(is_saturated: NDArray[np.bool_], *, min_pixels: int = 2) -> SaturatedCores:
    """Return the centres of connected saturated regions: the middle of their thickest part.

    Bleed trails are thin and do not pull the centre. Regions of fewer than ``min_pixels`` are left out.
    """
    labels = np.zeros(is_saturated.shape, dtype=np.int32)
    found = []
    for number, (y, x) in enumerate(connected_regions(is_saturated, min_pixels=min_pixels, scratch=labels), start=1):
        region = np.zeros((np.ptp(y) + 3, np.ptp(x) + 3), dtype=bool)
        region[y - y.min() + 1, x - x.min() + 1] = True
        depth = ndimage.distance_transform_edt(region)
        v, u = np.nonzero(depth >= 0.8 * depth.max())
        found.append((x.min() + u.mean() - 1, y.min() + v.mean() - 1, depth.max()))
        labels[y, x] = number
    table = np.array(found, dtype=np.float64).reshape(-1, 3)
    return SaturatedCores(table[:, 0], table[:, 1], table[:, 2], labels)


def connected_regions(
    is_inside: NDArray[np.bool_], *, min_pixels: int = 1, scratch: NDArray[np.int32] | None = None
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return rows and columns of the pixels of each 8-connected region of at least ``min_pixels``.

    Regions come in the order of their first pixels, reading row by row. The cost is that of the pixels inside: meant
    for few of them. ``scratch`` is an image of zeros and becomes one again.
    """
    labels = np.zeros(is_inside.shape, dtype=np.int32) if scratch is None else scratch
    y, x = np.divmod(np.flatnonzero(is_inside), is_inside.shape[1])
    # Number every pixel inside in the image of labels, so that its neighbours are found.
    labels[y, x] = np.arange(1, y.size + 1)
    region = np.arange(y.size)
    _join_neighbours(labels, y, x, region)
    labels[y, x] = 0
    order = np.argsort(region, kind="stable")
    _, first, size = np.unique(region[order], return_index=True, return_counts=True)
    parts = [order[a : a + n] for a, n in zip(first, size, strict=True) if n >= min_pixels]
    return [(y[part], x[part]) for part in parts]


@njit(cache=True, error_model="numpy")
def _join_neighbours(
    labels: NDArray[np.int32], y: NDArray[np.int64], x: NDArray[np.int64], region: NDArray[np.int64]
) -> None:
    """Write for each pixel the first pixel of its region, in reading order."""
    nx = labels.shape[1]
    for k in range(y.size):
        for dy, dx in ((-1, -1), (-1, 0), (-1, 1), (0, -1)):
            yy, xx = y[k] + dy, x[k] + dx
            if yy < 0 or xx < 0 or xx >= nx or labels[yy, xx] == 0:
                continue
            a, b = _first_of(region, k), _first_of(region, labels[yy, xx] - 1)
            region[max(a, b)] = min(a, b)
    for k in range(y.size):
        region[k] = _first_of(region, k)


@njit(cache=True, error_model="numpy")
def _first_of(region: NDArray[np.int64], k: int) -> int:
    while region[k] != k:
        region[k] = region[region[k]]
        k = region[k]
    return k
