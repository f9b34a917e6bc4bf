"""How faint a point source can be at each place of an image, from variance and mask alone."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def mean_inverse_variance(
    variance: NDArray[np.float32], mask: NDArray[np.integer], unusable: int, *, box: int, min_usable: float = 0.5
) -> Floats:
    """Return the mean inverse variance of equal meshes of about ``box`` pixels; masked pixels count as zero.

    A PSF fit with such weights has the flux error ``1 / sqrt(sum(p**2) * mean)``. Pixels of which ``mask``
    has a bit of ``unusable``, or whose variance is not positive and finite, are masked. NaN in meshes of which less
    than a share ``min_usable`` is left.
    """
    ny, nx = variance.shape
    my, mx = max(1, round(ny / box)), max(1, round(nx / box))
    total, n_used, n_all = np.zeros((my, mx)), np.zeros((my, mx)), np.zeros((my, mx))
    row = np.arange(ny) * my // ny
    column = np.arange(nx) * mx // nx
    _add_up(variance, mask, unusable, row, column, total, n_used, n_all)
    return np.where(n_used >= min_usable * n_all, total / n_all, np.nan)


@njit(cache=True, error_model="numpy")
def _add_up(
    variance: NDArray[np.float32],
    mask: NDArray[np.integer],
    unusable: int,
    row: NDArray[np.intp],
    column: NDArray[np.intp],
    total: Floats,
    n_used: Floats,
    n_all: Floats,
) -> None:
    ny, nx = variance.shape
    for j in range(ny):
        r = row[j]
        for i in range(nx):
            c = column[i]
            n_all[r, c] += 1.0
            v = variance[j, i]
            if (mask[j, i] & unusable) == 0 and v > 0 and v < np.inf:
                total[r, c] += 1.0 / v
                n_used[r, c] += 1.0
