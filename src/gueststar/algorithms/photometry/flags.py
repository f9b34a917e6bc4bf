"""Which mask bits lie in the core of each source."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats64 = NDArray[np.float64]


def mask_bits_within(mask: NDArray[np.integer], *, x: Floats64, y: Floats64, radius: float) -> NDArray[np.int32]:
    """Return the union of the mask's bits over pixels whose centres lie within ``radius`` of each position."""
    bits = np.zeros(len(x), dtype=np.int32)
    _collect(mask, np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), float(radius), bits)
    return bits


def is_near_edge(shape: tuple[int, int], *, x: Floats64, y: Floats64, margin: float) -> NDArray[np.bool_]:
    """Return which positions are less than ``margin`` pixels from the edge of an image of ``shape`` (ny, nx)."""
    ny, nx = shape
    nearest = np.minimum(np.minimum(x, nx - 1 - x), np.minimum(y, ny - 1 - y))
    return np.asarray(nearest < margin)


@njit(cache=True, error_model="numpy")
def _collect(mask: NDArray[np.int32], x: Floats64, y: Floats64, radius: float, bits: NDArray[np.int32]) -> None:
    ny, nx = mask.shape
    r = int(np.ceil(radius))
    for n in range(x.size):
        if not (np.isfinite(x[n]) and np.isfinite(y[n])):
            continue
        ix, iy = int(np.rint(x[n])), int(np.rint(y[n]))
        for j in range(max(0, iy - r), min(ny, iy + r + 1)):
            for i in range(max(0, ix - r), min(nx, ix + r + 1)):
                if (i - x[n]) ** 2 + (j - y[n]) ** 2 <= radius * radius:
                    bits[n] |= mask[j, i]
