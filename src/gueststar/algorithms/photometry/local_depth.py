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
    rows, columns = (np.arange(m + 1) * n // m for m, n in ((my, ny), (mx, nx)))
    total, n_used = _sums(variance, mask, unusable, rows, columns)
    n_all = np.diff(rows)[:, None] * np.diff(columns)[None, :]
    return np.where(n_used >= min_usable * n_all, total / n_all, np.nan)


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "arcp"})  # NaN keeps its meaning
def _sums(
    variance: NDArray[np.float32],
    mask: NDArray[np.integer],
    unusable: int,
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
) -> tuple[Floats, Floats]:
    """Return the sum of inverse variances and the number of usable pixels of each mesh."""
    total, n_used = np.zeros((rows.size - 1, columns.size - 1)), np.zeros((rows.size - 1, columns.size - 1))
    none, bits = np.float32(np.inf), np.int32(unusable)
    for r in range(rows.size - 1):
        for j in range(rows[r], rows[r + 1]):
            for c in range(columns.size - 1):
                weight, n = np.float32(0.0), np.int32(0)
                for i in range(columns[c], columns[c + 1]):
                    v = variance[j, i]
                    is_usable = ((mask[j, i] & bits) == 0) & (v > 0) & (v < none)
                    weight += np.float32(1.0) / v if is_usable else np.float32(0.0)
                    n += np.int32(is_usable)
                total[r, c] += weight
                n_used[r, c] += n
    return total, n_used
