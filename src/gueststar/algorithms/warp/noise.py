"""How interpolation correlates the noise of neighbouring pixels, and what that does to sums of pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.warp.lanczos import N_PHASES, kernel_table
from gueststar.algorithms.warp.position_map import PositionMap, map_jacobians, map_positions

Floats = NDArray[np.float64]

REACH = 6
"""Largest lag, pixels: the support of the kernel with itself at order 3."""
_SAMPLES = 24


def noise_correlation(position_map: PositionMap, *, taps: int = 3, reach: int = REACH) -> Floats:
    """Return ``[2 reach + 1, 2 reach + 1]``: covariance of pixels at each lag over the noise power of `warp_pixels`.

    The middle is the variance of one pixel, and the sum of all is one but for what changes within the reach:
    the noise power is that of sums over many pixels. Kernels are those of 24 x 24 places on the target, so that a
    pure shift, which correlates all pixels alike, is told from a rotation, which averages over phases. White noise in
    the source is assumed.
    """
    ny, nx = position_map.shape
    grid_x, grid_y = np.meshgrid(np.linspace(0, nx - 1, _SAMPLES).round(), np.linspace(0, ny - 1, _SAMPLES).round())
    x, y = grid_x.ravel(), grid_y.ravel()
    jacobians = map_jacobians(position_map, x=x, y=y)
    source_x, source_y = map_positions(position_map, x=x, y=y)
    known = np.isfinite(source_x) & np.isfinite(source_y) & np.isfinite(jacobians).all(axis=(1, 2))
    jacobians, source_x, source_y = jacobians[known], source_x[known], source_y[known]
    scale = max(1.0, position_map.scale)
    table = kernel_table(taps, scale if scale >= 1.05 else 1.0).astype(np.float64)
    area = np.abs(np.linalg.det(jacobians))
    out = np.zeros((2 * reach + 1, 2 * reach + 1))
    for row in range(2 * reach + 1):
        for column in range(2 * reach + 1):
            lag = np.array([column - reach, row - reach], dtype=np.float64)
            dx, dy = (jacobians @ lag).T
            overlap = _overlap(table, source_x, dx) * _overlap(table, source_y, dy)
            out[row, column] = np.mean(area * overlap)  # area**2 for the flux, over the power, which goes as area
    return out


def variance_of_sum(weights: Floats, correlation: Floats) -> float:
    """Return the variance of ``sum(weights * image)`` over the variance plane, for ``weights`` ``[k, k]``.

    With ``correlation`` from `noise_correlation`, or its mean over the epochs of a co-add. With uncorrelated noise it
    would be ``sum(weights**2)``.
    """
    reach = correlation.shape[0] // 2
    k_y, k_x = weights.shape
    padded = np.pad(weights.astype(np.float64), reach)
    total = 0.0
    for row in range(2 * reach + 1):
        for column in range(2 * reach + 1):
            total += correlation[row, column] * float((padded[row : row + k_y, column : column + k_x] * weights).sum())
    return total


def _overlap(table: Floats, position: Floats, lag: Floats) -> Floats:
    """Return the sum over source pixels of the kernels at ``position`` and ``position + lag``, one axis."""
    n = table.shape[1]
    first = np.floor(position)
    second = np.floor(position + lag)
    own = table[np.rint((position - first) * N_PHASES).astype(int)]
    other = table[np.rint((position + lag - second) * N_PHASES).astype(int)]
    shift = (second - first).astype(int)
    total = np.zeros(position.size)
    for tap in range(n):
        index = tap - shift
        inside = (index >= 0) & (index < n)
        total[inside] += own[inside, tap] * other[inside, index[inside]]
    return total
