"""The few marked pixels of a large image, and the groups they form."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(cache=True)
def pixels_with(mask, bits):  # type: ignore[no-untyped-def]
    """Return y and x of the pixels of a mask in which any of ``bits`` is set."""
    found_y, found_x = [0 for _ in range(0)], [0 for _ in range(0)]
    for y in range(mask.shape[0]):
        row = mask[y]
        for x in range(mask.shape[1]):
            if row[x] & bits:
                found_y.append(y)
                found_x.append(x)
    return np.array(found_y, np.int64), np.array(found_x, np.int64)


@numba.njit(cache=True)
def has_any(mask, bits):  # type: ignore[no-untyped-def]
    """Return where any of ``bits`` is set, in one pass."""
    found = np.empty(mask.shape, np.bool_)
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            found[y, x] = (mask[y, x] & bits) != 0
    return found


@numba.njit(cache=True)
def count_any(mask, bits):  # type: ignore[no-untyped-def]
    """Return the number of pixels in which any of ``bits`` is set."""
    n = 0
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            n += (mask[y, x] & bits) != 0
    return n


@numba.njit(cache=True)
def add_bits_in_place(mask, other, bits):  # type: ignore[no-untyped-def]
    """Set in ``mask`` those of ``bits`` that are set in another mask."""
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            mask[y, x] |= other[y, x] & bits


def label_groups(y: NDArray[np.int64], x: NDArray[np.int64], *, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Return the number (from 0) of the 8-connected group that each listed pixel belongs to.

    Costs time in proportion to the list, not to the image.
    """
    flat = y.astype(np.int64) * shape[1] + x
    order = np.argsort(flat, kind="stable")
    labels = np.empty(flat.size, np.int64)
    labels[order] = _label_sorted(flat[order], shape[1])
    return labels


@numba.njit(cache=True)
def _label_sorted(flat, nx):  # type: ignore[no-untyped-def]
    n = flat.size
    parent = np.arange(n)
    for i in range(n):
        x = flat[i] % nx
        for shift in (-1, -nx - 1, -nx, -nx + 1):
            if (x == 0 and shift in (-1, -nx - 1)) or (x == nx - 1 and shift == -nx + 1):
                continue
            place = np.searchsorted(flat, flat[i] + shift)
            if place < n and flat[place] == flat[i] + shift:
                a, b = _root(parent, i), _root(parent, place)
                parent[max(a, b)] = min(a, b)
    labels = np.empty(n, np.int64)
    n_groups = 0
    for i in range(n):  # a root comes before its members
        root = _root(parent, i)
        if root == i:
            labels[i] = n_groups
            n_groups += 1
        else:
            labels[i] = labels[root]
    return labels


@numba.njit(cache=True)
def _root(parent, i):  # type: ignore[no-untyped-def]
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i
