"""Carry a PSF model over to another grid, and fit stamps by a polynomial in position."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.psf.evaluate import moved_stamps, normalised, polynomial_terms
from gueststar.algorithms.warp.lanczos import N_PHASES, kernel_table

Floats = NDArray[np.float64]
Stamps = NDArray[np.float32]

_PHASES = ((0.13, 0.37), (0.63, -0.13), (-0.37, -0.63), (-0.87, 0.87))
"""Places of a star within a pixel over which the effect of interpolation is averaged."""


def warp_psf_stamps(stamps: Stamps, jacobians: Floats, *, side: int, taps: int = 3) -> Stamps:
    """Return the PSF as it is on the target grid after `warp_pixels`, ``[n, side, side]`` of unit sum.

    ``stamps`` ``[n, k, k]`` are the source image's PSF at the places of interest and ``jacobians`` ``[n, 2, 2]``
    d(source x, y) / d(target x, y) there. The stamp is resampled by the very kernel that resamples the
    image, averaged over sub-pixel phases, so that rotation, parity, scale and the blur of interpolation are in it.
    """
    out = np.zeros((stamps.shape[0], side, side), np.float32)
    shifted = moved_stamps(np.pad(stamps, ((0, 0), (2, 2), (2, 2))), _PHASES)
    for k, jacobian in enumerate(np.asarray(jacobians, np.float64)):
        stretch = max(1.0, float(np.sqrt(abs(np.linalg.det(jacobian)))))
        table = kernel_table(taps, stretch if stretch >= 1.05 else 1.0)
        for phase, (dx, dy) in zip(shifted[k], _PHASES, strict=True):
            _sample_stamp(phase, dx, dy, jacobian, table, out[k])
    total = out.sum(axis=(1, 2), keepdims=True)
    return np.asarray(out / np.where(total > 0, total, 1.0), dtype=np.float32)


def fit_psf_polynomial(stamps: Stamps, *, x: Floats, y: Floats, shape: tuple[int, int], order: int) -> Stamps:
    """Return coefficients ``[n_terms, k, k]`` of the polynomial PSF that fits ``stamps`` at (x, y) best."""
    u, v = normalised(np.asarray(x, np.float64), np.asarray(y, np.float64), shape)
    terms = polynomial_terms(u, v, order)
    n, k, _ = stamps.shape
    solution = np.linalg.lstsq(terms.T, stamps.reshape(n, k * k).astype(np.float64), rcond=None)[0]
    return np.asarray(solution.reshape(-1, k, k), dtype=np.float32)


@njit(cache=True)
def _sample_stamp(stamp, dx, dy, jacobian, table, out):  # type: ignore[no-untyped-def]
    """Add to ``out`` the stamp (its centre at its middle + (dx, dy)) interpolated at the target pixels."""
    n, k, half = table.shape[1], stamp.shape[0] // 2, out.shape[0] // 2
    for j in range(out.shape[0]):
        for i in range(out.shape[1]):
            x = _along(jacobian[0, 0], jacobian[0, 1], i - half, j - half) + dx + k
            y = _along(jacobian[1, 0], jacobian[1, 1], i - half, j - half) + dy + k
            ix, iy = int(np.floor(x)), int(np.floor(y))
            wx, wy = table[int((x - ix) * N_PHASES + 0.5)], table[int((y - iy) * N_PHASES + 0.5)]
            total = 0.0
            for b in range(n):
                row = iy - n // 2 + 1 + b
                if row < 0 or row >= stamp.shape[0]:
                    continue
                for a in range(n):
                    column = ix - n // 2 + 1 + a
                    if 0 <= column < stamp.shape[1]:
                        total += wy[b] * wx[a] * stamp[row, column]
            out[j, i] += total


@njit(cache=True)
def _along(a, b, i, j):  # type: ignore[no-untyped-def]
    """Return a row of the Jacobian times the target offset (i, j)."""
    return a * i + b * j
